import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Job from "../../Job.ts"
import type { HistoryFilter, Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import { toAttempts } from "./observing.ts"
import { flagNames } from "./rows.ts"
import { quoteIdentifier } from "./schema.ts"

const columns =
  "id, revision, task, queue_name, state, payload, priority, run_at, attempts, max_attempts, key, flags, " +
  "created_at, started_at, stopped_at, error, failed_attempts, result, origin, metadata, bundle, expires_at"

/** The functions are in migrations/0013_outcomes.sql. */
const makeStatements = (schema: string) => ({
  /**
   * $1 tasks, $2 states, $3 queue, $4 key, $5 and $6 bounds of stopped_at, $7 and $8 of created_at in ms, $9 and $10 the
   * stopped_at in ms and the id of the last one before, $11 limit. Newest first, by an index of stopped_at, of each
   * task's, or of those that have not completed; a queue and a key are looked for on the way.
   */
  history: `
    select ${columns}
    from ${schema}._private_kongtask_read_history(
      $1::text[], $2::text[], $3::text, $4::text, $5::float8, $6::float8, $7::float8, $8::float8, $9::float8,
      $10::text::int8, $11::int
    )`,

  /** $1 id. Primary key. */
  finished: `select ${columns} from ${schema}._private_kongtask_find_finished($1::text::int8)`,

  /** $1 to $8 as those of `history`. Reads every job that they find. */
  countHistory: `
    select ${schema}._private_kongtask_count_history(
      $1::text[], $2::text[], $3::text, $4::text, $5::float8, $6::float8, $7::float8, $8::float8
    ) as count`,

  /** $1 to $8 as those of `history`, $9 at most so many. */
  forget: `
    select ${schema}._private_kongtask_forget_history(
      $1::text[], $2::text[], $3::text, $4::text, $5::float8, $6::float8, $7::float8, $8::float8, $9::int
    ) as count`,

  /** $1 at most so many. By the index of expires_at; passes over what others are deleting. */
  expire: `
    with deleted as (
      delete from ${schema}._private_kongtask_history
      where ctid = any (array(
        select ctid from ${schema}._private_kongtask_history
        where expires_at <= now() order by expires_at limit $1::int
        for update skip locked
      ))
      returning 1
    )
    select count(*)::float8 as count from deleted`,

  /**
   * $1 to $11 the filter of jobs, $12 what their last error contains, $13 after id, $14 limit, $15 whether only to count
   * them. Reads jobs in the order of ids from there on, and locks those that it changes.
   */
  redrive: `
    with picked as materialized (
      select job.id
      from ${schema}.kongtask_jobs as job
      where job.state = 'failed'
        and ($1::text[] is null or job.task = any ($1::text[]))
        and ($2::text[] is null or job.state = any ($2::text[]))
        and ($3::text is null or job.queue_name = $3::text)
        and ($4::text is null or job.key = $4::text)
        and ($5::text is null or job.flags ? $5::text)
        and ($6::float8 is null or job.created_at >= to_timestamp($6::float8 / 1000))
        and ($7::float8 is null or job.created_at < to_timestamp($7::float8 / 1000))
        and ($8::float8 is null or job.run_at >= to_timestamp($8::float8 / 1000))
        and ($9::float8 is null or job.run_at < to_timestamp($9::float8 / 1000))
        and ($10::text is null or job.origin = $10::text)
        and ($11::text is null or job.bundle_id = $11::text::int8)
        and ($12::text is null or position($12::text in job.last_error) > 0)
        and ($13::text is null or job.id > $13::text::int8)
      order by job.id limit $14::int
    ), changed as materialized (
      select job from ${schema}._private_kongtask_retry_jobs(
        case when $15::bool then '{}' else array(select id from picked) end
      ) as job
    ), announced as materialized (
      select ${schema}._private_kongtask_notify(count(*)) from changed having count(*) > 0
    )
    select
      case when $15::bool then (select count(*) from picked)::float8 else (select count(*) from changed)::float8 end
        + 0 * (select count(*) from announced) as count,
      case when (select count(*) from picked) = $14::int then (select max(id) from picked)::text end as last`
})

interface FinishedRow {
  readonly id: string
  readonly revision: number
  readonly task: string
  readonly queue_name: string | null
  readonly state: Job.Finished["state"]
  readonly payload: string
  readonly priority: number
  readonly run_at: number
  readonly attempts: number
  readonly max_attempts: number
  readonly key: string | null
  readonly flags: string | null
  readonly created_at: number
  readonly started_at: number | null
  readonly stopped_at: number
  readonly error: string | null
  readonly failed_attempts: string | null
  readonly result: string | null
  readonly origin: string | null
  readonly metadata: string | null
  readonly bundle: string | null
  readonly expires_at: number
}

const toTime = (millis: number): DateTime.Utc => DateTime.makeUnsafe(Math.round(millis))

const toFinished = (row: FinishedRow): Job.Finished =>
  new Job.Finished({
    id: row.id as Job.JobId,
    revision: row.revision,
    task: row.task,
    queueName: row.queue_name ?? undefined,
    state: row.state,
    payload: JSON.parse(row.payload),
    priority: row.priority,
    runAt: toTime(row.run_at),
    attempts: row.attempts,
    maxAttempts: row.max_attempts,
    key: row.key ?? undefined,
    flags: flagNames(row.flags),
    createdAt: toTime(row.created_at),
    startedAt: row.started_at === null ? undefined : toTime(row.started_at),
    stoppedAt: toTime(row.stopped_at),
    error: row.error ?? undefined,
    failedAttempts: toAttempts(row.failed_attempts),
    result: row.result === null ? undefined : JSON.parse(row.result),
    origin: row.origin ?? undefined,
    metadata: row.metadata === null ? undefined : JSON.parse(row.metadata),
    bundle: row.bundle ?? undefined,
    expiresAt: toTime(row.expires_at)
  }, { disableChecks: true })

type Methods = "history" | "finished" | "countHistory" | "forget" | "expire" | "redrive"

/** The part of the store for jobs that have stopped. */
export const make = ({ filterParams, joinsOnlyOwn, run, schema }: {
  readonly schema: string
  readonly run: <Row extends object>(
    operation: string,
    text: string,
    params: ReadonlyArray<unknown>
  ) => Effect.Effect<ReadonlyArray<Row>, KongTaskError>
  readonly joinsOnlyOwn: <A, E, R>(write: Effect.Effect<A, E, R>) => Effect.Effect<A, E | KongTaskError, R>
  /** Those of a filter of jobs. */
  readonly filterParams: (filter: Parameters<Store["count"]>[0]) => ReadonlyArray<unknown>
}): Pick<Store, Methods> => {
  const statements = makeStatements(quoteIdentifier(schema))

  const paramsOf = (filter: HistoryFilter) => [
    filter.tasks ?? null,
    filter.states ?? null,
    filter.queueName ?? null,
    filter.key ?? null,
    filter.stoppedAfter ?? null,
    filter.stoppedBefore ?? null,
    filter.addedAfter ?? null,
    filter.addedBefore ?? null
  ]

  return {
    history: (filter, { after, limit }) =>
      Effect.map(
        run<FinishedRow>("history", statements.history, [
          ...paramsOf(filter),
          after?.stoppedAt ?? null,
          after?.id ?? null,
          limit
        ]),
        (rows) => rows.map(toFinished)
      ),
    finished: (id) =>
      Effect.map(
        run<FinishedRow>("history", statements.finished, [id]),
        (rows) => Option.map(Option.fromNullishOr(rows[0]), toFinished)
      ),
    countHistory: (filter) =>
      Effect.map(
        run<{ readonly count: number }>("history", statements.countHistory, paramsOf(filter)),
        (rows) => rows[0]!.count
      ),
    forget: (filter, limit) =>
      joinsOnlyOwn(Effect.map(
        run<{ readonly count: number }>("forget the history", statements.forget, [...paramsOf(filter), limit]),
        (rows) => rows[0]!.count
      )),
    expire: (limit) =>
      Effect.map(
        run<{ readonly count: number }>("expire the history", statements.expire, [limit]),
        (rows) => rows[0]!.count
      ),
    redrive: (filter, { after, error, isDryRun, limit }) =>
      joinsOnlyOwn(Effect.map(
        run<{ readonly count: number; readonly last: Job.JobId | null }>("redrive", statements.redrive, [
          ...filterParams(filter),
          error ?? null,
          after ?? null,
          limit,
          isDryRun
        ]),
        (rows) => ({ count: rows[0]!.count, last: rows[0]!.last ?? undefined })
      ))
  }
}
