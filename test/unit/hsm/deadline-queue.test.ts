import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createDeadlineQueue } from '../../../src/hsm/deadline-queue.ts'

const item = fc.record({ deadlineAtMs: fc.integer({ min: 0, max: 20 }) })

describe('deadline queue', () => {
  it('gives out what was put in, earliest deadline first and equal ones in order of arrival', () => {
    fc.assert(
      fc.property(fc.array(item), (items) => {
        const queue = createDeadlineQueue<{ readonly deadlineAtMs: number }>()
        for (const entry of items) queue.push(entry)
        const out = Array.from({ length: queue.size }, () => queue.pop())
        expect(out).toEqual(items.toSorted((a, b) => a.deadlineAtMs - b.deadlineAtMs))
        expect(
          out.every(
            (entry, i) =>
              i === 0 ||
              entry!.deadlineAtMs > out[i - 1]!.deadlineAtMs ||
              items.indexOf(entry!) > items.indexOf(out[i - 1]!),
          ),
        ).toBe(true)
        expect(queue.pop()).toBeUndefined()
      }),
    )
  })

  it('keeps its order when entries come and go in any mixture', () => {
    fc.assert(
      fc.property(fc.array(fc.option(item)), (steps) => {
        const queue = createDeadlineQueue<{ readonly deadlineAtMs: number }>()
        let model: { readonly deadlineAtMs: number }[] = []
        for (const step of steps) {
          if (step !== null) {
            queue.push(step)
            model = [...model, step].toSorted((a, b) => a.deadlineAtMs - b.deadlineAtMs)
          } else expect(queue.pop()).toBe(model.shift())
          expect(queue.size).toBe(model.length)
          expect(queue.peek()).toBe(model[0])
        }
        expect(new Set(queue.drain())).toEqual(new Set(model))
        expect(queue.size).toBe(0)
      }),
    )
  })
})
