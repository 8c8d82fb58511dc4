import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Job from "../Job.ts"
import type { JobDetails, JobSpec } from "../JobStore.ts"
import type * as Task from "../Task.ts"
import { type Carried, carried, type Problem } from "./carried.ts"
import { retainMillis, retainProblem } from "./retention.ts"

const maxSmallint = 32_767

/** Years 1 to 9999, which every part of the system can say; far inside what PostgreSQL can store. */
const minRunAt = Date.parse("0001-01-01T00:00:00.000Z")
const maxRunAt = Date.parse("9999-12-31T23:59:59.999Z")
const maxDelayDays = 365_250

/** PostgreSQL counts characters, JavaScript counts UTF-16 units. */
const characters = (text: string): number => {
  let count = 0
  for (const _ of text) count++
  return count
}

/** What a task's name has to keep to, or `undefined` when it does. */
export const taskNameProblem = (name: string) => textProblem(name, 128, "GWBID")

export const textProblem = (text: string, limit: number, code: string) => {
  if (typeof text !== "string") return { problem: "must be a string", code }
  if (text.length === 0) return { problem: `must have 1 to ${limit} characters, not 0`, limit, actual: 0, code }
  const actual = characters(text)
  if (actual > limit) return { problem: `must have at most ${limit} characters, not ${actual}`, limit, actual, code }
  return unstorable(text)
    ? { problem: "has a NUL character or half a surrogate pair, which PostgreSQL cannot store", code }
    : undefined
}

/** Whether a flag cannot be stored, or is empty. */
export const isBadFlag = (flag: string): boolean => typeof flag !== "string" || flag.length === 0 || unstorable(flag)

export const unstorable = (text: string): boolean => text.includes("\u0000") || /\p{Surrogate}/u.test(text)

export const integerProblem = (value: number, minimum: number, code?: string) =>
  Number.isInteger(value) && value >= minimum && value <= maxSmallint
    ? undefined
    : {
      problem: `must be a whole number from ${minimum} to ${maxSmallint}, not ${value}`,
      ...(Number.isFinite(value) ? { limit: value < minimum ? minimum : maxSmallint, actual: value } : {}),
      ...(code === undefined ? {} : { code })
    }

const isKeyMode = Schema.is(Job.KeyMode)

const optionsProblem = (options: Job.Options): Checked["problem"] => {
  const at = <P extends object>(field: string, problem: P | undefined) => problem && { field, ...problem }
  return (options.queueName !== undefined ? at("queueName", textProblem(options.queueName, 128, "GWBQN")) : undefined)
    ?? (options.jobKey !== undefined ? at("jobKey", textProblem(options.jobKey, 512, "GWBJK")) : undefined)
    ?? (options.maxAttempts !== undefined
      ? at("maxAttempts", integerProblem(options.maxAttempts, 1, "GWBMA"))
      : undefined)
    ?? (options.priority !== undefined ? at("priority", integerProblem(options.priority, -maxSmallint - 1)) : undefined)
    ?? (options.jobKeyMode !== undefined && !isKeyMode(options.jobKeyMode)
      ? { field: "jobKeyMode", problem: `must be one of ${Job.KeyMode.literals.join(", ")}`, code: "GWBKM" }
      : undefined)
    ?? (options.flags?.some(isBadFlag)
      ? { field: "flags", problem: "must be strings of at least one character, without NUL or half surrogate pairs" }
      : undefined)
    ?? (options.origin !== undefined ? at("origin", textProblem(options.origin, 128, "")) : undefined)
    ?? at("retain", retainProblem(options.retain))
    ?? timeProblem(options)
}

/** What the job has beyond the columns of every job: what was asked for, and what comes from the adder's context. */
const detailsOf = ({ origin, retain }: Job.Options, { metadata, trace }: Carried): JobDetails | undefined =>
  origin === undefined && retain === undefined && metadata === undefined && trace === undefined ? undefined : {
    ...(retain === undefined ? {} : { retain: retainMillis(retain) }),
    ...(origin === undefined ? {} : { origin }),
    ...(metadata === undefined ? {} : { metadata }),
    ...(trace === undefined ? {} : { trace })
  }

export const timeProblem = (options: Pick<Job.Options, "runAt" | "delay">) => {
  if (options.runAt !== undefined && options.delay !== undefined) {
    return { field: "delay", problem: "excludes runAt; give one of them" }
  }
  if (options.runAt !== undefined && !Number.isFinite(epochMillis(options.runAt))) {
    return { field: "runAt", problem: "is not a date" }
  }
  if (options.runAt !== undefined && (epochMillis(options.runAt) < minRunAt || epochMillis(options.runAt) > maxRunAt)) {
    return { field: "runAt", problem: "must be in the years 1 to 9999" }
  }
  if (options.delay !== undefined) {
    const delay = Duration.fromInput(options.delay)
    // Duration takes a number that is none for zero.
    if (delay._tag === "None" || Number.isNaN(options.delay) || !Duration.isFinite(delay.value)) {
      return { field: "delay", problem: "must be a finite duration" }
    }
    const limit = Duration.toMillis(Duration.days(maxDelayDays))
    const actual = Duration.toMillis(delay.value)
    if (Math.abs(actual) > limit) {
      return {
        field: "delay",
        problem: `must be at most ${maxDelayDays} days, not ${actual / 86_400_000}`,
        limit,
        actual
      }
    }
  }
  return undefined
}

/** Not a number for what is no time. */
export const epochMillis = (time: DateTime.DateTime | Date): number =>
  DateTime.isDateTime(time) ? time.epochMilliseconds : Predicate.isDate(time) ? time.getTime() : Number.NaN

interface Checked {
  readonly options: Job.Options
  readonly problem: (Partial<Job.InvalidJob> & { field: string; problem: string }) | undefined
}

const check = (task: Task.Any, given: Job.Options | undefined): Checked => {
  const nameProblem = taskNameProblem(task.name)
  if (nameProblem !== undefined) return { options: {}, problem: { field: "task", ...nameProblem } }
  const options = { ...task.defaults, ...definedOf(given) }
  return { options, problem: optionsProblem(options) }
}

interface Known {
  readonly encode: (payload: unknown) => Effect.Effect<unknown, Schema.SchemaError, any>
  /** Of its requests without options, once there is one. */
  bare?: Checked
}

const knownTasks = new WeakMap<Task.Any, Known>()

/** Deriving a codec walks the whole schema, so each task's is kept. */
const knownOf = (task: Task.Any): Known => {
  const known = knownTasks.get(task) ?? { encode: Schema.encodeUnknownEffect(Schema.toCodecJson(task.payloadSchema)) }
  knownTasks.set(task, known)
  return known
}

type AnyRequest = Task.Request<Task.Any>
type EncodingServices<R extends AnyRequest> = R["task"]["payloadSchema"]["EncodingServices"]

export interface Limits {
  readonly maxPayloadBytes: number
}

/** One job of those that are added in this context: an exit, unless the schema needs a fiber to encode its payload. */
const makeIn = <R extends AnyRequest>(
  context: Carried | Problem,
  { options: given, payload: input, task }: R,
  limits: Limits,
  index: number | undefined
): Effect.Effect<JobSpec, Job.InvalidJob, EncodingServices<R>> => {
  const invalid = (problem: Partial<Job.InvalidJob> & { field: string; problem: string }) =>
    new Job.InvalidJob({ task: String(task.name), ...problem, ...(index === undefined ? {} : { index }) })
  const notEncodable = (error: Schema.SchemaError) =>
    invalid({ field: "payload", problem: `cannot be encoded: ${error.message}` })

  const known = knownOf(task)
  const { options, problem } = given === undefined ? known.bare ??= check(task, given) : check(task, given)
  if (problem !== undefined) return Effect.fail(invalid(problem))
  if ("problem" in context) return Effect.fail(invalid({ field: "metadata", ...context }))

  const toSpec = (encoded: unknown): Effect.Effect<JobSpec, Job.InvalidJob> => {
    // A schema such as Any lets everything through; a deep structure overflows the stack.
    const text = Result.try({
      try: () => task.payloadSchema.ast._tag === "Void" ? "{}" : JSON.stringify(encoded) as string | undefined,
      catch: (error) => invalid({ field: "payload", problem: `cannot be encoded: ${String(error)}` })
    })
    if (Result.isFailure(text)) return Effect.fail(text.failure)
    const payload = text.success
    if (payload === undefined) {
      return Effect.fail(invalid({ field: "payload", problem: "cannot be encoded: it is not JSON" }))
    }
    const bytes = Buffer.byteLength(payload)
    if (bytes > limits.maxPayloadBytes) {
      return Effect.fail(invalid({
        field: "payload",
        problem: `must have at most ${limits.maxPayloadBytes} bytes of JSON, not ${bytes}`,
        limit: limits.maxPayloadBytes,
        actual: bytes
      }))
    }
    return Effect.succeed({
      task: task.name,
      payload,
      queueName: options.queueName,
      runAt: options.runAt === undefined ? undefined : epochMillis(options.runAt),
      delay: options.delay === undefined ? undefined : Duration.toMillis(options.delay),
      maxAttempts: options.maxAttempts,
      priority: options.priority,
      key: options.jobKey,
      keyMode: options.jobKeyMode,
      flags: options.flags,
      details: detailsOf(options, context)
    })
  }

  const made = Effect.mapErrorEager(
    task.payloadSchema.makeEffect(input),
    (issue) => notEncodable(new Schema.SchemaError(issue))
  )
  return Effect.flatMapEager(
    made,
    (payload) => Effect.flatMapEager(Effect.mapErrorEager(known.encode(payload), notEncodable), toSpec)
  )
}

/**
 * Checks a request and encodes its payload: whatever can be wrong with a job and
 * can be known without the database is said here, before it is touched.
 */
export const make = <R extends AnyRequest>(
  request: R,
  limits: Limits,
  index: number | undefined
): Effect.Effect<JobSpec, Job.InvalidJob, EncodingServices<R>> =>
  Effect.flatMap(carried, (context) => makeIn(context, request, limits, index))

/** The same for many, in their order: the first one that is invalid refuses them all, and its error has its place. */
export const makeMany = <R extends AnyRequest>(
  requests: Iterable<R>,
  limits: Limits
): Effect.Effect<ReadonlyArray<JobSpec>, Job.InvalidJob, EncodingServices<R>> =>
  Effect.flatMap(carried, (context) => {
    const specs: Array<JobSpec> = []
    const all = Array.from(requests)
    for (const [index, request] of all.entries()) {
      const spec = makeIn(context, request, limits, index)
      // A fiber's step for each costs more than most payloads do.
      if (Exit.isExit(spec) && Exit.isSuccess(spec)) {
        specs.push(spec.value as JobSpec)
        continue
      }
      const others = Effect.forEach(
        all.slice(index + 1),
        (request, place) => makeIn(context, request, limits, index + 1 + place)
      )
      return Effect.zipWith(spec, others, (spec, others) => [...specs, spec, ...others])
    }
    return Effect.succeed(specs)
  })

/**
 * The first job of one call that is sure to be refused, because an earlier one of the same call takes its key. The
 * database would name a job that is not there in the end.
 */
export const refuseRepeatedKeys = Effect.fnUntraced(function*(
  specs: ReadonlyArray<JobSpec>
): Effect.fn.Return<ReadonlyArray<JobSpec>, Job.InvalidJob> {
  const first = new Map<string, number>()
  for (const [index, { key, keyMode, task }] of specs.entries()) {
    if (key === undefined) continue
    const earlier = first.get(key)
    if (earlier === undefined) first.set(key, index)
    else if (keyMode === "reject") {
      const problem = `is the key of job ${earlier} of the same call, and its mode is reject`
      return yield* new Job.InvalidJob({ task, field: "jobKey", problem, index })
    }
  }
  return specs
})

/** An option given as `undefined` is one that was left out. */
const definedOf = (options: Job.Options | undefined): Job.Options =>
  options === undefined ? {} : Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
