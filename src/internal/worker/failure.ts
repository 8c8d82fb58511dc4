/**
 * What an attempt fails with, and what is recorded of it.
 */
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { ClaimedJob } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"

/** A handler that outlived its timeout. */
export class TimedOut extends Data.TaggedError("TimedOut")<{ readonly timeout: Duration.Duration }> {
  override get message(): string {
    return `the handler was interrupted after ${Duration.format(this.timeout)}`
  }
}

/** A payload that the task's schema does not decode. */
export class InvalidPayload extends Data.TaggedError("InvalidPayload")<{ readonly error: Schema.SchemaError }> {
  override get message(): string {
    return this.error.message
  }
}

/** A success value that the task's schema does not encode. */
export class InvalidResult extends Data.TaggedError("InvalidResult")<{ readonly error: Schema.SchemaError | Error }> {
  override get message(): string {
    return this.error.message
  }
}

/** A transactional attempt whose transaction could not be begun or committed. */
export class TransactionFailed extends Data.TaggedError("TransactionFailed")<{ readonly error: KongTaskError }> {
  override get message(): string {
    return this.error.message
  }
}

/** What the handler itself failed with, kept apart from the failures around it. */
export class HandlerFailed extends Data.TaggedError("HandlerFailed")<{ readonly error: unknown }> {}

/** Entries of a batch that failed, by their place in the payload. */
export class BatchFailed extends Data.TaggedError("BatchFailed")<{
  readonly entries: number
  readonly failures: ReadonlyArray<{ readonly index: number; readonly cause: Cause.Cause<AttemptError> }>
}> {
  override get message(): string {
    const told = this.failures.slice(0, 10).map(({ cause, index }) => `[${index}] ${kindOf(cause).text}`)
    const left = this.failures.length - told.length
    return [
      `${this.failures.length} of ${this.entries} entries failed:`,
      ...told,
      ...(left > 0 ? [`and ${left} more`] : [])
    ].join("\n")
  }
}

export type AttemptError = HandlerFailed | TimedOut | InvalidPayload | InvalidResult | TransactionFailed | BatchFailed

/** What the database keeps of a failed attempt. */
export interface Failure {
  readonly tag: string
  readonly text: string
}

const maxErrorCharacters = 10_000
const maxTagCharacters = 200
const maxDataCharacters = 64 * 1024

export const failureOf = (cause: Cause.Cause<AttemptError>): AttemptError | undefined =>
  cause.reasons.find(Cause.isFailReason)?.error

/** The handler's own error, typed or not; `undefined` for whatever is not a failure of its. */
export const handlerError = (cause: Cause.Cause<AttemptError>): unknown => {
  const failure = failureOf(cause)
  return failure?._tag === "HandlerFailed" ? failure.error : undefined
}

/** An error value may run code of its own when it is looked at, and fail. */
export const describe = (cause: Cause.Cause<AttemptError>): Effect.Effect<Failure> =>
  Effect.catchCause(
    Effect.sync(() => {
      const { tag, text } = kindOf(cause)
      return { tag: storable(tag, maxTagCharacters), text: storable(text, maxErrorCharacters) }
    }),
    () => Effect.succeed({ tag: "Error", text: "The attempt failed with an error that cannot be described." })
  )

const dueIn = (delay: Duration.Duration) =>
  Duration.isZero(delay) ? "now" : `in ${Duration.format(Duration.millis(Math.round(Duration.toMillis(delay))))}`

/** The failed attempt for the log: of what kind it was, not what it said, which may quote the payload or a secret. */
export const log = (job: ClaimedJob, tag: string, delay: Duration.Duration | undefined): Effect.Effect<void> =>
  Effect.annotateLogs(
    delay === undefined
      ? Effect.logError(`Attempt ${job.attempt} of ${job.maxAttempts} failed, and the job for good: ${tag}`)
      : Effect.logInfo(
        `Attempt ${job.attempt} of ${job.maxAttempts} failed: ${tag}. The next one is due ${dueIn(delay)}.`
      ),
    { task: job.task, job: job.id, attempt: job.attempt }
  )

/** The error's tag and message; a defect with its stack. */
const kindOf = (cause: Cause.Cause<AttemptError>): Failure => {
  const reason = cause.reasons.find(Cause.isFailReason) ?? cause.reasons.find(Cause.isDieReason)
  if (reason === undefined) return { tag: "Interrupted", text: "The handler interrupted itself." }
  if (Cause.isDieReason(reason)) return { tag: "Defect", text: `Defect: ${describeDefect(reason.defect)}` }
  const { error } = reason
  return error._tag === "HandlerFailed"
    ? { tag: tagOf(error.error) ?? "Error", text: describeError(error.error) }
    : { tag: error._tag, text: `${error._tag}: ${error.message}` }
}

const tagOf = (error: unknown): string | undefined =>
  typeof error === "object" && error !== null && "_tag" in error && typeof error._tag === "string"
    ? error._tag
    : undefined

const describeError = (error: unknown): string => {
  if (typeof error === "string") return error
  if (typeof error === "object" && error !== null) {
    const tag = tagOf(error)
    const message = "message" in error && typeof error.message === "string" ? error.message : ""
    if (tag !== undefined) return message === "" || message === tag ? tag : `${tag}: ${message}`
    if (message !== "") return error instanceof Error ? `${error.name}: ${message}` : message
  }
  return describeDefect(error)
}

const describeDefect = (defect: unknown): string =>
  defect instanceof Error ? defect.stack ?? `${defect.name}: ${defect.message}` : Cause.pretty(Cause.die(defect))

/** PostgreSQL's text has neither NUL nor half surrogate pairs. */
export const storable = (text: string, maxCharacters = maxErrorCharacters): string => {
  const clean = text.replaceAll("\u0000", "\u2400")
  const wellFormed = /\p{Surrogate}/u.test(clean) ? clean.replace(/\p{Surrogate}/gu, "\ufffd") : clean
  return wellFormed.length <= maxCharacters ? wellFormed : `${wellFormed.slice(0, maxCharacters - 1)}…`
}

/** Typed errors as JSON text, by their schema; what does not encode, or is too large, is left out. */
export const makeEncoder = (
  errorSchema: Schema.Top
): (cause: Cause.Cause<AttemptError>) => Effect.Effect<string | undefined, never, any> => {
  if (errorSchema.ast._tag === "Never") return () => Effect.undefined
  const encode = Schema.encodeUnknownEffect(Schema.toCodecJson(errorSchema))
  const encodeError = (cause: Cause.Cause<AttemptError>) => {
    const error = handlerError(cause)
    return error === undefined ? Effect.undefined : Effect.orElseSucceed(encode(error), () => undefined)
  }
  return (cause) => {
    const failure = failureOf(cause)
    const data: Effect.Effect<unknown, never, any> = failure?._tag === "BatchFailed"
      ? Effect.forEach(
        failure.failures,
        ({ cause, index }) => Effect.map(encodeError(cause), (error) => ({ index, error }))
      )
      : encodeError(cause)
    return data.pipe(
      Effect.map((value) => value === undefined ? undefined : JSON.stringify(value)),
      Effect.map((json) => json !== undefined && json.length <= maxDataCharacters ? json : undefined),
      Effect.catchCause(() => Effect.undefined)
    )
  }
}
