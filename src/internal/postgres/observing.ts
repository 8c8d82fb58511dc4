import type * as PgClient from "@effect/sql-pg/PgClient"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { SqlError } from "effect/sql/SqlError"
import * as Stream from "effect/Stream"
import * as Job from "../../Job.ts"
import type { Observation, Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import { derive } from "./client.ts"
import { quoteIdentifier } from "./schema.ts"
import * as Statements from "./statements.ts"

/** One for all schemas of a database. */
const channel = "kongtask:watched"

interface ObservedRow {
  readonly task: string
  readonly revision: number
  readonly state: Job.State | null
  readonly has_stopped: boolean
  readonly error: string | null
  readonly failed_attempts: string | null
  readonly result: string | null
  readonly is_retained: boolean
  readonly progress: string | null
  readonly progress_at: number | null
}

interface RecordedAttempt {
  readonly attempt: number
  readonly failedAt: number
  readonly tag: string
  readonly message: string
  readonly data: unknown
}

/** The failed attempts of a job as the history has them. */
export const toAttempts = (json: string | null): ReadonlyArray<Job.FailedAttempt> =>
  json === null ?
    [] :
    (JSON.parse(json) as ReadonlyArray<RecordedAttempt>).map(({ data, failedAt, ...attempt }) =>
      new Job.FailedAttempt({
        ...attempt,
        failedAt: DateTime.makeUnsafe(Math.round(failedAt)),
        data: data === null ? undefined : data as never
      }, { disableChecks: true })
    )

const toObservation = (row: ObservedRow): Observation => {
  if (row.state === null) return { _tag: "Unknown", existed: row.revision > 0 }
  if (!row.has_stopped) {
    return {
      _tag: "Live",
      task: row.task,
      revision: row.revision,
      progress: row.progress === null ? undefined : { at: row.progress_at!, value: JSON.parse(row.progress) }
    }
  }
  return {
    _tag: "Stopped",
    task: row.task,
    state: row.state,
    error: row.error ?? undefined,
    attempts: toAttempts(row.failed_attempts),
    result: row.result === null ? undefined : JSON.parse(row.result),
    isRetained: row.is_retained
  }
}

/** Anybody may send to the channel. */
const readNews = Schema.decodeUnknownOption(
  Schema.fromJsonString(Schema.Struct({ schema: Schema.String, jobs: Schema.Array(Job.JobId) }))
)

type Methods = "observe" | "mayWait" | "watched" | "report"

/** The part of the store for those who wait for jobs, and for what these tell meanwhile. */
export const make = ({ client, failure, run, schema }: {
  readonly client: PgClient.PgClient
  readonly schema: string
  readonly failure: (operation: string) => (error: SqlError) => KongTaskError
  readonly run: <Row extends object>(
    operation: string,
    text: string,
    params: ReadonlyArray<unknown>
  ) => Effect.Effect<ReadonlyArray<Row>, KongTaskError>
}): Pick<Store, Methods> => {
  const statements = Statements.make(quoteIdentifier(schema))

  const mayWait = Effect.flatMap(
    Effect.serviceOption(client.transactionService),
    (transaction) => transaction._tag === "Some" ? Effect.fail(new Job.AwaitedInTransaction()) : Effect.void
  )

  const toIds = (payload: string | null | undefined): ReadonlyArray<Job.JobId> =>
    Option.match(readNews(payload), {
      onNone: () => [],
      onSome: (news) => news.schema === schema ? news.jobs : []
    })

  return {
    mayWait,
    observe: (id, revision, announce) =>
      Effect.andThen(
        mayWait,
        Effect.map(
          run<ObservedRow>("await the job", statements.observe, [id, revision ?? null, announce]),
          (rows) => toObservation(rows[0]!)
        )
      ),
    watched: derive(client, 1).pipe(
      Effect.flatMap((own) => own.listen(channel)),
      Effect.map((queue) =>
        Stream.concat(
          Stream.succeed<ReadonlyArray<Job.JobId>>([]),
          Stream.filter(Stream.map(Stream.fromQueue(queue), ({ payload }) => toIds(payload)), (ids) => ids.length > 0)
        )
      ),
      Stream.unwrap,
      Stream.mapError(failure("listen"))
    ),
    report: (pool, id, progress) =>
      Effect.map(
        run<{ readonly is_held: boolean }>("report progress", statements.report, [pool, id, progress]),
        (rows) => rows[0]!.is_held
      )
  }
}
