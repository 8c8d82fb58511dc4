/**
 * The two tasks of the suite: one plain, one whose handler is transactional.
 */
import { Schema } from "effect"
import { Task } from "kongtask"

/** What a handler fails with because its payload says so. */
export class Refused extends Schema.TaggedError<Refused>()("Refused", { attempt: Schema.Int }) {}

/** The ledger could not be written: whatever the handler did does not count. */
export class LedgerUnavailable
  extends Schema.TaggedError<LedgerUnavailable>()("LedgerUnavailable", { message: Schema.String })
{}

export const Failure = Schema.Union([Refused, LedgerUnavailable])

export const Payload = Schema.Struct({
  /** How long the handler takes. */
  millis: Schema.Int,
  /** How many attempts fail before one succeeds. */
  failures: Schema.Int,
  /** How long the first attempt blocks the event loop instead; 0 for one that does not. */
  blocks: Schema.Int
})

/** So many that no fault uses them up. */
const maxAttempts = 1_000

export const Run = Task.make("chaos_run", { payload: Payload, error: Failure, maxAttempts })

export const Write = Task.make("chaos_write", { payload: Payload, error: Failure, maxAttempts })
