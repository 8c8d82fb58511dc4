import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Crontab from "../../Crontab.ts"
import * as Job from "../../Job.ts"
import type { JobSpec } from "../../JobStore.ts"
import type * as Task from "../../Task.ts"
import * as Spec from "../jobSpec.ts"
import type { DueRun } from "./storage.ts"
import type { Timing } from "./timing.ts"

/**
 * A schedule that cannot be used.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidSchedule extends Schema.TaggedError<InvalidSchedule>("kongtask/Scheduler/InvalidSchedule")(
  "InvalidSchedule",
  {
    /** The schedule's id, or else the name of its task. */
    id: Schema.String,
    /** The option at fault. */
    field: Schema.String,
    /** What is wrong with its value. */
    problem: Schema.String
  }
) {
  override get message(): string {
    return `The schedule "${this.id}" cannot be used: ${this.field} ${this.problem}.`
  }
}

export const Missed = Schema.Literals(["all", "latest", "skip"])
export const Overlap = Schema.Literals(["allow", "skip", "queue"])

/** A schedule as it is kept in the database. */
export const Definition = Schema.Struct({
  task: Schema.String,
  expression: Schema.String,
  timeZone: Schema.optional(Schema.String),
  onDstOverlap: Schema.optional(Schema.Literals(["earlier", "later", "both"])),
  payload: Schema.Json,
  /** Milliseconds. */
  backfill: Schema.Number,
  missed: Missed,
  overlap: Overlap,
  queueName: Schema.optional(Schema.String),
  maxAttempts: Schema.optional(Schema.Int),
  priority: Schema.optional(Schema.Int),
  jobKey: Schema.optional(Schema.String),
  jobKeyMode: Schema.optional(Job.KeyMode),
  flags: Schema.optional(Schema.Array(Schema.String))
})
export type Definition = typeof Definition.Type

export const TypeId = "~kongtask/Scheduler/Item" as const

/**
 * A checked schedule of one task.
 *
 * @category models
 * @since 0.1.0
 */
export interface Item {
  readonly [TypeId]: typeof TypeId
  readonly id: string
  /** The name of its task. */
  readonly task: string
  /** @internal */
  readonly timing: Timing
  /** Its payload is without `_cron`. @internal */
  readonly job: JobSpec
  /** @internal */
  readonly payload: unknown
  /** Milliseconds. @internal */
  readonly backfill: number
  /** @internal */
  readonly missed: typeof Missed.Type
  /** @internal */
  readonly overlap: typeof Overlap.Type
  /** @internal */
  readonly runOnStart: boolean
  /** @internal */
  readonly definition: Definition | undefined
}

/**
 * A schedule that can be kept in the database.
 *
 * @category models
 * @since 0.1.0
 */
export interface CronItem extends Item {
  /** @internal */
  readonly definition: Definition
}

/** The options of a schedule beside its payload and its zone. */
export interface BaseOptions extends Pick<Job.Options, "maxAttempts" | "priority" | "jobKey" | "jobKeyMode" | "flags"> {
  readonly id?: string | undefined
  readonly queueName?: string | undefined
  readonly backfill?: Duration.Input | undefined
  readonly missed?: "all" | "latest" | "skip" | undefined
  readonly overlap?: "allow" | "skip" | "queue" | undefined
  readonly runOnStart?: boolean | undefined
}

type Given = BaseOptions & Crontab.CronOptions & { readonly payload?: unknown }

const optionNames: ReadonlySet<string> = new Set<keyof Given>([
  "id",
  "payload",
  "timeZone",
  "onDstOverlap",
  "backfill",
  "missed",
  "overlap",
  "runOnStart",
  "queueName",
  "maxAttempts",
  "priority",
  "jobKey",
  "jobKeyMode",
  "flags"
])

const maxPayloadBytes = 1024 * 1024

/** How far back the one run is looked for that stands for all that were missed. */
const latestWithin = Duration.days(7)

const queueOf = (id: string, overlap: string | undefined, queueName: string | undefined): string | undefined =>
  overlap === "queue" ? queueName ?? `cron:${id}` : queueName

const checked = (
  id: string,
  options: Given
): Result.Result<{ readonly backfill: number; readonly missed: typeof Missed.Type }, InvalidSchedule> => {
  const fail = (field: string, problem: string) => Result.fail(new InvalidSchedule({ id, field, problem }))
  const unknown = Object.keys(options).find((name) => !optionNames.has(name))
  if (unknown !== undefined) return fail(unknown, `is no option; the options are ${[...optionNames].join(", ")}`)
  const idProblem = Spec.textProblem(id, 512, "")
  if (idProblem !== undefined) return fail("id", idProblem.problem)
  const { missed = "all", overlap = "allow" } = options
  if (!Schema.is(Missed)(missed)) return fail("missed", `must be one of ${Missed.literals.join(", ")}`)
  if (!Schema.is(Overlap)(overlap)) return fail("overlap", `must be one of ${Overlap.literals.join(", ")}`)
  const backfill = Duration.fromInput(options.backfill ?? (missed === "latest" ? latestWithin : Duration.zero))
  if (backfill._tag === "None" || !Duration.isFinite(backfill.value) || Duration.isNegative(backfill.value)) {
    return fail("backfill", "must be a finite duration, not negative")
  }
  if (missed === "skip" && Duration.toMillis(backfill.value) > 0) {
    return fail("backfill", "must be left out when missed runs are skipped")
  }
  return Result.succeed({ backfill: Duration.toMillis(backfill.value), missed })
}

/** Checks a typed schedule and encodes its payload. */
export const make = Effect.fnUntraced(function*<T extends Task.Any>(
  task: T,
  options: Given,
  timing: Timing,
  expression: string | undefined
): Effect.fn.Return<Item, InvalidSchedule, T["payloadSchema"]["EncodingServices"]> {
  const id = options.id ?? String(task.name)
  const { backfill, missed } = yield* Effect.fromResult(checked(id, options))
  const { flags, jobKey, jobKeyMode, maxAttempts, overlap = "allow", priority } = options
  const queueName = queueOf(id, overlap, options.queueName ?? task.defaults.queueName)
  const job = yield* Spec.make(
    {
      task: task as Task.Any,
      payload: options.payload,
      options: { queueName, maxAttempts, priority, jobKey, jobKeyMode, flags }
    },
    { maxPayloadBytes },
    undefined
  ).pipe(Effect.mapError(({ field, problem }) => new InvalidSchedule({ id, field, problem })))
  const payload = JSON.parse(job.payload)
  return {
    [TypeId]: TypeId,
    id,
    task: job.task,
    timing,
    job,
    payload,
    backfill,
    missed,
    overlap,
    runOnStart: options.runOnStart ?? false,
    definition: expression === undefined ? undefined : {
      task: job.task,
      expression,
      timeZone: options.timeZone,
      onDstOverlap: options.onDstOverlap,
      payload,
      backfill,
      missed,
      overlap,
      queueName: options.queueName ?? task.defaults.queueName,
      maxAttempts: job.maxAttempts,
      priority: job.priority,
      jobKey: job.key,
      jobKeyMode: job.keyMode,
      flags: job.flags
    }
  }
})

const jobOf = (id: string, from: Omit<Definition, "expression" | "backfill" | "missed">): JobSpec => ({
  task: from.task,
  payload: JSON.stringify(from.payload),
  queueName: queueOf(id, from.overlap, from.queueName),
  runAt: undefined,
  delay: undefined,
  maxAttempts: from.maxAttempts,
  priority: from.priority,
  key: from.jobKey,
  keyMode: from.jobKeyMode,
  flags: from.flags
})

/** A line of a crontab, which has been checked. */
export const fromEntry = (entry: Crontab.Entry): Item => ({
  [TypeId]: TypeId,
  id: entry.id,
  task: entry.task,
  timing: { _tag: "Cron", cron: entry.cron },
  job: jobOf(entry.id, { ...entry, overlap: "allow" }),
  payload: entry.payload,
  backfill: Duration.toMillis(entry.backfill),
  missed: "all",
  overlap: "allow",
  runOnStart: false,
  definition: undefined
})

const decodeDefinition = Schema.decodeUnknownResult(Schema.fromJsonString(Definition))

/** A stored schedule, or why it cannot be used. */
export const fromStored = (id: string, text: string): Result.Result<CronItem, string> => {
  const decoded = decodeDefinition(text)
  if (Result.isFailure(decoded)) return Result.fail(`is not understood: ${decoded.failure.message}`)
  const definition = decoded.success
  const cron = Crontab.cron(definition.expression, definition)
  if (Result.isFailure(cron)) {
    return Result.fail(`has a time that is not understood: ${cron.failure.issues[0].problem}`)
  }
  return Result.succeed({
    [TypeId]: TypeId,
    id,
    task: definition.task,
    timing: { _tag: "Cron", cron: cron.success },
    job: jobOf(id, definition),
    payload: definition.payload,
    backfill: definition.backfill,
    missed: definition.missed,
    overlap: definition.overlap,
    runOnStart: false,
    definition
  })
}

/** The payload with the mark of the scheduler, which only an object can take. */
export const payloadAt = (payload: unknown, instant: number, backfilled: boolean): unknown =>
  typeof payload === "object" && payload !== null && !Array.isArray(payload)
    ? { ...payload, _cron: { ts: DateTime.formatIso(DateTime.makeUnsafe(instant)), backfilled } }
    : payload

/** The item at an instant. */
export const runAt = (
  item: Item,
  options: {
    readonly instant: number
    readonly how: DueRun["how"]
    readonly backfilled: boolean
    readonly revision: number | undefined
  }
): DueRun => ({
  id: item.id,
  instant: options.instant,
  how: options.how,
  skipsOverlap: item.overlap === "skip" && options.how === "due",
  revision: options.revision,
  job: {
    ...item.job,
    payload: JSON.stringify(payloadAt(item.payload, options.instant, options.backfilled)),
    runAt: options.instant
  }
})
