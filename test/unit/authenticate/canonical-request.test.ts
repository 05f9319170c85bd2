import { describe, expect, it } from 'vitest'
import {
  canonicalPath,
  canonicalQuery,
  canonicalValue,
  splitTarget,
} from '../../../src/authenticate/canonical-request.ts'

// Cases of the AWS Signature Version 4 test suite: get-relative, get-slash-*, get-space, get-utf8, get-vanilla-query-*, get-header-value-*.
describe('canonicalPath', () => {
  it.each([
    ['/', '/'],
    ['', '/'],
    ['/example/..', '/'],
    ['/example1/example2/../..', '/'],
    ['/./', '/'],
    ['/./example', '/example'],
    ['//', '/'],
    ['//example//', '/example/'],
    ['/example space/', '/example%20space/'],
    ['/example%20space/', '/example%2520space/'],
    [Buffer.from('/ሴ').toString('latin1'), '/%E1%88%B4'],
    ['/-._~0123456789ABCxyz', '/-._~0123456789ABCxyz'],
    ['/../../etc', '/etc'],
  ])('makes %j %j', (path, canonical) => {
    expect(canonicalPath(path)).toBe(canonical)
  })
})

describe('canonicalQuery', () => {
  it.each([
    ['', ''],
    ['Param1=value1', 'Param1=value1'],
    ['Param2=value2&Param1=value1', 'Param1=value1&Param2=value2'],
    ['Param1=value2&Param1=value1', 'Param1=value1&Param1=value2'],
    ['Param1=value1&param1=value2', 'Param1=value1&param1=value2'],
    ['foo', 'foo='],
    [Buffer.from('ሴ=bar').toString('latin1'), '%E1%88%B4=bar'],
    ['a=b%20c&d=%2f', 'a=b%20c&d=%2F'],
    ['p=a%zz', 'p=a%25zz'],
    ['p==', 'p=%3D'],
    ['&&a=1&', 'a=1'],
  ])('makes %j %j', (query, canonical) => {
    expect(canonicalQuery(query)).toBe(canonical)
  })
})

describe('canonicalValue', () => {
  it.each([
    [' value1', 'value1'],
    ['a   b   c', 'a b c'],
    ['"a   b   c"', '"a b c"'],
    ['a\t b', 'a b'],
    ['', ''],
  ])('makes %j %j', (value, canonical) => {
    expect(canonicalValue(value)).toBe(canonical)
  })
})

describe('splitTarget', () => {
  it.each([
    ['/', { path: '/', query: '' }],
    ['/a?b=c?d', { path: '/a', query: 'b=c?d' }],
    ['http://host:1/a?b', { path: '/a', query: 'b' }],
    ['http://host', { path: '/', query: '' }],
    ['*', { path: '*', query: '' }],
  ])('splits %j', (target, parts) => {
    expect(splitTarget(target)).toEqual(parts)
  })
})
