/**
 * The job as data: its record, its states, the options it is added with, and
 * what can be wrong with it.
 *
 * A job is one run of a task that somebody asked for. This module knows nothing
 * of databases or workers.
 *
 * @since 0.1.0
 */
import type * as Data from "effect/Data"
import type * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

/**
 * The number that the database gave a job, in decimal digits: a 64-bit integer
 * does not fit a JavaScript number.
 *
 * @category schemas
 * @since 0.1.0
 */
export const JobId = Schema.String.check(Schema.isPattern(/^[1-9][0-9]{0,18}$/)).pipe(Schema.brand("kongtask/JobId"))

/**
 * @category models
 * @since 0.1.0
 */
export type JobId = typeof JobId.Type

/**
 * The number that the database gave a bundle, in decimal digits.
 *
 * @category schemas
 * @since 0.1.0
 */
export const BundleId = Schema.String.check(Schema.isPattern(/^[1-9][0-9]{0,18}$/)).pipe(
  Schema.brand("kongtask/BundleId")
)

/**
 * @category models
 * @since 0.1.0
 */
export type BundleId = typeof BundleId.Type

/**
 * Where a job stands.
 *
 * **Details**
 *
 * - `scheduled`: its time has not come yet
 * - `ready`: a worker may claim it
 * - `running`: a pool holds it
 * - `retrying`: it failed and waits for its next attempt
 * - `completed`, `failed`, `cancelled`: it has stopped for good
 *
 * A completed or cancelled job is deleted; a failed one stays, its attempts used up.
 *
 * @category schemas
 * @since 0.1.0
 */
export const State = Schema.Literals([
  "scheduled",
  "ready",
  "running",
  "retrying",
  "completed",
  "failed",
  "cancelled"
])

/**
 * @category models
 * @since 0.1.0
 */
export type State = typeof State.Type

/**
 * What happens when a job with the same key exists already.
 *
 * **Details**
 *
 * - `replace` (default): a waiting job takes all the new attributes and starts over; a running or failed one loses
 *   the key and will not be retried, and a new job is added
 * - `preserve_run_at`: as `replace`, but a job that has not been attempted keeps its time
 * - `unsafe_dedupe`: the existing job stays as it is, whatever its state, even running or failed
 * - `dedupe`: a job that waits or runs stays as it is; a failed one loses the key, and a new job is added
 * - `reject`: nothing is added, whatever the state of the existing job; fails with `DuplicateJobKey`
 *
 * The first three are those of graphile-worker and of the SQL function `add_job`; the others are KongTask's own.
 *
 * @category schemas
 * @since 0.1.0
 */
export const KeyMode = Schema.Literals(["replace", "preserve_run_at", "unsafe_dedupe", "dedupe", "reject"])

/**
 * @category models
 * @since 0.1.0
 */
export type KeyMode = typeof KeyMode.Type

/**
 * A job as it stood in the database at one moment.
 *
 * @category models
 * @since 0.1.0
 */
export class Job extends Schema.Class<Job>("kongtask/Job")({
  id: JobId,
  /** The name of its task. */
  task: Schema.String,
  state: State,
  /** The payload as stored: JSON, encoded by the task's payload schema. */
  payload: Schema.Json,
  /** The named queue whose jobs run one at a time; `undefined` for a job that runs beside any other. */
  queueName: Schema.UndefinedOr(Schema.String),
  /** Smaller numbers first. */
  priority: Schema.Int,
  /** Not before this time, by the database's clock. */
  runAt: Schema.DateTimeUtc,
  /** Attempts begun so far, the running one included. */
  attempts: Schema.Int,
  maxAttempts: Schema.Int,
  /** What the last failed attempt said; kept while the job waits for its retry. */
  lastError: Schema.UndefinedOr(Schema.String),
  createdAt: Schema.DateTimeUtc,
  updatedAt: Schema.DateTimeUtc,
  key: Schema.UndefinedOr(Schema.String),
  /** When the pool that holds it claimed it; `undefined` when nobody holds it. */
  lockedAt: Schema.UndefinedOr(Schema.DateTimeUtc),
  /** The id of the pool that holds it. */
  lockedBy: Schema.UndefinedOr(Schema.String),
  /** How often it was changed through its key. */
  revision: Schema.Int,
  flags: Schema.Array(Schema.String),
  /** Who added it. Like `bundle` told of jobs that are added or looked for, not of those that are being changed. */
  origin: Schema.optional(Schema.String),
  /** The bundle that it belongs to. */
  bundle: Schema.optional(BundleId)
}) {}

/**
 * What one attempt failed with.
 *
 * @category models
 * @since 0.1.0
 */
export class FailedAttempt extends Schema.Class<FailedAttempt>("kongtask/Job/FailedAttempt")({
  /** 1 for the first attempt. */
  attempt: Schema.Int,
  failedAt: Schema.DateTimeUtc,
  /**
   * The `_tag` of a typed error, or else what kind of failure it was: `Error`, `Defect`, `TimedOut`, `InvalidPayload`,
   * `InvalidResult`, `BatchFailed`, `TransactionFailed`, `Interrupted`, `PoolDied`.
   */
  tag: Schema.String,
  /** As in `lastError`: at most 10,000 characters. */
  message: Schema.String,
  /** The typed error, encoded by the task's error schema; left out beyond 64 KiB of JSON. */
  data: Schema.UndefinedOr(Schema.Json)
}) {}

/**
 * A job that has stopped for good and left the table of jobs, as the history keeps it. One that was replaced by its key
 * goes on under its id, with the next revision.
 *
 * @category models
 * @since 0.1.0
 */
export class Finished extends Schema.Class<Finished>("kongtask/Job/Finished")({
  id: JobId,
  /** The name of its task. */
  task: Schema.String,
  state: Schema.Literals(["completed", "failed", "cancelled"]),
  payload: Schema.Json,
  queueName: Schema.UndefinedOr(Schema.String),
  priority: Schema.Int,
  runAt: Schema.DateTimeUtc,
  attempts: Schema.Int,
  maxAttempts: Schema.Int,
  key: Schema.UndefinedOr(Schema.String),
  revision: Schema.Int,
  flags: Schema.Array(Schema.String),
  createdAt: Schema.DateTimeUtc,
  /** When its last attempt was claimed; `undefined` where it never was, or was held by row locks alone. */
  startedAt: Schema.UndefinedOr(Schema.DateTimeUtc),
  stoppedAt: Schema.DateTimeUtc,
  /** The last error of a failed job, or why it was cancelled. */
  error: Schema.UndefinedOr(Schema.String),
  /** The last 100 in their order. */
  failedAttempts: Schema.Array(FailedAttempt),
  /** The result, encoded by the task's success schema. */
  result: Schema.UndefinedOr(Schema.Json),
  origin: Schema.UndefinedOr(Schema.String),
  metadata: Schema.UndefinedOr(Schema.Json),
  /** The bundle that it was a member of. */
  bundle: Schema.UndefinedOr(Schema.String),
  /** Until when it is kept. */
  expiresAt: Schema.DateTimeUtc
}) {}

/**
 * How an attempt ended.
 *
 * @category models
 * @since 0.1.0
 */
export type Outcome = Data.TaggedEnum<{
  Completed: {}
  Failed: {
    /** What is recorded as the job's last error. */
    readonly error: string
    /** The time until the next attempt; `undefined` when the job has failed for good. */
    readonly retryIn: Duration.Duration | undefined
  }
  Snoozed: { readonly delay: Duration.Duration }
  Cancelled: { readonly reason: string | undefined }
}>

/**
 * Options of one job. What is left out comes from the task's own defaults, then
 * from the defaults below.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** A named queue, 1 to 128 characters: its jobs run one at a time, in order. Default: none. */
  readonly queueName?: string | undefined
  /** Not before this time, by the database's clock. Default: now. */
  readonly runAt?: DateTime.DateTime | Date | undefined
  /** Not before so long from now, by the database's clock; excludes `runAt`. */
  readonly delay?: Duration.Input | undefined
  /** How often it may be attempted, 1 to 32,767. Default: 25. */
  readonly maxAttempts?: number | undefined
  /** −32,768 to 32,767, smaller numbers first. Default: 0. */
  readonly priority?: number | undefined
  /** 1 to 512 characters, unique among all jobs of the schema, whatever their task. Default: none. */
  readonly jobKey?: string | undefined
  /** What to do when the key is taken. Default: `replace`. */
  readonly jobKeyMode?: KeyMode | undefined
  /** Marks, of one character or more each; workers can be told to leave jobs with some of them alone. Default: none. */
  readonly flags?: ReadonlyArray<string> | undefined
  /** Who adds it, in a word of theirs, 1 to 128 characters: for `list`, `removeMany` and listeners. Default: none. */
  readonly origin?: string | undefined
  /**
   * For how long the history keeps the job, its result and its failed attempts when it has stopped, at most 1,000 years,
   * which an infinite duration stands for; 0 for not at all, whatever its worker says. Default: what the worker says.
   */
  readonly retain?: Duration.Input | undefined
}

/**
 * What a handler is told about the job that it runs.
 *
 * @category models
 * @since 0.1.0
 */
export interface Running {
  readonly id: JobId
  readonly task: string
  /** 1 for the first attempt. */
  readonly attempt: number
  readonly maxAttempts: number
  /** Whether no attempt is left after this one. */
  readonly isLastAttempt: boolean
  readonly key: string | undefined
  readonly queueName: string | undefined
  readonly priority: number
  readonly runAt: DateTime.Utc
  readonly createdAt: DateTime.Utc
  readonly revision: number
  readonly flags: ReadonlyArray<string>
  /** What the previous attempt failed with. */
  readonly lastError: string | undefined
  /** Who added it. */
  readonly origin?: string | undefined
  /** The bundle that it belongs to. */
  readonly bundle?: BundleId | undefined
}

/**
 * What the handler of a task with a `progress` schema is told about the job that it runs, and can tell of it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Reporting<in P> extends Running {
  /**
   * Tells how far the job has come, for whoever reads `Queue.progress`.
   *
   * **Details**
   *
   * Never waits for the database: the latest value is written beside the handler, at once and then once in 500 ms at most,
   * one statement each, as long as the worker holds the job. A value that the schema refuses, or that has more than
   * 64 KiB of JSON, is a defect.
   */
  readonly report: (progress: P) => Effect.Effect<void>
}

/**
 * What a handler is given beside the payload.
 *
 * @category models
 * @since 0.1.0
 */
export type Handled<P> = [P] extends [never] ? Running : Reporting<P>

/**
 * What `snooze` fails with. Not an error of the task: the worker understands it.
 *
 * @category control
 * @since 0.1.0
 */
export class Snoozed extends Schema.TaggedError<Snoozed>("kongtask/Job/Snoozed")("Snoozed", {
  delay: Schema.Duration
}) {}

/**
 * What `cancel` fails with. Not an error of the task: the worker understands it.
 *
 * @category control
 * @since 0.1.0
 */
export class Cancelled extends Schema.TaggedError<Cancelled>("kongtask/Job/Cancelled")("Cancelled", {
  reason: Schema.UndefinedOr(Schema.String)
}) {}

/**
 * The ways in which a handler may end a job beside success and its own errors.
 *
 * @category control
 * @since 0.1.0
 */
export type Control = Snoozed | Cancelled

/**
 * Ends the attempt without counting it, and runs the job again after so long:
 * for a handler that finds that it is too early. Finite; negative counts as zero.
 *
 * **Example**
 *
 * ```ts
 * const Import = Task.make("import", { payload: { file: Schema.String } })
 *
 * const ImportLive = Import.toLayer(({ file }) => isComplete(file) ? load(file) : Job.snooze("5 minutes"))
 * ```
 *
 * @category control
 * @since 0.1.0
 */
export const snooze = (delay: Duration.Input): Effect.Effect<never, Snoozed> =>
  Effect.suspend(() =>
    Effect.fail(new Snoozed({ delay: Duration.max(Duration.fromInputUnsafe(delay), Duration.zero) }))
  )

/**
 * Ends the job for good, neither completed nor failed: for a handler that finds
 * that there is nothing to do any more. The job is deleted.
 *
 * @category control
 * @since 0.1.0
 */
export const cancel = (reason?: string): Effect.Effect<never, Cancelled> =>
  Effect.suspend(() => Effect.fail(new Cancelled({ reason })))

/**
 * A job that cannot be added: a value out of range, too long, or not encodable.
 * Nothing was written.
 *
 * **Details**
 *
 * `code` is the SQLSTATE that the SQL functions raise for the same mistake:
 * `GWBID` task name, `GWBQN` queue name, `GWBJK` job key, `GWBMA` attempts,
 * `GWBKM` key mode.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidJob extends Schema.TaggedError<InvalidJob>("kongtask/Job/InvalidJob")("InvalidJob", {
  /** The name of the task. */
  task: Schema.String,
  /** The field at fault. */
  field: Schema.String,
  /** What is wrong with its value. */
  problem: Schema.String,
  /** The limit that was exceeded, where there is one. */
  limit: Schema.optional(Schema.Number),
  /** The value's length, size or number, where a limit was exceeded. */
  actual: Schema.optional(Schema.Number),
  code: Schema.optional(Schema.String),
  /** Which of the jobs of one `addMany`, counted from 0. */
  index: Schema.optional(Schema.Int)
}) {
  override get message(): string {
    const which = this.index === undefined ? "" : ` (job ${this.index} of the call)`
    return `A job of task "${this.task}"${which} cannot be added: ${this.field} ${this.problem}.`
  }
}

/**
 * A job was to be added with `jobKeyMode: "reject"`, and its key is another
 * job's. Nothing was added, no job of the same call either; the caller's
 * transaction goes on.
 *
 * @category errors
 * @since 0.1.0
 */
export class DuplicateJobKey extends Schema.TaggedError<DuplicateJobKey>("kongtask/Job/DuplicateJobKey")(
  "DuplicateJobKey",
  {
    /** The name of the task whose job was refused. */
    task: Schema.String,
    key: Schema.String,
    /** The job that has the key. */
    existing: JobId,
    /** Where that job stood. */
    state: State,
    /** Which of the jobs of one `addMany`, counted from 0. */
    index: Schema.optional(Schema.Int)
  }
) {
  override get message(): string {
    const which = this.index === undefined ? "" : ` (job ${this.index} of the call)`
    return `A job of task "${this.task}"${which} was not added: job ${this.existing}, which is ${this.state}, has its key.`
  }
}

/**
 * A job that was waited for has failed for good, and not with an error of its
 * task's error schema: of a defect, a timeout, a dead worker.
 *
 * @category errors
 * @since 0.1.0
 */
export class JobFailed extends Schema.TaggedError<JobFailed>("kongtask/Job/JobFailed")("JobFailed", {
  job: JobId,
  /** The name of its task. */
  task: Schema.String,
  /** What its last attempt said. */
  error: Schema.String,
  /** All failed attempts, the last 100 in their order. */
  attempts: Schema.Array(FailedAttempt)
}) {
  override get message(): string {
    return `Job ${this.job} of task "${this.task}" has failed for good: ${this.error}`
  }
}

/**
 * A job that was waited for has been cancelled, removed, or replaced by its key.
 *
 * @category errors
 * @since 0.1.0
 */
export class JobCancelled extends Schema.TaggedError<JobCancelled>("kongtask/Job/JobCancelled")("JobCancelled", {
  job: JobId,
  /** The name of its task. */
  task: Schema.String,
  reason: Schema.UndefinedOr(Schema.String)
}) {
  override get message(): string {
    return `Job ${this.job} of task "${this.task}" was cancelled${this.reason === undefined ? "" : `: ${this.reason}`}.`
  }
}

/**
 * A job that was waited for has stopped, and its result was not kept: nobody
 * asked for that (`retain`), graphile-worker or a statement by hand completed it,
 * or the result was too large.
 *
 * @category errors
 * @since 0.1.0
 */
export class ResultNotRetained extends Schema.TaggedError<ResultNotRetained>("kongtask/Job/ResultNotRetained")(
  "ResultNotRetained",
  {
    job: JobId,
    /** What has become of it; `undefined` when it had stopped before the wait, and nothing was kept of it. */
    state: Schema.UndefinedOr(State)
  }
) {
  override get message(): string {
    return this.state === undefined
      ? `Job ${this.job} is not there any more, and nothing was kept of it, or not for so long. Set \`retain\` on the ` +
        "job, its task or its worker."
      : `Job ${this.job} is ${this.state}, but no result was kept. Set \`retain\` on the job, its task or its worker; ` +
        "a result has 1 MiB of JSON at most, and graphile-worker's workers keep none."
  }
}

/**
 * There has never been a job of that id, or none of that task.
 *
 * @category errors
 * @since 0.1.0
 */
export class JobNotFound extends Schema.TaggedError<JobNotFound>("kongtask/Job/JobNotFound")("JobNotFound", {
  /** What was asked for. */
  job: Schema.String,
  /** The name of the task whose job it should be. */
  task: Schema.String,
  /** The name of the task whose job it is. */
  actual: Schema.UndefinedOr(Schema.String)
}) {
  override get message(): string {
    return this.actual === undefined
      ? `There has never been a job ${this.job}.`
      : `Job ${this.job} is one of task "${this.actual}", not of "${this.task}".`
  }
}

/**
 * A result, an error or a progress is stored that the task's schema here does not decode: another version of the
 * program wrote it.
 *
 * @category errors
 * @since 0.1.0
 */
export class UndecodableOutcome extends Schema.TaggedError<UndecodableOutcome>("kongtask/Job/UndecodableOutcome")(
  "UndecodableOutcome",
  {
    job: JobId,
    /** The name of its task. */
    task: Schema.String,
    what: Schema.Literals(["result", "error", "progress"]),
    problem: Schema.String
  }
) {
  override get message(): string {
    return `The ${this.what} of job ${this.job} does not decode by the schema of task "${this.task}": ${this.problem}`
  }
}

/**
 * A job's end was to be waited for inside a transaction of the queue's client. A
 * job that the same transaction added cannot run before it commits; and one that
 * stays open for as long as a job takes keeps deleted rows from being vacuumed.
 * Wait after the transaction.
 *
 * @category errors
 * @since 0.1.0
 */
export class AwaitedInTransaction extends Schema.TaggedError<AwaitedInTransaction>("kongtask/Job/AwaitedInTransaction")(
  "AwaitedInTransaction",
  {}
) {
  override get message(): string {
    return "The end of a job cannot be waited for inside a transaction of the queue's client, as a job that it adds does " +
      "not run before it commits. Wait when the transaction has ended."
  }
}

/**
 * Why there is no result of a job that was waited for, beside its task's own error.
 *
 * @category errors
 * @since 0.1.0
 */
export type NoResult =
  | JobFailed
  | JobCancelled
  | ResultNotRetained
  | JobNotFound
  | UndecodableOutcome
  | AwaitedInTransaction
