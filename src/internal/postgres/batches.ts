import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import type { JobId } from "../../Job.ts"
import type { ClaimedJob, Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import { partition } from "./outcomes.ts"
import { type BatchRow, toBatched } from "./rows.ts"
import type * as Statements from "./statements.ts"

/** How long a batch may take to end that nobody wants any more; the server ends it in the same time. */
const givingUp = Duration.seconds(5)

type Methods = "batch" | "forgetBatch" | "settleLate"

/** Jobs behind one that has failed before, or that has a single attempt, wait with it for a claim. */
const mayBeHeld = (job: ClaimedJob): boolean => job.attempt === 1 && job.maxAttempts > 1

/** Cheaper for both sides than an array parameter. */
const arrayText = (items: ReadonlyArray<{ readonly id: JobId }>): string => `{${items.map(({ id }) => id).join(",")}}`

const toIds = (rows: ReadonlyArray<unknown>): ReadonlySet<JobId> =>
  new Set((rows as ReadonlyArray<{ readonly id: JobId }>).map(({ id }) => id))

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
      let isUsed = false
      const commit = Effect.andThen(
        inBatch("settle", "commit"),
        Effect.sync(() => {
          isOpen = false
        })
      )
      // What is given up has not ended badly, and whoever finds its jobs free must not find the note that names them. Of a
      // broken connection, and of a settle that has failed, only its owner knows.
      const giveUp = Effect.suspend((): Effect.Effect<unknown, KongTaskError> => {
        if (!isOpen) return Effect.void
        const rollback = inBatch("batch", "rollback")
        return isUsed || !isNoted
          ? rollback
          : Effect.catch(
            Effect.andThen(inBatch("batch", statements.forgetBatch, [stream]), commit),
            () => Effect.andThen(rollback, run("batch", statements.forgetBatch, [stream]))
          )
      })
      yield* Effect.acquireRelease(
        inBatch("batch", "begin isolation level read committed"),
        () => Effect.ignore(Effect.timeoutOption(giveUp, givingUp))
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
      const read = (yield* rows) as ReadonlyArray<BatchRow>
      const held = toBatched(read, after === undefined ? tasks : [after.task])
      const inTheWay = held.findIndex((job) => !mayBeHeld(job))
      let jobs = inTheWay === -1 ? held : held.slice(0, inTheWay)
      if (jobs.length > 0) {
        isNoted = true
        const noted = yield* run<{ readonly id: JobId; readonly details: string | null }>(
          "batch",
          statements.noteBatch,
          [
            stream,
            pool,
            arrayText(jobs)
          ]
        )
        const suspects = new Set<JobId>()
        const details = new Map<JobId, string>()
        for (const row of noted) {
          if (row.details === null) suspects.add(row.id)
          else details.set(row.id, row.details)
        }
        if (details.size > 0) {
          for (const job of jobs) job.handOver(details.get(job.id))
        }
        if (suspects.size > 0) {
          yield* inBatch("batch", statements.chargeSuspects, [pool, [...suspects]])
          jobs = jobs.filter(({ id }) => !suspects.has(id))
          // Nobody settles a batch without jobs, and the charge would be lost.
          if (jobs.length === 0) {
            yield* Effect.andThen(inBatch("batch", statements.forgetBatch, [stream]), commit)
          }
        }
      }
      return {
        jobs,
        isFull: jobs.length === limit,
        size: read.reduce((size, { payload }) => size + payload.length, 0),
        last: jobs.every((job) => job.task === jobs[0]?.task && job.priority === jobs[0]?.priority)
          ? jobs.at(-1)?.place
          : undefined,
        promote: (ids) =>
          Effect.suspend(() => {
            isUsed = true
            return Effect.map(inBatch("promote", statements.promote, [pool, ids]), toIds)
          }),
        settle: (settlements) =>
          Effect.suspend(() => {
            isUsed = true
            const { cancelled, completed, endings, failures, fallible, kept, releases } = partition(settlements)
            const written = completed.length === settlements.length
              ? Effect.as(inBatch("settle", statements.completeBatch, [stream, arrayText(settlements)]), [])
              : inBatch("settle", statements.settleBatch, [
                stream,
                pool,
                completed,
                cancelled,
                kept,
                fallible,
                failures,
                releases,
                endings
              ])
            return Effect.map(Effect.tap(written, () => commit), toIds)
          })
      }
    }),
    forgetBatch: (stream) => Effect.map(run("settle", statements.forgetBatch, [stream]), (rows) => rows.length > 0),
    settleLate: Effect.fnUntraced(function*(pool, outcomes) {
      const { cancelled, completed, endings, failures, kept, releases } = partition(
        outcomes.map(({ settlement }) => settlement)
      )
      const untouched = outcomes.map(({ job }) => ({ id: job.id, attempts: job.attempt - 1, revision: job.revision }))
      const rows = yield* run<{ readonly id: JobId }>("settle", statements.settleLate, [
        pool,
        JSON.stringify(untouched),
        completed.concat(kept),
        cancelled,
        failures,
        releases,
        endings
      ])
      return new Set(rows.map((row) => row.id))
    })
  }
}
