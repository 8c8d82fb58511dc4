import type * as Effect from "effect/Effect"
import type * as Job from "../../Job.ts"
import type { JobSpec } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"

/**
 * A schedule that is due at an instant.
 *
 * @category models
 * @since 0.1.0
 */
export interface DueRun {
  /** Of the schedule. */
  readonly id: string
  /** Milliseconds since the epoch. */
  readonly instant: number
  /** `due`: records the instant and adds the job; `pass`: records it only; `now`: adds the job only. */
  readonly how: "due" | "pass" | "now"
  /** Whether there is no job while the schedule's last one has not ended. */
  readonly skipsOverlap: boolean
  /** Of a stored schedule, which must not have changed. */
  readonly revision: number | undefined
  readonly job: JobSpec
}

/**
 * What became of a schedule that was due.
 *
 * **Details**
 *
 * - `added`: its job was added
 * - `passed`: recorded without a job, as asked for
 * - `known`: that instant, or a later one, had been recorded before, by this or another process
 * - `overlapping`: recorded without a job, since the last one has not ended
 * - `stale`: the stored schedule was changed, paused or removed; nothing is recorded
 * - `busy`: somebody is changing the stored schedule at the moment; nothing is recorded
 *
 * @category models
 * @since 0.1.0
 */
export interface RunOutcome {
  readonly outcome: "added" | "passed" | "known" | "overlapping" | "stale" | "busy"
  readonly jobId: Job.JobId | undefined
}

/**
 * What the database knows of a schedule. Times are milliseconds since the epoch.
 *
 * @category models
 * @since 0.1.0
 */
export interface KnownSchedule {
  readonly knownSince: number
  readonly lastExecution: number | undefined
  /** Since when another living scheduler has run it. */
  readonly aliveSince: number | undefined
  /** The job that was added because the schedule runs on start. */
  readonly startedJob: Job.JobId | undefined
}

/**
 * A schedule that is kept in the database. Times are milliseconds since the epoch.
 *
 * @category models
 * @since 0.1.0
 */
export interface StoredRow {
  readonly id: string
  /** As it was put: JSON text. */
  readonly definition: string
  readonly isPaused: boolean
  readonly revision: number
  /** Nothing before that is due. */
  readonly since: number
  readonly createdAt: number
  readonly updatedAt: number
  readonly lastExecution: number | undefined
  readonly lastRun: { readonly instant: number; readonly addedAt: number; readonly jobId: Job.JobId } | undefined
}

/**
 * What schedules need of a database. Each of these is one statement.
 *
 * @category models
 * @since 0.1.0
 */
export interface Scheduling {
  /** Records instants and adds their jobs, in the given order; each instant of an id counts once, whoever comes first. */
  readonly schedule: (runs: ReadonlyArray<DueRun>) => Effect.Effect<ReadonlyArray<RunOutcome>, KongTaskError>

  /**
   * Makes a scheduler known with the ids that it runs, and answers what is known of each of them. The jobs of `onStart`
   * are added unless a living scheduler, this one too, had their schedule before. Others that were silent for `lease` are
   * forgotten.
   */
  readonly register: (request: {
    readonly scheduler: string
    readonly now: number
    readonly lease: number
    readonly ids: ReadonlyArray<string>
    readonly onStart: ReadonlyArray<DueRun>
  }) => Effect.Effect<ReadonlyMap<string, KnownSchedule>, KongTaskError>

  /** Forgets a scheduler that has stopped. */
  readonly deregister: (scheduler: string) => Effect.Effect<void, KongTaskError>

  /** The revision of the last change of any stored schedule, and whether the scheduler is known; tells that it is alive. */
  readonly poll: (scheduler: string) => Effect.Effect<
    { readonly revision: number; readonly isRegistered: boolean },
    KongTaskError
  >

  /** Stored schedules in the order of their ids: all, or that one. */
  readonly stored: (id: string | undefined) => Effect.Effect<ReadonlyArray<StoredRow>, KongTaskError>

  /** Adds or replaces a stored schedule; answers whether that changed anything. Joins the caller's transaction. */
  readonly put: (id: string, now: number, definition: string) => Effect.Effect<boolean, KongTaskError>

  /** Changes a stored schedule; answers whether it was there. Joins the caller's transaction. */
  readonly change: (
    id: string,
    now: number,
    change: "pause" | "resume" | "remove"
  ) => Effect.Effect<boolean, KongTaskError>

  /** `schedule` of one run, which joins the caller's transaction. */
  readonly runNow: (run: DueRun) => Effect.Effect<RunOutcome, KongTaskError>
}
