/**
 * The one seam to a database: everything that the queue reads and writes.
 *
 * Each database has one implementation under `src/internal/`, and each of them
 * passes the store test-suite. Nothing above this interface holds SQL.
 *
 * **Words**
 *
 * A *pool* is a running worker, known by its id. A *claim* charges an attempt
 * and writes the pool's id into the job; only the holder may *settle* it: say
 * that it completed, failed, or is given back (*released*).
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { Bundling } from "./internal/bundleStorage.ts"
import type { Listening } from "./internal/listenerStorage.ts"
import type { Scheduling } from "./internal/scheduler/storage.ts"
import type * as Job from "./Job.ts"
import type { KongTaskError } from "./KongTaskError.ts"

export type {
  BundleFilter,
  BundleSpec,
  Bundling,
  CompletionSpec,
  OutcomePlace,
  StoredOutcome
} from "./internal/bundleStorage.ts"
export type { ListenerFilter, Listening, StopNews, StoredEvent } from "./internal/listenerStorage.ts"
export type { DueRun, KnownSchedule, RunOutcome, Scheduling, StoredRow } from "./internal/scheduler/storage.ts"

/**
 * A job to add, checked and encoded.
 *
 * @category models
 * @since 0.1.0
 */
export interface JobSpec {
  readonly task: string
  /** JSON text. */
  readonly payload: string
  readonly queueName: string | undefined
  /** Milliseconds since the epoch. */
  readonly runAt: number | undefined
  /** Milliseconds from now, by the database's clock. */
  readonly delay: number | undefined
  readonly maxAttempts: number | undefined
  readonly priority: number | undefined
  readonly key: string | undefined
  readonly keyMode: Job.KeyMode | undefined
  readonly flags: ReadonlyArray<string> | undefined
  /** What few jobs have; none of it for a job that only finds another one with its key. */
  readonly details?: JobDetails | undefined
}

/**
 * What a job has beyond the columns of every job. A job without any of it costs nothing more.
 *
 * @category models
 * @since 0.1.0
 */
export interface JobDetails {
  /** For how many milliseconds the history keeps the job when it has stopped; 0 for not at all, whatever its worker says. */
  readonly retain?: number | undefined
  /** Whether somebody will wait for its end, which is announced then. */
  readonly awaited?: boolean | undefined
  readonly origin?: string | undefined
  /** JSON text. */
  readonly metadata?: string | undefined
  /** A W3C traceparent. */
  readonly trace?: string | undefined
}

/**
 * What a worker is told of a job's details.
 *
 * @category models
 * @since 0.1.0
 */
export interface HandedDetails {
  /** Whether the history keeps the job; `undefined` leaves that to the worker. */
  readonly retains: boolean | undefined
  readonly origin: string | undefined
  /** Decoded JSON. */
  readonly metadata: unknown
  readonly trace: string | undefined
  readonly bundle: string | undefined
}

/**
 * What is kept of a job that has completed.
 *
 * @category models
 * @since 0.1.0
 */
export interface Kept {
  /** The result as JSON text. */
  readonly result?: string | undefined
  /** For how many milliseconds, where the job itself does not say. */
  readonly retain?: number | undefined
}

/**
 * A claimed job: what its handler is told, and the payload.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClaimedJob extends Job.Running {
  /** Decoded JSON, not yet decoded by the task's schema. */
  readonly payload: unknown
  /** Left out for a job that has none. */
  readonly details?: HandedDetails | undefined
}

/**
 * Which jobs a pool wants.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClaimRequest {
  readonly pool: string
  /** The names of the tasks that the pool has handlers for. */
  readonly tasks: ReadonlyArray<string>
  /** At most so many, 1 or more; see `runs`. */
  readonly limit: number
  /**
   * How many of them will start at once; the others wait their turn, so that a crash charges them for nothing. Jobs on
   * their last attempt are only among the first so many. Left out: all of them.
   */
  readonly start?: number | undefined
  /**
   * How many jobs of a queue may be claimed at once, of each of the tasks: jobs that stand behind each other in the queue,
   * to be executed one after the other. Where tasks mix, each job counts as its part of a whole run. `limit` counts the
   * first one only; all queues together give 500 at most, or `limit` if that is more. The others are never on their last
   * attempt. Left out: one each.
   */
  readonly runs?: ReadonlyArray<number> | undefined
  /**
   * Jobs with one of these flags are passed over. A claim looks past a bounded number of them, so that others behind
   * very many of them may need several claims to be found.
   */
  readonly forbiddenFlags?: ReadonlyArray<string> | undefined
  /** At which time its jobs are due, in milliseconds since the epoch. Default: now, by the database's clock. */
  readonly dueAt?: number | undefined
  /** Whether to send the pool's heartbeat along. Default: false. */
  readonly beat?: boolean | undefined
}

/**
 * What a claim found.
 *
 * @category models
 * @since 0.1.0
 */
export interface Claim {
  /** In the order of (priority, runAt, id). */
  readonly jobs: ReadonlyArray<ClaimedJob>
  /**
   * Whether jobs were due that could not be had at that moment, because others
   * were claiming them, or may be due in queues that this claim did not get to;
   * only said when `jobs` is empty.
   */
  readonly contended: boolean
  /** Milliseconds until the next waiting job is due; only said when `jobs` is empty. */
  readonly nextDueIn: number | undefined
  /** What the heartbeat that was sent along has told. */
  readonly heartbeat?: Heartbeat | undefined
}

/**
 * What became of a claimed job.
 *
 * @category models
 * @since 0.1.0
 */
export type Settlement =
  | { readonly _tag: "Completed"; readonly id: Job.JobId; readonly keep?: Kept | undefined }
  | {
    readonly _tag: "Failed"
    readonly id: Job.JobId
    /** What is recorded as the job's last error. */
    readonly error: string
    /** Milliseconds until the next attempt; `undefined` fails the job for good. */
    readonly retryIn: number | undefined
    /** The time that `retryIn` counts from, in milliseconds since the epoch. Default: now, by the database's clock. */
    readonly since?: number | undefined
    /** What is recorded of the attempt: its number, the kind of error, and the error itself as JSON text. */
    readonly record?: { readonly attempt: number; readonly tag: string; readonly data: string | undefined } | undefined
    /** Which entries of a payload that is an array stay in it, counted from 0; left out, it stays as it is. */
    readonly keep?: ReadonlyArray<number> | undefined
    /** For how many milliseconds the history keeps a job that fails for good and is deleted, where it does not say so itself. */
    readonly retain?: number | undefined
  }
  /** Ended for good, neither completed nor failed. */
  | {
    readonly _tag: "Cancelled"
    readonly id: Job.JobId
    readonly reason: string | undefined
    /** As of a failed one. */
    readonly retain?: number | undefined
  }
  /** Given back, due in so many milliseconds from `since` on, as of a failed one: the attempt is not charged. */
  | {
    readonly _tag: "Snoozed"
    readonly id: Job.JobId
    readonly attempt: number
    readonly delay: number
    readonly since?: number | undefined
  }
  /** Given back: the attempt is not charged, unless somebody changed the job's attempts since. */
  | { readonly _tag: "Released"; readonly id: Job.JobId; readonly attempt: number }

/**
 * Which jobs a pool wants to hold in a batch.
 *
 * @category models
 * @since 0.1.0
 */
export interface BatchRequest {
  readonly pool: string
  readonly tasks: ReadonlyArray<string>
  /** At most so many, 1 or more. */
  readonly limit: number
  /** Which of the pool's streams of batches this is: each holds one batch at a time. Default: the pool's only one. */
  readonly stream?: string | undefined
  /** Only jobs of one task and priority, from after that place on: a hint that saves work, and may miss jobs. */
  readonly after?: Place | undefined
  /** How large the payload of a job is, in characters, where that is known: large ones are not sent together. */
  readonly payloadSize?: number | undefined
  /** As of a claim. */
  readonly dueAt?: number | undefined
}

/**
 * Where a job stands among those of its task and priority.
 *
 * @category models
 * @since 0.1.0
 */
export interface Place {
  readonly task: string
  readonly priority: number
  /** Milliseconds since the epoch, to the microsecond. */
  readonly runAt: number
  readonly id: Job.JobId
}

/**
 * Jobs that are held by nothing but the locks of an open transaction. No claim
 * was written and no attempt charged; closing the scope without `settle` makes
 * them available again as they were.
 *
 * @category models
 * @since 0.1.0
 */
export interface Batch {
  /** How many jobs it holds. */
  readonly count: number
  /** It holds none because the batches of all pools hold so many already; others are waited for, a quarter of a second at most. */
  readonly isCrowded: boolean
  /** About how large their payloads are together, in characters of JSON. */
  readonly size: number
  /** The place of the last one, when they are all of one task and priority, and as many as were asked for. */
  readonly last: Place | undefined
  /**
   * Notes what is about to run, and answers the jobs that may be run: in the order of (priority, runAt, id), none with a
   * queue. Jobs that have failed before, or have a single attempt, are not among them, nor are those behind the first such
   * job. None at all when another pool's note names some: these are charged, all go back, and the batch is over. And none
   * when another batch of this pool was running some: its transaction was lost. One statement, and a commit after a charge.
   */
  readonly start: Effect.Effect<ReadonlyArray<ClaimedJob>, KongTaskError>
  /**
   * Writes a durable claim for these jobs into the batch's transaction, as if
   * they had been claimed by the pool; it takes effect with `settle`. Answers
   * those that it has claimed: none for a pool that is not registered any more.
   */
  readonly promote: (ids: ReadonlyArray<Job.JobId>) => Effect.Effect<ReadonlySet<Job.JobId>, KongTaskError>
  /**
   * Writes the outcomes and commits. Jobs that are neither named here nor
   * promoted stay as they were. Outcomes that the database refuses for their
   * content keep no others from being written: their jobs are claimed by the
   * pool instead, and answered as `refused`.
   *
   * `next` asks for the stream's next batch in the same round trip, which belongs to the scope of this one.
   */
  readonly settle: (
    settlements: ReadonlyArray<Settlement>,
    next?: Omit<BatchRequest, "pool" | "stream">
  ) => Effect.Effect<{
    readonly refused: ReadonlySet<Job.JobId>
    readonly next: Batch | undefined
  }, KongTaskError>
}

/**
 * What one measurement of the queue has found.
 *
 * @category models
 * @since 0.1.0
 */
export interface Depths {
  /** Jobs by task and state; what there is none of is left out. */
  readonly jobs: ReadonlyArray<{ readonly task: string; readonly state: Job.State; readonly count: number }>
  /** For how long the oldest job that could run has been due, by task. Tasks without one are left out. */
  readonly oldestReady: ReadonlyMap<string, Duration.Duration>
  /** There are more jobs than a measurement reads: the counts are lower bounds. */
  readonly isPartial: boolean
}

/**
 * Which jobs `list`, `count` and `stats` look at. All given conditions must hold. Times are milliseconds since the
 * epoch; `After` includes the time, `Before` does not.
 *
 * @category models
 * @since 0.1.0
 */
export interface Filter {
  readonly tasks?: ReadonlyArray<string> | undefined
  readonly states?: ReadonlyArray<Job.State> | undefined
  readonly queueName?: string | undefined
  readonly key?: string | undefined
  readonly flag?: string | undefined
  readonly origin?: string | undefined
  readonly bundle?: Job.BundleId | undefined
  readonly addedAfter?: number | undefined
  readonly addedBefore?: number | undefined
  readonly runAfter?: number | undefined
  readonly runBefore?: number | undefined
}

/**
 * How many jobs there are in each state.
 *
 * @category models
 * @since 0.1.0
 */
export type Counts = Readonly<Record<Job.State, number>>

/**
 * How many jobs there are: of all, of each task, and of each named queue.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  readonly all: Counts
  /** By the task's name; tasks without jobs are left out. */
  readonly tasks: ReadonlyMap<string, Counts>
  /** By the queue's name; queues without jobs are left out. */
  readonly queues: ReadonlyMap<string, Counts>
}

/**
 * What `reschedule` changes; what is left out stays.
 *
 * @category models
 * @since 0.1.0
 */
export interface Changes {
  /** Milliseconds since the epoch. */
  readonly runAt: number | undefined
  /** Milliseconds from now, by the database's clock. */
  readonly delay: number | undefined
  readonly priority: number | undefined
  readonly attempts: number | undefined
  readonly maxAttempts: number | undefined
}

/**
 * What a cleanup deletes.
 *
 * @category models
 * @since 0.1.0
 */
export interface CleanupRequest {
  readonly tasks: boolean
  readonly queues: boolean
  /** Jobs that failed for good longer ago than these milliseconds; `undefined` keeps all. */
  readonly failedJobs: number | undefined
}

/**
 * How many of each a cleanup has deleted.
 *
 * @category models
 * @since 0.1.0
 */
export interface Cleanup {
  readonly tasks: number
  readonly queues: number
  readonly failedJobs: number
}

/**
 * A pool that is registered, or that holds jobs or queues: a running worker, or one that is gone.
 *
 * @category models
 * @since 0.1.0
 */
export interface Pool {
  readonly id: string
  /** When it registered; `undefined` for what is not registered: graphile-worker's, or one whose row is gone. */
  readonly startedAt: DateTime.Utc | undefined
  readonly heartbeatAt: DateTime.Utc | undefined
  readonly lease: Duration.Duration | undefined
  /** Whether its lease runs, by the database's clock; `undefined` where there are no heartbeats to tell. */
  readonly isAlive: boolean | undefined
  /** How many claimed jobs it holds; those that only row locks hold are not seen. */
  readonly jobs: number
  /** How many named queues it holds. */
  readonly queues: number
  /** When it claimed the job that it has held the longest. */
  readonly oldestClaim: DateTime.Utc | undefined
}

/**
 * One page of `list`, in the order of ids.
 *
 * @category models
 * @since 0.1.0
 */
export interface Page {
  readonly limit: number
  /** Only jobs with a greater id. */
  readonly after?: Job.JobId | undefined
}

/**
 * A pool's sign of life.
 *
 * @category models
 * @since 0.1.0
 */
export interface Heartbeat {
  /** False when the pool was declared dead: its jobs are no longer its own and its id must not be used again. */
  readonly isAlive: boolean
  /** Pools whose lease has run out, to be given to `releasePools`. */
  readonly deadPools: ReadonlyArray<string>
  /** Jobs of this pool that are to be cancelled: interrupted, and settled as such. */
  readonly cancelled: ReadonlyArray<Job.JobId>
}

/**
 * What was taken from dead pools.
 *
 * @category models
 * @since 0.1.0
 */
export interface Recovery {
  /** The pools that this call declared dead. */
  readonly pools: ReadonlyArray<string>
  /** Jobs that may run again. */
  readonly released: number
  /** Jobs that had no attempt left and have failed. */
  readonly failed: number
}

/**
 * What a sweep took from holders that are gone.
 *
 * @category models
 * @since 0.1.0
 */
export type Swept = Omit<Recovery, "pools">

/**
 * How a job stands, for those who wait for it.
 *
 * @category models
 * @since 0.1.0
 */
export type Observation =
  /** Nothing is known of it: whether there has ever been such a job. */
  | { readonly _tag: "Unknown"; readonly existed: boolean }
  | { readonly _tag: "Live"; readonly task: string; readonly revision: number; readonly progress: Progress | undefined }
  | {
    readonly _tag: "Stopped"
    readonly task: string
    readonly state: Job.State
    /** The last error, or why it was cancelled. */
    readonly error: string | undefined
    readonly attempts: ReadonlyArray<Job.FailedAttempt>
    /** Decoded JSON, not yet decoded by the task's schema; `undefined` where there is none. */
    readonly result: unknown
    /** False where nothing but its end was kept. */
    readonly isRetained: boolean
  }

/**
 * Which finished jobs `history` and `countHistory` look at. As in `Filter`.
 *
 * @category models
 * @since 0.1.0
 */
export interface HistoryFilter {
  readonly tasks?: ReadonlyArray<string> | undefined
  readonly states?: ReadonlyArray<Job.State> | undefined
  readonly queueName?: string | undefined
  readonly key?: string | undefined
  readonly stoppedAfter?: number | undefined
  readonly stoppedBefore?: number | undefined
  readonly addedAfter?: number | undefined
  readonly addedBefore?: number | undefined
}

/**
 * What a handler has last reported.
 *
 * @category models
 * @since 0.1.0
 */
export interface Progress {
  /** Milliseconds since the epoch. */
  readonly at: number
  /** Decoded JSON, not yet decoded by the task's schema. */
  readonly value: unknown
}

/**
 * What a store announces.
 *
 * @category models
 * @since 0.1.0
 */
export type Announcement =
  | { readonly _tag: "Listening" }
  | { readonly _tag: "JobsAdded"; readonly count: number }
  /** A `probe` has come through. */
  | { readonly _tag: "Probed"; readonly pool: string }
  /** The next heartbeat of that pool will name the job. */
  | { readonly _tag: "CancellationRequested"; readonly pool: string }

/**
 * What a store can do beyond the minimum.
 *
 * @category models
 * @since 0.1.0
 */
export interface Capabilities {
  /** Whether `batch` works: a job can be held by a row lock that others skip. */
  readonly batch: boolean
  /** Whether `notifications` announces jobs that other processes add. */
  readonly notifications: boolean
}

/**
 * What a database has to offer.
 *
 * @category models
 * @since 0.1.0
 */
export interface Store {
  readonly capabilities: Capabilities

  /**
   * Adds one job; joins the caller's transaction, which a `DuplicateJobKey` leaves usable. One statement, which jobs
   * without a key that are added at the same time outside of transactions may share: a failure is its caller's only,
   * unless the connection was lost, and an interruption that comes too late leaves the job added.
   */
  readonly add: (spec: JobSpec) => Effect.Effect<Job.Job, Job.InvalidJob | Job.DuplicateJobKey | KongTaskError>

  /**
   * Adds jobs in the given order, all or none; joins the caller's transaction, which a `DuplicateJobKey` leaves usable.
   * One statement, one announcement. Calls that have the same keys wait for each other, and never in a circle.
   */
  readonly addMany: (
    specs: ReadonlyArray<JobSpec>
  ) => Effect.Effect<ReadonlyArray<Job.Job>, Job.InvalidJob | Job.DuplicateJobKey | KongTaskError>

  readonly get: (id: Job.JobId) => Effect.Effect<Option.Option<Job.Job>, KongTaskError>
  /** The recorded failed attempts of a job, at most the last 100, in their order. */
  readonly failedAttempts: (id: Job.JobId) => Effect.Effect<ReadonlyArray<Job.FailedAttempt>, KongTaskError>
  readonly list: (filter: Filter, page: Page) => Effect.Effect<ReadonlyArray<Job.Job>, KongTaskError>

  /**
   * How a job stands that was asked for at a revision, or at the current one; with `announce`, `watched` will tell of its
   * end, and of what it reports until then. One statement. Fails inside a transaction of this store's client.
   */
  readonly observe: (
    id: Job.JobId,
    revision: number | undefined,
    announce: boolean
  ) => Effect.Effect<Observation, Job.AwaitedInTransaction | KongTaskError>

  /**
   * The jobs of the history, newest first: those that stopped last, and of one time those added last. A page begins after
   * the job that stopped at that time, in milliseconds.
   */
  readonly history: (
    filter: HistoryFilter,
    page: {
      readonly limit: number
      readonly after?: { readonly stoppedAt: number; readonly id: Job.JobId } | undefined
    }
  ) => Effect.Effect<ReadonlyArray<Job.Finished>, KongTaskError>

  /** A job of the history, as it stopped last. */
  readonly finished: (id: Job.JobId) => Effect.Effect<Option.Option<Job.Finished>, KongTaskError>

  readonly countHistory: (filter: HistoryFilter) => Effect.Effect<number, KongTaskError>

  /** Deletes at most so many jobs from the history that the filter finds, and answers how many. Waits for nobody. */
  readonly forget: (filter: HistoryFilter, limit: number) => Effect.Effect<number, KongTaskError>

  /** Deletes at most so many jobs from the history whose time is over, and answers how many. Waits for nobody. */
  readonly expire: (limit: number) => Effect.Effect<number, KongTaskError>

  /**
   * Makes at most `limit` failed jobs with greater ids than `after` ready, as `retry` does, or only counts them; `error` is
   * what their last error contains. `last` is where to go on, if there may be more.
   */
  readonly redrive: (
    filter: Filter,
    page: {
      readonly limit: number
      readonly after?: Job.JobId | undefined
      readonly error?: string | undefined
      readonly isDryRun: boolean
    }
  ) => Effect.Effect<{ readonly count: number; readonly last: Job.JobId | undefined }, KongTaskError>

  /** Fails inside a transaction of this store's client, where nobody may wait for a job. */
  readonly mayWait: Effect.Effect<void, Job.AwaitedInTransaction>

  /**
   * Tells that there is news of observed jobs, on a connection of its own. Fails when that is lost; running it again
   * connects anew. The first element is empty: it says that it listens.
   */
  readonly watched: Stream.Stream<ReadonlyArray<Job.JobId>, KongTaskError>

  /** Writes what the handler of a job reports, as JSON text, and answers whether the pool still holds the job. */
  readonly report: (pool: string, id: Job.JobId, progress: string) => Effect.Effect<boolean, KongTaskError>
  /**
   * Takes back the jobs of one page, as `remove` does: how many there were, and the last one if there may be more. Joins
   * the caller's transaction. One statement.
   */
  readonly removeMany: (
    filter: Filter,
    page: Page
  ) => Effect.Effect<{ readonly count: number; readonly last: Job.JobId | undefined }, KongTaskError>
  readonly count: (filter: Filter) => Effect.Effect<number, KongTaskError>
  /** One statement. */
  readonly stats: (filter: Filter) => Effect.Effect<Stats, KongTaskError>
  /**
   * Counts jobs by task and state, when nobody has done so within that time; `None` otherwise. Two statements; reads at
   * most a million jobs, and waits for nobody.
   */
  readonly measure: (unlessWithin: Duration.Duration) => Effect.Effect<Option.Option<Depths>, KongTaskError>

  /**
   * Deletes a job that nobody holds. One that is running loses its key and its
   * remaining attempts instead. Answers the job as it is after that, or as it
   * was before the deletion.
   */
  readonly remove: (
    target: { readonly id: Job.JobId } | { readonly key: string }
  ) => Effect.Effect<Option.Option<Job.Job>, KongTaskError>

  /**
   * Ends a job: deletes one that nobody holds (its state is then `cancelled`), asks the pool that runs it to interrupt it
   * (`running`), or, where that pool cannot be asked, takes its key and its remaining attempts.
   */
  readonly cancel: (id: Job.JobId) => Effect.Effect<Option.Option<Job.Job>, KongTaskError>

  /**
   * Deletes jobs as if they had completed, and answers them as they were, their state `completed`. Like the next three
   * it joins the caller's transaction, leaves alone whatever is held or not there, and answers in the order of ids.
   */
  readonly complete: (ids: ReadonlyArray<Job.JobId>) => Effect.Effect<ReadonlyArray<Job.Job>, KongTaskError>

  /** Fails jobs for good. */
  readonly fail: (
    ids: ReadonlyArray<Job.JobId>,
    message: string | undefined
  ) => Effect.Effect<ReadonlyArray<Job.Job>, KongTaskError>

  /** Changes jobs and announces them. */
  readonly reschedule: (
    ids: ReadonlyArray<Job.JobId>,
    changes: Changes
  ) => Effect.Effect<ReadonlyArray<Job.Job>, KongTaskError>

  /** Makes jobs due now, no attempt charged, their last error kept, and announces them. */
  readonly retry: (ids: ReadonlyArray<Job.JobId>) => Effect.Effect<ReadonlyArray<Job.Job>, KongTaskError>

  /**
   * Takes from pools what they hold, alive or not, and answers it; the attempts stay charged. A living pool is lost by
   * it, as after `releasePools`.
   */
  readonly forceUnlock: (pools: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<Job.Job>, KongTaskError>

  /** Pools, the oldest first, then those that are not registered. One statement, which scans the jobs. */
  readonly pools: Effect.Effect<ReadonlyArray<Pool>, KongTaskError>

  /** Deletes old failed jobs, then tasks and queues without jobs; no job that is being added at that moment loses its own. */
  readonly cleanup: (request: CleanupRequest) => Effect.Effect<Cleanup, KongTaskError>

  /**
   * Claims due jobs. One statement, committed at once. A pool that is not registered gets nothing, for nobody would
   * release it.
   */
  readonly claim: (request: ClaimRequest) => Effect.Effect<Claim, KongTaskError>

  /**
   * Holds due jobs by row locks only, while the scope is open. What it holds is noted beside the transaction, so that
   * whoever finds a job there that nobody holds any more knows that this batch ended badly: such a job is charged an
   * attempt, and left to claims. Needs `capabilities.batch`; dies without it, as the next two do.
   */
  readonly batch: (request: BatchRequest) => Effect.Effect<Batch, KongTaskError, Scope.Scope>

  /**
   * Takes the note of a stream's batch back, when its transaction was lost but not by the fault of its jobs. Answers
   * whether there was one: after a `settle` without an answer, none means that it was committed.
   */
  readonly forgetBatch: (stream: string) => Effect.Effect<boolean, KongTaskError>

  /**
   * Records outcomes of a batch whose transaction was lost, of those jobs that nobody has changed or holds since, and
   * answers their ids.
   */
  readonly settleLate: (
    pool: string,
    outcomes: ReadonlyArray<{ readonly job: ClaimedJob; readonly settlement: Settlement }>
  ) => Effect.Effect<ReadonlySet<Job.JobId>, KongTaskError>

  /**
   * Records outcomes of jobs that the pool holds, all in one statement, and
   * answers the ids that it did hold. The others are nobody's business any more:
   * they were released, removed, or claimed by another pool.
   *
   * A queue is freed with its job, unless one of `held` is another job of it that the pool holds.
   */
  readonly settle: (
    pool: string,
    settlements: ReadonlyArray<Settlement>,
    held?: ReadonlyArray<Job.JobId>
  ) => Effect.Effect<ReadonlySet<Job.JobId>, KongTaskError>

  /**
   * Runs an effect in a transaction of this store's client and completes the pool's job in the same one: both happen, or
   * neither. Succeeds with `None`, and without the effect's writes, when the job was not the pool's any more. When the
   * connection breaks at the commit, or gives no answer before the deadline, the job's row tells what became of it.
   * `held` is asked for when the effect has ended, and means what it does in `settle`; `keep` is what is to be kept.
   */
  readonly completeWith: <A, E, R>(
    pool: string,
    id: Job.JobId,
    effect: Effect.Effect<A, E, R>,
    deadline: Duration.Duration,
    held?: () => ReadonlyArray<Job.JobId>,
    keep?: (value: A) => Kept | undefined
  ) => Effect.Effect<Option.Option<A>, E | KongTaskError, R>

  /**
   * Gives back uncharged whatever the pool holds beyond the jobs that it knows of, for after a claim whose answer was
   * lost. Scans the jobs once.
   */
  readonly releaseUnknown: (pool: string, known: ReadonlyArray<Job.JobId>) => Effect.Effect<void, KongTaskError>

  /** Makes a pool known, with the time that it may be silent before it counts as dead. */
  readonly registerPool: (pool: string, lease: Duration.Duration) => Effect.Effect<void, KongTaskError>

  /** Confirms that a pool is alive, looks for dead ones, and for jobs of its own to cancel. One statement. */
  readonly heartbeat: (pool: string) => Effect.Effect<Heartbeat, KongTaskError>

  /**
   * Forgets a pool that has stopped, and releases uncharged whatever it still holds, which scans the jobs once;
   * `mayHold: false` says that it holds nothing, and spares the scan. Default: true.
   */
  readonly deregisterPool: (pool: string, mayHold?: boolean) => Effect.Effect<void, KongTaskError>

  /**
   * Declares pools dead and releases their jobs and queues at once; the attempt
   * stays charged, and a job without attempts left has failed. `"all"` is for a
   * database that nobody else can have open.
   */
  readonly releasePools: (pools: ReadonlyArray<string> | "all") => Effect.Effect<Recovery, KongTaskError>

  /**
   * Takes from holders that no heartbeat can find dead: pools of ours that are not registered, once their locks are older
   * than the lease, and other systems' after four hours; forgets what is recorded of jobs that are gone. Done at most once
   * in five minutes by all pools together; `undefined` when it was not due. Scans the jobs once.
   */
  readonly sweep: (lease: Duration.Duration) => Effect.Effect<Swept | undefined, KongTaskError>

  /**
   * Renews the locks of jobs that the pool has held for an hour: graphile-worker frees what was locked four hours ago.
   */
  readonly renew: (pool: string, ids: ReadonlyArray<Job.JobId>) => Effect.Effect<void, KongTaskError>

  /**
   * Announces added jobs, requested cancellations and probes. Fails when the connection is
   * lost; running it again connects anew, and its first element says that it
   * listens.
   */
  readonly notifications: Stream.Stream<Announcement, KongTaskError>

  /** Sends something that `notifications` announces, if it hears anything at all. */
  readonly probe: (pool: string) => Effect.Effect<void, KongTaskError>

  /** What schedules need. */
  readonly scheduling: Scheduling

  /** What bundles need. */
  readonly bundling: Bundling

  /** What listeners need. */
  readonly listening: Listening

  /** This store on a few connections of its own, which belong to the scope: for a worker. */
  readonly dedicated: Effect.Effect<Store, KongTaskError, Scope.Scope>
}

/**
 * @category services
 * @since 0.1.0
 */
export class JobStore extends Context.Service<JobStore, Store>()("kongtask/JobStore") {}
