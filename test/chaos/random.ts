/**
 * Random choices that a seed repeats.
 */
export interface Random {
  /** From 0 to below 1. */
  readonly next: () => number
  /** A whole number of both bounds or between them. */
  readonly between: (from: number, to: number) => number
  readonly pick: <A>(items: ReadonlyArray<A>) => A
}

/** The generator mulberry32. */
export const make = (seed: number): Random => {
  let state = seed >>> 0
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const between = (from: number, to: number) => from + Math.floor(next() * (to - from + 1))
  return { next, between, pick: (items) => items[between(0, items.length - 1)]! }
}
