/**
 * What PostgreSQL used: processor time of its processes, write-ahead log, row versions, index size.
 */
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import { readdirSync, readFileSync } from "node:fs"
import { readOr } from "../../test/support/directory.ts"
import { Server } from "./server.ts"

/** The kernel counts processor time in ticks of this many milliseconds. */
const tick = 10

const fieldsOf = (pid: string): ReadonlyArray<number> => {
  const stat = readOr(`/proc/${pid}/stat`, "")
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ").map(Number)
}

/** Milliseconds of processor time of a server's processes so far, ended ones included; NaN where there is no /proc. */
const cpuOf = (postmaster: number): number => {
  if (readOr("/proc/self/stat", "") === "") return Number.NaN
  const [, , , , , , , , , , , user = 0, system = 0, childUser = 0, childSystem = 0] = fieldsOf(String(postmaster))
  let ticks = user + system + childUser + childSystem
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    const [, parent, , , , , , , , , , user = 0, system = 0] = readableFields(pid)
    if (parent === postmaster) ticks += user + system
  }
  return ticks * tick
}

/** A process may end between the listing and the look at it. */
const readableFields = (pid: string): ReadonlyArray<number> => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1")
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ").map(Number)
  } catch {
    return []
  }
}

export interface ServerUse {
  /** Processor time of the server's processes, in milliseconds. */
  readonly cpu: number
  readonly walBytes: number
}

const snapshot = Effect.fnUntraced(function*(sql: PgClient.PgClient) {
  const server = yield* Server
  const [row] = yield* sql<{ wal: number }>`
    select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8 as wal`
  return { cpu: cpuOf(yield* server.pid), walBytes: row!.wal }
}, Effect.orDie)

/** What the server did for `effect`. */
export const measured = Effect.fnUntraced(function*<A, E, R>(sql: PgClient.PgClient, effect: Effect.Effect<A, E, R>) {
  const before = yield* snapshot(sql)
  const value = yield* effect
  const after = yield* snapshot(sql)
  const use: ServerUse = { cpu: after.cpu - before.cpu, walBytes: after.walBytes - before.walBytes }
  return { value, use }
})

export interface Counts {
  readonly transactions: number
  /** Row versions that were left behind: updates and deletes. */
  readonly deadRows: number
}

/** The database's counters. Sessions tell them when they end, or with a delay of up to a second, which this waits for. */
export const counts = (sql: PgClient.PgClient): Effect.Effect<Counts> =>
  Effect.sleep("1200 millis").pipe(
    Effect.andThen(sql<Counts>`
      select (select xact_commit + xact_rollback from pg_stat_database where datname = current_database())::float8
          as transactions,
        (select coalesce(sum(n_tup_upd + n_tup_del), 0) from pg_stat_user_tables)::float8 as "deadRows"`),
    Effect.map(([row]) => row!),
    Effect.orDie
  )

/** The sessions in a database that are the contestants'. */
export const connections = (sql: PgClient.PgClient): Effect.Effect<number> =>
  sql<{ count: number }>`
    select count(*)::int as count from pg_stat_activity
    where datname = current_database() and backend_type = 'client backend' and application_name !~ '^kongtask-bench'`
    .pipe(Effect.map(([row]) => row!.count), Effect.orDie)

/** The size of all indexes of a schema, in bytes. */
export const indexBytes = (sql: PgClient.PgClient, schema: string): Effect.Effect<number> =>
  sql<{ bytes: number }>`
    select coalesce(sum(pg_indexes_size(oid)), 0)::float8 as bytes from pg_class
    where relkind = 'r' and relnamespace = ${schema}::regnamespace`.pipe(
    Effect.map(([row]) => row!.bytes),
    Effect.orDie
  )
