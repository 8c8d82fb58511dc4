/**
 * Databases for tests: each of its own, cloned from the migrated template and
 * dropped when the scope closes.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { randomBytes } from "node:crypto"
import { inject } from "vitest"
import { databaseName, withDatabase } from "./context.ts"
import { makeDirectory } from "./directory.ts"
import { eventually, type NotInTime } from "./events.ts"
import { makeServer, type ServerFailed, type StopMode } from "./server.ts"

const server = inject("kongtaskPostgres")

/** Where a database is, for further clients and for child processes. */
export interface TestDatabaseShape {
  readonly name: string
  /** Over the unix socket where the server is our own, as given otherwise. */
  readonly config: PgClient.PgPoolConfig
  /** Over TCP with a password, where the server is our own; fit for `DATABASE_URL`. */
  readonly url: string
}

/** The database of a test's layer. */
export class TestDatabase extends Context.Service<TestDatabase, TestDatabaseShape>()("kongtask/test/TestDatabase") {}

const configOf = (database: string): PgClient.PgPoolConfig => ({
  ...(server.socket === undefined
    ? { url: Redacted.make(withDatabase(server.url, database)) }
    : { ...server.socket, database }),
  maxConnections: 10
})

/** The administrative database of the run's server. Tests leave nothing in it. */
export const connection: PgClient.PgPoolConfig = server.socket === undefined
  ? { url: Redacted.make(server.url), maxConnections: 10 }
  : configOf("postgres")

/** Runs one piece of work on a connection of its own to the administrative database. */
const asAdmin = <A, E>(use: (sql: PgClient.PgClient) => Effect.Effect<A, E>): Effect.Effect<A, E | SqlError> =>
  PgClient.makeClient(connection).pipe(
    Effect.flatMap(use),
    Effect.scoped,
    Effect.provide(Reactivity.layer)
  )

/** Copying files takes a sixth of the time of the log that PostgreSQL 15 and later write instead. */
const strategy = server.version >= 150000 ? "strategy file_copy" : ""

const create = (name: string, migrated: boolean) =>
  asAdmin((sql) =>
    sql.unsafe(`create database "${name}" template "${migrated ? server.template : "template0"}" ${strategy}`)
  )

/** Ends the sessions first and apart: `with (force)` needs PostgreSQL 13. */
const drop = (name: string) =>
  asAdmin((sql) =>
    Effect.gen(function*() {
      yield* sql.unsafe(`alter database "${name}" with allow_connections false`)
      yield* sql`select pg_terminate_backend(pid) from pg_stat_activity where datname = ${name}`
      yield* sql.unsafe(`drop database if exists "${name}"`)
    })
  )

/** Options of `freshDatabase` and `layer`. */
export interface DatabaseOptions {
  /** Whether it has our schema; default true. An empty one has nothing at all. */
  readonly migrated?: boolean | undefined
}

/** A database of the caller's own, dropped with its sessions when the scope closes. */
export const freshDatabase = Effect.fnUntraced(function*(
  options: DatabaseOptions = {}
): Effect.fn.Return<TestDatabaseShape, never, Scope.Scope> {
  const name = databaseName(server.run, randomBytes(6).toString("hex"))
  yield* Effect.acquireRelease(
    Effect.orDie(create(name, options.migrated ?? true)),
    () => Effect.orDie(drop(name))
  )
  return { name, config: configOf(name), url: withDatabase(server.url, name) }
})

/** A fresh database and a client of it (at most 10 connections, opened as needed). */
export const layer = (
  options?: DatabaseOptions
): Layer.Layer<PgClient.PgClient | SqlClient.SqlClient | TestDatabase, SqlError> =>
  Layer.unwrap(Effect.map(TestDatabase, (database) => PgClient.layer(database.config))).pipe(
    Layer.provideMerge(Layer.effect(TestDatabase, freshDatabase(options)))
  )

/**
 * Ends the sessions of this test's database whose `application_name` is like
 * the pattern (`%` by default), and returns how many there were, once they are
 * gone.
 */
export const terminateBackends = Effect.fnUntraced(function*(
  pattern = "%"
): Effect.fn.Return<number, NotInTime, TestDatabase> {
  const { name } = yield* TestDatabase
  return yield* asAdmin((sql) =>
    Effect.gen(function*() {
      // Materialized: the planner would end the sessions of every database before it looks at their names.
      const ended = yield* sql<{ pid: number }>`
        with sessions as materialized (
          select pid from pg_stat_activity where datname = ${name} and application_name like ${pattern}
        )
        select pid from sessions where pg_terminate_backend(pid)`
      const pids = ended.map(({ pid }) => pid)
      yield* eventually(
        sql`select pid from pg_stat_activity where pid = any(${pids}::int[])`,
        { what: "the end of the terminated sessions", until: (rows) => rows.length === 0 }
      )
      return pids.length
    })
  ).pipe(Effect.catchTag("SqlError", Effect.die))
})

/** A server of the caller's own, to be stopped and started again. */
export interface DedicatedServer {
  /** Its database `postgres`, over the unix socket. */
  readonly config: PgClient.PgPoolConfig
  /** The same over TCP with a password. */
  readonly url: string
  /** The postmaster's process id; fails while it is stopped. */
  readonly pid: Effect.Effect<number, ServerFailed>
  readonly log: Effect.Effect<string>
  /** `immediate` is a crash of the server. Returns when it has exited. */
  readonly stop: (mode: StopMode) => Effect.Effect<void>
  /** Returns when it accepts connections, at the same address as before. */
  readonly start: Effect.Effect<void, ServerFailed>
}

/** Options of `dedicatedServerWith`. */
export interface DedicatedServerOptions {
  /** Server settings, such as `{ max_connections: "20" }`. */
  readonly settings?: Readonly<Record<string, string>> | undefined
}

/**
 * Starts another server (about a second), empty, with `synchronous_commit` on:
 * what it has committed survives `stop("immediate")`.
 */
export const dedicatedServerWith = Effect.fnUntraced(function*(
  options: DedicatedServerOptions = {}
): Effect.fn.Return<DedicatedServer, never, Scope.Scope> {
  if ("unavailable" in server.binaries) return yield* Effect.die(new Error(server.binaries.unavailable))
  const directory = yield* makeDirectory("data")
  const settings = { synchronous_commit: "on", ...options.settings }
  const own = yield* Effect.orDie(makeServer(server.binaries, directory, { settings }))
  const { host, log, password, pid, port, start, stop, username } = own
  return {
    config: { host, port, username, database: "postgres", maxConnections: 10 },
    url: `postgres://${username}:${password}@127.0.0.1:${port}/postgres`,
    pid,
    log,
    stop,
    start
  }
})

/** `dedicatedServerWith` the defaults. */
export const dedicatedServer: Effect.Effect<DedicatedServer, never, Scope.Scope> = dedicatedServerWith()
