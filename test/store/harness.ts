/**
 * What the store test-suite needs of a database, and the small tools that its
 * tests share. Nothing here knows SQL.
 */
import type { Vitest } from "@effect/vitest"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Job from "../../src/Job.ts"
import type { BatchRequest, JobSpec, Store } from "../../src/JobStore.ts"

/** Two stores on one empty, migrated database. */
export interface Shape {
  readonly store: Store
  /** A store on connections of its own, as another process has one. */
  readonly other: Store
  /** Breaks every connection of `other`, as a crash of its process does; only for a store that can batch. */
  readonly severOther: Effect.Effect<void>
}

/** The database under test. It is one for all tests, so each of them uses names of its own. */
export class Harness extends Context.Service<Harness, Shape>()("kongtask/test/store/Harness") {}

/** The `it` that a part of the suite is written with. */
export type It = Vitest.MethodsNonLive<Harness>

let names = 0

/** A name that no other test uses. */
export const unique = (what: string): string => `${what}-${++names}`

/** A bare job, and what a test adds to it. */
export const spec = (task: string, options: Partial<JobSpec> = {}): JobSpec => ({
  task,
  payload: "{}",
  queueName: undefined,
  runAt: undefined,
  delay: undefined,
  maxAttempts: undefined,
  priority: undefined,
  key: undefined,
  keyMode: undefined,
  flags: undefined,
  ...options
})

/** `count` jobs whose payloads are their places. */
export const specs = (task: string, count: number, options: Partial<JobSpec> = {}): ReadonlyArray<JobSpec> =>
  Array.from({ length: count }, (_, place) => spec(task, { payload: String(place), ...options }))

/** A batch whose jobs may be run. */
export const take = (store: Store, request: BatchRequest) =>
  Effect.flatMap(store.batch(request), (batch) => Effect.map(batch.start, (jobs) => ({ ...batch, jobs })))

/** Registers a pool that stays alive for as long as the tests run. */
export const makePool = Effect.fnUntraced(function*(store: Store, lease: Duration.Input = "1 hour") {
  const pool = unique("kongtask-pool")
  yield* store.registerPool(pool, Duration.fromInputUnsafe(lease))
  return pool
})

/** The stores, a task's name and two pools, one in each store. */
export const scene = Effect.gen(function*() {
  const { other, severOther, store } = yield* Harness
  return {
    store,
    other,
    severOther,
    task: unique("task"),
    pool: yield* makePool(store),
    otherPool: yield* makePool(other)
  }
})

/** Adds one job and claims it. */
export const running = Effect.fnUntraced(
  function*(store: Store, pool: string, task: string, options: Partial<JobSpec> = {}) {
    const { id } = yield* store.add(spec(task, options))
    const { jobs } = yield* store.claim({ pool, tasks: [task], limit: 1 })
    if (jobs.length !== 1 || jobs[0]?.id !== id) return yield* Effect.die(new Error(`job ${id} was not claimed`))
    return jobs[0]
  }
)

/** Adds one job that fails for good. */
export const failed = Effect.fnUntraced(
  function*(store: Store, pool: string, task: string, options: Partial<JobSpec> = {}) {
    const job = yield* running(store, pool, task, options)
    yield* store.settle(pool, [{ _tag: "Failed", id: job.id, error: "no hope", retryIn: undefined }])
    return job
  }
)

/** Adds one job that failed once and is due again in a minute. */
export const retrying = Effect.fnUntraced(
  function*(store: Store, pool: string, task: string, options: Partial<JobSpec> = {}) {
    const job = yield* running(store, pool, task, options)
    yield* store.settle(pool, [{ _tag: "Failed", id: job.id, error: "not yet", retryIn: 60_000 }])
    return job
  }
)

/** The job, which must be there. */
export const found = (store: Store, id: Job.JobId): Effect.Effect<Job.Job> =>
  store.get(id).pipe(
    Effect.orDie,
    Effect.flatMap((job) => job._tag === "Some" ? Effect.succeed(job.value) : Effect.die(new Error(`no job ${id}`)))
  )

/** All jobs of a task. */
export const all = (store: Store, task: string) => store.list({ tasks: [task] }, { limit: 10_000 })

/** The ids of jobs. */
export const ids = (jobs: Iterable<{ readonly id: Job.JobId }>): ReadonlyArray<Job.JobId> =>
  Array.from(jobs, (job) => job.id)

/** Milliseconds since the epoch. */
export const millis = (time: DateTime.DateTime | undefined): number =>
  time === undefined ? Number.NaN : DateTime.toEpochMillis(time)
