/**
 * What a worker tells of its doings, as tagged data: `Worker.events`.
 *
 * Each event names its pool (a running worker). Match them by `_tag`.
 *
 * @since 0.1.0
 */
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import type * as Job from "./Job.ts"
import type { Recovery, Swept } from "./JobStore.ts"
import type { KongTaskError } from "./KongTaskError.ts"

interface OfPool {
  readonly pool: string
}

interface OfJob extends OfPool {
  readonly job: Job.Running
}

interface OfAttempt extends OfJob {
  /** How long the attempt took, from the start of its handler to the outcome. */
  readonly duration: Duration.Duration
}

/**
 * The pool is registered and about to claim.
 *
 * @category pools
 * @since 0.1.0
 */
export class PoolStarted extends Data.TaggedClass("PoolStarted")<OfPool & { readonly tasks: ReadonlyArray<string> }> {}

/**
 * It connects to be told of new jobs; `attempt` counts since it last listened, from 1.
 *
 * @category pools
 * @since 0.1.0
 */
export class ListenConnecting extends Data.TaggedClass("ListenConnecting")<OfPool & { readonly attempt: number }> {}

/**
 * It is told of new jobs from now on.
 *
 * @category pools
 * @since 0.1.0
 */
export class PoolListening extends Data.TaggedClass("PoolListening")<OfPool> {}

/**
 * The connection on which it was told of new jobs is lost, or could not be made; polling goes on.
 *
 * @category pools
 * @since 0.1.0
 */
export class ListenFailed extends Data.TaggedClass("ListenFailed")<OfPool & { readonly error: KongTaskError }> {}

/**
 * A claim is about to be sent, for at most so many jobs.
 *
 * @category pools
 * @since 0.1.0
 */
export class ClaimStarted extends Data.TaggedClass("ClaimStarted")<OfPool & { readonly limit: number }> {}

/**
 * A claim has found so many jobs.
 *
 * @category pools
 * @since 0.1.0
 */
export class JobsClaimed extends Data.TaggedClass("JobsClaimed")<OfPool & { readonly count: number }> {}

/**
 * A claim found nothing to do.
 *
 * @category pools
 * @since 0.1.0
 */
export class PoolIdle extends Data.TaggedClass("PoolIdle")<OfPool> {}

/**
 * A statement of the pool's own failed; it is tried again while the error is transient.
 *
 * @category pools
 * @since 0.1.0
 */
export class DatabaseUnavailable
  extends Data.TaggedClass("DatabaseUnavailable")<OfPool & { readonly error: KongTaskError }>
{}

/**
 * No more jobs are claimed; `running` handlers are waited for.
 *
 * @category pools
 * @since 0.1.0
 */
export class PoolStopping extends Data.TaggedClass("PoolStopping")<OfPool & { readonly running: number }> {}

/**
 * The time for the handlers is over, or a second signal has come: `running` of them are interrupted.
 *
 * @category pools
 * @since 0.1.0
 */
export class PoolInterrupting extends Data.TaggedClass("PoolInterrupting")<OfPool & { readonly running: number }> {}

/**
 * Everything is settled or given back.
 *
 * @category pools
 * @since 0.1.0
 */
export class PoolStopped extends Data.TaggedClass("PoolStopped")<OfPool> {}

/**
 * It was declared dead, or could not confirm its lease; its handlers are interrupted and their outcomes dropped, and the
 * worker goes on as a new pool.
 *
 * @category pools
 * @since 0.1.0
 */
export class PoolLost extends Data.TaggedClass("PoolLost")<OfPool & { readonly reason: string }> {}

/**
 * The process's event loop stood still for so long that the lease was at risk; a handler computes without ever giving
 * way, and should run in a worker thread or yield.
 *
 * @category pools
 * @since 0.1.0
 */
export class PoolBlocked extends Data.TaggedClass("PoolBlocked")<OfPool & { readonly blocked: Duration.Duration }> {}

/**
 * It released the jobs of dead pools.
 *
 * @category pools
 * @since 0.1.0
 */
export class PoolsReleased extends Data.TaggedClass("PoolsReleased")<OfPool & { readonly recovery: Recovery }> {}

/**
 * It looked for locks whose holders no heartbeat can find dead, and took these.
 *
 * @category pools
 * @since 0.1.0
 */
export class LocksSwept extends Data.TaggedClass("LocksSwept")<OfPool & { readonly swept: Swept }> {}

/**
 * A handler begins an attempt.
 *
 * @category jobs
 * @since 0.1.0
 */
export class JobStarted extends Data.TaggedClass("JobStarted")<OfJob> {}

/**
 * The success is recorded in the database.
 *
 * @category jobs
 * @since 0.1.0
 */
export class JobCompleted extends Data.TaggedClass("JobCompleted")<OfAttempt> {}

/**
 * The failure is recorded in the database.
 *
 * @category jobs
 * @since 0.1.0
 */
export class JobFailed extends Data.TaggedClass("JobFailed")<
  OfAttempt & {
    /** What is recorded as the job's last error. */
    readonly error: string
    /** The time until the next attempt; `undefined` when the job has failed for good. */
    readonly retryIn: Duration.Duration | undefined
  }
> {}

/**
 * The job is put off, no attempt charged.
 *
 * @category jobs
 * @since 0.1.0
 */
export class JobSnoozed extends Data.TaggedClass("JobSnoozed")<OfAttempt & { readonly delay: Duration.Duration }> {}

/**
 * The job is ended, by its handler or by `Queue.cancel`.
 *
 * @category jobs
 * @since 0.1.0
 */
export class JobCancelled
  extends Data.TaggedClass("JobCancelled")<OfAttempt & { readonly reason: string | undefined }>
{}

/**
 * The job is given back, no attempt charged.
 *
 * @category jobs
 * @since 0.1.0
 */
export class JobReleased extends Data.TaggedClass("JobReleased")<OfJob> {}

/**
 * The outcome was not recorded, because the job was not this pool's any more.
 *
 * @category jobs
 * @since 0.1.0
 */
export class JobLost extends Data.TaggedClass("JobLost")<OfJob> {}

/**
 * @category models
 * @since 0.1.0
 */
export type WorkerEvent =
  | PoolStarted
  | ListenConnecting
  | PoolListening
  | ListenFailed
  | ClaimStarted
  | JobsClaimed
  | PoolIdle
  | DatabaseUnavailable
  | PoolStopping
  | PoolInterrupting
  | PoolStopped
  | PoolLost
  | PoolBlocked
  | PoolsReleased
  | LocksSwept
  | JobStarted
  | JobCompleted
  | JobFailed
  | JobSnoozed
  | JobCancelled
  | JobReleased
  | JobLost
