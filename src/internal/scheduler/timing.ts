import * as Cron from "effect/Cron"
import * as DateTime from "effect/DateTime"
import * as Result from "effect/Result"

/**
 * What a matcher is asked about: a minute in the schedule's zone.
 *
 * @category models
 * @since 0.1.0
 */
export interface Minute {
  readonly minute: number
  readonly hour: number
  /** The day of the month. */
  readonly day: number
  /** 1 to 12. */
  readonly month: number
  readonly year: number
  /** 0 (Sunday) to 6. */
  readonly weekday: number
  readonly instant: DateTime.Utc
}

/** When a schedule is due. */
export type Timing =
  | { readonly _tag: "Cron"; readonly cron: Cron.Cron }
  | {
    readonly _tag: "Matcher"
    readonly matches: (minute: Minute) => boolean
    readonly timeZone: DateTime.TimeZone
  }
  | { readonly _tag: "Custom"; readonly next: (after: DateTime.Utc) => DateTime.DateTime | undefined }

/** An instant at which a schedule is due, or one up to which it is known not to be. */
export interface Step {
  readonly at: number
  readonly isDue: boolean
}

/** How many minutes a matcher is asked about at once. */
const lookAhead = 24 * 60

const minute = 60_000

const minuteAt = (millis: number, zone: DateTime.TimeZone): Minute => {
  const parts = DateTime.toParts(DateTime.makeZonedUnsafe(millis, { timeZone: zone }))
  return {
    minute: parts.minute,
    hour: parts.hour,
    day: parts.day,
    month: parts.month,
    year: parts.year,
    weekday: parts.weekDay,
    instant: DateTime.makeUnsafe(millis)
  }
}

const step = (timing: Timing, after: number): Step | string | undefined => {
  switch (timing._tag) {
    case "Cron":
      return { at: Cron.next(timing.cron, after).getTime(), isDue: true }
    case "Matcher": {
      let at = (Math.floor(after / minute) + 1) * minute
      for (let n = 1; n < lookAhead && !timing.matches(minuteAt(at, timing.timeZone)); n++) at += minute
      return { at, isDue: timing.matches(minuteAt(at, timing.timeZone)) }
    }
    case "Custom": {
      const next = timing.next(DateTime.makeUnsafe(after))
      if (next === undefined) return undefined
      return next.epochMilliseconds > after
        ? { at: next.epochMilliseconds, isDue: true }
        : `answered ${DateTime.formatIso(next)}, which is not after ${DateTime.formatIso(DateTime.makeUnsafe(after))}`
    }
  }
}

/** The next step strictly after a time; `undefined` when there is none, a failure when the program's function is at fault. */
export const next = (timing: Timing, after: number): Result.Result<Step | undefined, string> => {
  const found = Result.try({ try: () => step(timing, after), catch: (error) => `failed: ${String(error)}` })
  return Result.isSuccess(found) && typeof found.success === "string"
    ? Result.fail(found.success)
    : found as Result.Result<Step | undefined, string>
}
