import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Job from "../Job.ts"
import type * as JobStore from "../JobStore.ts"
import type { KongTaskError } from "../KongTaskError.ts"
import type { Queue } from "../Queue.ts"
import type * as Task from "../Task.ts"
import * as Endings from "./endings.ts"
import * as JobSpec from "./jobSpec.ts"
import * as Metrics from "./metrics.ts"
import * as QueueBundling from "./queueBundling.ts"
import * as Input from "./queueInput.ts"
import * as Waits from "./waits.ts"

const streamPageSize = 1000

const pages = (store: JobStore.Store, filter: JobStore.Filter): Stream.Stream<Job.Job, KongTaskError> =>
  Stream.paginate(
    undefined as Job.JobId | undefined,
    (after) =>
      Effect.map(store.list(filter, { limit: streamPageSize, after }), (jobs) => {
        const last = jobs.at(-1)
        return [
          jobs,
          last === undefined || jobs.length < streamPageSize ? Option.none() : Option.some(last.id)
        ] as const
      })
  )

/** The queue on a store: checks what it is given, and asks the store. */
export const make = Effect.fnUntraced(function*(
  store: JobStore.Store,
  maxPayloadBytes: number
): Effect.fn.Return<Queue["Service"], never, Scope.Scope> {
  const limits = { maxPayloadBytes }
  const sizes = new Map<string, Metric.Histogram<number>>()
  /** Takes note of the payloads of jobs that were added. */
  const weigh = (specs: ReadonlyArray<JobStore.JobSpec>): Effect.Effect<void> =>
    Effect.contextWith((context: Context.Context<never>) => {
      for (const { payload, task } of specs) {
        const size = sizes.get(task) ?? Metrics.payloadSize({ task_type: task })
        sizes.set(task, size)
        size.updateUnsafe(Buffer.byteLength(payload), context)
      }
      return Effect.void
    })

  const waits = yield* Waits.make(store)
  const bundles = yield* QueueBundling.make({ store, limits, weigh })

  const awaitResult = <T extends Task.Any>(
    task: T,
    job: { readonly id: Job.JobId; readonly revision: number | undefined; readonly isAnnounced: boolean }
  ) =>
    Effect.flatten(
      waits.until(job, (observation) => Endings.ending(task, job.id, observation))
    ) as Effect.Effect<
      Task.Success<T>,
      Task.Error<T> | Job.NoResult | KongTaskError,
      T["successSchema"]["DecodingServices"] | T["errorSchema"]["DecodingServices"]
    >

  return {
    ...bundles,
    add: Effect.fn("Queue.add")(function*(task, payload, options) {
      const spec = yield* JobSpec.make({ task, payload, options }, limits, undefined)
      const job = yield* store.add(spec)
      yield* weigh([spec])
      return job
    }),
    addMany: Effect.fn("Queue.addMany")(function*<R extends Task.Request<Task.Any>>(requests: Iterable<R>) {
      const specs = yield* JobSpec.makeMany(requests, limits)
      const jobs = yield* store.addMany(yield* JobSpec.refuseRepeatedKeys(specs))
      yield* weigh(specs)
      return jobs
    }),
    get: Effect.fn("Queue.get")((id) => store.get(id)),
    failedAttempts: Effect.fn("Queue.failedAttempts")((id) => store.failedAttempts(id)),
    getByKey: Effect.fn("Queue.getByKey")(function*(key) {
      return Option.fromNullishOr((yield* store.list({ key: yield* Input.key(key) }, { limit: 1 }))[0])
    }),
    list: Effect.fn("Queue.list")(function*(options) {
      return yield* store.list(yield* Input.filter(options ?? {}), yield* Input.page(options ?? {}))
    }),
    stream: (filter) => Stream.unwrap(Effect.map(Input.filter(filter ?? {}), (filter) => pages(store, filter))),
    count: Effect.fn("Queue.count")(function*(filter) {
      return yield* store.count(yield* Input.filter(filter ?? {}))
    }),
    stats: Effect.fn("Queue.stats")(function*(filter) {
      return yield* store.stats(yield* Input.filter(filter ?? {}))
    }),
    complete: Effect.fn("Queue.complete")(function*(ids) {
      return yield* store.complete(yield* Input.ids(ids))
    }),
    fail: Effect.fn("Queue.fail")(function*(ids, message) {
      return yield* store.fail(yield* Input.ids(ids), yield* Input.message(message))
    }),
    reschedule: Effect.fn("Queue.reschedule")(function*(ids, changes) {
      return yield* store.reschedule(yield* Input.ids(ids), yield* Input.changes(changes))
    }),
    retry: Effect.fn("Queue.retry")(function*(ids) {
      return yield* store.retry(yield* Input.ids(ids))
    }),
    pools: Effect.withSpan(store.pools, "Queue.pools"),
    forceUnlock: Effect.fn("Queue.forceUnlock")(function*(pools) {
      return yield* store.forceUnlock(yield* Input.pools(pools))
    }),
    cleanup: Effect.fn("Queue.cleanup")(function*(options) {
      return yield* store.cleanup(yield* Input.cleanup(options))
    }),
    cancel: Effect.fn("Queue.cancel")((id) => store.cancel(id)),
    remove: Effect.fn("Queue.remove")((target) => store.remove(typeof target === "string" ? { id: target } : target)),
    history: Effect.fn("Queue.history")(function*(options) {
      return yield* store.history(
        yield* Input.historyFilter(options ?? {}),
        yield* Input.historyPage(options ?? {})
      )
    }),
    finished: Effect.fn("Queue.finished")((id) => store.finished(id)),
    countHistory: Effect.fn("Queue.countHistory")(function*(filter) {
      return yield* store.countHistory(yield* Input.historyFilter(filter ?? {}))
    }),
    forget: Effect.fn("Queue.forget")(function*(filter) {
      const checked = yield* Input.historyFilter(filter)
      return yield* inBatches(() =>
        Effect.map(
          store.forget(checked, batchSize),
          (count) => ({ count, last: count === batchSize ? true : undefined })
        )
      )
    }),
    redrive: Effect.fn("Queue.redrive")(function*(options) {
      const { error, filter, isDryRun } = yield* Input.redrive(options ?? {})
      return yield* inBatches((after: Job.JobId | undefined) =>
        store.redrive(filter, { after, error, isDryRun, limit: batchSize })
      )
    }),
    awaitResult: Effect.fn("Queue.awaitResult")(function*(task, job) {
      return yield* awaitResult(task, { ...(yield* Input.awaited(task, job)), isAnnounced: false })
    }),
    execute: Effect.fn("Queue.execute")(function*(task, payload, options) {
      const { cancelOnInterrupt = false, ...given } = options ?? {}
      yield* store.mayWait
      const spec = yield* JobSpec.make({ task, payload, options: given }, limits, undefined)
      const retain = spec.details?.retain === undefined || spec.details.retain === 0
        ? executeRetainMillis
        : spec.details.retain
      return yield* Effect.uninterruptibleMask((restore) => {
        // What is to be cancelled must be known to be added, or not.
        const mayCut: typeof restore = cancelOnInterrupt ? (add) => add : restore
        return Effect.flatMap(
          mayCut(
            Effect.tap(store.add({ ...spec, details: { ...spec.details, retain, awaited: true } }), () => weigh([spec]))
          ),
          ({ id, revision }) => {
            const result = restore(awaitResult(task, { id, revision, isAnnounced: spec.key === undefined }))
            return cancelOnInterrupt
              ? Effect.onInterrupt(result, () => Effect.ignore(store.cancel(id), { log: true }))
              : result
          }
        )
      })
    }),
    progress: (task, job) => Stream.unwrap(Effect.map(Input.awaited(task, job), (asked) => reports(waits, task, asked)))
  }
})

/** How many jobs one statement of a bulk change takes: what it locks, and what a transaction that it joins grows by. */
const batchSize = 1_000

/** Goes on where the last batch ended until there is no more, and counts. */
const inBatches = Effect.fnUntraced(function*<A, E, R>(
  batch: (after: A | undefined) => Effect.Effect<{ readonly count: number; readonly last: A | undefined }, E, R>
) {
  let total = 0
  let after: A | undefined
  do {
    const { count, last } = yield* batch(after)
    total += count
    after = last
  } while (after !== undefined)
  return total
})

/** How long the outcome of a job is kept that was added to be waited for, where nobody has said. */
const executeRetainMillis = 5 * 60_000

/** What a job reports, each value once, until it has stopped. */
const reports = <T extends Task.Any>(
  waits: Waits.Waits,
  task: T,
  { id, revision }: { readonly id: Job.JobId; readonly revision: number | undefined }
) =>
  Stream.paginate(undefined as number | undefined, (last) =>
    waits.until(
      { id, revision, isAnnounced: last !== undefined },
      Effect.fnUntraced(function*(observation) {
        if (observation._tag === "Unknown" && !observation.existed) {
          return yield* new Job.JobNotFound({ job: id, task: task.name, actual: undefined })
        }
        if (observation._tag === "Unknown") return [[], Option.none<number>()] as const
        yield* Endings.checkTask(task, id, observation.task)
        if (observation._tag === "Stopped") return [[], Option.none<number>()] as const
        const { progress } = observation
        if (progress === undefined || progress.at === last) return undefined
        return [[yield* Endings.progress(task, id, progress)], Option.some(progress.at)] as const
      })
    )) as Stream.Stream<
      T["progressSchema"]["Type"],
      Job.JobNotFound | Job.UndecodableOutcome | Job.AwaitedInTransaction | KongTaskError,
      T["progressSchema"]["DecodingServices"]
    >
