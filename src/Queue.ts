/**
 * Adding jobs, looking at them, and taking them back.
 *
 * Everything here joins the caller's transaction: an `add` inside
 * `sql.withTransaction` takes effect when that transaction commits, and never
 * if it does not. (Only the client that the queue was built from; see
 * `KongTask.layer`.)
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Option from "effect/Option"
import * as JobSpec from "./internal/jobSpec.ts"
import type * as Job from "./Job.ts"
import * as JobStore from "./JobStore.ts"
import type { KongTaskError } from "./KongTaskError.ts"
import type * as Task from "./Task.ts"

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
}

/**
 * One page of `list`.
 *
 * @category models
 * @since 0.1.0
 */
export interface ListOptions extends Filter {
  /** How many jobs at most, 1 to 10,000. Default: 100. */
  readonly limit?: number | undefined
  /** Only jobs added after this one: the id of the last job of the page before. */
  readonly after?: Job.JobId | undefined
}

/**
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** The largest payload that `add` takes, in bytes of JSON. Default: 1 MiB. */
  readonly maxPayloadBytes?: number | undefined
}

const defaultMaxPayloadBytes = 1024 * 1024
const defaultListLimit = 100
const maxListLimit = 10_000

const names = (filter: Filter): JobStore.Filter => ({
  tasks: filter.task === undefined ? undefined : toArray(filter.task).map((task) => task.name),
  states: filter.state === undefined ? undefined : toArray(filter.state),
  queueName: filter.queueName,
  key: filter.key
})

const toArray = <A>(input: A | ReadonlyArray<A>): ReadonlyArray<A> => Array.isArray(input) ? input : [input as A]

/**
 * @category services
 * @since 0.1.0
 */
export class Queue extends Context.Service<Queue, {
  /**
   * Adds one job and answers it as stored.
   *
   * **Details**
   *
   * One statement. Fails with `InvalidJob` before the database is touched when
   * the payload does not encode or an option is out of range; nothing is written
   * then. With a `jobKey` the answer may be an existing job.
   */
  readonly add: <T extends Task.Any>(
    task: T,
    payload: T["payloadSchema"]["~type.make.in"],
    options?: Job.Options
  ) => Effect.Effect<Job.Job, Job.InvalidJob | KongTaskError, T["payloadSchema"]["EncodingServices"]>

  /**
   * Adds jobs of any tasks, all or none, and answers them in the same order.
   *
   * **Details**
   *
   * One statement. Requests are applied in order, so that a later one may replace
   * an earlier one of the same key. A bad one fails the whole call and says which
   * it was.
   */
  readonly addMany: <R extends Task.Request<Task.Any>>(
    requests: Iterable<R>
  ) => Effect.Effect<
    ReadonlyArray<Job.Job>,
    Job.InvalidJob | KongTaskError,
    R["task"]["payloadSchema"]["EncodingServices"]
  >

  /** The job of that id, if it is there: a completed job is not. One statement. */
  readonly get: (id: Job.JobId) => Effect.Effect<Option.Option<Job.Job>, KongTaskError>

  /** Jobs in the order in which they were added. One statement. */
  readonly list: (options?: ListOptions) => Effect.Effect<ReadonlyArray<Job.Job>, KongTaskError>

  /** How many jobs there are. One statement, which reads them all. */
  readonly count: (filter?: Filter) => Effect.Effect<number, KongTaskError>

  /**
   * Takes a job back, by id or by key, and answers it; `None` if it is not there.
   *
   * **Details**
   *
   * A job that nobody runs is deleted. A running one goes on, but loses its key
   * and its further attempts: it will not be retried. One statement, which waits
   * for a claim or an outcome of that job that is being written.
   */
  readonly remove: (
    target: Job.JobId | { readonly key: string }
  ) => Effect.Effect<Option.Option<Job.Job>, KongTaskError>

  /**
   * Ends a job for good, on whatever machine it runs; `None` if it is not there.
   *
   * **Details**
   *
   * A job that nobody runs is deleted; the answer's state is `cancelled`. One
   * that runs is interrupted there: its finalizers run, and then it is deleted.
   * That takes as long as they do; the answer's state is `running`, and the
   * worker tells by `JobCancelled`, or by `JobCompleted` where it was faster. A
   * job that graphile-worker runs cannot be interrupted: it loses its key and its
   * further attempts. One statement.
   *
   * Inside a transaction the worker is told when that commits.
   */
  readonly cancel: (id: Job.JobId) => Effect.Effect<Option.Option<Job.Job>, KongTaskError>
}>()("kongtask/Queue") {
  static readonly layer = (options?: Options): Layer.Layer<Queue, never, JobStore.JobStore> =>
    Layer.effect(
      Queue,
      Effect.gen(function*() {
        const store = yield* JobStore.JobStore
        const limits = { maxPayloadBytes: options?.maxPayloadBytes ?? defaultMaxPayloadBytes }

        return Queue.of({
          add: Effect.fn("Queue.add")(function*(task, payload, options) {
            return yield* store.add(yield* JobSpec.make({ task, payload, options }, limits, undefined))
          }),
          addMany: Effect.fn("Queue.addMany")(function*<R extends Task.Request<Task.Any>>(requests: Iterable<R>) {
            return yield* store.addMany(
              yield* Effect.forEach(requests, (request, index) => JobSpec.make(request, limits, index))
            )
          }),
          get: Effect.fn("Queue.get")((id) => store.get(id)),
          list: Effect.fn("Queue.list")((options) =>
            store.list(names(options ?? {}), {
              limit: Math.max(1, Math.min(options?.limit ?? defaultListLimit, maxListLimit)),
              after: options?.after
            })
          ),
          count: Effect.fn("Queue.count")((filter) => store.count(names(filter ?? {}))),
          cancel: Effect.fn("Queue.cancel")((id) => store.cancel(id)),
          remove: Effect.fn("Queue.remove")((target) =>
            store.remove(typeof target === "string" ? { id: target } : target)
          )
        })
      })
    )
}

/**
 * Adds one job: `Queue.add` of the service.
 *
 * @category accessors
 * @since 0.1.0
 */
export const add = <T extends Task.Any>(
  task: T,
  payload: T["payloadSchema"]["~type.make.in"],
  options?: Job.Options
): Effect.Effect<Job.Job, Job.InvalidJob | KongTaskError, Queue | T["payloadSchema"]["EncodingServices"]> =>
  Effect.flatMap(Queue, (queue) => queue.add(task, payload, options))

/**
 * Adds many jobs in one statement: `Queue.addMany` of the service.
 *
 * **Example**
 *
 * ```ts
 * Queue.addMany(addresses.map((to) => SendEmail.request({ to, subject: "Welcome" }, { jobKey: `welcome:${to}` })))
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const addMany = <R extends Task.Request<Task.Any>>(
  requests: Iterable<R>
): Effect.Effect<
  ReadonlyArray<Job.Job>,
  Job.InvalidJob | KongTaskError,
  Queue | R["task"]["payloadSchema"]["EncodingServices"]
> => Effect.flatMap(Queue, (queue) => queue.addMany(requests))

/**
 * @category accessors
 * @since 0.1.0
 */
export const get = (id: Job.JobId): Effect.Effect<Option.Option<Job.Job>, KongTaskError, Queue> =>
  Effect.flatMap(Queue, (queue) => queue.get(id))

/**
 * @category accessors
 * @since 0.1.0
 */
export const list = (options?: ListOptions): Effect.Effect<ReadonlyArray<Job.Job>, KongTaskError, Queue> =>
  Effect.flatMap(Queue, (queue) => queue.list(options))

/**
 * @category accessors
 * @since 0.1.0
 */
export const count = (filter?: Filter): Effect.Effect<number, KongTaskError, Queue> =>
  Effect.flatMap(Queue, (queue) => queue.count(filter))

/**
 * @category accessors
 * @since 0.1.0
 */
export const remove = (
  target: Job.JobId | { readonly key: string }
): Effect.Effect<Option.Option<Job.Job>, KongTaskError, Queue> => Effect.flatMap(Queue, (queue) => queue.remove(target))

/**
 * Ends a job for good, wherever it runs: `Queue.cancel` of the service.
 *
 * @category accessors
 * @since 0.1.0
 */
export const cancel = (id: Job.JobId): Effect.Effect<Option.Option<Job.Job>, KongTaskError, Queue> =>
  Effect.flatMap(Queue, (queue) => queue.cancel(id))
