/**
 * Medians and percentiles.
 */
import type { Percentiles } from "./operations.ts"

const sorted = (values: ReadonlyArray<number>): ReadonlyArray<number> => values.toSorted((a, b) => a - b)

/** The middle value, or the mean of the two in the middle. */
export const median = (values: ReadonlyArray<number>): number => {
  const all = sorted(values)
  const middle = Math.floor(all.length / 2)
  return all.length % 2 === 1 ? all[middle]! : (all[middle - 1]! + all[middle]!) / 2
}

/** By the nearest rank. */
export const percentiles = (values: ReadonlyArray<number>): Percentiles => {
  const all = sorted(values)
  const at = (share: number) => all[Math.max(0, Math.ceil(all.length * share) - 1)] ?? Number.NaN
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1) }
}
