/**
 * Schedules as text: the crontab format of graphile-worker, with names of
 * months and days, steps in ranges, words such as `@daily`, and time zones.
 *
 * ```text
 * # minute hour day-of-month month day-of-week task ?options {payload}
 * 0 4 * * mon-fri send_report ?tz=Europe/Berlin&fill=1d&max=3 {to: "all"}
 * 0-45/15 9-17 * * * poll
 * @hourly clean_up
 * ```
 *
 * A run is due in every minute that the fields allow. When the day of the month
 * and the day of the week are both restricted, one of them is enough.
 *
 * @since 0.1.0
 */
import * as Cron from "effect/Cron"
import * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Explain from "./internal/crontab/explain.ts"
import * as Fields from "./internal/crontab/fields.ts"
import * as Line from "./internal/crontab/line.ts"
import type * as Job from "./Job.ts"

/**
 * One line of a crontab.
 *
 * @category models
 * @since 0.1.0
 */
export interface Entry {
  /** Unique among the schedules of a database; the task's name unless the line says another. */
  readonly id: string
  /** The task's name. */
  readonly task: string
  /** The five fields as they were written; a word such as `@daily` is given as the fields that it stands for. */
  readonly expression: string
  /** A zone's name or offset; UTC when left out. */
  readonly timeZone: string | undefined
  /** The fields in their zone. */
  readonly cron: Cron.Cron
  /** How far back missed runs are made up for when the scheduler starts (`fill`). */
  readonly backfill: Duration.Duration
  readonly maxAttempts: number | undefined
  readonly queueName: string | undefined
  readonly priority: number | undefined
  readonly jobKey: string | undefined
  /** `replace` when there is a key and the line says nothing. */
  readonly jobKeyMode: Job.KeyMode | undefined
  readonly flags: ReadonlyArray<string> | undefined
  readonly payload: { readonly [key: string]: Schema.Json }
}

/**
 * One mistake in a crontab.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Issue = Schema.Struct({
  /** Counted from 1. */
  line: Schema.Int,
  /** Counted from 1. */
  column: Schema.Int,
  /** What is wrong and what was expected. */
  problem: Schema.String
})

/**
 * @category models
 * @since 0.1.0
 */
export type Issue = typeof Issue.Type

/**
 * A crontab, or the time of a schedule, that cannot be understood: everything
 * that is wrong with it, in the order of the lines.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidCrontab extends Schema.TaggedError<InvalidCrontab>("kongtask/Crontab/InvalidCrontab")(
  "InvalidCrontab",
  { issues: Schema.NonEmptyArray(Issue) }
) {
  override get message(): string {
    const lines = this.issues.map(({ column, line, problem }) => `line ${line}, column ${column}: ${problem}`)
    return `The crontab cannot be used:\n${lines.join("\n")}`
  }
}

const invalid = (issues: ReadonlyArray<Issue>) =>
  new InvalidCrontab({ issues: issues as readonly [Issue, ...Array<Issue>] })

/**
 * Reads a crontab: every line, or everything that is wrong with any of them.
 *
 * **Details**
 *
 * Blank lines and lines that begin with `#` say nothing. Every crontab of
 * graphile-worker means the same here. Two lines must not have the same id.
 *
 * | option | means |
 * | --- | --- |
 * | `id` | the id of the schedule; default: the task's name |
 * | `fill` | how far back to make up for missed runs: `4w3d2h1m5s` |
 * | `max` | attempts, 1 to 32767 |
 * | `queue`, `priority` | of the jobs |
 * | `jobKey`, `jobKeyMode` | `replace` (default), `preserve_run_at` or `unsafe_dedupe` |
 * | `tz` | the time zone of the fields; default: UTC |
 * | `flags` | flags of the jobs, with commas between them |
 *
 * @category parsing
 * @since 0.1.0
 */
export const parse = (text: string): Result.Result<ReadonlyArray<Entry>, InvalidCrontab> => {
  const entries: Array<Entry> = []
  const issues: Array<Issue> = []
  const lineOf = new Map<string, number>()
  for (const [index, content] of text.split(/\r?\n/).entries()) {
    const start = content.length - content.trimStart().length
    if (start === content.length || content[start] === "#") continue
    const line = index + 1
    const parsed = Line.parse(content)
    if (!Line.isLine(parsed)) {
      issues.push(...parsed.map(({ at, problem }) => ({ line, column: at + 1, problem })))
      continue
    }
    const other = lineOf.get(parsed.id)
    if (other !== undefined) {
      const problem = `has the id "${parsed.id}" of line ${other}; give one of them another with ?id=`
      issues.push({ line, column: start + 1, problem })
    }
    lineOf.set(parsed.id, other ?? line)
    entries.push(parsed)
  }
  return issues.length === 0 ? Result.succeed(entries) : Result.fail(invalid(issues))
}

/**
 * Writes a crontab that `parse` reads as the same entries; comments are not
 * kept.
 *
 * @category printing
 * @since 0.1.0
 */
export const format = (entries: Iterable<Omit<Entry, "cron">>): string =>
  Array.from(entries, (entry) => `${Line.format(entry)}\n`).join("")

/**
 * How a time is read.
 *
 * @category models
 * @since 0.1.0
 */
export interface CronOptions {
  /** A zone's name, such as `Europe/Berlin`, or an offset, such as `+02:00`. Default: UTC. */
  readonly timeZone?: string | undefined
  /**
   * Which of the two runs is due when clocks are set back and a time comes twice. Default: both for what runs in every
   * hour, else the earlier one.
   */
  readonly onDstOverlap?: Cron.DstOverlapPolicy | undefined
}

/**
 * Reads five fields, or a word such as `@daily`, as a `Cron` of Effect's.
 *
 * **Details**
 *
 * Unlike with `Cron.parse`, a day of the month and a day of the week are
 * alternatives whenever both are restricted, even by `*` with a step, and a date
 * that never comes is an error. A time that clocks skip when they are set
 * forward is due as much later as they skip.
 *
 * @category parsing
 * @since 0.1.0
 */
export const cron = (expression: string, options?: CronOptions): Result.Result<Cron.Cron, InvalidCrontab> => {
  const fields = Fields.parseExpression(expression)
  const issues = Fields.areProblems(fields)
    ? fields.map(({ at, problem }) => ({ line: 1, column: at + 1, problem }))
    : []
  const zone = options?.timeZone
  const isKnown = zone === undefined || DateTime.zoneFromString(zone)._tag === "Some"
  if (isKnown && !Fields.areProblems(fields)) {
    return Result.succeed(Fields.toCron(fields, Line.zoneOf(zone), options?.onDstOverlap))
  }
  const unknown = { line: 1, column: 1, problem: `expected a time zone such as Europe/Berlin, not "${zone}"` }
  return Result.fail(invalid(isKnown ? issues : [...issues, unknown]))
}

/**
 * The next times at which an entry is due, strictly after the given one.
 *
 * @category reading
 * @since 0.1.0
 */
export const next = (
  entry: Pick<Entry, "cron">,
  options: { readonly after: DateTime.DateTime; readonly count: number }
): ReadonlyArray<DateTime.Utc> => {
  const times: Array<DateTime.Utc> = []
  let last: DateTime.DateTime = options.after
  while (times.length < options.count) {
    const time = DateTime.makeUnsafe(Cron.next(entry.cron, last).getTime())
    times.push(time)
    last = time
  }
  return times
}

/**
 * Says in plain words when an entry is due.
 *
 * **Example**
 *
 * ```ts
 * Crontab.explain({ expression: "0 4 * * mon-fri", timeZone: "Europe/Berlin" })
 * // => "At 04:00, on Monday to Friday (Europe/Berlin)"
 * ```
 *
 * @category reading
 * @since 0.1.0
 */
export const explain = (entry: Pick<Entry, "expression" | "timeZone">): string => {
  const fields = Fields.parseExpression(entry.expression)
  return Fields.areProblems(fields) ? `Never: ${fields[0]!.problem}` : Explain.explain(fields, entry.timeZone ?? "UTC")
}

/**
 * The expression for every minute.
 *
 * @category expressions
 * @since 0.1.0
 */
export const everyMinute = "* * * * *"

/**
 * The expression for one minute of every hour. Default: the first.
 *
 * @category expressions
 * @since 0.1.0
 */
export const hourly = (minute = 0): string => `${minute} * * * *`

/**
 * The expression for a time of every day.
 *
 * @category expressions
 * @since 0.1.0
 */
export const daily = (hour: number, minute = 0): string => `${minute} ${hour} * * *`

/**
 * The expression for a time of one day of the week, 0 (Sunday) to 6.
 *
 * @category expressions
 * @since 0.1.0
 */
export const weekly = (weekday: number, hour: number, minute = 0): string => `${minute} ${hour} * * ${weekday}`

/**
 * The expression for a time of one day of the month; months without that day
 * are passed over.
 *
 * @category expressions
 * @since 0.1.0
 */
export const monthly = (day: number, hour: number, minute = 0): string => `${minute} ${hour} ${day} * *`

/**
 * The expression for one minute of the hours 9 to 17, Monday to Friday. Default:
 * the first.
 *
 * @category expressions
 * @since 0.1.0
 */
export const businessHours = (minute = 0): string => `${minute} 9-17 * * 1-5`
