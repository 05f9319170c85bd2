/**
 * A queue that gives out the earliest deadline first: a binary heap. Equal timeouts leave in the order they came. Not thread-safe, no limits of its
 * own: the router bounds it.
 */
export interface DeadlineQueue<T> {
  readonly size: number
  push(item: T): void
  peek(): T | undefined
  pop(): T | undefined
  /** Takes everything out, in no order. */
  drain(): T[]
}

export function createDeadlineQueue<T extends { readonly deadlineAtMs: number }>(): DeadlineQueue<T> {
  interface Node {
    readonly item: T
    readonly arrival: number
  }
  let heap: Node[] = []
  let arrivals = 0

  const before = (a: Node, b: Node): boolean =>
    a.item.deadlineAtMs < b.item.deadlineAtMs || (a.item.deadlineAtMs === b.item.deadlineAtMs && a.arrival < b.arrival)

  return {
    get size() {
      return heap.length
    },
    push(item) {
      const node = { item, arrival: arrivals++ }
      let at = heap.length
      heap.push(node)
      while (at > 0) {
        const up = (at - 1) >> 1
        if (!before(node, heap[up]!)) break
        heap[at] = heap[up]!
        at = up
      }
      heap[at] = node
    },
    peek: () => heap[0]?.item,
    pop() {
      const first = heap[0]
      const node = heap.pop()
      if (first === undefined || node === undefined || heap.length === 0) return first?.item
      let at = 0
      for (;;) {
        let down = 2 * at + 1
        if (down >= heap.length) break
        if (down + 1 < heap.length && before(heap[down + 1]!, heap[down]!)) down++
        if (!before(heap[down]!, node)) break
        heap[at] = heap[down]!
        at = down
      }
      heap[at] = node
      return first.item
    },
    drain() {
      const items = heap.map(({ item }) => item)
      heap = []
      return items
    },
  }
}
