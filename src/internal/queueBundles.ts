/** What `Queue` does with bundles and listeners, and with many jobs by their origin. */
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type * as Bundle from "../Bundle.ts"
import type * as Job from "../Job.ts"
import type { KongTaskError } from "../KongTaskError.ts"
import type { QueueEvent } from "../QueueEvent.ts"
import type * as Task from "../Task.ts"
import type { Filter } from "./queueInput.ts"

/**
 * Which bundles to look at. All given conditions must hold; an empty filter means every bundle.
 *
 * @category models
 * @since 0.1.0
 */
export interface BundleFilter {
  readonly name?: string | undefined
  readonly origin?: string | undefined
  readonly state?: "open" | "done" | undefined
}

/**
 * One page of `bundles`.
 *
 * @category models
 * @since 0.1.0
 */
export interface BundleListOptions extends BundleFilter {
  /** How many bundles at most, 1 to 10,000; a whole number beyond that counts as the nearer one. Default: 100. */
  readonly limit?: number | undefined
  /** Only bundles added after this one. */
  readonly after?: Bundle.BundleId | undefined
}

/**
 * What `events` tells. All given conditions must hold.
 *
 * @category models
 * @since 0.1.0
 */
export interface EventsOptions {
  /** Jobs of these tasks, and no bundles. */
  readonly task?: Task.Any | ReadonlyArray<Task.Any> | undefined
  /** Jobs of this bundle, and the bundle itself. */
  readonly bundle?: Bundle.BundleId | undefined
  /** Bundles of this name, and no jobs. */
  readonly bundleName?: string | undefined
  /** Jobs and bundles that were added with this `origin`. */
  readonly origin?: string | undefined
  /** A name, 1 to 128 characters, makes it a subscription: each event is kept until it was dealt with. Default: none. */
  readonly subscription?: string | undefined
}

type AddError = Bundle.InvalidBundle | Job.InvalidJob | Job.DuplicateJobKey | KongTaskError

/** A part of the service `Queue`. */
export interface QueueBundles {
  /**
   * Adds jobs that belong together, and says what to run when each of them has stopped. All or nothing; joins the
   * caller's transaction.
   *
   * **Details**
   *
   * 1 to 100,000 jobs of any tasks; an `onComplete`, `onSuccess` or `onFailure` whose payload does not take the outcomes
   * of one of these tasks does not compile. A job's `jobKeyMode` must be one that adds it, and keys must differ. One
   * statement.
   *
   * A job that completes, fails for good or is cancelled is counted when that commits: then, and for the time of the
   * commit only, the bundle's row is locked.
   */
  readonly addBundle: <R extends Task.Request<Task.Any>, CR = never>(
    requests: Iterable<R>,
    options?: Bundle.Options<NoInfer<R["task"]>, CR>
  ) => Effect.Effect<
    { readonly bundle: Bundle.Bundle; readonly jobs: ReadonlyArray<Job.Job> },
    AddError,
    R["task"]["payloadSchema"]["EncodingServices"] | CR
  >

  /**
   * Adds jobs to a bundle that is not done: from a job of it, before that ends, or from outside.
   *
   * **Details**
   *
   * Fails with `BundleDone` or `BundleNotFound`, which leave the caller's transaction as it was. One statement, which
   * waits for nobody. The jobs are counted when the transaction commits.
   *
   * **Gotchas**
   *
   * Where the last other job stops between this call and the commit of the caller's transaction, the commit fails
   * (SQLSTATE `KTBDN`), and nothing of the transaction is written. In a handler of one of the bundle's own jobs that
   * cannot happen.
   */
  readonly addToBundle: <R extends Task.Request<Task.Any>>(
    bundle: Bundle.BundleId,
    requests: Iterable<R>
  ) => Effect.Effect<
    ReadonlyArray<Job.Job>,
    AddError | Bundle.BundleNotFound | Bundle.BundleDone,
    R["task"]["payloadSchema"]["EncodingServices"]
  >

  /** The bundle of that id with its counts, if it is there. One statement. */
  readonly bundle: (id: Bundle.BundleId) => Effect.Effect<Option.Option<Bundle.Bundle>, KongTaskError>

  /** Bundles in the order of their ids. One statement, which reads the bundles up to the limit. */
  readonly bundles: (options?: BundleListOptions) => Effect.Effect<ReadonlyArray<Bundle.Bundle>, KongTaskError>

  /**
   * What became of the jobs of a bundle that have stopped so far, in the order of their ids, in the types of their tasks.
   *
   * **Details**
   *
   * One statement a page of 1,000. An outcome that does not decode by the schema of its task, or is one of another task,
   * fails the stream with `SchemaError`. A bundle that is not there has none.
   */
  readonly bundleOutcomes: <const Tasks extends ReadonlyArray<Task.Any>>(
    bundle: Bundle.BundleId,
    tasks: Tasks
  ) => Stream.Stream<
    Bundle.Outcome<Tasks[number]>,
    KongTaskError | Schema.SchemaError,
    Tasks[number]["successSchema"]["DecodingServices"] | Tasks[number]["errorSchema"]["DecodingServices"]
  >

  /**
   * Waits until a bundle is done, wherever its jobs run, and answers it.
   *
   * **Details**
   *
   * A notification ends the wait; without it, a look every 2 seconds does, one statement each. All waits and `events` of
   * a process share one connection beside the client's pool. Interruptible. Inside a transaction of the queue's client it
   * fails with `AwaitedInTransaction`.
   */
  readonly awaitBundle: (
    bundle: Bundle.BundleId
  ) => Effect.Effect<Bundle.Bundle, Bundle.BundleNotFound | Job.AwaitedInTransaction | KongTaskError>

  /**
   * Deletes a bundle, the outcomes of its jobs, and the jobs themselves; `None` if it is not there.
   *
   * **Details**
   *
   * Jobs that nobody runs are deleted, failed ones too; those that run are told to end, as by `cancel`. No completion job
   * is added. One statement.
   */
  readonly deleteBundle: (id: Bundle.BundleId) => Effect.Effect<Option.Option<Bundle.Bundle>, KongTaskError>

  /** The same for all bundles that a filter finds, and answers how many. One statement, which scans the bundles. */
  readonly deleteBundles: (filter: BundleFilter) => Effect.Effect<number, KongTaskError>

  /**
   * Takes back all jobs that a filter finds, as `remove` does, and answers how many: those that nobody runs are deleted,
   * failed ones too, and those that run lose their key and their further attempts.
   *
   * **Details**
   *
   * One statement a thousand jobs, in the order of their ids, each a transaction of its own unless the caller has one;
   * together they read the jobs once.
   */
  readonly removeMany: (filter: Filter) => Effect.Effect<number, KongTaskError>

  /**
   * Jobs and bundles that stop, in whatever process, of all systems that work on the schema.
   *
   * **Details**
   *
   * Without a `subscription` events are sent by NOTIFY while the stream runs, and lost while its connection is (it
   * connects again by itself), or when its consumer is thousands of messages behind. With one, each event is kept in the
   * database from the first use of the name on, until a consumer asks for the one after it: at least once, whether or not
   * somebody is running. Several consumers of one name share its events; what one has taken and does not deal with is
   * given to another when that one ends, or after a minute without a sign of it. The filter of a name is that of its last
   * use; `unsubscribe` ends it.
   *
   * Nobody pays for what nobody listens to: while there is no listener, each statement that ends jobs looks into an empty
   * table. While there is one, whatever its filter, each job that stops costs a look at its details; an event costs its
   * part of a notification, or a row.
   *
   * A failed job is told once, when it has no attempts left; what becomes of it later is not. A job that its key replaces
   * while it waits goes on under its id, and is told only if it was one of a bundle.
   *
   * **Gotchas**
   *
   * An event of a subscription counts as dealt with when the stream is pulled for the next one: deal with events one by
   * one (`Stream.runForEach`, `Stream.mapEffect` without `concurrency`), not behind a buffer. A subscription that nobody
   * uses any more fills the database until `unsubscribe`.
   */
  readonly events: (options?: EventsOptions) => Stream.Stream<QueueEvent, KongTaskError>

  /** Ends a subscription of `events`, with what waits for it. Answers whether there was one. Two statements in one. */
  readonly unsubscribe: (subscription: string) => Effect.Effect<boolean, KongTaskError>

  /** The subscriptions by their names, and how many events wait for each. One statement, which reads those events. */
  readonly subscriptions: Effect.Effect<
    ReadonlyArray<{ readonly name: string; readonly waiting: number }>,
    KongTaskError
  >
}
