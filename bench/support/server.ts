/**
 * The benchmark's own PostgreSQL: default settings, data on disk, stopped with its scope.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { statfsSync } from "node:fs"
import { findBinaries } from "../../test/support/binaries.ts"
import { makeDirectory } from "../../test/support/directory.ts"
import { makeServer } from "../../test/support/server.ts"

/** The tests' server trades durability for speed; these are PostgreSQL's own defaults again. */
const defaults = {
  fsync: "on",
  synchronous_commit: "on",
  full_page_writes: "on",
  max_connections: "100",
  shared_buffers: "128MB"
}

export interface Shape {
  readonly version: string
  readonly origin: string
  /** Whether the data is on a file system in memory. */
  readonly inMemory: boolean
  /** Settings that are not PostgreSQL's defaults, or that decide about durability. */
  readonly settings: Readonly<Record<string, string>>
  readonly pid: Effect.Effect<number>
  readonly log: Effect.Effect<string>
  /** An empty database, its address and a client of it; dropped with the scope. */
  readonly database: Effect.Effect<{ readonly url: string; readonly sql: PgClient.PgClient }, never, Scope.Scope>
}

const connect = (url: string, maxConnections = 3) =>
  PgClient.make({ url: Redacted.make(url), maxConnections, applicationName: "kongtask-bench" }).pipe(
    Effect.provide(Reactivity.layer)
  )

const memoryFileSystem = 0x01021994

export class Server extends Context.Service<Server, Shape>()("kongtask/bench/Server") {
  static readonly layer = Layer.effect(
    Server,
    Effect.gen(function*() {
      const binaries = yield* findBinaries
      // A directory for programs is never one in memory.
      const directory = yield* makeDirectory("programs")
      const server = yield* makeServer(binaries, directory, { settings: defaults })
      const address = (database: string) =>
        `postgres://${server.username}:${server.password}@127.0.0.1:${server.port}/${database}`
      const admin = yield* connect(address("postgres"), 1)
      const settings = yield* admin<{ name: string; setting: string }>`
        select name, current_setting(name) as setting from pg_settings
        where name = any (${[
        "fsync",
        "synchronous_commit",
        "full_page_writes",
        "max_connections",
        "shared_buffers",
        "wal_level",
        "max_wal_size",
        "autovacuum",
        "jit"
      ]}::text[]) order by name`
      let databases = 0

      const database = Effect.gen(function*() {
        const name = `bench_${++databases}`
        yield* Effect.acquireRelease(
          admin.unsafe(`create database ${name}`),
          () =>
            admin`select pg_terminate_backend(pid) from pg_stat_activity where datname = ${name}`.pipe(
              Effect.andThen(admin.unsafe(`drop database ${name}`)),
              Effect.ignore({ log: "Warn" })
            )
        )
        return { url: address(name), sql: yield* connect(address(name)) }
      }).pipe(Effect.orDie)

      return Server.of({
        version: binaries.version,
        origin: binaries.origin,
        inMemory: statfsSync(directory).type === memoryFileSystem,
        settings: Object.fromEntries(settings.map(({ name, setting }) => [name, setting])),
        pid: Effect.orDie(server.pid),
        log: server.log,
        database
      })
    })
  )
}
