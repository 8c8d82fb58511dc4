import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Pool, Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import { type JobRow, toJob, toTime } from "./rows.ts"
import { quoteIdentifier } from "./schema.ts"

/** The functions are in `migrations/`: the first two 0002, the others 0005. */
const makeStatements = (schema: string) => ({
  /** $1 ids. Primary key; locks the jobs. */
  complete: `
    select described.*
    from ${schema}.complete_jobs($1::text[]::int8[]) as job
    cross join lateral ${schema}._private_kongtask_describe(job, 'completed') as described
    order by job.id`,

  /** $1 ids, $2 message. Primary key; locks the jobs. */
  fail: `
    select described.*
    from ${schema}.permanently_fail_jobs($1::text[]::int8[], $2::text) as job
    cross join lateral ${schema}._private_kongtask_describe(job) as described
    order by job.id`,

  /** $1 ids, $2 run_at ms, $3 delay ms, $4 priority, $5 attempts, $6 max_attempts. Primary key; locks the jobs. */
  reschedule: `
    with changed as materialized (
      select job from ${schema}.reschedule_jobs(
        $1::text[]::int8[],
        coalesce(to_timestamp($2::float8 / 1000), now() + $3::float8 * interval '1 millisecond'),
        $4::int, $5::int, $6::int
      ) as job
    ), announced as materialized (
      select ${schema}._private_kongtask_notify(count(*)) from changed having count(*) > 0
    )
    select described.*
    from changed
    cross join lateral ${schema}._private_kongtask_describe(changed.job) as described
    where (select count(*) from announced) > 0
    order by (changed.job).id`,

  /** $1 ids. Primary key; locks the jobs. */
  retry: `
    with changed as materialized (
      select job from ${schema}._private_kongtask_retry_jobs($1::text[]::int8[]) as job
    ), announced as materialized (
      select ${schema}._private_kongtask_notify(count(*)) from changed having count(*) > 0
    )
    select described.*
    from changed
    cross join lateral ${schema}._private_kongtask_describe(changed.job) as described
    where (select count(*) from announced) > 0
    order by (changed.job).id`,

  /** $1 pools. Scans the jobs once. */
  forceUnlock: `
    select described.*
    from ${schema}._private_kongtask_force_unlock($1::text[]) as job
    cross join lateral ${schema}._private_kongtask_describe(job) as described
    order by job.id`,

  /** Scans the jobs once, and the queues; takes no lock. What hides a job, a lock that never ends, has no holder. */
  pools: `
    with jobs as (
      select locked_by as id, count(*) as count, min(locked_at) as oldest
      from ${schema}._private_jobs
      where locked_by is not null and locked_at < 'infinity'
      group by locked_by
    ), queues as (
      select locked_by as id, count(*) as count
      from ${schema}._private_job_queues
      where locked_by is not null
      group by locked_by
    )
    select
      id,
      (extract(epoch from pool.started_at) * 1000)::float8 as started_at,
      (extract(epoch from pool.heartbeat_at) * 1000)::float8 as heartbeat_at,
      (extract(epoch from pool.lease) * 1000)::float8 as lease,
      pool.heartbeat_at + pool.lease > now() as is_alive,
      coalesce(jobs.count, 0)::float8 as jobs,
      coalesce(queues.count, 0)::float8 as queues,
      (extract(epoch from jobs.oldest) * 1000)::float8 as oldest_claim
    from ${schema}._private_kongtask_pools as pool
    full join jobs using (id)
    full join queues using (id)
    order by pool.started_at, id`,

  /**
   * $1 age in ms, counted from the last change or from run_at, whichever is later: graphile-worker's workers note a
   * failure in run_at only. Scans the jobs once.
   */
  deleteFailed: `
    with deleted as (
      delete from ${schema}._private_jobs
      where attempts >= max_attempts and locked_at is null
        and greatest(updated_at, run_at) < now() - $1::float8 * interval '1 millisecond'
      returning 1
    )
    select count(*)::float8 as count from deleted`,

  /** $1 whether tasks, $2 whether queues. */
  deleteUnused: `select tasks, queues from ${schema}._private_kongtask_delete_unused($1::bool, $2::bool)`
})

interface PoolRow {
  readonly id: string
  readonly started_at: number | null
  readonly heartbeat_at: number | null
  readonly lease: number | null
  readonly is_alive: boolean | null
  readonly jobs: number
  readonly queues: number
  readonly oldest_claim: number | null
}

const optionalTime = (millis: number | null) => millis === null ? undefined : toTime(millis)

const toPool = (row: PoolRow): Pool => ({
  id: row.id,
  startedAt: optionalTime(row.started_at),
  heartbeatAt: optionalTime(row.heartbeat_at),
  lease: row.lease === null ? undefined : Duration.millis(row.lease),
  isAlive: row.is_alive ?? undefined,
  jobs: row.jobs,
  queues: row.queues,
  oldestClaim: optionalTime(row.oldest_claim)
})

type Methods = "complete" | "fail" | "reschedule" | "retry" | "forceUnlock" | "pools" | "cleanup"

/** The part of the store that changes jobs from outside. */
export const make = ({ joinsOnlyOwn, run, schema }: {
  readonly schema: string
  readonly run: <Row extends object>(
    operation: string,
    text: string,
    params: ReadonlyArray<unknown>
  ) => Effect.Effect<ReadonlyArray<Row>, KongTaskError>
  readonly joinsOnlyOwn: <A, E, R>(write: Effect.Effect<A, E, R>) => Effect.Effect<A, E | KongTaskError, R>
}): Pick<Store, Methods> => {
  const statements = makeStatements(quoteIdentifier(schema))

  const change = (operation: Exclude<Methods, "cleanup" | "pools">, params: ReadonlyArray<unknown>) =>
    joinsOnlyOwn(Effect.map(run<JobRow>(operation, statements[operation], params), (rows) => rows.map(toJob)))

  return {
    complete: (ids) => change("complete", [ids]),
    fail: (ids, message) => change("fail", [ids, message ?? null]),
    reschedule: (ids, { attempts, delay, maxAttempts, priority, runAt }) =>
      change("reschedule", [
        ids,
        runAt ?? null,
        delay ?? null,
        priority ?? null,
        attempts ?? null,
        maxAttempts ?? null
      ]),
    retry: (ids) => change("retry", [ids]),
    forceUnlock: (pools) => change("forceUnlock", [pools]),
    pools: Effect.map(
      Effect.suspend(() => run<PoolRow>("list pools", statements.pools, [])),
      (rows) => rows.map(toPool)
    ),
    // Not one transaction: the lock of the second statement is not waited for with the first one's.
    cleanup: Effect.fnUntraced(function*({ failedJobs, queues, tasks }) {
      const deleted = failedJobs === undefined
        ? 0
        : (yield* run<{ readonly count: number }>("clean up", statements.deleteFailed, [failedJobs]))[0]!.count
      const unused = tasks || queues
        ? (yield* run<{ readonly tasks: number; readonly queues: number }>("clean up", statements.deleteUnused, [
          tasks,
          queues
        ]))[0]!
        : { tasks: 0, queues: 0 }
      return { tasks: unused.tasks, queues: unused.queues, failedJobs: deleted }
    }, joinsOnlyOwn)
  }
}
