import * as Duration from "effect/Duration"

/** What stands for ever: the database's intervals end. */
const maxRetainYears = 1_000
const maxRetainMillis = maxRetainYears * 365.25 * 86_400_000

/** What is wrong with a time for which something is to be kept, or `undefined`. */
export const retainProblem = (retain: Duration.Input | undefined) => {
  if (retain === undefined) return undefined
  const duration = Duration.fromInput(retain)
  const actual = duration._tag === "None" || Number.isNaN(retain) ? Number.NaN : Duration.toMillis(duration.value)
  if (Number.isNaN(actual) || actual < 0) return { problem: "must be a duration of at least 0" }
  if (actual > maxRetainMillis && actual !== Infinity) {
    return {
      problem: `must be at most ${maxRetainYears} years, or infinite`,
      limit: maxRetainMillis,
      actual
    }
  }
  return undefined
}

/** A checked time in milliseconds. */
export const retainMillis = (retain: Duration.Input): number =>
  Math.min(maxRetainMillis, Duration.toMillis(Duration.fromInputUnsafe(retain)))
