/**
 * Tools for testing programs that add and run jobs.
 *
 * - `Testing.layerEmbedded` and `Testing.layer`: the whole queue on PostgreSQL in the process, or on the test's own
 *   database, that notes what is added; jobs run when the test says so, by `drain` or `runOne`
 * - `Testing.layerInline`: jobs run in the fiber that adds them, before it goes on
 * - `Testing.layerNothing`: no database; what is added is noted, and nothing comes of it
 * - `added`, `assertAdded`, `refuteAdded`: what was added, in the types of its task; `addedBundles`: the bundles
 * - `failNext`: the database fails, as often as the test says
 *
 * With `effectClock` the due times of jobs go by Effect's Clock, so that `TestClock.adjust` makes them due.
 *
 * @since 0.1.0
 */
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as SqlClient from "effect/sql/SqlClient"
import type * as Bundle from "./Bundle.ts"
import * as Clocked from "./internal/testing/clocked.ts"
import * as Expecting from "./internal/testing/expecting.ts"
import * as Failing from "./internal/testing/failing.ts"
import * as Inline from "./internal/testing/inline.ts"
import * as Nothing from "./internal/testing/nothing.ts"
import * as Recording from "./internal/testing/recording.ts"
import type * as Job from "./Job.ts"
import * as JobStore from "./JobStore.ts"
import * as KongTask from "./KongTask.ts"
import type { KongTaskError } from "./KongTaskError.ts"
import type * as Migrator from "./Migrator.ts"
import type * as Queue from "./Queue.ts"
import type * as Task from "./Task.ts"
import * as Worker from "./Worker.ts"

/**
 * One job that is being added, before anything is known of its types.
 *
 * @category models
 * @since 0.1.0
 */
export interface Adding {
  readonly task: string
  /** The payload as JSON, encoded by its schema. */
  readonly payload: Schema.Json
  /** As they were given, the task's defaults included. */
  readonly options: Job.Options
}

/**
 * Which jobs do not get to the database: all, those of some tasks, or those for which a predicate holds.
 *
 * @category models
 * @since 0.1.0
 */
export type Ignored = "all" | ReadonlyArray<Task.Any> | ((adding: Adding) => boolean)

/**
 * @category models
 * @since 0.1.0
 */
export interface Options extends KongTask.Options {
  /**
   * Which jobs are noted and go no further. Whoever adds one is answered a job that nobody runs; waiting for its end
   * fails with `JobCancelled`. A bundle has those of its jobs that are not ignored, and is not there if all are: whoever
   * waits for it is answered a bundle that is done, whose jobs were cancelled, and none of its completion jobs is added.
   * Completion jobs are asked about too, with their `data` as the payload. Default: none.
   */
  readonly ignore?: Ignored | undefined
  /**
   * Whether due times go by Effect's Clock, the test's own where there is one: `delay` and `runAt`, retries and snoozes.
   * Leases stay with the database's. Default: false, the database's clock for all.
   */
  readonly effectClock?: boolean | undefined
}

/**
 * What the layers of this module share. Its contents are their own matter: use the functions of this module.
 *
 * @category services
 * @since 0.1.0
 */
export class Kit extends Context.Service<Kit, {
  /** The store beneath the one that notes and ignores. */
  readonly store: JobStore.Store
  readonly records: Array<Recording.Record>
  readonly bundles: Array<Recording.BundleRecord>
  readonly rules: Failing.Rules
  readonly inline: Set<Inline.Inline>
}>()("kongtask/testing/Kit") {}

/**
 * What `layerNothing` provides; the others provide `Migrator` and the client too.
 *
 * @category models
 * @since 0.1.0
 */
export type Services = Exclude<KongTask.Services, Migrator.Migrator> | Kit

const addingOf = (spec: JobStore.JobSpec): Adding => ({
  task: spec.task,
  payload: JSON.parse(spec.payload) as Schema.Json,
  options: Expecting.optionsOf(spec)
})

const withJob = ({ job, spec }: Recording.Record) => ({ ...addingOf(spec), job })

const toPredicate = (ignored: Ignored | undefined): (spec: JobStore.JobSpec) => boolean => {
  if (ignored === undefined) return () => false
  if (ignored === "all") return () => true
  if (typeof ignored === "function") return (spec) => ignored(addingOf(spec))
  const names = new Set(ignored.map(({ name }) => name))
  return ({ task }) => names.has(task)
}

/** The services of a test on the store that is provided. */
const onStore = (options: Options | undefined): Layer.Layer<Services, never, JobStore.JobStore> => {
  const stores = Layer.effectContext(Effect.gen(function*() {
    const given = yield* JobStore.JobStore
    const rules: Failing.Rules = new Map()
    const store = Failing.make(options?.effectClock === true ? Clocked.make(given) : given, rules)
    const kit = Kit.of({ store, rules, records: [], bundles: [], inline: new Set() })
    const recording = Recording.make(store, {
      records: kit.records,
      bundles: kit.bundles,
      isIgnored: toPredicate(options?.ignore),
      onAdded: (jobs) => Effect.reduce(kit.inline, () => jobs, (current, inline) => inline.after(current))
    })
    return Context.make(Kit, kit).pipe(Context.add(JobStore.JobStore, recording))
  }))
  const kit = Layer.effect(Kit, Kit)
  return Layer.provide(Layer.merge(KongTask.layerServices(options), kit), Layer.fresh(stores))
}

/**
 * Queue, worker, scheduler and migrator on the test's own `PgClient`, whose jobs run when the test says so.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options?: Options
): Layer.Layer<Services | Migrator.Migrator, KongTaskError, PgClient.PgClient> => {
  const store = KongTask.layerStore(options)
  const migrator: Layer.Layer<Migrator.Migrator, KongTaskError, PgClient.PgClient> = store
  return Layer.merge(migrator, Layer.provide(onStore(options), store)) as Layer.Layer<
    Services | Migrator.Migrator,
    KongTaskError,
    PgClient.PgClient
  >
}

/**
 * The same on PostgreSQL in the process and in memory: no server, nothing left behind.
 *
 * **Details**
 *
 * Needs the package `@electric-sql/pglite`. Takes a few seconds to start, so share one among the tests of a file, and
 * call `reset` before each of them.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerEmbedded = (
  options?: Options
): Layer.Layer<Services | Migrator.Migrator | PgClient.PgClient | SqlClient.SqlClient, KongTaskError> =>
  Layer.provideMerge(layer(options), KongTask.layerEmbedded(options)).pipe(
    // What waits for the database does not wait for a test to move its clock.
    Layer.provide(Layer.succeed(Clock.Clock, Inline.machineClock))
  )

/**
 * No database: what is added is noted and answered, and nothing comes of it. There is nothing to list or to run; whoever
 * waits for a job or a bundle finds it cancelled. Schedules cannot be stored.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerNothing = (options?: Queue.Options): Layer.Layer<Services> =>
  Layer.provide(onStore(options), Layer.sync(JobStore.JobStore, Nothing.make))

/**
 * @category models
 * @since 0.1.0
 */
export interface InlineOptions<T extends Task.Any> {
  /** Whose jobs run at once. Those of other tasks wait for `drain`. */
  readonly tasks: ReadonlyArray<T>
  /**
   * What whoever adds a job sees of a failed attempt. `"record"`: what it would see in production: nothing but the job, as
   * it is after the attempt (`retrying` or `failed`, with its `lastError`). `"die"`: a `JobFailed` as a defect, so that a
   * test does not miss it. Default: `"record"`.
   */
  readonly onFailure?: "record" | "die" | undefined
}

/**
 * Runs jobs in the fiber that adds them, before `add`, `addMany`, `execute`, `addBundle` or `addToBundle` goes on.
 *
 * **Details**
 *
 * For as long as the layer lives. An `add` runs whatever is due of these tasks, jobs that handlers add included, and
 * answers the job as it is then: `completed`, `cancelled`, `retrying`, `failed`, or `scheduled` where its time is yet to
 * come. A job that is not due, a retry among them, runs when its time has come: at the next `add`, or `drain`. Where the
 * last job of a bundle stops so, its completion jobs follow, and `addBundle` answers the bundle as `done`.
 *
 * Inside a transaction nothing runs, since nobody sees the job before the commit: the next `add` or `drain` after it runs
 * it. A job of the named queue in which the handler that adds it runs itself follows when that one has ended.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerInline = <T extends Task.Any>(
  options: InlineOptions<T>
): Layer.Layer<never, never, Kit | Worker.Worker | Task.ToHandler<T>> =>
  Layer.effectDiscard(Effect.gen(function*() {
    const { inline, store } = yield* Kit
    const mode = Inline.make(store, yield* Worker.Worker, yield* Effect.context<Task.ToHandler<T>>(), {
      tasks: options.tasks,
      onFailure: options.onFailure ?? "record"
    })
    yield* Effect.acquireRelease(
      Effect.sync(() => inline.add(mode)),
      () => Effect.sync(() => inline.delete(mode))
    )
  }))

/**
 * How `drain` and `runOne` run jobs: options of a worker.
 *
 * @category models
 * @since 0.1.0
 */
export type DrainOptions<T extends Task.Any, R = never> = Pick<
  Worker.Options<T, R>,
  "tasks" | "concurrency" | "retain" | "hooks" | "forbiddenFlags"
>

/**
 * Runs jobs until none is due, those that handlers add included, and counts what became of them.
 *
 * **Details**
 *
 * Retries and snoozed jobs run too where they are due at once; those that are due later are left, and counted as `retried`
 * and `snoozed`. Handlers run by the clock of the calling fiber, so that `TestClock.adjust` moves them.
 *
 * @category running
 * @since 0.1.0
 */
export const drain = <T extends Task.Any, R = never>(
  options: DrainOptions<T, R>
): Effect.Effect<Worker.Summary, KongTaskError, Worker.Worker | Task.ToHandler<T> | R> =>
  Effect.flatMap(Worker.Worker, (worker) => Inline.run<T, R>(worker, options))

/** A store that gives out one job, and then none. */
const onlyOne = (store: JobStore.Store): JobStore.Store => {
  let isGiven = false
  const limited = (inner: JobStore.Store): JobStore.Store => ({
    ...inner,
    capabilities: { ...inner.capabilities, batch: false },
    claim: ({ runs: _, ...request }) =>
      isGiven
        ? Effect.succeed({ jobs: [], contended: false, nextDueIn: undefined })
        : Effect.tap(inner.claim({ ...request, limit: 1, start: 1 }), ({ jobs }) =>
          Effect.sync(() => {
            isGiven = jobs.length > 0
          })),
    dedicated: Effect.map(inner.dedicated, limited)
  })
  return limited(store)
}

/**
 * Runs one job, the one that a worker would take first, and counts what became of it; all counts are 0 where none is due.
 *
 * @category running
 * @since 0.1.0
 */
export const runOne = <T extends Task.Any, R = never>(
  options: Omit<DrainOptions<T, R>, "concurrency">
): Effect.Effect<Worker.Summary, KongTaskError, Kit | Task.ToHandler<T> | R> =>
  Effect.flatMap(Kit, ({ store }) =>
    Effect.scoped(Effect.flatMap(
      Layer.build(Layer.provide(Layer.fresh(Worker.Worker.layer), Layer.succeed(JobStore.JobStore, onlyOne(store)))),
      (context) => Inline.run<T, R>(Context.get(context, Worker.Worker), { ...options, concurrency: 1 })
    )))

/**
 * What can be told to fail: an operation of `JobStore.Store`, such as `"add"`, `"claim"` or `"bundling.add"`, or a group of
 * them, such as `"bundling"`.
 *
 * @category models
 * @since 0.1.0
 */
export type Operation = Failing.Operation

/**
 * Makes the next calls of an operation fail, or of all of them: as if the database were away, or refused.
 *
 * **Details**
 *
 * `error` is by default a `StatementFailed` that is not transient; a worker waits and tries again after one that is.
 * `times` is 1 by default; `Infinity` for ever, or until `reset`.
 *
 * **Example**
 *
 * ```ts
 * Testing.failNext("add", { times: 2 })
 * ```
 *
 * @category failing
 * @since 0.1.0
 */
export const failNext = (
  operation: Operation | "all",
  options?: { readonly error?: KongTaskError | undefined; readonly times?: number | undefined }
): Effect.Effect<void, never, Kit> =>
  Effect.map(Kit, ({ rules }) => {
    rules.set(operation, { error: options?.error ?? Failing.defaultError(operation), left: options?.times ?? 1 })
  })

/**
 * A job that was added.
 *
 * @category models
 * @since 0.1.0
 */
export interface Added<T extends Task.Any> {
  /** As `add` was answered by the database; with `layerInline`, before it ran. */
  readonly job: Job.Job
  /** Decoded by the task's schema. */
  readonly payload: T["payloadSchema"]["Type"]
  /** As they were given, the task's defaults included. */
  readonly options: Job.Options
  /** Whether it was kept from the database. */
  readonly isIgnored: boolean
}

const decoderOf = (task: Task.Any) =>
  task.payloadSchema.ast._tag === "Void"
    ? () => Effect.undefined
    : Schema.decodeUnknownEffect(Schema.toCodecJson(task.payloadSchema))

/**
 * The jobs of a task that were added, in the order of their adding, since the layer was built or `reset`.
 *
 * **Gotchas**
 *
 * Jobs of a transaction that was rolled back are among them. Jobs that a schedule or the end of a bundle adds are not.
 *
 * @category assertions
 * @since 0.1.0
 */
export const added = Effect.fnUntraced(function*<T extends Task.Any>(
  task: T
): Effect.fn.Return<ReadonlyArray<Added<T>>, never, Kit | T["payloadSchema"]["DecodingServices"]> {
  const { records } = yield* Kit
  const decode = decoderOf(task)
  return yield* Effect.forEach(
    records.filter(({ spec }) => spec.task === task.name),
    ({ isIgnored, job, spec }) =>
      Effect.map(Effect.orDie(decode(JSON.parse(spec.payload))), (payload): Added<T> => ({
        job,
        payload,
        options: Expecting.optionsOf(spec),
        isIgnored
      }))
  )
})

/**
 * The jobs of all tasks that were added, in the order of their adding.
 *
 * @category assertions
 * @since 0.1.0
 */
export const allAdded: Effect.Effect<ReadonlyArray<Adding & { readonly job: Job.Job }>, never, Kit> = Effect.map(
  Kit,
  ({ records }) => records.map(withJob)
)

/**
 * A bundle that was added.
 *
 * @category models
 * @since 0.1.0
 */
export interface AddedBundle {
  /** As `addBundle` was answered by the database; with `layerInline`, before its jobs ran. */
  readonly bundle: Bundle.Bundle
  /** Its jobs, those that `addToBundle` has added to it included. */
  readonly jobs: ReadonlyArray<Adding & { readonly job: Job.Job }>
  /** What is to be run when it is done; the payload is the completion's `data` as JSON. */
  readonly completions: ReadonlyArray<Adding & { readonly on: "complete" | "success" | "failure" }>
  /** Whether it was kept from the database, as all of its jobs were. */
  readonly isIgnored: boolean
}

/**
 * The bundles that were added, in the order of their adding, since the layer was built or `reset`.
 *
 * @category assertions
 * @since 0.1.0
 */
export const addedBundles: Effect.Effect<ReadonlyArray<AddedBundle>, never, Kit> = Effect.map(
  Kit,
  ({ bundles, records }) =>
    bundles.map(({ bundle, completions, isIgnored }) => ({
      bundle,
      jobs: records.filter(({ job }) => job.bundle === bundle.id).map(withJob),
      completions: completions.map(({ on, spec }) => ({ ...addingOf(spec), on })),
      isIgnored
    }))
)

/**
 * What a test expects of a job. What is left out is not asked for.
 *
 * @category models
 * @since 0.1.0
 */
export interface Expected<T extends Task.Any> {
  /** Some of the fields of the payload, the whole of one that is no object, or a predicate. */
  readonly payload?: ExpectedPayload<T["payloadSchema"]["Type"]> | ((payload: T["payloadSchema"]["Type"]) => boolean)
  /** Some of the options. */
  readonly options?: Job.Options | undefined
}

/**
 * @category utility types
 * @since 0.1.0
 */
export type ExpectedPayload<Payload> = Payload extends
  ReadonlyArray<unknown> | string | number | boolean | bigint | null ? Payload
  : Partial<Payload>

const look = Effect.fnUntraced(function*<T extends Task.Any>(task: T, expected: Expected<T>) {
  const all = yield* added(task)
  const { records } = yield* Kit
  const found = all.filter((job) => Expecting.fits(job, expected))
  const others = [...new Set(records.map(({ spec }) => spec.task))]
  const fail = (wanted: string) => Effect.die(Expecting.unexpected(task.name, wanted, expected, found, all, others))
  return { found, fail }
})

/**
 * Dies of an `AssertionError`, which lists what was added, unless a job of the task was, and answers those that fit.
 * `times` asks for so many, no more and no fewer; otherwise one is enough.
 *
 * **Example**
 *
 * ```ts
 * Testing.assertAdded(SendEmail, { payload: { to: "ada@example.org" }, options: { delay: "1 hour" } })
 * ```
 *
 * @category assertions
 * @since 0.1.0
 */
export const assertAdded = Effect.fnUntraced(function*<T extends Task.Any>(
  task: T,
  expected: Expected<T> & { readonly times?: number | undefined } = {}
): Effect.fn.Return<ReadonlyArray<Added<T>>, never, Kit | T["payloadSchema"]["DecodingServices"]> {
  const { fail, found } = yield* look(task, expected)
  const { times } = expected
  if (times === undefined ? found.length > 0 : found.length === times) return found
  return yield* fail(times === undefined ? "a job" : `${times} job${times === 1 ? "" : "s"}`)
})

/**
 * Dies of an `AssertionError` if a job of the task that fits was added.
 *
 * @category assertions
 * @since 0.1.0
 */
export const refuteAdded = Effect.fnUntraced(function*<T extends Task.Any>(
  task: T,
  expected: Expected<T> = {}
): Effect.fn.Return<void, never, Kit | T["payloadSchema"]["DecodingServices"]> {
  const { fail, found } = yield* look(task, expected)
  if (found.length > 0) return yield* fail("no job")
})

const pageSize = 1000

/**
 * Forgets what was added and told to fail, deletes all bundles and takes back all jobs: a clean start for the next test on the same layer.
 *
 * @category isolation
 * @since 0.1.0
 */
export const reset: Effect.Effect<void, KongTaskError, Kit> = Effect.gen(function*() {
  const { bundles, records, rules, store } = yield* Kit
  records.length = 0
  bundles.length = 0
  rules.clear()
  // First, so that no end of a job adds others.
  yield* store.bundling.remove({})
  let after: Job.JobId | undefined
  do {
    const jobs = yield* store.list({}, { limit: pageSize, after })
    yield* Effect.forEach(jobs, ({ id }) => store.remove({ id }), { discard: true })
    after = jobs.length < pageSize ? undefined : jobs.at(-1)!.id
  } while (after !== undefined)
})
