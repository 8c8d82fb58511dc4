/**
 * One attempt at one job, from the claimed row to its settlement:
 * decode the payload, run the handler, encode the result, decide.
 */
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Job from "../../Job.ts"
import type { ClaimedJob, Settlement, Store } from "../../JobStore.ts"
import { isKongTaskError, type KongTaskError } from "../../KongTaskError.ts"
import * as Retry from "../../Retry.ts"
import type * as Task from "../../Task.ts"

/** A handler that outlived its timeout. */
class TimedOut extends Data.TaggedError("TimedOut")<{ readonly timeout: Duration.Duration }> {
  override get message(): string {
    return `the handler was interrupted after ${Duration.format(this.timeout)}`
  }
}

/** A payload that the task's schema does not decode. */
class InvalidPayload extends Data.TaggedError("InvalidPayload")<{ readonly error: Schema.SchemaError }> {
  override get message(): string {
    return this.error.message
  }
}

/** A success value that the task's schema does not encode. */
class InvalidResult extends Data.TaggedError("InvalidResult")<{ readonly error: Schema.SchemaError }> {
  override get message(): string {
    return this.error.message
  }
}

/** A transactional attempt whose transaction could not be begun or committed. */
class TransactionFailed extends Data.TaggedError("TransactionFailed")<{ readonly error: KongTaskError }> {
  override get message(): string {
    return this.error.message
  }
}

/** What the handler itself failed with, kept apart from the failures around it. */
class HandlerFailed extends Data.TaggedError("HandlerFailed")<{ readonly error: unknown }> {}

type AttemptError = HandlerFailed | TimedOut | InvalidPayload | InvalidResult | TransactionFailed

const defaultTimeout = Duration.minutes(15)
const maxErrorCharacters = 10_000
const maxDelayMillis = Duration.toMillis(Duration.days(365_250))

/** A registration made ready to run: codecs derived and options resolved once a worker, not once a job. */
export interface Runner {
  readonly attempt: (job: ClaimedJob, pool: string) => Effect.Effect<Ending>
}

/** How an attempt ended, and whether that still has to be recorded. */
export interface Ending {
  readonly settlement: Settlement
  /** `undefined`: not yet. A transactional attempt knows: recorded, or never to be, as the job was taken away. */
  readonly isRecorded: boolean | undefined
}

export const makeRunner = (
  { context, handler, options, task }: Task.Registration,
  completeWith: Store["completeWith"]
): Runner => {
  const decodePayload = task.payloadSchema.ast._tag === "Void"
    ? () => Effect.undefined
    : Schema.decodeUnknownEffect(Schema.toCodecJson(task.payloadSchema))
  const encodeSuccess = task.successSchema.ast._tag === "Void"
    ? undefined
    : Schema.encodeUnknownEffect(Schema.toCodecJson(task.successSchema))
  const timeout = Duration.fromInputUnsafe(options.timeout ?? defaultTimeout)
  const policy = Retry.toPolicy(options.retry ?? Retry.exponential())
  const onInvalidPayload = options.onInvalidPayload ?? "retry"

  const run = Effect.fnUntraced(function*(job: ClaimedJob): Effect.fn.Return<void, AttemptError, any> {
    const payload = yield* Effect.mapError(decodePayload(job.payload), (error) => new InvalidPayload({ error }))
    const attempt = Effect.mapError(
      Effect.suspend(() => handler(payload, job)),
      (error) => new HandlerFailed({ error })
    )
    const success = yield* Duration.isFinite(timeout)
      ? Effect.timeoutOrElse(attempt, {
        duration: timeout,
        orElse: () => Effect.fail(new TimedOut({ timeout }))
      })
      : attempt
    if (encodeSuccess !== undefined) {
      yield* Effect.mapError(encodeSuccess(success), (error) => new InvalidResult({ error }))
    }
  }, (effect, job) =>
    effect.pipe(
      Effect.withSpan(`kongtask ${task.name}`, { attributes: { "job.id": job.id, "job.attempt": job.attempt } }),
      Effect.annotateLogs({ task: task.name, job: job.id, attempt: job.attempt }),
      Effect.scoped,
      Effect.provideContext(context)
    ) as Effect.Effect<void, AttemptError>)

  const decide = (job: ClaimedJob, cause: Cause.Cause<AttemptError>): Effect.Effect<Retry.Decision> => {
    if (job.isLastAttempt) return Effect.succeed(Retry.never)
    const failure = cause.reasons.find(Cause.isFailReason)?.error
    if (failure?._tag === "InvalidPayload" && onInvalidPayload === "fail") return Effect.succeed(Retry.never)
    const error = failure?._tag === "HandlerFailed" ? failure.error : undefined
    return Effect.suspend(() => policy({ error, attempt: job.attempt, maxAttempts: job.maxAttempts })).pipe(
      Effect.catchCause((defect) =>
        Effect.logError(`The retry policy of task "${task.name}" died; the default one decides.`, defect).pipe(
          Effect.andThen(Retry.exponential()({ error, attempt: job.attempt, maxAttempts: job.maxAttempts }))
        )
      )
    )
  }

  const failed = Effect.fnUntraced(function*(job: ClaimedJob, cause: Cause.Cause<AttemptError>) {
    const control = yield* Effect.catchCause(Effect.sync(() => controlOf(cause)), () => Effect.undefined)
    if (control !== undefined) return settle(job, control)
    const { delay } = yield* decide(job, cause)
    return {
      _tag: "Failed",
      id: job.id,
      error: yield* described(cause),
      retryIn: delay === undefined ? undefined : boundedMillis(delay)
    } satisfies Settlement
  })

  return {
    attempt: Effect.fnUntraced(function*(job, pool) {
      const completed: Settlement = { _tag: "Completed", id: job.id }
      const exit = yield* Effect.exit<boolean | undefined, AttemptError, never>(
        options.transactional === true
          ? completeWith(pool, job.id, run(job)).pipe(
            Effect.map(Option.isSome),
            Effect.catchIf(isKongTaskError, (error) => Effect.fail(new TransactionFailed({ error })))
          )
          : Effect.as(run(job), undefined)
      )
      return Exit.isSuccess(exit)
        ? { settlement: completed, isRecorded: exit.value }
        : { settlement: yield* failed(job, exit.cause), isRecorded: undefined }
    })
  }
}

const isControl = Schema.is(Schema.Union([Job.Snoozed, Job.Cancelled]))

/** `Job.snooze` and `Job.cancel` travel as failures of the handler. */
const controlOf = (cause: Cause.Cause<AttemptError>): Job.Control | undefined => {
  const error = cause.reasons.find(Cause.isFailReason)?.error
  return error?._tag === "HandlerFailed" && isControl(error.error) ? error.error : undefined
}

const settle = (job: ClaimedJob, control: Job.Control): Settlement =>
  control._tag === "Cancelled"
    ? { _tag: "Cancelled", id: job.id, reason: control.reason }
    : { _tag: "Snoozed", id: job.id, attempt: job.attempt, delay: boundedMillis(control.delay) }

/** What the database can add to a time; an infinite delay is a very long one. */
const boundedMillis = (delay: Duration.Duration): number => {
  const millis = Duration.toMillis(delay)
  return Number.isNaN(millis) ? 0 : Math.min(millis, maxDelayMillis)
}

/** An error value may run code of its own when it is looked at, and fail. */
const described = (cause: Cause.Cause<AttemptError>): Effect.Effect<string> =>
  Effect.catchCause(
    Effect.sync(() => describe(cause)),
    () => Effect.succeed("The attempt failed with an error that cannot be described.")
  )

/** The recorded text of a failed attempt: the error's tag and message, a defect with its stack. */
const describe = (cause: Cause.Cause<AttemptError>): string => {
  const reason = cause.reasons.find(Cause.isFailReason) ?? cause.reasons.find(Cause.isDieReason)
  return storable(
    reason === undefined
      ? "The handler interrupted itself."
      : Cause.isDieReason(reason)
      ? `Defect: ${describeDefect(reason.defect)}`
      : reason.error._tag === "HandlerFailed"
      ? describeError(reason.error.error)
      : `${reason.error._tag}: ${reason.error.message}`
  )
}

const describeError = (error: unknown): string => {
  if (typeof error === "string") return error
  if (typeof error === "object" && error !== null) {
    const tag = "_tag" in error && typeof error._tag === "string" ? error._tag : undefined
    const message = "message" in error && typeof error.message === "string" ? error.message : ""
    if (tag !== undefined) return message === "" || message === tag ? tag : `${tag}: ${message}`
    if (message !== "") return error instanceof Error ? `${error.name}: ${message}` : message
  }
  return describeDefect(error)
}

const describeDefect = (defect: unknown): string =>
  defect instanceof Error ? defect.stack ?? `${defect.name}: ${defect.message}` : Cause.pretty(Cause.die(defect))

/** PostgreSQL's text has neither NUL nor half surrogate pairs. */
export const storable = (text: string): string => {
  const clean = text.replaceAll("\u0000", "\u2400")
  const wellFormed = /\p{Surrogate}/u.test(clean) ? clean.replace(/\p{Surrogate}/gu, "\ufffd") : clean
  return wellFormed.length <= maxErrorCharacters ? wellFormed : `${wellFormed.slice(0, maxErrorCharacters - 1)}…`
}
