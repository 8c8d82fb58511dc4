/**
 * A store without a database: what is added is answered, and nothing comes of it.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { BundleNotFound } from "../../Bundle.ts"
import type * as Job from "../../Job.ts"
import type { Bundling, Counts, JobSpec, Listening, Observation, Stats, Store } from "../../JobStore.ts"
import * as Imaginary from "./imaginary.ts"

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

const bundlingOf = (imaginary: Imaginary.Imaginary): Bundling => ({
  add: imaginary.addBundle,
  addTo: (id, specs) =>
    Effect.flatMap(
      imaginary.addToBundle(id, specs),
      (jobs) => jobs === undefined ? Effect.fail(new BundleNotFound({ bundle: id })) : Effect.succeed(jobs)
    ),
  get: (id) => Effect.sync(() => Option.fromNullishOr(imaginary.bundle(id))),
  list: () => empty,
  remove: () => empty,
  outcomes: (id, page) => Effect.sync(() => imaginary.outcomes(id, page))
})

const listening: Listening = {
  register: () => Effect.succeed("0"),
  confirm: () => Effect.succeed(true),
  unregister: () => Effect.void,
  subscribe: () => Effect.void,
  unsubscribe: () => Effect.succeed(false),
  subscriptions: empty,
  take: () => empty,
  keep: () => Effect.void,
  acknowledge: () => Effect.void,
  news: Stream.concat(Stream.succeed({ _tag: "Listening" }), Stream.never)
}

export const make = (): Store => {
  const jobs = Imaginary.make()
  const needsBatch = () => Effect.die(new Error("Batches need capabilities.batch"))
  const operations = {
    capabilities: { batch: false, notifications: false },
    add: (spec: JobSpec) => jobs.job(spec),
    addMany: (specs: ReadonlyArray<JobSpec>) => Effect.forEach(specs, (spec) => jobs.job(spec)),
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
    bundling: bundlingOf(jobs),
    listening,
    removeMany: () => Effect.succeed({ count: 0, last: undefined }),
    dedicated: Effect.suspend(() => Effect.succeed(store))
  }
  const store: Store = operations
  return store
}
