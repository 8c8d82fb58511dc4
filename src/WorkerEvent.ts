/**
 * What a worker tells of its doings, as tagged data: `Worker.events`.
 *
 * @since 0.1.0
 */
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import type * as Job from "./Job.ts"
import type { Recovery } from "./JobStore.ts"
import type { KongTaskError } from "./KongTaskError.ts"

/**
 * An event of one pool (a running worker).
 *
 * **Details**
 *
 * - `PoolStarted`: the pool is registered and about to claim
 * - `PoolListening`: it is told of new jobs; again after each reconnection
 * - `PoolIdle`: a claim found nothing to do
 * - `PoolStopping`: no more jobs are claimed; `running` handlers are waited for
 * - `PoolStopped`: everything is settled or given back
 * - `PoolLost`: it was declared dead, or could not confirm its lease; its handlers are interrupted and their outcomes
 *   dropped, and the worker goes on as a new pool
 * - `PoolBlocked`: the process's event loop stood still for so long that the lease was at risk; a handler computes
 *   without ever giving way, and should run in a worker thread or yield
 * - `PoolsReleased`: it released the jobs of dead pools
 * - `JobStarted`: a handler begins an attempt
 * - `JobCompleted`, `JobFailed`, `JobSnoozed`, `JobCancelled`, `JobReleased`: the outcome is recorded in the database
 * - `JobLost`: the outcome was not recorded, because the job was not this pool's any more
 * - `DatabaseUnavailable`: a statement of the pool's own failed; it is tried again while the error is transient
 *
 * @category models
 * @since 0.1.0
 */
export type WorkerEvent = Data.TaggedEnum<{
  PoolStarted: { readonly pool: string }
  PoolListening: { readonly pool: string }
  PoolIdle: { readonly pool: string }
  PoolStopping: { readonly pool: string; readonly running: number }
  PoolStopped: { readonly pool: string }
  PoolLost: { readonly pool: string; readonly reason: string }
  PoolBlocked: { readonly pool: string; readonly blocked: Duration.Duration }
  PoolsReleased: { readonly pool: string; readonly recovery: Recovery }
  JobStarted: { readonly pool: string; readonly job: Job.Running }
  JobCompleted: { readonly pool: string; readonly job: Job.Running }
  JobFailed: {
    readonly pool: string
    readonly job: Job.Running
    /** What is recorded as the job's last error. */
    readonly error: string
    /** The time until the next attempt; `undefined` when the job has failed for good. */
    readonly retryIn: Duration.Duration | undefined
  }
  JobSnoozed: { readonly pool: string; readonly job: Job.Running; readonly delay: Duration.Duration }
  JobCancelled: { readonly pool: string; readonly job: Job.Running; readonly reason: string | undefined }
  JobReleased: { readonly pool: string; readonly job: Job.Running }
  JobLost: { readonly pool: string; readonly job: Job.Running }
  DatabaseUnavailable: { readonly pool: string; readonly error: KongTaskError }
}>

/**
 * Constructors, `$is` and `$match` of `WorkerEvent`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const WorkerEvent = Data.taggedEnum<WorkerEvent>()
