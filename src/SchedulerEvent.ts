/**
 * What a scheduler tells of its doings, as tagged data: `Scheduler.events`.
 *
 * Match them by `_tag`. Instants are those at which schedules are due, not those
 * at which it is told.
 *
 * @since 0.1.0
 */
import * as Data from "effect/Data"
import type * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import type { InvalidCrontab } from "./Crontab.ts"
import type { InvalidSchedule } from "./internal/scheduler/item.ts"
import type * as Job from "./Job.ts"
import type { KongTaskError } from "./KongTaskError.ts"

interface OfScheduler {
  readonly scheduler: string
}

interface OfSchedule extends OfScheduler {
  /** The id of the schedule. */
  readonly id: string
}

/**
 * A schedule at an instant.
 *
 * @category models
 * @since 0.1.0
 */
export interface Run {
  /** The id of the schedule. */
  readonly id: string
  /** The name of its task. */
  readonly task: string
  readonly instant: DateTime.Utc
}

/**
 * The scheduler is about to look up what is known of its schedules.
 *
 * @category schedulers
 * @since 0.1.0
 */
export class SchedulerStarting
  extends Data.TaggedClass("SchedulerStarting")<OfScheduler & { readonly ids: ReadonlyArray<string> }>
{}

/**
 * Its schedules are known from now on.
 *
 * @category schedulers
 * @since 0.1.0
 */
export class SchedulerStarted extends Data.TaggedClass("SchedulerStarted")<OfScheduler> {}

/**
 * It has stopped and is forgotten.
 *
 * @category schedulers
 * @since 0.1.0
 */
export class SchedulerStopped extends Data.TaggedClass("SchedulerStopped")<OfScheduler> {}

/**
 * A statement failed for a while; it is tried again, and what is due meanwhile is made up for.
 *
 * @category schedulers
 * @since 0.1.0
 */
export class SchedulerUnavailable
  extends Data.TaggedClass("SchedulerUnavailable")<OfScheduler & { readonly error: KongTaskError }>
{}

/**
 * The clock was set back by so much: nothing runs until it has come to where it was.
 *
 * @category schedulers
 * @since 0.1.0
 */
export class TimerPremature
  extends Data.TaggedClass("TimerPremature")<OfScheduler & { readonly by: Duration.Duration }>
{}

/**
 * The scheduler comes to an instant so much too late, a minute or more: the machine slept, the clock was set forward, or
 * the process or the database was busy.
 *
 * @category schedulers
 * @since 0.1.0
 */
export class TimerOverdue extends Data.TaggedClass("TimerOverdue")<
  OfScheduler & { readonly instant: DateTime.Utc; readonly by: Duration.Duration }
> {}

/**
 * Runs that were missed before the scheduler started are about to be recorded and added.
 *
 * @category runs
 * @since 0.1.0
 */
export class BackfillStarted
  extends Data.TaggedClass("BackfillStarted")<OfScheduler & { readonly runs: ReadonlyArray<Run> }>
{}

/**
 * Runs are about to be recorded and added.
 *
 * @category runs
 * @since 0.1.0
 */
export class JobsScheduling
  extends Data.TaggedClass("JobsScheduling")<OfScheduler & { readonly runs: ReadonlyArray<Run> }>
{}

/**
 * Runs are recorded, and these jobs added; those of them that others had recorded before are not among them.
 *
 * @category runs
 * @since 0.1.0
 */
export class JobsScheduled extends Data.TaggedClass("JobsScheduled")<
  OfScheduler & { readonly runs: ReadonlyArray<Run & { readonly jobId: Job.JobId }> }
> {}

/**
 * At least so many instants of a schedule up to this one have no job: by its policy for missed runs (`missed`), because
 * they are too long ago (`tooOld`), or because its last job has not ended (`overlap`).
 *
 * @category runs
 * @since 0.1.0
 */
export class RunsSkipped extends Data.TaggedClass("RunsSkipped")<
  OfSchedule & {
    readonly reason: "missed" | "tooOld" | "overlap"
    readonly count: number
    readonly instant: DateTime.Utc
  }
> {}

/**
 * The database refused the job of a schedule, or the function that says when it is due has failed. The other schedules
 * are not affected.
 *
 * @category runs
 * @since 0.1.0
 */
export class ScheduleFailed extends Data.TaggedClass("ScheduleFailed")<OfSchedule & { readonly problem: string }> {}

/**
 * Stored schedules have changed; these ones are run now.
 *
 * @category schedules
 * @since 0.1.0
 */
export class SchedulesLoaded
  extends Data.TaggedClass("SchedulesLoaded")<OfScheduler & { readonly ids: ReadonlyArray<string> }>
{}

/**
 * A stored schedule cannot be run by this scheduler.
 *
 * @category schedules
 * @since 0.1.0
 */
export class ScheduleRefused extends Data.TaggedClass("ScheduleRefused")<OfSchedule & { readonly problem: string }> {}

/**
 * The task of a schedule is none of those that the program knows. Its jobs are added all the same.
 *
 * @category schedules
 * @since 0.1.0
 */
export class TaskUnknown extends Data.TaggedClass("TaskUnknown")<OfSchedule & { readonly task: string }> {}

/**
 * The crontab file has changed; its schedules are run from now on.
 *
 * @category schedules
 * @since 0.1.0
 */
export class CrontabLoaded extends Data.TaggedClass("CrontabLoaded")<
  OfScheduler & { readonly path: string; readonly ids: ReadonlyArray<string> }
> {}

/**
 * The crontab file has changed and cannot be used: the schedules of the last good one go on.
 *
 * @category schedules
 * @since 0.1.0
 */
export class CrontabRejected extends Data.TaggedClass("CrontabRejected")<
  OfScheduler & { readonly path: string; readonly error: InvalidCrontab | InvalidSchedule | KongTaskError }
> {}

/**
 * @category models
 * @since 0.1.0
 */
export type SchedulerEvent =
  | SchedulerStarting
  | SchedulerStarted
  | SchedulerStopped
  | SchedulerUnavailable
  | TimerPremature
  | TimerOverdue
  | BackfillStarted
  | JobsScheduling
  | JobsScheduled
  | RunsSkipped
  | ScheduleFailed
  | SchedulesLoaded
  | ScheduleRefused
  | TaskUnknown
  | CrontabLoaded
  | CrontabRejected
