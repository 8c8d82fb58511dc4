import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import type { JobId } from "../../Job.ts"
import type { ClaimedJob, Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import { partition } from "./outcomes.ts"
import { toBatched } from "./rows.ts"
import type * as Statements from "./statements.ts"

type Methods = "batch" | "forgetBatch" | "settleLate"

/** Jobs behind one that has failed before, or that has a single attempt, wait with it for a claim. */
const mayBeHeld = (job: ClaimedJob): boolean => job.attempt === 1 && job.maxAttempts > 1

/** Cheaper for both sides than an array parameter. */
const arrayText = (items: ReadonlyArray<{ readonly id: JobId }>): string => `{${items.map(({ id }) => id).join(",")}}`

/** The part of the store that holds jobs by row locks. */
export const make = ({ failure, run, sql, statements }: {
  readonly sql: PgClient.PgClient
  readonly statements: ReturnType<typeof Statements.make>
  readonly failure: (operation: string) => (error: SqlError) => KongTaskError
  readonly run: <Row extends object>(
    operation: string,
    text: string,
    params: ReadonlyArray<unknown>
  ) => Effect.Effect<ReadonlyArray<Row>, KongTaskError>
}): Pick<Store, Methods> => {
  return {
    batch: Effect.fnUntraced(function*({ after, limit, pool, stream = pool, tasks }) {
      const connection = yield* Effect.mapError(sql.reserve, failure("batch"))
      const inBatch = (operation: string, text: string, params: ReadonlyArray<unknown> = []) =>
        Effect.mapError(connection.execute(text, params, undefined), failure(operation))

      let isOpen = true
      let isNoted = false
      const forget = Effect.suspend(() => isNoted ? run("batch", statements.forgetBatch, [stream]) : Effect.void)
      yield* Effect.acquireRelease(
        inBatch("batch", "begin isolation level read committed"),
        // What is given up has not ended badly; of a broken connection only its owner knows.
        () =>
          Effect.suspend(() =>
            isOpen ? Effect.ignore(Effect.andThen(inBatch("batch", "rollback"), forget)) : Effect.void
          )
      )
      const rows = after === undefined
        ? inBatch("batch", statements.lockBatch, [tasks, limit])
        : inBatch("batch", statements.lockMore, [
          after.task,
          after.priority,
          Math.round(after.runAt * 1000),
          after.id,
          limit
        ])
      const held = toBatched((yield* rows) as never, after === undefined ? tasks : [after.task])
      const inTheWay = held.findIndex((job) => !mayBeHeld(job))
      let jobs = inTheWay === -1 ? held : held.slice(0, inTheWay)
      if (jobs.length > 0) {
        const noted = yield* run<{ readonly id: JobId }>("batch", statements.noteBatch, [
          stream,
          pool,
          arrayText(jobs)
        ])
        isNoted = true
        if (noted.length > 0) {
          const suspects = new Set(noted.map(({ id }) => id))
          yield* inBatch("batch", statements.chargeSuspects, [pool, [...suspects]])
          jobs = jobs.filter(({ id }) => !suspects.has(id))
        }
      }
      return {
        jobs,
        isFull: jobs.length === limit,
        last: jobs.every((job) => job.task === jobs[0]?.task && job.priority === jobs[0]?.priority)
          ? jobs.at(-1)?.place
          : undefined,
        promote: (ids) => Effect.asVoid(inBatch("promote", statements.promote, [pool, ids])),
        settle: (settlements) => {
          const { cancelled, completed, failures, releases } = partition(settlements)
          const written = completed.length === settlements.length
            ? inBatch("settle", statements.completeBatch, [stream, arrayText(settlements)])
            : inBatch("settle", statements.settleBatch, [stream, completed, cancelled, failures, releases])
          return written.pipe(
            Effect.andThen(inBatch("settle", "commit")),
            Effect.andThen(Effect.sync(() => {
              isOpen = false
            }))
          )
        }
      }
    }),
    forgetBatch: (stream) => Effect.asVoid(run("settle", statements.forgetBatch, [stream])),
    settleLate: Effect.fnUntraced(function*(pool, outcomes) {
      const { cancelled, completed, failures, releases } = partition(outcomes.map(({ settlement }) => settlement))
      const untouched = outcomes.map(({ job }) => ({ id: job.id, attempts: job.attempt - 1, revision: job.revision }))
      const rows = yield* run<{ readonly id: JobId }>("settle", statements.settleLate, [
        pool,
        JSON.stringify(untouched),
        completed,
        cancelled,
        failures,
        releases
      ])
      return new Set(rows.map((row) => row.id))
    })
  }
}
