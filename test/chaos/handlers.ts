/**
 * The handlers: each attempt writes its start and its end into the ledger, and
 * how it ended into the process's journal.
 */
import { PgClient } from "@effect/sql-pg"
import { Cause, Effect, Exit, Layer, References } from "effect"
import { type Job, Retry } from "kongtask"
import { pause } from "../support/events.ts"
import * as Journal from "./journal.ts"
import { Ledger } from "./ledger.ts"
import { LedgerUnavailable, type Payload, Refused, Run, Write } from "./tasks.ts"

const outcome = (exit: Exit.Exit<unknown, unknown>): Journal.Outcome => {
  if (Exit.isSuccess(exit)) return "ok"
  return Cause.hasInterrupts(exit.cause) ? "interrupted" : "failed"
}

/** Whatever this process does, it does nothing else in the meantime. */
const blockFor = (job: Job.Running, millis: number) =>
  Effect.sync(() => {
    const at = Date.now()
    while (Date.now() < at + millis);
    Journal.write({ _tag: "Blocked", job: job.id, at, until: Date.now() })
  })

const attempt = Effect.fnUntraced(function*<E, R>(
  payload: typeof Payload.Type,
  job: Job.Running,
  work: Effect.Effect<unknown, E, R>
) {
  const ledger = yield* Ledger
  const pool = String((yield* References.CurrentLogAnnotations)["pool"])
  let entry: string | undefined
  yield* Effect.gen(function*() {
    entry = yield* ledger.begin(job, pool)
    yield* payload.blocks > 0 && job.attempt === 1
      ? blockFor(job, payload.blocks)
      : pause(payload.millis)
    if (job.attempt <= payload.failures) return yield* new Refused({ attempt: job.attempt })
    yield* work
    yield* ledger.end(entry)
  }).pipe(
    Effect.onExit((exit) =>
      Effect.sync(() =>
        Journal.write({
          _tag: "Ended",
          entry,
          job: job.id,
          attempt: job.attempt,
          pool,
          at: Date.now(),
          outcome: outcome(exit)
        })
      )
    )
  )
})

const options = { retry: Retry.fixed("100 millis"), timeout: "30 seconds" } as const

/** Needs a ledger, and the client whose transactions `Write` joins. */
export const layer = Layer.merge(
  Run.toLayer((payload, job) => attempt(payload, job, Effect.void), options),
  Write.toLayer(
    (payload, job) =>
      attempt(
        payload,
        job,
        PgClient.PgClient.use((sql) =>
          sql`insert into chaos.effects (job, attempt) values (${job.id}::text::int8, ${job.attempt})`
        ).pipe(Effect.mapError((error) => new LedgerUnavailable({ message: error.message })))
      ),
    { ...options, transactional: true }
  )
)
