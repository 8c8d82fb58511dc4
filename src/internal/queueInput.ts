import type * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Job from "../Job.ts"
import type * as JobStore from "../JobStore.ts"
import { InvalidConfiguration, KongTaskError } from "../KongTaskError.ts"
import type * as Task from "../Task.ts"
import { checkTask } from "./endings.ts"
import { epochMillis, integerProblem, textProblem, timeProblem, unstorable } from "./jobSpec.ts"
import type { BundleFilter, BundleListOptions, EventsOptions } from "./queueBundles.ts"

/**
 * Which jobs to look at. All given conditions must hold; an empty filter means
 * every job.
 *
 * @category models
 * @since 0.1.0
 */
export interface Filter {
  readonly task?: Task.Any | ReadonlyArray<Task.Any> | undefined
  readonly state?: Job.State | ReadonlyArray<Job.State> | undefined
  readonly queueName?: string | undefined
  readonly key?: string | undefined
  /** Jobs that were added with this `origin`. */
  readonly origin?: string | undefined
  /** Jobs of this bundle that are there. */
  readonly bundle?: Job.BundleId | undefined
  /** Jobs that have this flag. */
  readonly flag?: string | undefined
  /** Jobs added at this time or later. */
  readonly addedAfter?: DateTime.DateTime | Date | undefined
  /** Jobs added before this time. */
  readonly addedBefore?: DateTime.DateTime | Date | undefined
  /** Jobs whose `runAt` is this time or later. */
  readonly runAfter?: DateTime.DateTime | Date | undefined
  /** Jobs whose `runAt` is before this time. */
  readonly runBefore?: DateTime.DateTime | Date | undefined
}

/**
 * One page of `list`.
 *
 * @category models
 * @since 0.1.0
 */
export interface ListOptions extends Filter {
  /** How many jobs at most, 1 to 10,000; a whole number beyond that counts as the nearer one. Default: 100. */
  readonly limit?: number | undefined
  /** Only jobs added after this one: the id of the last job of the page before. */
  readonly after?: Job.JobId | undefined
}

/**
 * Which jobs of the history to look at. All given conditions must hold; an empty filter means every job.
 *
 * @category models
 * @since 0.1.0
 */
export interface HistoryFilter {
  readonly task?: Task.Any | ReadonlyArray<Task.Any> | undefined
  readonly state?: Job.Finished["state"] | ReadonlyArray<Job.Finished["state"]> | undefined
  readonly queueName?: string | undefined
  readonly key?: string | undefined
  /** Jobs that stopped at this time or later. */
  readonly stoppedAfter?: DateTime.DateTime | Date | undefined
  /** Jobs that stopped before this time. */
  readonly stoppedBefore?: DateTime.DateTime | Date | undefined
  /** Jobs added at this time or later. */
  readonly addedAfter?: DateTime.DateTime | Date | undefined
  /** Jobs added before this time. */
  readonly addedBefore?: DateTime.DateTime | Date | undefined
}

/**
 * One page of `history`.
 *
 * @category models
 * @since 0.1.0
 */
export interface HistoryOptions extends HistoryFilter {
  /** How many jobs at most, 1 to 10,000; a whole number beyond that counts as the nearer one. Default: 100. */
  readonly limit?: number | undefined
  /** Only jobs that come after this one: the last job of the page before. */
  readonly after?: Job.Finished | undefined
}

/**
 * Which failed jobs `redrive` makes ready.
 *
 * @category models
 * @since 0.1.0
 */
export interface RedriveOptions extends Omit<Filter, "state"> {
  /** Jobs whose last error contains this text, 1 character or more: a typed error's begins with its tag. */
  readonly error?: string | undefined
  /** Counts them, and changes nothing. Default: false. */
  readonly dryRun?: boolean | undefined
}

/**
 * What `reschedule` changes. What is left out stays as it is; 0 means 0.
 *
 * @category models
 * @since 0.1.0
 */
export interface Changes {
  /** Not before this time, by the database's clock. */
  readonly runAt?: DateTime.DateTime | Date | undefined
  /** Not before so long from now, by the database's clock; excludes `runAt`. */
  readonly delay?: Duration.Input | undefined
  /** −32,768 to 32,767, smaller numbers first. */
  readonly priority?: number | undefined
  /** How many attempts count as used, 0 to 32,767; with `maxAttempts` of them the job has failed. */
  readonly attempts?: number | undefined
  /** 1 to 32,767. */
  readonly maxAttempts?: number | undefined
}

/**
 * What `cleanup` deletes; what is left out is kept.
 *
 * @category models
 * @since 0.1.0
 */
export interface CleanupOptions {
  /** The names of tasks that no job has. Not while workers of graphile-worker run: they remember a task's number. */
  readonly tasks?: boolean | undefined
  /** The names of queues that no job has. */
  readonly queues?: boolean | undefined
  /** Jobs that failed for good at least so long ago, and whose `runAt` is as long ago. */
  readonly failedJobs?: Duration.Input | undefined
}

const defaultListLimit = 100
const maxListLimit = 10_000

/** The largest id of a job. */
const maxId = 2n ** 63n - 1n

const invalid = (field: string, problem: string) =>
  new KongTaskError({ reason: new InvalidConfiguration({ field, problem }) })

const unless = (field: string, problem: { readonly problem: string } | undefined): Effect.Effect<void, KongTaskError> =>
  problem === undefined ? Effect.void : invalid(field, problem.problem)

const toArray = <A>(input: A | ReadonlyArray<A>): ReadonlyArray<A> => Array.isArray(input) ? input : [input as A]

const storable = (field: string, text: string | undefined) =>
  unless(
    field,
    text === undefined || (typeof text === "string" && !unstorable(text))
      ? undefined
      : { problem: "must be a string without NUL characters and half surrogate pairs" }
  )

export const key = (key: string): Effect.Effect<string, KongTaskError> =>
  Effect.as(unless("key", textProblem(key, 512, "")), key)

const isId = (id: unknown): boolean => typeof id === "string" && /^[1-9][0-9]{0,18}$/.test(id) && BigInt(id) <= maxId

export const bundleFilter = Effect.fnUntraced(function*(
  { name, origin, state }: BundleFilter
): Effect.fn.Return<JobStore.BundleFilter, KongTaskError> {
  for (const [field, text] of Object.entries({ name, origin })) yield* storable(field, text)
  if (state !== undefined && state !== "open" && state !== "done") {
    return yield* invalid("state", "must be open or done")
  }
  return { name, origin, state }
})

export const bundlePage = Effect.fnUntraced(function*({ after, limit }: BundleListOptions) {
  return {
    limit: (yield* page({ limit })).limit,
    after: after === undefined ? undefined : yield* bundle(after)
  }
})

export const subscription = (name: string): Effect.Effect<string, KongTaskError> =>
  Effect.as(unless("subscription", textProblem(name, 128, "")), name)

export const events = Effect.fnUntraced(function*(
  { bundle: of, bundleName, origin, subscription: name, task }: EventsOptions
): Effect.fn.Return<
  { readonly filter: JobStore.ListenerFilter; readonly name: string | undefined },
  KongTaskError
> {
  for (const [field, text] of Object.entries({ bundleName, origin })) yield* storable(field, text)
  return {
    filter: {
      tasks: task === undefined ? undefined : toArray(task).map(({ name }) => name),
      bundle: of === undefined ? undefined : yield* bundle(of),
      bundleName,
      origin
    },
    name: name === undefined ? undefined : yield* subscription(name)
  }
})

export const bundle = (id: Job.BundleId): Effect.Effect<Job.BundleId, KongTaskError> =>
  isId(id) ? Effect.succeed(id) : invalid("bundle", `must be the id of a bundle, decimal digits from 1 to ${maxId}`)

const times = ["addedAfter", "addedBefore", "runAfter", "runBefore"] as const

export const filter = Effect.fnUntraced(function*(
  filter: Filter
): Effect.fn.Return<JobStore.Filter, KongTaskError> {
  for (const field of ["queueName", "key", "flag", "origin"] as const) yield* storable(field, filter[field])
  const millis: { [Field in typeof times[number]]?: number } = {}
  for (const field of times) {
    const time = filter[field]
    if (time === undefined) continue
    yield* unless(field, timeProblem({ runAt: time }))
    millis[field] = epochMillis(time)
  }
  return {
    tasks: filter.task === undefined ? undefined : toArray(filter.task).map((task) => task.name),
    states: filter.state === undefined ? undefined : toArray(filter.state),
    queueName: filter.queueName,
    key: filter.key,
    flag: filter.flag,
    origin: filter.origin,
    bundle: filter.bundle === undefined ? undefined : yield* bundle(filter.bundle),
    ...millis
  }
})

const historyTimes = ["stoppedAfter", "stoppedBefore", "addedAfter", "addedBefore"] as const

export const historyFilter = Effect.fnUntraced(function*(
  filter: HistoryFilter
): Effect.fn.Return<JobStore.HistoryFilter, KongTaskError> {
  for (const field of ["queueName", "key"] as const) yield* storable(field, filter[field])
  const millis: { [Field in typeof historyTimes[number]]?: number } = {}
  for (const field of historyTimes) {
    const time = filter[field]
    if (time === undefined) continue
    yield* unless(field, timeProblem({ runAt: time }))
    millis[field] = epochMillis(time)
  }
  return {
    tasks: filter.task === undefined ? undefined : toArray(filter.task).map((task) => task.name),
    states: filter.state === undefined ? undefined : toArray(filter.state),
    queueName: filter.queueName,
    key: filter.key,
    ...millis
  }
})

export const historyPage = Effect.fnUntraced(function*({ after, limit }: HistoryOptions) {
  const page = yield* pageOf({ limit, after: after?.id })
  return {
    limit: page.limit,
    after: after === undefined ? undefined : { id: after.id, stoppedAt: epochMillis(after.stoppedAt) }
  }
})

export const redrive = Effect.fnUntraced(function*({ dryRun = false, error, ...given }: RedriveOptions) {
  if (typeof dryRun !== "boolean") return yield* invalid("dryRun", "must be true or false")
  if (error !== undefined) yield* unless("error", textProblem(error, 10_000, ""))
  return { filter: yield* filter(given), error, isDryRun: dryRun }
})

export const page = (options: ListOptions) => pageOf(options)

const pageOf = Effect.fnUntraced(function*(
  { after, limit = defaultListLimit }: Pick<ListOptions, "after" | "limit">
): Effect.fn.Return<JobStore.Page, KongTaskError> {
  if (!Number.isInteger(limit)) {
    return yield* invalid("limit", `must be a whole number from 1 to ${maxListLimit}, not ${String(limit)}`)
  }
  if (after !== undefined && !isId(after)) return yield* invalid("after", "must be the id of a job")
  return { limit: Math.max(1, Math.min(limit, maxListLimit)), after }
})

export const ids = Effect.fnUntraced(function*(
  ids: Iterable<Job.JobId>
): Effect.fn.Return<ReadonlyArray<Job.JobId>, KongTaskError> {
  const all = Array.from(ids)
  return all.every(isId) ? all : yield* invalid("ids", `must be ids of jobs, decimal digits from 1 to ${maxId}`)
})

/** Which job is waited for: a job is asked for as it was, an id as it is. */
export const awaited = Effect.fnUntraced(function*(
  task: Task.Any,
  job: Job.Job | Job.JobId
): Effect.fn.Return<
  { readonly id: Job.JobId; readonly revision: number | undefined },
  KongTaskError | Job.JobNotFound
> {
  if (typeof job === "string") {
    if (!isId(job)) return yield* invalid("job", `must be the id of a job, decimal digits from 1 to ${maxId}`)
    return { id: job, revision: undefined }
  }
  yield* checkTask(task, job.id, job.task)
  return { id: job.id, revision: job.revision }
})

export const message = (message: string | undefined): Effect.Effect<string | undefined, KongTaskError> =>
  Effect.as(storable("message", message), message)

export const changes = Effect.fnUntraced(function*(
  changes: Changes
): Effect.fn.Return<JobStore.Changes, KongTaskError> {
  const { attempts, delay, maxAttempts, priority, runAt } = changes
  if (priority !== undefined) yield* unless("priority", integerProblem(priority, -32_768))
  if (attempts !== undefined) yield* unless("attempts", integerProblem(attempts, 0))
  if (maxAttempts !== undefined) yield* unless("maxAttempts", integerProblem(maxAttempts, 1))
  const problem = timeProblem({ runAt, delay })
  if (problem !== undefined) return yield* invalid(problem.field, problem.problem)
  return {
    runAt: runAt === undefined ? undefined : epochMillis(runAt),
    delay: delay === undefined ? undefined : Duration.toMillis(delay),
    priority,
    attempts,
    maxAttempts
  }
})

export const pools = Effect.fnUntraced(function*(
  pools: Iterable<string>
): Effect.fn.Return<ReadonlyArray<string>, KongTaskError> {
  const all = Array.from(pools)
  for (const pool of all) yield* unless("pools", textProblem(pool, 1024, ""))
  return all
})

export const cleanup = Effect.fnUntraced(function*(
  { failedJobs, queues = false, tasks = false }: CleanupOptions
): Effect.fn.Return<JobStore.CleanupRequest, KongTaskError> {
  for (const [field, value] of Object.entries({ tasks, queues })) {
    if (typeof value !== "boolean") return yield* invalid(field, "must be true or false")
  }
  if (failedJobs === undefined) return { tasks, queues, failedJobs }
  yield* unless("failedJobs", timeProblem({ delay: failedJobs }))
  const age = Duration.toMillis(failedJobs)
  return age < 0 ? yield* invalid("failedJobs", "must be at least 0") : { tasks, queues, failedJobs: age }
})
