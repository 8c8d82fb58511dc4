/**
 * A store without a database: what is added is answered, and nothing comes of it.
 */
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Job from "../../Job.ts"
import type { Counts, JobSpec, Observation, Stats, Store } from "../../JobStore.ts"

/** Jobs that no database has: their ids come down from the highest one, where no sequence gets to. */
export interface Imaginary {
  readonly job: (spec: JobSpec) => Effect.Effect<Job.Job>
  readonly observe: (id: Job.JobId) => Observation | undefined
}

const highest = 2n ** 63n - 1n

export const imaginary = (): Imaginary => {
  const tasks = new Map<Job.JobId, string>()
  return {
    job: Effect.fnUntraced(function*(spec) {
      const now = yield* Clock.currentTimeMillis
      const runAt = spec.runAt ?? now + (spec.delay ?? 0)
      const id = Job.JobId.make(String(highest - BigInt(tasks.size)))
      tasks.set(id, spec.task)
      return new Job.Job({
        id,
        task: spec.task,
        state: runAt > now ? "scheduled" : "ready",
        payload: JSON.parse(spec.payload),
        queueName: spec.queueName,
        priority: spec.priority ?? 0,
        runAt: DateTime.makeUnsafe(runAt),
        attempts: 0,
        maxAttempts: spec.maxAttempts ?? 25,
        lastError: undefined,
        createdAt: DateTime.makeUnsafe(now),
        updatedAt: DateTime.makeUnsafe(now),
        key: spec.key,
        lockedAt: undefined,
        lockedBy: undefined,
        revision: 0,
        flags: spec.flags ?? []
      })
    }),
    observe: (id) => {
      const task = tasks.get(id)
      return task === undefined ? undefined : {
        _tag: "Stopped",
        task,
        state: "cancelled",
        error: "the test ignores it",
        attempts: [],
        result: undefined,
        isRetained: false
      }
    }
  }
}

const noCounts: Counts = {
  scheduled: 0,
  ready: 0,
  running: 0,
  retrying: 0,
  completed: 0,
  failed: 0,
  cancelled: 0
}
const noStats: Stats = { all: noCounts, tasks: new Map(), queues: new Map() }
const none = Effect.succeedNone
const empty = Effect.succeed([])
const noIds = Effect.succeed<ReadonlySet<Job.JobId>>(new Set())

/** A group of operations of which nothing can be made without a database. */
const needsDatabase = (group: string) =>
  new Proxy({}, {
    get: (_, operation) => () =>
      Effect.die(new Error(`${group}.${String(operation)} needs a database: use Testing.layerEmbedded()`))
  }) as never

export const make = (): Store => {
  const jobs = imaginary()
  const needsBatch = () => Effect.die(new Error("Batches need capabilities.batch"))
  const operations = {
    capabilities: { batch: false, notifications: false },
    add: jobs.job,
    addMany: (specs: ReadonlyArray<JobSpec>) => Effect.forEach(specs, jobs.job),
    get: () => none,
    failedAttempts: () => empty,
    list: () => empty,
    observe: (id: Job.JobId) => Effect.sync((): Observation => jobs.observe(id) ?? { _tag: "Unknown", existed: false }),
    mayWait: Effect.void,
    watched: Stream.concat(Stream.succeed([]), Stream.never),
    report: () => Effect.succeed(false),
    count: () => Effect.succeed(0),
    stats: () => Effect.succeed(noStats),
    measure: () => none,
    remove: () => none,
    cancel: () => none,
    complete: () => empty,
    fail: () => empty,
    reschedule: () => empty,
    retry: () => empty,
    forceUnlock: () => empty,
    pools: empty,
    cleanup: () => Effect.succeed({ tasks: 0, queues: 0, failedJobs: 0 }),
    claim: () => Effect.succeed({ jobs: [], contended: false, nextDueIn: undefined }),
    batch: needsBatch,
    forgetBatch: needsBatch,
    settleLate: needsBatch,
    settle: () => noIds,
    completeWith: () => none,
    releaseUnknown: () => Effect.void,
    registerPool: () => Effect.void,
    heartbeat: () => Effect.succeed({ isAlive: true, deadPools: [], cancelled: [] }),
    deregisterPool: () => Effect.void,
    releasePools: () => Effect.succeed({ pools: [], released: 0, failed: 0 }),
    sweep: () => Effect.undefined,
    renew: () => Effect.void,
    notifications: Stream.never,
    probe: () => Effect.void,
    history: () => empty,
    finished: () => none,
    countHistory: () => Effect.succeed(0),
    forget: () => Effect.succeed(0),
    expire: () => Effect.succeed(0),
    redrive: () => Effect.succeed({ count: 0, last: undefined }),
    scheduling: needsDatabase("scheduling"),
    bundling: needsDatabase("bundling"),
    listening: needsDatabase("listening"),
    removeMany: () => Effect.succeed({ count: 0, last: undefined }),
    dedicated: Effect.suspend(() => Effect.succeed(store))
  }
  const store: Store = operations
  return store
}
