/** What happens after a return value; the letter also travels to the gateway in a failure frame. */

/**
 * `-` none. `A` caller's fault. `B` our bug: alert. `S` drop the session, retry elsewhere once. `H` find the object again, retry once.
 * `L` log in again. `T` throttled: back off. `I` initialise the module again (a new worker). `D` the token is down. `O` the operator
 * must act: stop, never retry.
 */
export type Action = '-' | 'A' | 'B' | 'S' | 'H' | 'L' | 'T' | 'I' | 'D' | 'O'
