/**
 * Adding jobs, looking at them, changing them, and taking them back.
 *
 * Everything here joins the caller's transaction: an `add` inside
 * `sql.withTransaction` takes effect when that transaction commits, and never
 * if it does not. (Only the client that the queue was built from; see
 * `KongTask.layer`.)
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Option from "effect/Option"
import type * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type * as Bundle from "./Bundle.ts"
import { make as makeQueue } from "./internal/queue.ts"
import type { EventsOptions, QueueBundles } from "./internal/queueBundles.ts"
import type {
  Changes,
  CleanupOptions,
  Filter,
  HistoryFilter,
  HistoryOptions,
  ListOptions,
  RedriveOptions
} from "./internal/queueInput.ts"
import type * as Job from "./Job.ts"
import * as JobStore from "./JobStore.ts"
import type { KongTaskError } from "./KongTaskError.ts"
import type { QueueEvent } from "./QueueEvent.ts"
import type * as Task from "./Task.ts"

export type { BundleFilter, BundleListOptions, EventsOptions } from "./internal/queueBundles.ts"
export type {
  Changes,
  CleanupOptions,
  Filter,
  HistoryFilter,
  HistoryOptions,
  ListOptions,
  RedriveOptions
} from "./internal/queueInput.ts"

/**
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** The largest payload that `add` takes, in bytes of JSON. Default: 1 MiB. */
  readonly maxPayloadBytes?: number | undefined
}

/**
 * Options of `execute`.
 *
 * @category models
 * @since 0.1.0
 */
export interface ExecuteOptions extends Job.Options {
  /** Whether an interruption of the wait cancels the job, wherever it runs. Default: false. */
  readonly cancelOnInterrupt?: boolean | undefined
}

const defaultMaxPayloadBytes = 1024 * 1024

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
   * Fails with `InvalidJob` before the database is touched when the payload does
   * not encode or an option is out of range; nothing is written then. With a
   * `jobKey` the answer may be an existing job, or, in the mode `reject`, the
   * error `DuplicateJobKey`, after which the caller's transaction goes on.
   *
   * One statement. Calls without a `jobKey`, outside of any transaction, that meet
   * share it: the first one goes at once, and while it is under way the others
   * gather, up to 500 jobs or 1 MiB. Nobody's failure reaches another caller,
   * except that of a lost connection.
   *
   * **Gotchas**
   *
   * A call that is interrupted while its statement is under way may have added
   * its job, and so may one that fails because the connection was lost. Inside a
   * transaction it has not, as the transaction ends with it.
   */
  readonly add: <T extends Task.Any>(
    task: T,
    payload: T["payloadSchema"]["~type.make.in"],
    options?: Job.Options
  ) => Effect.Effect<
    Job.Job,
    Job.InvalidJob | Job.DuplicateJobKey | KongTaskError,
    T["payloadSchema"]["EncodingServices"]
  >

  /**
   * Adds jobs of any tasks, all or none, and answers them in the same order.
   *
   * **Details**
   *
   * One statement and one notification. Requests of the same key are applied in
   * order, so that a later one may replace an earlier one. Keys are locked in an
   * order of their own, so that calls with the same keys cannot deadlock. A bad one, or one that is refused as
   * `DuplicateJobKey`, fails the whole call and says which it was; the second kind
   * leaves the caller's transaction as it was before the call.
   */
  readonly addMany: <R extends Task.Request<Task.Any>>(
    requests: Iterable<R>
  ) => Effect.Effect<
    ReadonlyArray<Job.Job>,
    Job.InvalidJob | Job.DuplicateJobKey | KongTaskError,
    R["task"]["payloadSchema"]["EncodingServices"]
  >

  /** The job of that id, if it is there: a completed job is not. One statement. */
  readonly get: (id: Job.JobId) => Effect.Effect<Option.Option<Job.Job>, KongTaskError>

  /**
   * What the attempts of a job failed with, the last 100 in their order, for as long as the job is there. One statement.
   */
  readonly failedAttempts: (id: Job.JobId) => Effect.Effect<ReadonlyArray<Job.FailedAttempt>, KongTaskError>

  /** The job of that key, if it is there. One statement. */
  readonly getByKey: (key: string) => Effect.Effect<Option.Option<Job.Job>, KongTaskError>

  /** Jobs in the order of their ids, which is that of their adding. One statement. */
  readonly list: (options?: ListOptions) => Effect.Effect<ReadonlyArray<Job.Job>, KongTaskError>

  /**
   * All jobs that a filter finds, in the order of their ids.
   *
   * **Details**
   *
   * One statement a page of 1,000 jobs, as they are wanted. Each page is read when
   * its turn comes: a job that changes meanwhile is found as it is then, at most
   * once.
   */
  readonly stream: (filter?: Filter) => Stream.Stream<Job.Job, KongTaskError>

  /** How many jobs there are. One statement, which reads them all. */
  readonly count: (filter?: Filter) => Effect.Effect<number, KongTaskError>

  /** How many jobs there are in each state, of all, of each task and of each queue. One statement, which reads them all. */
  readonly stats: (filter?: Filter) => Effect.Effect<JobStore.Stats, KongTaskError>

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
   * Deletes jobs as if they had completed, and answers them as they were.
   *
   * **Details**
   *
   * Like `fail`, `reschedule` and `retry` it answers the jobs that it changed, in
   * the order of their ids. The others are not there, or somebody holds them; as in
   * graphile-worker, whoever claimed a job more than four hours ago counts as nobody,
   * except that `retry` leaves alone what a pool of KongTask's holds. One statement.
   */
  readonly complete: (ids: Iterable<Job.JobId>) => Effect.Effect<ReadonlyArray<Job.Job>, KongTaskError>

  /** Fails jobs for good, with this as their last error. Default: "Manually marked as failed". One statement. */
  readonly fail: (
    ids: Iterable<Job.JobId>,
    message?: string
  ) => Effect.Effect<ReadonlyArray<Job.Job>, KongTaskError>

  /** Changes when jobs run, and how often they may; workers hear of it. One statement. */
  readonly reschedule: (
    ids: Iterable<Job.JobId>,
    changes: Changes
  ) => Effect.Effect<ReadonlyArray<Job.Job>, KongTaskError>

  /**
   * Makes jobs due now, with all of their attempts before them: failed ones are
   * `ready` again. Their last error stays until the next attempt ends. Workers hear
   * of it. One statement.
   */
  readonly retry: (ids: Iterable<Job.JobId>) => Effect.Effect<ReadonlyArray<Job.Job>, KongTaskError>

  /**
   * The pools that work on this schema, on whatever machine, and those that are gone but still hold jobs or queues: the
   * oldest first. One statement, which scans the jobs.
   */
  readonly pools: Effect.Effect<ReadonlyArray<JobStore.Pool>, KongTaskError>

  /**
   * Takes from pools, KongTask's or graphile-worker's, the jobs and queues that
   * they hold, and answers the jobs. The attempts stay charged.
   *
   * **Gotchas**
   *
   * For pools that are known to be gone. One of KongTask's that lives interrupts
   * its handlers at its next heartbeat and starts anew; one of graphile-worker's
   * goes on, and its jobs may run twice. One statement, which scans the jobs.
   */
  readonly forceUnlock: (pools: Iterable<string>) => Effect.Effect<ReadonlyArray<Job.Job>, KongTaskError>

  /**
   * Deletes what is not used any more, and says how much.
   *
   * **Details**
   *
   * Safe beside running workers of KongTask, and beside adds. First old failed
   * jobs, one statement; then names without jobs, another one, each a scan of the
   * jobs. The second one, if it finds any, makes whoever adds, claims or settles
   * wait while it deletes them, and first waits itself for transactions that have
   * done so, up to 2 seconds; then it fails with a transient `StatementFailed`.
   *
   * **Gotchas**
   *
   * In a transaction of the caller's the lock stays until that ends. A
   * `repeatable read` transaction that began before a cleanup and adds a job after
   * it may still use a name that is gone.
   */
  readonly cleanup: (options: CleanupOptions) => Effect.Effect<JobStore.Cleanup, KongTaskError>

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

  /**
   * Makes failed jobs ready again, as `retry` does, and answers how many.
   *
   * **Details**
   *
   * One statement a 1,000 jobs, from the oldest on, each of which commits where no transaction is open: so an
   * interruption or a failure leaves some of them as they were. A job that fails again meanwhile is not taken twice. Reads
   * the jobs once. With `dryRun` it only counts.
   */
  readonly redrive: (options?: RedriveOptions) => Effect.Effect<number, KongTaskError>

  /**
   * Jobs that have stopped and are kept (`retain`), those that stopped last first. A job that has failed for good is here
   * once it is deleted; until then `list` has it. One statement, which looks for a queue or a key on the way and is quick for
   * everything else.
   */
  readonly history: (options?: HistoryOptions) => Effect.Effect<ReadonlyArray<Job.Finished>, KongTaskError>

  /** A job of the history, as it stopped last. One statement. */
  readonly finished: (id: Job.JobId) => Effect.Effect<Option.Option<Job.Finished>, KongTaskError>

  /** How many jobs of the history there are. One statement, which reads those that the filter finds. */
  readonly countHistory: (filter?: HistoryFilter) => Effect.Effect<number, KongTaskError>

  /**
   * Deletes jobs from the history before their time, and answers how many; an empty filter means all of them. One
   * statement a 1,000 jobs, as `redrive`. (Those whose time is over are deleted by workers.)
   */
  readonly forget: (filter: HistoryFilter) => Effect.Effect<number, KongTaskError>

  /**
   * Waits for a job's end, in whatever process it runs, and answers its result or fails with its task's own error.
   *
   * **Details**
   *
   * The result is there if the job, its task or the worker that ran it has `retain`; without it the wait ends with
   * `ResultNotRetained`. A job that failed otherwise than by an error of the task's schema is a `JobFailed`, with all its
   * failed attempts; one that was cancelled, removed or replaced by its key a `JobCancelled`. A `Job` is waited for as it
   * was when it was answered: if it has been replaced since, that is its end. An id is waited for as it is now.
   *
   * A notification ends the wait; without it, a look every 2 seconds does. One statement a look, and a write at the first.
   * All waits of a process share one connection beside the client's pool, as long as there are any. While the database
   * is away it waits for that too. Interruptible at any time; the job is not touched.
   *
   * **Gotchas**
   *
   * Fails with `AwaitedInTransaction` inside a transaction of the queue's client. The entries of a batch task have
   * results of their own, which are not kept: its jobs answer nothing.
   */
  readonly awaitResult: <T extends Task.Any>(
    task: T,
    job: Job.Job | Job.JobId
  ) => Effect.Effect<
    Task.Success<T>,
    Task.Error<T> | Job.NoResult | KongTaskError,
    T["successSchema"]["DecodingServices"] | T["errorSchema"]["DecodingServices"]
  >

  /**
   * Adds a job and waits for its end: `add` and `awaitResult` in one.
   *
   * **Details**
   *
   * Its outcome is kept for 5 minutes where neither the job nor its task has a `retain` of more than 0. With a `jobKey`
   * whose job is left as it is, that one is waited for. An interruption leaves the job alone, unless `cancelOnInterrupt`.
   *
   * **Gotchas**
   *
   * As of `add` and `awaitResult`. Inside a transaction nothing is added.
   */
  readonly execute: <T extends Task.Any>(
    task: T,
    payload: T["payloadSchema"]["~type.make.in"],
    options?: ExecuteOptions
  ) => Effect.Effect<
    Task.Success<T>,
    Task.Error<T> | Job.InvalidJob | Job.DuplicateJobKey | Job.NoResult | KongTaskError,
    | T["payloadSchema"]["EncodingServices"]
    | T["successSchema"]["DecodingServices"]
    | T["errorSchema"]["DecodingServices"]
  >

  /**
   * What the handler of a job reports, from the last value on, until the job has stopped.
   *
   * **Details**
   *
   * The latest value each time there is news; values in between may be left out, and the last one when the job ends right
   * after it. An earlier attempt's value stays until the next one reports. Looks as `awaitResult` does. A job that has
   * stopped and one of which nothing is known any more have an empty stream.
   */
  readonly progress: <T extends Task.Any>(
    task: T,
    job: Job.Job | Job.JobId
  ) => Stream.Stream<
    T["progressSchema"]["Type"],
    Job.JobNotFound | Job.UndecodableOutcome | Job.AwaitedInTransaction | KongTaskError,
    T["progressSchema"]["DecodingServices"]
  >

  /** Adds jobs that belong together, and says what to run when each of them has stopped. All or nothing. One statement. */
  readonly addBundle: QueueBundles["addBundle"]

  /** Adds jobs to a bundle that is not done. One statement. */
  readonly addToBundle: QueueBundles["addToBundle"]

  /** The bundle of that id with its counts, if it is there. One statement. */
  readonly bundle: QueueBundles["bundle"]

  /** Bundles in the order of their ids. One statement. */
  readonly bundles: QueueBundles["bundles"]

  /** What became of the jobs of a bundle that have stopped so far, in the types of their tasks. One statement a page. */
  readonly bundleOutcomes: QueueBundles["bundleOutcomes"]

  /** Waits until a bundle is done, wherever its jobs run. */
  readonly awaitBundle: QueueBundles["awaitBundle"]

  /** Deletes a bundle with its outcomes and jobs; those that run are told to end. One statement. */
  readonly deleteBundle: QueueBundles["deleteBundle"]

  /** Deletes all bundles that a filter finds, and answers how many. One statement. */
  readonly deleteBundles: QueueBundles["deleteBundles"]

  /** Takes back all jobs that a filter finds, and answers how many. One statement a thousand jobs. */
  readonly removeMany: QueueBundles["removeMany"]

  /** Jobs and bundles that stop, in whatever process; kept until they are dealt with under the name of a `subscription`. */
  readonly events: QueueBundles["events"]

  /** Ends a subscription of `events`, with what waits for it. One statement. */
  readonly unsubscribe: QueueBundles["unsubscribe"]

  /** The subscriptions by their names, and how many events wait for each. One statement. */
  readonly subscriptions: QueueBundles["subscriptions"]
}>()("kongtask/Queue") {
  static readonly layer = (options?: Options): Layer.Layer<Queue, never, JobStore.JobStore> =>
    Layer.effect(
      Queue,
      Effect.flatMap(JobStore.JobStore, (store) => makeQueue(store, options?.maxPayloadBytes ?? defaultMaxPayloadBytes))
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
): Effect.Effect<
  Job.Job,
  Job.InvalidJob | Job.DuplicateJobKey | KongTaskError,
  Queue | T["payloadSchema"]["EncodingServices"]
> => Effect.flatMap(Queue, (queue) => queue.add(task, payload, options))

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
  Job.InvalidJob | Job.DuplicateJobKey | KongTaskError,
  Queue | R["task"]["payloadSchema"]["EncodingServices"]
> => Effect.flatMap(Queue, (queue) => queue.addMany(requests))

/**
 * What makes a job one of those that are added again and again under one key.
 *
 * @category models
 * @since 0.1.0
 */
export interface KeyedOptions extends Omit<Job.Options, "jobKey" | "jobKeyMode" | "runAt" | "delay"> {
  /** The job key, 1 to 512 characters. */
  readonly key: string
}

type AddKeyed<Options> = <T extends Task.Any>(
  task: T,
  payload: T["payloadSchema"]["~type.make.in"],
  options: Options
) => Effect.Effect<Job.Job, Job.InvalidJob | KongTaskError, Queue | T["payloadSchema"]["EncodingServices"]>

/** A key that a JavaScript program leaves out is refused, as an empty one is. */
const keyed = (
  jobKeyMode: Exclude<Job.KeyMode, "reject">
): AddKeyed<KeyedOptions & Pick<Job.Options, "runAt" | "delay">> =>
(task, payload, { key, ...options }) =>
  add(task, payload, { ...options, jobKey: key ?? "", jobKeyMode }).pipe(Effect.catchTag("DuplicateJobKey", Effect.die))

/**
 * Runs a task once things have been quiet for `delay`: each call with the key
 * puts the waiting job off to `delay` from now and gives it the new payload.
 *
 * **Details**
 *
 * `add` with `jobKeyMode: "replace"` and `delay`: payloads that are arrays are
 * appended to each other. Where the job runs already, or has failed, another one
 * is added. One statement.
 *
 * @category adding
 * @since 0.1.0
 */
export const debounce: AddKeyed<KeyedOptions & { readonly delay: Duration.Input }> = keyed("replace")

/**
 * Runs a task `delay` after the first of many calls with the key, with the
 * payload of the last one.
 *
 * **Details**
 *
 * `add` with `jobKeyMode: "preserve_run_at"` and `delay`: payloads that are arrays
 * are appended to each other. A job that was tried and waits for its retry is put
 * off to `delay` from now. Where the job runs already, or has failed, another one
 * is added. One statement.
 *
 * @category adding
 * @since 0.1.0
 */
export const throttle: AddKeyed<KeyedOptions & { readonly delay: Duration.Input }> = keyed("preserve_run_at")

/**
 * Adds a job unless one with the key waits or runs, and answers that one
 * otherwise, unchanged.
 *
 * **Details**
 *
 * `add` with `jobKeyMode: "dedupe"`. Unlike with `unsafe_dedupe`, a job that has
 * failed for good does not stand in the way: it loses the key. One statement.
 *
 * @category adding
 * @since 0.1.0
 */
export const dedupe: AddKeyed<KeyedOptions & Pick<Job.Options, "runAt" | "delay">> = keyed("dedupe")

/** A method of the service as a function that requires the service. */
const accessor =
  <A extends ReadonlyArray<unknown>, B, E>(method: (queue: Queue["Service"]) => (...args: A) => Effect.Effect<B, E>) =>
  (...args: A): Effect.Effect<B, E, Queue> => Effect.flatMap(Queue, (queue) => method(queue)(...args))

/**
 * @category accessors
 * @since 0.1.0
 */
export const get = accessor((queue) => queue.get)

/**
 * @category accessors
 * @since 0.1.0
 */
export const failedAttempts = accessor((queue) => queue.failedAttempts)

/**
 * @category accessors
 * @since 0.1.0
 */
export const getByKey = accessor((queue) => queue.getByKey)

/**
 * @category accessors
 * @since 0.1.0
 */
export const list = accessor((queue) => queue.list)

/**
 * @category accessors
 * @since 0.1.0
 */
export const count = accessor((queue) => queue.count)

/**
 * @category accessors
 * @since 0.1.0
 */
export const stats = accessor((queue) => queue.stats)

/**
 * @category accessors
 * @since 0.1.0
 */
export const remove = accessor((queue) => queue.remove)

/**
 * Ends a job for good, wherever it runs: `Queue.cancel` of the service.
 *
 * @category accessors
 * @since 0.1.0
 */
export const cancel = accessor((queue) => queue.cancel)

/**
 * @category accessors
 * @since 0.1.0
 */
export const complete = accessor((queue) => queue.complete)

/**
 * @category accessors
 * @since 0.1.0
 */
export const fail = accessor((queue) => queue.fail)

/**
 * @category accessors
 * @since 0.1.0
 */
export const reschedule = accessor((queue) => queue.reschedule)

/**
 * @category accessors
 * @since 0.1.0
 */
export const retry = accessor((queue) => queue.retry)

/**
 * @category accessors
 * @since 0.1.0
 */
export const pools: Effect.Effect<ReadonlyArray<JobStore.Pool>, KongTaskError, Queue> = Effect.flatMap(
  Queue,
  (queue) => queue.pools
)

/**
 * @category accessors
 * @since 0.1.0
 */
export const forceUnlock = accessor((queue) => queue.forceUnlock)

/**
 * @category accessors
 * @since 0.1.0
 */
export const cleanup = accessor((queue) => queue.cleanup)

/**
 * Makes failed jobs ready again: `Queue.redrive` of the service.
 *
 * **Example**
 *
 * ```ts
 * const those = { task: SendEmail, error: "RateLimited" }
 * const count = yield* Queue.redrive({ ...those, dryRun: true })
 * if (count < 1000) yield* Queue.redrive(those)
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const redrive = accessor((queue) => queue.redrive)

/**
 * @category accessors
 * @since 0.1.0
 */
export const history = accessor((queue) => queue.history)

/**
 * @category accessors
 * @since 0.1.0
 */
export const finished = accessor((queue) => queue.finished)

/**
 * @category accessors
 * @since 0.1.0
 */
export const countHistory = accessor((queue) => queue.countHistory)

/**
 * @category accessors
 * @since 0.1.0
 */
export const forget = accessor((queue) => queue.forget)

/**
 * @category accessors
 * @since 0.1.0
 */
export const stream = (filter?: Filter): Stream.Stream<Job.Job, KongTaskError, Queue> =>
  Stream.unwrap(Effect.map(Queue, (queue) => queue.stream(filter)))

/**
 * Waits for a job's end: `Queue.awaitResult` of the service.
 *
 * **Example**
 *
 * ```ts
 * const job = yield* Queue.add(SendEmail, { to: "a@b.c", subject: "Welcome" }, { retain: "1 hour" })
 * const { messageId } = yield* Queue.awaitResult(SendEmail, job)
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const awaitResult = <T extends Task.Any>(
  task: T,
  job: Job.Job | Job.JobId
): Effect.Effect<
  Task.Success<T>,
  Task.Error<T> | Job.NoResult | KongTaskError,
  Queue | T["successSchema"]["DecodingServices"] | T["errorSchema"]["DecodingServices"]
> => Effect.flatMap(Queue, (queue) => queue.awaitResult(task, job))

/**
 * Adds a job and waits for its end: `Queue.execute` of the service.
 *
 * **Example**
 *
 * ```ts
 * Queue.execute(SendEmail, { to: "a@b.c", subject: "Welcome" }, { cancelOnInterrupt: true }).pipe(
 *   Effect.timeout("1 minute"),
 *   Effect.catchTag("RateLimited", (error) => tellTheUser(error.retryAfter))
 * )
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const execute = <T extends Task.Any>(
  task: T,
  payload: T["payloadSchema"]["~type.make.in"],
  options?: ExecuteOptions
): Effect.Effect<
  Task.Success<T>,
  Task.Error<T> | Job.InvalidJob | Job.DuplicateJobKey | Job.NoResult | KongTaskError,
  | Queue
  | T["payloadSchema"]["EncodingServices"]
  | T["successSchema"]["DecodingServices"]
  | T["errorSchema"]["DecodingServices"]
> => Effect.flatMap(Queue, (queue) => queue.execute(task, payload, options))

/**
 * What the handler of a job reports: `Queue.progress` of the service.
 *
 * @category accessors
 * @since 0.1.0
 */
export const progress = <T extends Task.Any>(
  task: T,
  job: Job.Job | Job.JobId
): Stream.Stream<
  T["progressSchema"]["Type"],
  Job.JobNotFound | Job.UndecodableOutcome | Job.AwaitedInTransaction | KongTaskError,
  Queue | T["progressSchema"]["DecodingServices"]
> => Stream.unwrap(Effect.map(Queue, (queue) => queue.progress(task, job)))

/**
 * Adds jobs that belong together: `Queue.addBundle` of the service.
 *
 * **Example**
 *
 * ```ts
 * Queue.addBundle(
 *   paths.map((path) => ImportFile.request({ path })),
 *   { onSuccess: Bundle.completion(PublishImport), onFailure: Bundle.completion(ReportImport, { to: "ada@example.org" }) }
 * )
 * ```
 *
 * @category bundles
 * @since 0.1.0
 */
export const addBundle = <R extends Task.Request<Task.Any>, CR = never>(
  requests: Iterable<R>,
  options?: Bundle.Options<NoInfer<R["task"]>, CR>
): Effect.Effect<
  { readonly bundle: Bundle.Bundle; readonly jobs: ReadonlyArray<Job.Job> },
  Bundle.InvalidBundle | Job.InvalidJob | Job.DuplicateJobKey | KongTaskError,
  Queue | R["task"]["payloadSchema"]["EncodingServices"] | CR
> => Effect.flatMap(Queue, (queue) => queue.addBundle(requests, options))

/**
 * Adds jobs to a bundle that is not done: `Queue.addToBundle` of the service.
 *
 * @category bundles
 * @since 0.1.0
 */
export const addToBundle = <R extends Task.Request<Task.Any>>(
  bundle: Bundle.BundleId,
  requests: Iterable<R>
): Effect.Effect<
  ReadonlyArray<Job.Job>,
  | Bundle.InvalidBundle
  | Bundle.BundleNotFound
  | Bundle.BundleDone
  | Job.InvalidJob
  | Job.DuplicateJobKey
  | KongTaskError,
  Queue | R["task"]["payloadSchema"]["EncodingServices"]
> => Effect.flatMap(Queue, (queue) => queue.addToBundle(bundle, requests))

/**
 * @category bundles
 * @since 0.1.0
 */
export const bundle = accessor((queue) => queue.bundle)

/**
 * @category bundles
 * @since 0.1.0
 */
export const bundles = accessor((queue) => queue.bundles)

/**
 * @category bundles
 * @since 0.1.0
 */
export const awaitBundle = accessor((queue) => queue.awaitBundle)

/**
 * @category bundles
 * @since 0.1.0
 */
export const deleteBundle = accessor((queue) => queue.deleteBundle)

/**
 * @category bundles
 * @since 0.1.0
 */
export const deleteBundles = accessor((queue) => queue.deleteBundles)

/**
 * What became of a bundle's jobs: `Queue.bundleOutcomes` of the service.
 *
 * @category bundles
 * @since 0.1.0
 */
export const bundleOutcomes = <const Tasks extends ReadonlyArray<Task.Any>>(
  bundle: Bundle.BundleId,
  tasks: Tasks
): Stream.Stream<
  Bundle.Outcome<Tasks[number]>,
  KongTaskError | Schema.SchemaError,
  Queue | Tasks[number]["successSchema"]["DecodingServices"] | Tasks[number]["errorSchema"]["DecodingServices"]
> => Stream.unwrap(Effect.map(Queue, (queue) => queue.bundleOutcomes(bundle, tasks)))

/**
 * @category accessors
 * @since 0.1.0
 */
export const removeMany = accessor((queue) => queue.removeMany)

/**
 * Jobs and bundles that stop: `Queue.events` of the service.
 *
 * **Example**
 *
 * ```ts
 * Queue.events({ task: SendEmail, subscription: "billing" }).pipe(
 *   Stream.runForEach((event) => event._tag === "JobStopped" ? bill(event.job) : Effect.void)
 * )
 * ```
 *
 * @category listeners
 * @since 0.1.0
 */
export const events = (options?: EventsOptions): Stream.Stream<QueueEvent, KongTaskError, Queue> =>
  Stream.unwrap(Effect.map(Queue, (queue) => queue.events(options)))

/**
 * @category listeners
 * @since 0.1.0
 */
export const unsubscribe = accessor((queue) => queue.unsubscribe)

/**
 * @category listeners
 * @since 0.1.0
 */
export const subscriptions: Effect.Effect<
  ReadonlyArray<{ readonly name: string; readonly waiting: number }>,
  KongTaskError,
  Queue
> = Effect.flatMap(Queue, (queue) => queue.subscriptions)
