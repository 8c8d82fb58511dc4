import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as SqlClient from "effect/sql/SqlClient"
import * as Database from "./support/database.ts"
import { eventually } from "./support/events.ts"
import { isRunning } from "./support/guard.ts"
import { spawnScript } from "./support/process.ts"

const client = (config: PgClient.PgPoolConfig) => PgClient.make(config).pipe(Effect.provide(Reactivity.layer))
const refusal = (config: PgClient.PgPoolConfig) =>
  Effect.map(Effect.flip(Effect.flatMap(client(config), (sql) => sql`select 1`)), (error) => error.reason._tag)
const echo = new URL("./support/echoChild.ts", import.meta.url)

it.layer(Database.layer())("a fresh database", (it) => {
  it.effect("is its own: another one does not see its tables", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const { name } = yield* Database.TestDatabase
      yield* sql`create table only_here (id int)`
      const other = yield* Database.freshDatabase()
      const seen = sql<{ name: string; there: boolean }>`
        select current_database() as name, to_regclass('only_here') is not null as there`
      assert.deepStrictEqual(yield* seen, [{ name, there: true }])
      const there = yield* Effect.flatMap(
        client(other.config),
        (sql) => sql`select to_regclass('only_here')::text as t`
      )
      assert.deepStrictEqual(there, [{ t: null }])
    }))

  it.effect("is reached by its address too", () =>
    Effect.gen(function*() {
      const { name, url } = yield* Database.TestDatabase
      const sql = yield* client({ url: Redacted.make(url) })
      assert.deepStrictEqual(yield* sql`select current_database()::text as name`, [{ name }])
    }))

  it.effect("loses the sessions that a test terminates, and no others", () =>
    Effect.gen(function*() {
      const { config } = yield* Database.TestDatabase
      const victim = yield* client({ ...config, applicationName: "victim", maxConnections: 1 })
      const bystander = yield* client({ ...config, applicationName: "bystander", maxConnections: 1 })
      const pid = (sql: SqlClient.SqlClient) =>
        Effect.map(sql<{ pid: number }>`select pg_backend_pid() as pid`, (rows) => rows[0]?.pid)
      const before = [yield* pid(victim), yield* pid(bystander)]
      assert.strictEqual(yield* Database.terminateBackends("vic%"), 1)
      const after = [yield* Effect.retry(pid(victim), { times: 3 }), yield* pid(bystander)]
      assert.notStrictEqual(after[0], before[0])
      assert.strictEqual(after[1], before[1])
    }))

  it.effect("is dropped with its sessions when its scope closes", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const scope = yield* Scope.make()
      const { config, name } = yield* Scope.provide(Database.freshDatabase({ migrated: false }), scope)
      const exists = Effect.map(sql`select from pg_database where datname = ${name}`, (rows) => rows.length === 1)
      yield* Effect.flatMap(client(config), (sql) => sql`select 1`)
      assert.isTrue(yield* exists)
      yield* Scope.close(scope, Exit.void)
      assert.isFalse(yield* exists)
    }))
})

describe("a child process", () => {
  it.effect("is read line by line, gets its environment, and ends with its code", () =>
    Effect.gen(function*() {
      const child = yield* spawnScript(echo, { args: ["one"], env: { GREETING: "hello" } })
      assert.strictEqual(yield* child.line(/^ready/), "ready one hello undefined")
      yield* child.kill("SIGTERM")
      assert.strictEqual(yield* child.line("stopping"), "stopping")
      assert.deepStrictEqual(yield* child.exit, { code: 7, signal: null })
      const failed = yield* Effect.flip(child.line("never"))
      assert.include(failed.message, "ready one hello")
    }))

  it.effect("is killed with its scope", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const child = yield* Scope.provide(spawnScript(echo), scope)
      yield* child.line("ready")
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* child.exit, { code: null, signal: "SIGKILL" })
      assert.isFalse(isRunning(child.pid))
    }))
})

describe("eventually", () => {
  it.effect("looks until the condition holds, under a test clock too", () =>
    Effect.gen(function*() {
      let looks = 0
      const look = Effect.suspend(() => ++looks < 3 ? Effect.fail("early") : Effect.succeed(looks))
      assert.strictEqual(yield* eventually(look, { every: "1 millis" }), 3)
    }))

  it.effect("tells what it waited for and what it saw last", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(
        eventually(Effect.succeed({ jobs: 2 }), { what: "an empty table", until: () => false, within: "30 millis" })
      )
      assert.strictEqual(error.message, "an empty table did not hold within 30ms; last seen: {\"jobs\":2}")
      const hanging = yield* Effect.flip(eventually(Effect.never, { within: "30 millis" }))
      assert.include(hanging.message, "the first look did not end")
    }))
})

describe("a dedicated server", () => {
  it.effect("keeps what was committed over a crash, at the same address", () =>
    Effect.gen(function*() {
      const server = yield* Database.dedicatedServer
      const sql = yield* client(server.config)
      yield* sql`create table kept (id int)`
      yield* sql`insert into kept values (1)`
      const before = yield* server.pid
      yield* server.stop("immediate")
      assert.isFalse(isRunning(before))
      assert.strictEqual(yield* refusal(server.config), "ConnectionError")
      yield* server.start
      assert.notStrictEqual(yield* server.pid, before)
      assert.deepStrictEqual(yield* eventually(sql`select id from kept`), [{ id: 1 }])
    }), 60_000)

  it.effect("wants a password over TCP", () =>
    Effect.gen(function*() {
      const server = yield* Database.dedicatedServerWith({ settings: { max_connections: "20" } })
      const sql = yield* client({ url: Redacted.make(server.url) })
      assert.deepStrictEqual(yield* sql`select current_setting('max_connections') as value`, [{ value: "20" }])
      const wrong = new URL(server.url)
      wrong.password = "wrong"
      assert.strictEqual(yield* refusal({ url: Redacted.make(wrong.href) }), "AuthenticationError")
    }), 60_000)
})
