/**
 * Jobs, and what else stands in the tables, written by SQL into the tables that KongTask and graphile-worker share.
 */
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import { padding, priorities } from "./contestant.ts"

/** What the tables hold beside the jobs that are drained. */
export type Clutter = "future" | "dead" | "foreign" | "queues" | "busy" | "backlog"

export interface Jobs {
  readonly count: number
  readonly padBytes?: number | undefined
  readonly task?: string | undefined
  /** Spread in turn over so many named queues. */
  readonly queues?: number | undefined
}

const insert = `
  insert into graphile_worker._private_jobs
    (task_id, job_queue_id, payload, run_at, attempts)
  select task.id, queue.id,
    case when $4::text = '' then json_build_object('n', case when $8::boolean then n else -1 end)
      else json_build_object('n', n, 'pad', $4::text) end,
    now() + $5::text::interval, $6::int
  from generate_series(0, $2::int - 1) as n
  cross join (select id from graphile_worker._private_tasks where identifier = $1::text) as task
  left join graphile_worker._private_job_queues as queue
    on queue.queue_name = $3::text || '-' || n % greatest($7::int, 1) and $7::int > 0
  order by n`

const jobs = Effect.fnUntraced(function*(
  sql: PgClient.PgClient,
  { count, padBytes = 0, queues = 0, task = "bench" }: Jobs,
  other?: { readonly delay?: string; readonly attempts?: number; readonly prefix?: string }
) {
  const prefix = other?.prefix ?? "queue"
  yield* sql.unsafe(
    "insert into graphile_worker._private_tasks (identifier) values ($1) on conflict do nothing",
    [task]
  )
  yield* sql.unsafe(
    `insert into graphile_worker._private_job_queues (queue_name)
     select $1::text || '-' || n from generate_series(0, $2::int - 1) as n`,
    [prefix, queues]
  )
  const isCounted = other === undefined
  yield* sql.unsafe(
    insert,
    [task, count, prefix, padding(padBytes), other?.delay ?? "0", other?.attempts ?? 0, queues, isCounted]
  )
}, Effect.orDie)

/** Jobs that are due now, their payloads numbered from 0. */
export const fill = (sql: PgClient.PgClient, options: Jobs): Effect.Effect<void> => jobs(sql, options)

/** How many jobs the clutter is; the goals name these numbers. */
export const clutterCounts: Readonly<Record<Clutter, number>> = {
  future: 1_000_000,
  dead: 100_000,
  foreign: 100_000,
  queues: 100_000,
  busy: 50_000,
  backlog: 100_000
}

/** Writes the clutter: it stands before the jobs that are added later, and its jobs count for nothing. */
export const clutter = Effect.fnUntraced(function*(sql: PgClient.PgClient, kind: Clutter, scale: number) {
  const count = Math.max(1, Math.round(clutterCounts[kind] * scale))
  switch (kind) {
    case "future":
      return yield* jobs(sql, { count }, { delay: "1 year" })
    case "dead":
      return yield* jobs(sql, { count }, { delay: "-1 hour", attempts: 25 })
    case "foreign":
      return yield* jobs(sql, { count, task: "foreign" }, { delay: "-1 hour" })
    case "queues":
      return yield* jobs(sql, { count, queues: count }, { delay: "1 year", prefix: "later" })
    case "backlog":
      return yield* jobs(sql, { count, queues: 1 }, { delay: "-1 hour", prefix: "backlog" })
    case "busy": {
      yield* jobs(sql, { count, queues: 1 }, { delay: "-1 hour", prefix: "busy" })
      return yield* Effect.orDie(sql`
        update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'another worker'
        where queue_name = 'busy-0'`)
    }
  }
})

/** Gives the jobs after that id the priorities of `priorityOf`. */
export const prioritise = (sql: PgClient.PgClient, after: string): Effect.Effect<void> =>
  sql.unsafe(
    `update graphile_worker._private_jobs set priority = (payload ->> 'n')::int * 7 % ${priorities} where id > ${after}`
  ).pipe(Effect.asVoid, Effect.orDie)

/** The largest id so far; jobs of later drains have larger ones. */
export const lastId = (sql: PgClient.PgClient): Effect.Effect<string> =>
  sql<{ id: string }>`select coalesce(max(id), 0)::text as id from graphile_worker._private_jobs`.pipe(
    Effect.map(([row]) => row!.id),
    Effect.orDie
  )

/** Whether jobs after that id are left, as a statement. */
export const pendingAfter = (id: string): string =>
  `select exists (select from graphile_worker._private_jobs where id > ${id}) as pending`

/** The same statistics and an empty cache of dirty pages for everybody. */
export const settleDown = (sql: PgClient.PgClient): Effect.Effect<void> =>
  sql`vacuum analyze`.pipe(Effect.andThen(sql`checkpoint`), Effect.asVoid, Effect.orDie)
