import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type * as Job from "../Job.ts"
import type * as JobStore from "../JobStore.ts"
import type { KongTaskError } from "../KongTaskError.ts"
import type { Queue } from "../Queue.ts"
import type * as Task from "../Task.ts"
import * as JobSpec from "./jobSpec.ts"
import * as Metrics from "./metrics.ts"
import * as Input from "./queueInput.ts"

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
export const make = (store: JobStore.Store, maxPayloadBytes: number): Queue["Service"] => {
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
  return {
    add: Effect.fn("Queue.add")(function*(task, payload, options) {
      const spec = yield* JobSpec.make({ task, payload, options }, limits, undefined)
      const job = yield* store.add(spec)
      yield* weigh([spec])
      return job
    }),
    addMany: Effect.fn("Queue.addMany")(function*<R extends Task.Request<Task.Any>>(requests: Iterable<R>) {
      const specs = yield* Effect.forEach(requests, (request, index) => JobSpec.make(request, limits, index))
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
    remove: Effect.fn("Queue.remove")((target) => store.remove(typeof target === "string" ? { id: target } : target))
  }
}
