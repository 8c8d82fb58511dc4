import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Reactivity from "effect/reactivity/Reactivity"
import type * as SqlClient from "effect/sql/SqlClient"
import { randomBytes } from "node:crypto"
import { fromSqlError, withTransaction } from "../src/internal/postgres/errors.ts"
import { load, render } from "../src/internal/postgres/migrations.ts"
import type { KongTaskError } from "../src/KongTaskError.ts"
import * as Migrator from "../src/Migrator.ts"
import * as Database from "./support/database.ts"
import { pause } from "./support/events.ts"

const connect = (config: PgClient.PgPoolConfig) => PgClient.make(config).pipe(Effect.provide(Reactivity.layer))

/** The migrator of one client. */
const migratorOf = (sql: PgClient.PgClient, options?: Migrator.MigratorOptions) =>
  Layer.build(Migrator.Migrator.layer(options)).pipe(
    Effect.map((context) => Context.get(context, Migrator.Migrator)),
    Effect.provideService(PgClient.PgClient, sql)
  )

/** An empty database, a superuser's client of it, and its migrator. */
const empty = Effect.fnUntraced(function*(
  settings?: Partial<PgClient.PgPoolConfig>,
  options?: Migrator.MigratorOptions
) {
  const { config } = yield* Database.freshDatabase({ migrated: false })
  const admin = yield* connect(config)
  const sql = settings === undefined ? admin : yield* connect({ ...config, ...settings })
  return { config, admin, sql, migrator: yield* migratorOf(sql, options) }
})

/** A role without any privilege, gone with the scope. */
const makeRole = (admin: PgClient.PgClient) =>
  Effect.acquireRelease(
    Effect.suspend(() => {
      const role = `kongtask_${randomBytes(6).toString("hex")}`
      return Effect.as(admin.unsafe(`create role ${role}`), role)
    }),
    (role) => Effect.orDie(Effect.andThen(admin.unsafe(`drop owned by ${role}`), admin.unsafe(`drop role ${role}`)))
  )

/** Makes every DDL command of the database fail that the condition picks. */
const refuseDdl = (sql: SqlClient.SqlClient, when: string, code = "P0001") =>
  Effect.andThen(
    sql.unsafe(`
      create function public.refuse() returns event_trigger language plpgsql as $$
      begin
        if ${when} then raise exception 'no DDL here' using errcode = '${code}'; end if;
      end $$`),
    sql.unsafe("create event trigger refuse on ddl_command_start execute function public.refuse()")
  )

const schemasOf = (sql: SqlClient.SqlClient) =>
  Effect.map(
    sql<{ name: string }>`
      select nspname::text as name from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'
      order by nspname`,
    (rows) => rows.map(({ name }) => name)
  )

const reasonOf = <A>(effect: Effect.Effect<A, KongTaskError>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason)

describe("migrate", () => {
  it.live("installs everything in an empty database and then has nothing left to do", () =>
    Effect.gen(function*() {
      const { migrator, sql } = yield* empty()
      const scripts = (yield* load).map(({ breaking, id, name }) => ({ id, name, breaking }))
      assert.deepStrictEqual((yield* migrator.status).pending, scripts)
      assert.deepStrictEqual(yield* migrator.migrate, { schema: "graphile_worker", applied: scripts })
      assert.deepStrictEqual(yield* migrator.migrate, { schema: "graphile_worker", applied: [] })
      yield* migrator.verify

      const status = yield* migrator.status
      assert.deepStrictEqual(status.applied.map(({ breaking, id, name }) => ({ id, name, breaking })), scripts)
      assert.deepStrictEqual([status.pending, status.newer], [[], []])
      const [age] = yield* sql<{ ms: number }>`
        select extract(epoch from now()) * 1000 - ${status.applied[0]!.appliedAt.epochMilliseconds}::float8 as ms`
      assert.isBelow(Math.abs(Number(age?.ms)), 60_000)
    }))

  it.live("is done once when twenty processes start at once", () =>
    Effect.gen(function*() {
      const { config } = yield* Database.freshDatabase({ migrated: false })
      const reports = yield* Effect.forEach(
        Array.from({ length: 20 }),
        () =>
          Effect.scoped(Effect.gen(function*() {
            const sql = yield* connect({ ...config, maxConnections: 1 })
            const migrator = yield* migratorOf(sql)
            const report = yield* migrator.migrate
            yield* migrator.verify
            return report
          })),
        { concurrency: "unbounded" }
      )
      const applied = reports.flatMap((report) => report.applied.map(({ id }) => id))
      assert.deepStrictEqual(applied.toSorted((a, b) => a - b), (yield* load).map(({ id }) => id))
    }))

  it.live("neither creates nor locks anything when the schema is up to date", () =>
    Effect.gen(function*() {
      const { admin, config, migrator } = yield* empty()
      yield* migrator.migrate
      yield* refuseDdl(admin, "true")
      const lockHolder = yield* connect({ ...config, maxConnections: 1 })
      const report = yield* lockHolder.withTransaction(Effect.gen(function*() {
        yield* lockHolder`
          select pg_advisory_xact_lock(hashtextextended('kongtask/migrate/graphile_worker', 0))::text`
        yield* lockHolder`lock table graphile_worker._private_jobs in share row exclusive mode`
        return yield* migrator.migrate
      }))
      assert.deepStrictEqual(report.applied, [])
    }))

  it.live("lets a role that may only read start on an up-to-date schema", () =>
    Effect.gen(function*() {
      const { admin, config, migrator } = yield* empty()
      yield* migrator.migrate
      const role = yield* makeRole(admin)
      const reader = yield* connect({ ...config, startupParameters: { role } })
      const reading = yield* migratorOf(reader)
      assert.strictEqual((yield* reasonOf(reading.migrate))._tag, "PrivilegeMissing")
      yield* admin.unsafe(`grant usage on schema graphile_worker to ${role}`)
      yield* admin.unsafe(`grant select on graphile_worker._private_kongtask_migrations to ${role}`)
      assert.deepStrictEqual((yield* reading.migrate).applied, [])
      yield* reading.verify
    }))

  it.live("says which privilege is missing, and needs none on the database for a schema of its own", () =>
    Effect.gen(function*() {
      const { admin, config } = yield* empty()
      const role = yield* makeRole(admin)
      const migrator = yield* migratorOf(yield* connect({ ...config, startupParameters: { role } }))
      const reason = yield* reasonOf(migrator.migrate)
      assert.strictEqual(reason._tag, "PrivilegeMissing")
      assert.include(reason.message, "permission denied for database")
      assert.deepStrictEqual(yield* schemasOf(admin), ["public"])

      yield* admin.unsafe(`create schema graphile_worker authorization ${role}`)
      yield* migrator.migrate
      yield* migrator.verify
    }))

  it.live("leaves nothing behind when it fails, and can be run again", () =>
    Effect.gen(function*() {
      const { admin, migrator } = yield* empty()
      yield* refuseDdl(admin, "tg_tag = 'CREATE VIEW'")
      const reason = yield* reasonOf(migrator.migrate)
      assert.strictEqual(reason._tag, "MigrationFailed")
      assert.strictEqual(reason.message, "Migration 0001_contract.sql failed and was rolled back: no DDL here.")
      assert.deepStrictEqual(yield* schemasOf(admin), ["public"])
      assert.strictEqual((yield* reasonOf(migrator.verify))._tag, "SchemaMissing")

      yield* admin`drop event trigger refuse`
      yield* migrator.migrate
      yield* migrator.verify
    }))

  it.live("keeps the migrations before the one that failed, and verify names those that are missing", () =>
    Effect.gen(function*() {
      const { admin, migrator } = yield* empty()
      yield* refuseDdl(admin, "tg_tag = 'CREATE TABLE' and current_query() like '%_private_kongtask_pools%'")
      assert.strictEqual((yield* reasonOf(migrator.migrate))._tag, "MigrationFailed")
      const [first, ...rest] = (yield* load).map(({ name }) => name)
      assert.deepStrictEqual((yield* migrator.status).applied.map(({ name }) => name), [first])
      const reason = yield* reasonOf(migrator.verify)
      assert.deepStrictEqual(reason._tag === "SchemaMissing" && reason.pending, rest)

      yield* admin`drop event trigger refuse`
      assert.deepStrictEqual((yield* migrator.migrate).applied.map(({ name }) => name), rest)
    }))

  it.live("tries again when DDL has waited too long for a lock", () =>
    Effect.gen(function*() {
      const { admin, migrator } = yield* empty()
      yield* admin`create sequence public.tries`
      yield* refuseDdl(admin, "tg_tag = 'CREATE VIEW' and nextval('public.tries') < 3", "55P03")
      yield* migrator.migrate
      yield* migrator.verify
    }))

  it.live("waits for another process that is migrating", () =>
    Effect.gen(function*() {
      const { config, migrator } = yield* empty()
      const lockHolder = yield* connect({ ...config, maxConnections: 1 })
      const fiber = yield* lockHolder.withTransaction(Effect.gen(function*() {
        yield* lockHolder`
          select pg_advisory_xact_lock(hashtextextended('kongtask/migrate/graphile_worker', 0))::text`
        const fiber = yield* Effect.forkChild(migrator.migrate)
        yield* pause("300 millis")
        assert.isUndefined(fiber.pollUnsafe())
        return fiber
      }))
      assert.isNotEmpty((yield* Fiber.join(fiber)).applied)
    }))

  it.live("refuses to run inside the caller's transaction, which goes on", () =>
    Effect.gen(function*() {
      const { migrator, sql } = yield* empty()
      const result = yield* sql.withTransaction(Effect.gen(function*() {
        const reason = yield* reasonOf(migrator.migrate)
        assert.strictEqual(reason._tag, "InvalidConfiguration")
        assert.include(reason.message, "inside a transaction")
        return yield* sql<{ n: number }>`select 1 as n`
      }))
      assert.deepStrictEqual(result, [{ n: 1 }])
      assert.deepStrictEqual(yield* schemasOf(sql), ["public"])
    }))

  it.live("does not depend on the settings of the caller's client", () =>
    Effect.gen(function*() {
      const { admin, migrator } = yield* empty({
        startupParameters: {
          search_path: "nowhere",
          default_transaction_isolation: "serializable",
          statement_timeout: "600ms",
          standard_conforming_strings: "off"
        },
        transformResultNames: (name) => name.toUpperCase(),
        transformQueryNames: (name) => name.toUpperCase(),
        prepare: false
      }, { schema: "back\\slash" })
      assert.isNotEmpty((yield* migrator.migrate).applied)
      yield* migrator.verify
      const [row] = yield* admin<{ n: string }>`
        select count(*)::text as n
        from "back\\slash".add_jobs(array_fill(row('a', null, null, null, null, null, null, null)::"back\\slash".job_spec, array[3]))`
      assert.deepStrictEqual(row, { n: "3" })
    }))
})

describe("a schema's name", () => {
  it.live("may be anything that PostgreSQL can quote", () =>
    Effect.gen(function*() {
      const schema = `Job"s 'of' $kongtask$ :schema \\ ü`
      const { migrator, sql } = yield* empty(undefined, { schema })
      yield* migrator.migrate
      yield* migrator.verify
      assert.deepStrictEqual(yield* schemasOf(sql), [schema, "public"])
      const quoted = `"${schema.replaceAll("\"", "\"\"")}"`
      const specs = `array[row('a', null, 'q', null, null, 'k', null, null)::${quoted}.job_spec]`
      const added = `select count(*)::int as n from ${quoted}.add_jobs(${specs})`
      assert.deepStrictEqual(yield* sql.unsafe(added), [{ n: 1 }])
      assert.deepStrictEqual(yield* sql.unsafe(`select (${quoted}.add_job('a')).id::int as id`), [{ id: 2 }])
    }))

  it.live("keeps two schemas of one database apart", () =>
    Effect.gen(function*() {
      const { migrator, sql } = yield* empty(undefined, { schema: "one" })
      const other = yield* migratorOf(sql, { schema: "Two" })
      yield* Effect.all([migrator.migrate, other.migrate], { concurrency: 2 })
      yield* Effect.all([migrator.verify, other.verify])
      yield* sql`select id::text from one.add_job('a')`
      assert.deepStrictEqual(yield* sql`select count(*)::int as n from one.jobs`, [{ n: 1 }])
      assert.deepStrictEqual(yield* sql`select count(*)::int as n from "Two".jobs`, [{ n: 0 }])
    }))

  it.live("is refused when PostgreSQL could not have it", () =>
    Effect.gen(function*() {
      const { sql } = yield* empty()
      const problem = (schema: string) =>
        Effect.map(reasonOf(Effect.scoped(migratorOf(sql, { schema }))), (reason) => reason.message)
      assert.strictEqual(yield* problem(""), "Invalid configuration: schema must not be empty.")
      assert.strictEqual(
        yield* problem("ü".repeat(32)),
        "Invalid configuration: schema has 64 bytes; the limit is 63."
      )
      assert.include(yield* problem("a\u0000b"), "NUL")
      assert.include(yield* problem("a\ud800b"), "surrogate")
      assert.include(yield* problem("pg_jobs"), "pg_")
    }))
})

describe("a schema that this version did not make", () => {
  it.live("is refused when a newer version made a breaking change, and status says so", () =>
    Effect.gen(function*() {
      const { migrator, sql } = yield* empty()
      yield* migrator.migrate
      yield* sql`insert into graphile_worker._private_kongtask_migrations values (901, '0901_next', false)`
      yield* migrator.verify
      assert.deepStrictEqual((yield* migrator.migrate).applied, [])

      yield* sql`insert into graphile_worker._private_kongtask_migrations values (902, '0902_far', true)`
      for (const effect of [migrator.migrate, migrator.verify]) {
        const reason = yield* reasonOf(effect)
        assert.strictEqual(reason._tag, "SchemaIncompatible")
        assert.include(reason.message, "0902_far")
        assert.notInclude(reason.message, "0901_next")
      }
      assert.deepStrictEqual((yield* migrator.status).newer.map(({ id }) => id), [901, 902])
    }))

  it.live("is refused when graphile-worker made it", () =>
    Effect.gen(function*() {
      const { migrator, sql } = yield* empty()
      yield* sql`create schema graphile_worker`
      yield* sql`create table graphile_worker.migrations (id int primary key)`
      for (const effect of [migrator.migrate, migrator.verify, migrator.status]) {
        const reason = yield* reasonOf<unknown>(effect)
        assert.strictEqual(reason._tag, "SchemaIncompatible")
        assert.include(reason.message, "another schema name")
      }
      assert.deepStrictEqual(
        yield* sql`select count(*)::int as n from pg_class where relnamespace = 'graphile_worker'::regnamespace`,
        [{ n: 2 }]
      )
    }))
})

describe("render", () => {
  it("replaces both tokens and the tag of function bodies, and nothing else", () => {
    const script = "create function :schema.f() as $body$ select :schema_literal, :schemas, x::text $body$"
    assert.strictEqual(
      render(script, "it's \"$kongtask$\""),
      "create function \"it's \"\"$kongtask$\"\"\".f() as $kongtask1$ select 'it''s \"$kongtask$\"', :schemas, x::text $kongtask1$"
    )
  })
})

describe("fromSqlError", () => {
  const failureOf = (sql: SqlClient.SqlClient, text: string, params?: ReadonlyArray<unknown>) =>
    Effect.map(Effect.flip(sql.unsafe(text, params)), fromSqlError("test"))

  const migrated = Effect.flatMap(Database.freshDatabase(), ({ config }) => connect(config))

  it.live("tells what a connection attempt failed of", () =>
    Effect.gen(function*() {
      const { config } = yield* Database.freshDatabase({ migrated: false })
      const attempt = (changed: PgClient.PgPoolConfig) =>
        Effect.flatMap(connect(changed), (sql) => failureOf(sql, "select 1"))

      const away = yield* attempt({ host: "/nowhere", username: "somebody" })
      assert.deepStrictEqual([away.reason._tag, away.isTransient], ["ConnectionFailed", true])
      const refused = yield* attempt({ host: "127.0.0.1", port: 1, username: "somebody" })
      assert.strictEqual(refused.reason._tag, "ConnectionFailed")
      assert.include(refused.message, "ECONNREFUSED")
      const noDatabase = yield* attempt({ ...config, database: "no_such_database" })
      assert.deepStrictEqual([noDatabase.reason._tag, noDatabase.isTransient], ["DatabaseMissing", false])
      const noRole = yield* attempt({ ...config, username: "no_such_role" })
      assert.deepStrictEqual([noRole.reason._tag, noRole.isTransient], ["AuthenticationFailed", false])
    }))

  it.live("names the schema whose objects are missing", () =>
    Effect.gen(function*() {
      const sql = yield* migrated
      for (
        const text of [
          "select from nothing_here._private_jobs",
          "select nothing_here.add_job('a')",
          "update nothing_here.jobs set locked_at = null",
          "select null::nothing_here.job_spec",
          "create table nothing_here.x ()"
        ]
      ) {
        const { reason } = yield* failureOf(sql, text)
        assert.deepStrictEqual(reason._tag === "SchemaMissing" && reason.schema, "nothing_here", text)
      }
      assert.strictEqual((yield* failureOf(sql, "select from users")).reason._tag, "StatementFailed")
    }))

  it.live("tells apart what passes by itself and what does not", () =>
    Effect.gen(function*() {
      const sql = yield* migrated
      const raise = (code: string) =>
        Effect.map(
          failureOf(sql, `do $$ begin raise exception 'x' using errcode = '${code}'; end $$`),
          ({ isTransient, reason }) => `${code} ${reason._tag}${isTransient ? " transient" : ""}`
        )
      const codes = ["08006", "57P01", "57P03", "53300", "53200", "25006", "40001", "40P01", "55P03", "57014"]
      assert.deepStrictEqual(yield* Effect.forEach([...codes, "42501", "23505", "GWBKM", "XX000"], raise), [
        "08006 ConnectionFailed transient",
        "57P01 ConnectionFailed transient",
        "57P03 ConnectionFailed transient",
        "53300 ConnectionFailed transient",
        "53200 StatementFailed transient",
        "25006 StatementFailed transient",
        "40001 StatementFailed transient",
        "40P01 StatementFailed transient",
        "55P03 StatementFailed transient",
        "57014 StatementFailed transient",
        "42501 PrivilegeMissing",
        "23505 StatementFailed",
        "GWBKM StatementFailed",
        "XX000 StatementFailed"
      ])
    }))

  it.live("tells neither parameters nor rows", () =>
    Effect.gen(function*() {
      const sql = yield* migrated
      const refused = [
        yield* failureOf(sql, "select $1::timestamptz", ["secret"]),
        yield* failureOf(sql, "select $1::json", ["{secret"]),
        yield* failureOf(sql, "select graphile_worker.add_job('a', $1::json, job_key => '')", ["\"secret\""])
      ]
      assert.deepStrictEqual(refused.map(({ message }) => message), [
        "PostgreSQL refused to test (SQLSTATE 22007): invalid input syntax for type timestamp with time zone",
        "PostgreSQL refused to test (SQLSTATE 22P02): invalid input syntax for type json",
        "PostgreSQL refused to test (SQLSTATE 23514): new row for relation \"_private_jobs\" violates check constraint " +
        "\"jobs_key_check\""
      ])
    }))

  it.live("sees a failure where a transaction's connection broke", () =>
    Effect.gen(function*() {
      const { config } = yield* Database.freshDatabase({ migrated: false })
      const [sql, killer] = [yield* connect(config), yield* connect(config)]
      const broken = withTransaction(sql)(Effect.gen(function*() {
        const [own] = yield* sql<{ pid: number }>`select pg_backend_pid()::int as pid`
        yield* killer`select pg_terminate_backend(${own!.pid}::int)`
        return yield* sql`select pg_sleep(1)`
      }))
      const error = fromSqlError("test")(yield* Effect.flip(broken))
      assert.deepStrictEqual([error.reason._tag, error.isTransient], ["ConnectionFailed", true])
    }))
})
