import type * as PgPool from "@effect/sql-pg/PgPool"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { SqlError } from "effect/sql/SqlError"
import type { JobId } from "../../Job.ts"
import type { Batch, BatchRequest, ClaimedJob, Settlement, Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import { type LaneRow, toBatched, toMore } from "./claimed.ts"
import { partition } from "./outcomes.ts"
import type * as Statements from "./statements.ts"

/** How long a batch may take to end that nobody wants any more; the server ends it in the same time. */
const givingUp = Duration.seconds(5)

type Methods = "batch" | "forgetBatch" | "settleLate"

/** Jobs behind one that has failed before, or that has a single attempt, wait with it for a claim. */
const mayBeHeld = (job: ClaimedJob): boolean => job.attempt === 1 && job.maxAttempts > 1

/** What is done by the deletion of the job. */
const isPlain = (settlement: Settlement): boolean => settlement._tag === "Completed" && settlement.keep === undefined

type Wanted = Omit<BatchRequest, "pool" | "stream">
/** A suspect, a job of another stream of this pool, or the details of a job that has any. */
interface NotedRow {
  readonly id: JobId | null
  readonly details: string | null
}

/** Others hold so many jobs that there is no turn for one more batch. */
interface NoTurnRow {
  readonly task: null
}

/** How large the payloads in one row are together, in characters, unless one is larger. */
const maxRowSize = 64 * 1024

type Answer = Effect.Effect<ReadonlyArray<unknown>, KongTaskError>

const noIds: ReadonlySet<JobId> = new Set()

const toIds = (rows: ReadonlyArray<unknown>): ReadonlySet<JobId> =>
  new Set((rows as ReadonlyArray<{ readonly id: JobId }>).map(({ id }) => id))

const isOneLane = ([first, ...others]: ReadonlyArray<LaneRow>): boolean =>
  others.every(({ priority, task }) => task === first!.task && priority === first!.priority)

/** The ranges of the jobs' ids in order, the first and the last of each in turn, as an array's text. */
const toRanges = (jobs: ReadonlyArray<ClaimedJob>): string => {
  const ids = Float64Array.from(jobs.map(({ id }) => Number(id))).toSorted()
  if (ids.at(-1)! > Number.MAX_SAFE_INTEGER) {
    const exact = BigInt64Array.from(jobs.map(({ id }) => BigInt(id))).toSorted()
    return `{${Array.from(exact, (id) => `${id},${id}`).join(",")}}`
  }
  let ranges = `{${ids[0]}`
  for (let place = 1; place < ids.length; place++) {
    const last = ids[place - 1]!
    if (ids[place] !== last + 1) ranges += `,${last},${ids[place]}`
  }
  return `${ranges},${ids.at(-1)}}`
}

/** The part of the store that holds jobs by row locks. */
export const make = ({ failure, run, sessions, statements }: {
  /** A session is lent to one batch at a time, and sends statements before those ahead of them are answered. */
  readonly sessions: PgPool.PgPool
  readonly statements: ReturnType<typeof Statements.make>
  readonly failure: (operation: string) => (error: SqlError) => KongTaskError
  readonly run: <Row extends object>(
    operation: string,
    text: string,
    params: ReadonlyArray<unknown>
  ) => Effect.Effect<ReadonlyArray<Row>, KongTaskError>
}): Pick<Store, Methods> => {
  return {
    batch: Effect.fnUntraced(function*(request) {
      const { pool, stream = pool } = request
      const session = yield* Effect.mapError(sessions.get, failure("batch"))
      const inBatch = (operation: string, text: string, params: ReadonlyArray<unknown> = []): Answer =>
        Effect.mapError(Effect.map(session.query(text, params), ({ rows }) => rows), failure(operation))
      /** In one round trip. What follows a failed statement in its transaction fails too, and its commit is a rollback. */
      const together = (...statements: ReadonlyArray<Answer>) =>
        Effect.all(statements, { concurrency: statements.length })
      const commit = inBatch("settle", "commit")
      const begin = inBatch("batch", "begin isolation level read committed")
      const forget = inBatch("batch", statements.forgetBatch, [stream])

      let isOpen = true
      let isNoted = false
      let isUsed = false
      const committed = Effect.sync(() => {
        isOpen = false
      })
      // What is given up has not ended badly, and whoever finds its jobs free must not find the note that names them. Of a
      // broken connection, and of a settle that has failed, only its owner knows.
      const giveUp = Effect.suspend((): Effect.Effect<unknown, KongTaskError> => {
        const rollback = inBatch("batch", "rollback")
        return isUsed || !isNoted ? rollback : Effect.catch(
          together(forget, commit),
          () => Effect.andThen(rollback, run("batch", statements.forgetBatch, [stream]))
        )
      })
      yield* Effect.addFinalizer(() =>
        isOpen
          ? Effect.timeoutOption(giveUp, givingUp).pipe(
            Effect.orElseSucceed(Option.none),
            // Whatever that session is doing, nobody else is to wait for it.
            Effect.tap((answer) => Option.isNone(answer) ? sessions.invalidate(session) : Effect.void)
          )
          : Effect.void
      )

      const hold = ({ after, dueAt, limit, payloadSize, tasks }: Wanted, mayWait: boolean) => {
        const rowLimit = payloadSize === undefined
          ? null
          : Math.max(1, Math.ceil(Math.min(limit, maxRowSize / payloadSize)))
        return after === undefined
          ? inBatch("batch", statements.holdBatch, [tasks, limit, dueAt ?? null, mayWait, rowLimit])
          : inBatch("batch", statements.holdMore, [
            after.task,
            after.priority,
            Math.round(after.runAt * 1000),
            after.id,
            limit,
            dueAt ?? null,
            mayWait,
            rowLimit
          ])
      }

      const write = (settlements: ReadonlyArray<Settlement>) => {
        const { cancelled, completed, endings, failures, fallible, fallibleEndings, kept, releases } = partition(
          settlements
        )
        return inBatch("settle", statements.settleBatch, [
          stream,
          pool,
          completed,
          cancelled,
          kept,
          fallible,
          failures,
          releases,
          endings,
          fallibleEndings
        ])
      }

      /** The batch that the transaction holds. */
      const toBatch = ({ after, limit, tasks }: Wanted, answer: ReadonlyArray<unknown>): Batch => {
        const isCrowded = (answer as ReadonlyArray<LaneRow | NoTurnRow>)[0]?.task === null
        const rows = isCrowded ? [] : answer as ReadonlyArray<LaneRow>
        const held = after === undefined ? toBatched(rows, tasks) : toMore(rows, after.task)
        const inTheWay = held.findIndex((job) => !mayBeHeld(job))
        const jobs = inTheWay === -1 ? held : held.slice(0, inTheWay)
        return {
          count: jobs.length,
          isCrowded,
          size: rows.reduce((size, { payloads }) => size + payloads.length, 0) * jobs.length / Math.max(1, held.length),
          last: jobs.length === limit && isOneLane(rows) ? jobs.at(-1)?.place : undefined,
          start: Effect.gen(function*() {
            if (jobs.length === 0) return jobs
            isNoted = true
            const noted = yield* run<NotedRow>("batch", statements.noteBatch, [stream, pool, toRanges(jobs)])
            if (noted.length === 0) return jobs
            // Its other batch was lost, and its handlers may still run.
            if (noted.some((row) => row.id === null)) return []
            const details = new Map(noted.map((row) => [row.id, row.details]))
            for (const job of jobs) job.handOver(details.get(job.id))
            const suspects = noted.filter((row) => row.details === null).map((row) => row.id)
            if (suspects.length === 0) return jobs
            // At once: the note is locked until then, and another batch of this pool, which may be the one to run first, may
            // wait for it. The others go back too, as whatever stands behind a suspect waits with it for a claim.
            const charge = inBatch("batch", statements.chargeSuspects, [pool, suspects])
            yield* Effect.andThen(together(charge, forget, commit), committed)
            return []
          }),
          promote: (ids) =>
            Effect.suspend(() => {
              isUsed = true
              return Effect.map(inBatch("promote", statements.promote, [pool, ids]), toIds)
            }),
          settle: Effect.fnUntraced(function*(settlements, next) {
            isUsed = true
            const areAll = held.length > 0 && settlements.length === held.length && settlements.every(isPlain)
            const written = areAll ? inBatch("settle", statements.completeHeld, [stream]) : write(settlements)
            const [answer, , , more] = yield* together(
              written,
              commit,
              ...(next === undefined ? [] : [begin, hold(next, false)])
            )
            isOpen = next !== undefined
            isNoted = false
            isUsed = false
            return {
              refused: areAll ? noIds : toIds(answer!),
              next: next === undefined ? undefined : toBatch(next, more!)
            }
          })
        }
      }

      const [, rows] = yield* together(begin, hold(request, true))
      return toBatch(request, rows!)
    }),
    forgetBatch: (stream) => Effect.map(run("settle", statements.forgetBatch, [stream]), (rows) => rows.length > 0),
    settleLate: Effect.fnUntraced(function*(pool, outcomes) {
      const { allEndings, cancelled, completed, failures, kept, releases } = partition(
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
        allEndings
      ])
      return new Set(rows.map((row) => row.id))
    })
  }
}
