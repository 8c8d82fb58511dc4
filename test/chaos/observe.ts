/**
 * Reads what a case has left in the ledger, the queue's tables and the workers'
 * journals.
 */
import { PgClient } from "@effect/sql-pg"
import { Effect } from "effect"
import type { Fleet } from "./fleet.ts"
import type * as Journal from "./journal.ts"
import type { Load } from "./load.ts"
import type { Attempt, Beat, Fault, Hold, Job, Observation, Row } from "./observation.ts"
import * as Settings from "./settings.ts"

const millis = "extract(epoch from %) * 1000"
const at = (column: string) => `(${millis.replace("%", column)})::float8`

interface AttemptRow {
  readonly id: string
  readonly job: string
  readonly queue: string | null
  readonly attempt: number
  readonly pool: string
  readonly pid: number
  readonly started_at: number
  readonly ended_at: number | null
}

type Ended = Extract<Journal.Entry, { readonly _tag: "Ended" }>

const sameAttempt = (end: Ended, row: AttemptRow): boolean =>
  end.job === row.job && end.attempt === row.attempt && end.pool === row.pool

const readAttempts = Effect.fnUntraced(function*(fleet: Fleet) {
  const sql = yield* PgClient.PgClient
  const rows = yield* sql.unsafe<AttemptRow>(`
    select id::text, job::text, queue, attempt, pool, pid, ${at("started_at")} as started_at, ${
    at("ended_at")
  } as ended_at
    from chaos.attempts order by id`)
  const entries = (yield* Effect.forEach(fleet.lives, (life) => life.journal)).flat()
  const ends = entries.filter((entry) => entry._tag === "Ended")
  const known = new Map(ends.flatMap((end) => end.entry === undefined ? [] : [[end.entry, end] as const]))
  const unknown = ends.filter((end) => end.entry === undefined)
  const deaths = new Map(fleet.lives.map((life) => [life.child.pid, life.killedAt]))
  return rows.flatMap((row): ReadonlyArray<Attempt> => {
    // A start that was written although its answer was lost, be it after the handler had given up.
    const lost = unknown.filter((end) => sameAttempt(end, row))
    const end = known.get(row.id) ?? lost.find(({ at }) => at >= row.started_at)
    if (end === undefined && lost.length > 0) return []
    return [{
      job: row.job,
      queue: row.queue ?? undefined,
      attempt: row.attempt,
      pool: row.pool,
      startedAt: row.started_at,
      endedAt: end?.at ?? row.ended_at ?? deaths.get(row.pid) ?? Infinity,
      outcome: end?.outcome ?? (row.ended_at === null ? undefined : "ok")
    }]
  })
})

const readHolds = Effect.gen(function*() {
  const sql = yield* PgClient.PgClient
  const rows = yield* sql.unsafe<{
    readonly job: string
    readonly at: number
    readonly was: string | null
    readonly is_now: string | null
    readonly deleted: boolean
    readonly attempts_were: number
    readonly attempts_are: number
    readonly failed_with: string | null
  }>(`
    select job::text, ${at("at")} as at, was, is_now, deleted, attempts_were, attempts_are, failed_with
    from chaos.holds order by at, id`)
  return rows.map((row): Hold => ({
    job: row.job,
    at: row.at,
    was: row.was ?? undefined,
    isNow: row.is_now ?? undefined,
    deleted: row.deleted,
    attemptsWere: row.attempts_were,
    attemptsAre: row.attempts_are,
    failedWith: row.failed_with ?? undefined
  }))
})

const readRows = Effect.gen(function*() {
  const sql = yield* PgClient.PgClient
  const rows = yield* sql.unsafe<{
    readonly id: string
    readonly task: string
    readonly queue: string | null
    readonly failures: number
    readonly attempts: number
    readonly max_attempts: number
    readonly locked_by: string | null
    readonly last_error: string | null
  }>(`
    select job.id::text as id, task.identifier as task, queue.queue_name as queue,
      (job.payload ->> 'failures')::int as failures, job.attempts::int as attempts,
      job.max_attempts::int as max_attempts, job.locked_by, job.last_error
    from graphile_worker._private_jobs as job
    join graphile_worker._private_tasks as task on task.id = job.task_id
    left join graphile_worker._private_job_queues as queue on queue.id = job.job_queue_id`)
  return rows.map((row) => ({
    row: {
      job: row.id,
      attempts: row.attempts,
      maxAttempts: row.max_attempts,
      lockedBy: row.locked_by ?? undefined,
      lastError: row.last_error ?? undefined
    } satisfies Row,
    job: {
      id: row.id,
      queue: row.queue ?? undefined,
      transactional: row.task === "chaos_write",
      failures: row.failures,
      maxAttempts: row.max_attempts,
      runAt: undefined
    } satisfies Job
  }))
})

/** Everything, once all workers have stopped. */
export const observe = Effect.fnUntraced(function*(fleet: Fleet, load: Load, faults: ReadonlyArray<Fault>) {
  const sql = yield* PgClient.PgClient
  const beats = yield* sql.unsafe<Beat>(`select pool, ${at("at")} as at from chaos.beats`)
  const effects = yield* sql.unsafe<{ readonly job: string }>(`select job::text from chaos.effects`)
  const pools = yield* sql.unsafe<{ readonly id: string }>(`select id from graphile_worker._private_kongtask_pools`)
  const [queues] = yield* sql.unsafe<{ readonly held: number }>(`
    select count(*)::int as held from graphile_worker._private_job_queues where locked_by is not null`)
  const left = yield* readRows
  const entries = (yield* Effect.forEach(fleet.lives, (life) => life.journal)).flat()
  const poolsByClock = new Map<string, ReadonlyArray<string>>()
  for (const life of fleet.lives) {
    if (life.clock !== undefined) poolsByClock.set(life.clock, yield* life.pools)
  }
  const known = new Set(load.jobs.map((job) => job.id))
  return {
    leaseMillis: Settings.leaseMillis,
    // An add that was committed although its answer was lost has added jobs too.
    jobs: [...load.jobs, ...left.flatMap(({ job }) => known.has(job.id) ? [] : [job])],
    attempts: yield* readAttempts(fleet),
    holds: yield* readHolds,
    beats,
    rows: left.map(({ row }) => row),
    effects: effects.map(({ job }) => job),
    poolsByClock,
    released: entries.flatMap((entry) => entry._tag === "PoolsReleased" ? entry.pools : []),
    heldQueues: queues!.held,
    pools: pools.map(({ id }) => id),
    faults
  } satisfies Observation
})

/** How many jobs still have to run. */
export const remaining = Effect.gen(function*() {
  const sql = yield* PgClient.PgClient
  const [row] = yield* sql.unsafe<{ readonly count: number }>(`
    select count(*)::int as count from graphile_worker._private_jobs
    where attempts < max_attempts or locked_at is not null`)
  return row!.count
})

/** The pools that are registered. */
export const registered = Effect.gen(function*() {
  const sql = yield* PgClient.PgClient
  const rows = yield* sql.unsafe<{ readonly id: string }>(`select id from graphile_worker._private_kongtask_pools`)
  return rows.map(({ id }) => id)
})
