import { NodeFileSystem } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { describe, expect, it } from "@effect/vitest"
import { ConfigProvider, Effect, Exit, FileSystem, Layer, Option, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import { KongTask, KongTaskError, KongTaskLive, Migrator, Queue, Worker } from "kongtask"
import { Act } from "./fixtures/act.ts"
import * as Database from "./support/database.ts"
import { spawnScript } from "./support/process.ts"

const environment = (env: Record<string, string>) => ConfigProvider.layer(ConfigProvider.fromEnvRecord(env))

/** Why a layer cannot be built. */
const refusal = <A, E>(layer: Layer.Layer<A, E>) => Effect.flip(Effect.scoped(Layer.build(layer)))

const reasonOf = <A>(layer: Layer.Layer<A, KongTaskError.KongTaskError>) =>
  Effect.map(refusal(layer), (error) => error.reason)

const configured = (env: Record<string, string>) => KongTask.layerConfig.pipe(Layer.provide(environment(env)))

const schemas = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  sql<{ name: string }>`
    select nspname::text as name from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'
    order by 1`).pipe(Effect.map((rows) => rows.map((row) => row.name)))

describe("KongTask.layerConfig", () => {
  it.live("says which settings it looked for when there is no connection", () =>
    Effect.gen(function*() {
      const reason = yield* reasonOf(configured({ PGHOST: "localhost" }))
      expect(reason._tag).toBe("ConnectionNotConfigured")
      expect(reason.message).toContain("DATABASE_URL or PGDATABASE")
      expect(reason.message).toContain("layerEmbedded")
    }))

  it.live("names the setting that is wrong", () =>
    Effect.gen(function*() {
      const port = yield* reasonOf(configured({ PGDATABASE: "x", PGPORT: "99999999" }))
      expect(port._tag).toBe("InvalidConfiguration")
      expect(port.message).toContain("PGPORT")
      const connections = yield* reasonOf(configured({ PGDATABASE: "x", KONGTASK_MAX_POOL_SIZE: "1" }))
      expect(connections.message).toContain("KONGTASK_MAX_POOL_SIZE must be a whole number from 2 to 10000, not \"1\"")
      const schema = yield* reasonOf(configured({ PGDATABASE: "x", KONGTASK_SCHEMA: "s".repeat(64) }))
      expect(schema._tag).toBe("InvalidConfiguration")
      expect(schema.message).toContain("KONGTASK_SCHEMA must be a name of 1 to 63 bytes")
    }))

  it.live("provides the PgClient whose transactions an add joins", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.freshDatabase()
      yield* Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql.withTransaction(Effect.andThen(Queue.add(Act, { act: "return" }), Effect.fail("rolled back"))).pipe(
          Effect.ignore
        )
        expect(yield* Queue.count()).toBe(0)
        yield* sql.withTransaction(Queue.add(Act, { act: "return" }))
        expect(yield* Queue.count()).toBe(1)
      }).pipe(Effect.provide(configured({ DATABASE_URL: url })))
    }).pipe(Effect.scoped))

  it.live("reads PG* and the schema under its new and its old name", () =>
    Effect.gen(function*() {
      const url = new URL((yield* Database.freshDatabase({ migrated: false })).url)
      const env = {
        PGHOST: url.hostname,
        PGPORT: url.port,
        PGUSER: url.username,
        PGPASSWORD: url.password,
        PGDATABASE: url.pathname.slice(1)
      }
      const schemaOf = (more: Record<string, string>) =>
        Effect.map(Migrator.status, (status) => status.schema).pipe(
          Effect.provide(configured({ ...env, ...more }))
        )
      expect(yield* schemaOf({})).toBe("graphile_worker")
      expect(yield* schemaOf({ GRAPHILE_WORKER_SCHEMA: "Old Name" })).toBe("Old Name")
      expect(yield* schemaOf({ GRAPHILE_WORKER_SCHEMA: "Old Name", KONGTASK_SCHEMA: "new" })).toBe("new")
    }).pipe(Effect.scoped))
})

describe("a database that cannot be used", () => {
  const withUrl = (change: (url: URL) => void) =>
    Effect.map(Database.freshDatabase(), ({ url }) => {
      const changed = new URL(url)
      change(changed)
      return configured({ DATABASE_URL: changed.href })
    })

  it.live("wrong password", () =>
    Effect.gen(function*() {
      const reason = yield* reasonOf(yield* withUrl((url) => url.password = "secret-but-wrong"))
      expect(reason._tag).toBe("AuthenticationFailed")
      expect(reason.message).toMatch(/refused the login: .*password.* Check the user, the password/)
      expect(reason.message).not.toContain("secret-but-wrong")
    }).pipe(Effect.scoped))

  it.live("no such database", () =>
    Effect.gen(function*() {
      const reason = yield* reasonOf(yield* withUrl((url) => url.pathname = "/nowhere"))
      expect(reason._tag).toBe("DatabaseMissing")
      expect(reason.message).toMatch(/"nowhere".* Create it/)
    }).pipe(Effect.scoped))

  it.live("nobody listens at the address", () =>
    Effect.gen(function*() {
      const reason = yield* reasonOf(yield* withUrl((url) => url.port = "1"))
      expect(reason._tag).toBe("ConnectionFailed")
      expect(reason.message).toMatch(/cannot be reached: .*ECONNREFUSED.* Check that the server is running/)
    }).pipe(Effect.scoped))

  it.live("schema missing where migrating was forbidden: nothing is made", () =>
    Effect.gen(function*() {
      const { config } = yield* Database.freshDatabase({ migrated: false })
      const database = PgClient.layer(config)
      const error = yield* refusal(KongTask.layer({ migrate: false }).pipe(Layer.provide(database)))
      expect(error).toBeInstanceOf(KongTaskError.KongTaskError)
      expect(error.message).toMatch(/The schema "graphile_worker" does not exist\. Run Migrator\.migrate/)
      expect(yield* Effect.provide(schemas, database)).toEqual(["public"])
    }).pipe(Effect.scoped))

  it.live("no right to create the schema: nothing stays behind, and the message names the right", () =>
    Effect.gen(function*() {
      const { config, name } = yield* Database.freshDatabase({ migrated: false })
      const role = `role_${name}`
      const owner = PgClient.layer(config)
      yield* Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql.unsafe(`create role "${role}" login password 'p'`)
        yield* Effect.addFinalizer(() => Effect.orDie(sql.unsafe(`drop role "${role}"`)))
        const reason = yield* reasonOf(
          KongTaskLive.pipe(
            Layer.provide(Layer.orDie(PgClient.layer({ ...config, username: role, password: Redacted.make("p") })))
          )
        )
        expect(reason._tag).toBe("PrivilegeMissing")
        expect(reason.message).toMatch(/permission denied for database .* needs CREATE on the database/)
        expect(yield* schemas).toEqual(["public"])
      }).pipe(Effect.scoped, Effect.provide(owner))
    }).pipe(Effect.scoped))
})

describe("transactions", () => {
  it.live("an add inside another client's transaction is refused", () =>
    Effect.gen(function*() {
      const { config } = yield* Database.freshDatabase()
      const other = Layer.build(PgClient.layer(config))
      yield* Effect.gen(function*() {
        const theirs = yield* Effect.map(other, (context) => Layer.succeedContext(context))
        const error = yield* Effect.flatMap(SqlClient.SqlClient, (sql) =>
          sql.withTransaction(Queue.add(Act, { act: "return" }))).pipe(Effect.provide(theirs), Effect.flip)
        expect(error).toMatchObject({ _tag: "KongTaskError", reason: { _tag: "OtherTransaction" } })
        expect(yield* Queue.count()).toBe(0)

        const own = yield* SqlClient.SqlClient
        const both = Effect.flatMap(SqlClient.SqlClient, (sql) =>
          sql.withTransaction(Queue.add(Act, { act: "return" }))).pipe(Effect.provide(theirs))
        yield* own.withTransaction(both)
        expect(yield* Queue.count()).toBe(1)
      }).pipe(Effect.provide(Layer.provideMerge(KongTaskLive, PgClient.layer(config))))
    }).pipe(Effect.scoped))
})

describe("KongTask.layerEmbedded", () => {
  const directory = Effect.flatMap(FileSystem.FileSystem, (fs) => fs.makeTempDirectoryScoped()).pipe(
    Effect.map((path) => `${path}/data`),
    Effect.provide(NodeFileSystem.layer)
  )
  const Handler = Act.toLayer(() => Effect.void)

  it.live("keeps its jobs from one opening to the next", () =>
    Effect.gen(function*() {
      const dataDir = yield* directory
      yield* Queue.add(Act, { act: "return" }).pipe(Effect.provide(KongTask.layerEmbedded({ dataDir })))
      const summary = yield* Worker.runOnce({ tasks: [Act] }).pipe(
        Effect.provide([Handler, KongTask.layerEmbedded({ dataDir })])
      )
      expect(summary.completed).toBe(1)
    }).pipe(Effect.scoped), 60_000)

  it.live("belongs to one process, and gives what a killed one was running back at once", () =>
    Effect.gen(function*() {
      const dataDir = yield* directory
      const child = yield* spawnScript(new URL("fixtures/embedded.ts", import.meta.url), { args: [dataDir] })
      yield* child.line("running 1")

      const inUse = yield* reasonOf(KongTask.layerEmbedded({ dataDir }))
      expect(inUse).toMatchObject({ _tag: "DataDirectoryInUse", pid: child.pid })
      expect(inUse.message).toMatch(
        /is in use by process \d+\..*stop that process, use another directory, or use a server/
      )

      yield* child.killGroup
      yield* Effect.gen(function*() {
        const [job] = yield* Queue.list()
        expect(job).toMatchObject({ state: "ready", attempts: 1, lockedBy: undefined })
        expect(yield* Worker.runOnce({ tasks: [Act] })).toMatchObject({ completed: 1, failed: 0 })
      }).pipe(Effect.provide([Handler, KongTask.layerEmbedded({ dataDir })]))
    }).pipe(Effect.scoped), 60_000)

  it.live("lives in memory without a directory", () =>
    Effect.gen(function*() {
      const job = yield* Queue.add(Act, { act: "return" })
      expect(Option.isSome(yield* Queue.get(job.id))).toBe(true)
      const exit = yield* Effect.exit(Worker.runOnce({ tasks: [Act], concurrency: 3 }))
      expect(Exit.isSuccess(exit)).toBe(true)
    }).pipe(Effect.provide([Handler, KongTask.layerEmbedded()])), 60_000)
})
