/**
 * The real graphile-worker, as its users run it.
 */
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"
import {
  Logger,
  makeWorkerUtils,
  run,
  runMigrations,
  type RunnerOptions,
  type TaskList,
  type WorkerUtils
} from "graphile-worker"
import { randomBytes } from "node:crypto"
import { readFileSync } from "node:fs"
import { asOneStatement } from "../../src/internal/postgres/scripts.ts"
import { eventually } from "./events.ts"

const silent = new Logger(() => () => {})

/** Lets graphile-worker 0.18 migrate the database, to its migration 20. */
export const migrate = (url: string, schema = "graphile_worker"): Effect.Effect<void> =>
  Effect.promise(() => runMigrations({ connectionString: url, schema, logger: silent }))

const folder = new URL("../../node_modules/graphile-worker/sql/", import.meta.url)

/** Runs graphile-worker's own migrations up to that one, as the version did that brought it. */
export const migrateTo = Effect.fnUntraced(function*(
  sql: PgClient.PgClient,
  last: number,
  breaking: ReadonlyArray<number> | undefined = [1, 3, 11, 13, 14, 16, 19]
): Effect.fn.Return<void, SqlError> {
  const column = breaking === undefined ? "" : ", breaking boolean not null default false"
  yield* sql.unsafe("create schema graphile_worker")
  yield* sql.unsafe(
    `create table graphile_worker.migrations (id int primary key, ts timestamptz not null default now()${column})`
  )
  for (let id = 1; id <= last; id++) {
    const file = new URL(`${String(id).padStart(6, "0")}.sql`, folder)
    const script = readFileSync(file, "utf8").replaceAll(":GRAPHILE_WORKER_SCHEMA", "graphile_worker")
    yield* sql.unsafe(asOneStatement(script)).unprepared
    yield* sql`insert into graphile_worker.migrations (id) values (${id})`
  }
  if (breaking !== undefined) {
    yield* sql`update graphile_worker.migrations set breaking = true where id = any(${breaking}::int[])`
  }
})

/** The address with a name for the sessions, and that name. */
const named = (url: string) => {
  const name = `graphile-worker-${randomBytes(4).toString("hex")}`
  const changed = new URL(url)
  changed.searchParams.set("application_name", name)
  return { name, connectionString: changed.toString() }
}

/** graphile-worker does not wait for its connections to end, and throws when they are ended by dropping the database. */
const disconnected = (sql: PgClient.PgClient, name: string) =>
  Effect.orDie(eventually(
    sql`select from pg_stat_activity where datname = current_database() and application_name = ${name}`,
    { what: "the end of graphile-worker's sessions", until: (rows) => rows.length === 0 }
  ))

/** Where graphile-worker works: the address of a database, and a client that outlives its connections. */
export interface Target {
  readonly url: string
  readonly sql: PgClient.PgClient
}

/** What its documents recommend for high rates: jobs are fetched ahead, and completed and failed in batches. */
export const batched: Pick<RunnerOptions, "preset"> = {
  preset: { worker: { localQueue: { size: 100 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 } }
}

/** Runs graphile-worker's workers with their default settings, but a shorter poll interval, until the scope closes. */
export const start = (
  { sql, url }: Target,
  taskList: TaskList,
  options: Pick<RunnerOptions, "concurrency" | "schema" | "preset" | "parsedCronItems"> = {}
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.suspend(() => {
    const { connectionString, name } = named(url)
    return Effect.asVoid(Effect.acquireRelease(
      Effect.promise(() =>
        run({
          connectionString,
          noHandleSignals: true,
          pollInterval: 200,
          logger: silent,
          taskList,
          ...options
        })
      ),
      (runner) => Effect.andThen(Effect.promise(() => runner.stop()), disconnected(sql, name))
    ))
  })

/** graphile-worker's utilities: what adds jobs and administers them. */
export const utils = ({ sql, url }: Target): Effect.Effect<WorkerUtils, never, Scope.Scope> => {
  const { connectionString, name } = named(url)
  return Effect.acquireRelease(
    Effect.promise(() => makeWorkerUtils({ connectionString, logger: silent })),
    (utils) => Effect.andThen(Effect.promise(() => Promise.resolve(utils.release())), disconnected(sql, name))
  )
}

/** One job of each kind that a running system has, and what belongs to it. */
export const fill = (sql: PgClient.PgClient) =>
  Effect.forEach([
    "select (graphile_worker.add_job('plain', '{\"n\":1}')).id",
    "select (graphile_worker.add_job('future', run_at := '2040-01-01Z', priority := -5, max_attempts := 3)).id",
    "select (graphile_worker.add_job('queued', queue_name := 'serial')).id from generate_series(1, 3)",
    "select (graphile_worker.add_job('keyed', '[1,2]', job_key := 'k', flags := array['slow'])).id",
    "select (graphile_worker.add_job('failed')).id",
    "select (graphile_worker.add_job('running', queue_name := 'busy')).id",
    `update graphile_worker._private_jobs set attempts = max_attempts, last_error = 'no'
     where task_id = (select id from graphile_worker._private_tasks where identifier = 'failed')`,
    `update graphile_worker._private_jobs set attempts = 1, locked_at = now(), locked_by = 'pool-1'
     where task_id = (select id from graphile_worker._private_tasks where identifier = 'running')`,
    `update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'pool-1' where queue_name = 'busy'`,
    "insert into graphile_worker._private_known_crontabs values ('nightly', now(), now())"
  ], (statement) =>
    sql.unsafe(statement), { discard: true })

/** Every row of the tables that are graphile-worker's. */
export const contents = (sql: PgClient.PgClient) =>
  Effect.map(
    sql<{ rows: string }>`select json_build_array(
      (select json_agg(t order by id) from graphile_worker._private_jobs as t),
      (select json_agg(t order by id) from graphile_worker._private_job_queues as t),
      (select json_agg(t order by id) from graphile_worker._private_tasks as t),
      (select json_agg(t) from graphile_worker._private_known_crontabs as t)
    )::text as rows`,
    ([row]) => row!.rows
  )
