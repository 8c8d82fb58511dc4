import type * as PgClient from "@effect/sql-pg/PgClient"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type { SqlError } from "effect/sql/SqlError"
import type { JobId } from "../../Job.ts"
import type { Kept, Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import { answeredWithin, unanswered } from "../deadline.ts"
import { withTransaction } from "./errors.ts"
import type * as Statements from "./statements.ts"

/** Why the transaction is rolled back: the handler failed, the job was not the pool's any more, the commit hangs. */
const Reason = Schema.Literals(["failed", "taken", "unanswered"])
type Reason = typeof Reason.Type

const isReason = Schema.is(Reason)

/**
 * The completion of a job in the transaction of its handler's writes.
 *
 * The commit is a statement of its own, with a deadline: the one that ends every
 * transaction waits for its answer as long as TCP does, a quarter of an hour. It
 * chains an empty transaction, so that the other one has something to commit.
 */
export const make = ({ failure, sql, statements }: {
  readonly sql: PgClient.PgClient
  readonly statements: ReturnType<typeof Statements.make>
  readonly failure: (operation: string) => (error: SqlError) => KongTaskError
}): Store["completeWith"] =>
<A, E, R>(
  pool: string,
  id: JobId,
  effect: Effect.Effect<A, E, R>,
  deadline: Duration.Duration,
  held: () => ReadonlyArray<JobId> = () => [],
  keep: (value: A) => Kept | undefined = () => undefined
) =>
  Effect.suspend(() => {
    let exit: Exit.Exit<A, E> | undefined
    const complete = (kept: Kept | undefined) =>
      Effect.filterOrFail(
        Effect.suspend(() => {
          const endings = kept === undefined ? null : JSON.stringify([{ id, outcome: "completed", ...kept }])
          return sql.unsafe<{ readonly id: string }>(statements.settle, [pool, [id], [], "[]", "[]", held(), endings])
        }),
        (rows) => rows.length > 0,
        () => "taken" as const
      ).pipe(
        Effect.andThen(sql.unsafe("commit and chain")),
        Effect.timeoutOrElse({ duration: deadline, orElse: () => Effect.fail("unanswered" as const) })
      )
    const attempt = Effect.flatMap(
      Effect.exit(effect),
      (ended): Effect.Effect<A, Reason | SqlError> => {
        exit = ended
        return Exit.isSuccess(ended) ? Effect.as(complete(keep(ended.value)), ended.value) : Effect.fail("failed")
      }
    )
    const stillHeld = sql.unsafe<{ readonly id: string }>(statements.holds, [pool, id]).pipe(
      Effect.mapError(failure("settle")),
      answeredWithin(deadline),
      Effect.retry({ while: (again) => again.isTransient, schedule: Schedule.spaced("500 millis") })
    )
    // The row is still ours if and only if the commit did not happen.
    const resolve = (error: KongTaskError) =>
      Effect.flatMap(
        stillHeld,
        (rows): Effect.Effect<Option.Option<A>, KongTaskError> =>
          rows.length === 0 && exit !== undefined && Exit.isSuccess(exit)
            ? Effect.succeedSome(exit.value)
            : Effect.fail(error)
      )
    return attempt.pipe(
      withTransaction(sql),
      Effect.map(Option.some),
      // When the rollback fails too, what it was for arrives as a defect.
      Effect.catchDefect((defect) => isReason(defect) ? Effect.fail(defect) : Effect.die(defect)),
      Effect.catch((error): Effect.Effect<Option.Option<A>, E | KongTaskError> => {
        if (error === "taken") return Effect.succeedNone
        if (error === "unanswered") return resolve(unanswered(deadline))
        if (error === "failed") {
          return exit !== undefined && Exit.isFailure(exit)
            ? Effect.failCause(exit.cause)
            : Effect.never
        }
        return resolve(failure("settle")(error))
      })
    )
  })
