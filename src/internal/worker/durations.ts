/**
 * How long attempts have lately taken, of each task.
 */

/** Attempts as short as that may share a transaction; those that are twice as long may no more. */
const shortMillis = 3

/** So many attempts must be known before a task counts as short. */
const minKnown = 20

export interface Durations {
  readonly observe: (task: string, millis: number) => void
  /** The average of a task that has lately been short; `undefined` of any other. */
  readonly short: (task: string) => number | undefined
  /** The average of any task; `undefined` of one that has not run yet. */
  readonly average: (task: string) => number | undefined
}

export const make = (): Durations => {
  const known = new Map<string, { count: number; average: number; isShort: boolean }>()
  return {
    observe: (task, millis) => {
      const seen = known.get(task)
      if (seen === undefined) {
        known.set(task, { count: 1, average: millis, isShort: false })
        return
      }
      seen.count++
      seen.average += (millis - seen.average) / Math.min(seen.count, minKnown)
      if (seen.count >= minKnown) seen.isShort = seen.average <= (seen.isShort ? 2 * shortMillis : shortMillis)
    },
    short: (task) => {
      const seen = known.get(task)
      return seen?.isShort === true ? seen.average : undefined
    },
    average: (task) => known.get(task)?.average
  }
}
