import type * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as SqlClient from "effect/sql/SqlClient"
import * as Scripts from "../src/internal/postgres/scripts.ts"
import type { KongTaskError } from "../src/KongTaskError.ts"
import * as Database from "./support/database.ts"
import { pause } from "./support/events.ts"
import { connect, empty, makeRole, migratorOf, reasonOf, refuseDdl } from "./support/migrator.ts"

const schemasOf = (sql: SqlClient.SqlClient) =>
  Effect.map(
    sql<{ name: string }>`
      select nspname::text as name from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'
      order by nspname`,
    (rows) => rows.map(({ name }) => name)
  )

describe("migrate", () => {
  it.live("installs everything in an empty database and then has nothing left to do", () =>
    Effect.gen(function*() {
      const { migrator, sql } = yield* empty()
      const scripts = (yield* Scripts.load).migrations.map(({ breaking, id, name }) => ({ id, name, breaking }))
      assert.deepStrictEqual((yield* migrator.status).pending, scripts)
      const report = { schema: "graphile_worker", adoptedFrom: undefined, repaired: [] }
      assert.deepStrictEqual(yield* migrator.migrate, { ...report, applied: scripts })
      assert.deepStrictEqual(yield* migrator.migrate, { ...report, applied: [] })
      yield* migrator.verify

      const status = yield* migrator.status
      assert.deepStrictEqual(status.applied.map(({ breaking, id, name }) => ({ id, name, breaking })), scripts)
      assert.deepStrictEqual([status.pending, status.newer, status.damaged], [[], [], []])
      assert.deepStrictEqual([status.adopted, status.interop], [undefined, false])
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
      assert.deepStrictEqual(applied.toSorted((a, b) => a - b), (yield* Scripts.load).migrations.map(({ id }) => id))
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

  it.live("lets a role without the right to create anything start on an up-to-date schema", () =>
    Effect.gen(function*() {
      const { admin, config } = yield* empty()
      const [owner, member] = [yield* makeRole(admin), yield* makeRole(admin)]
      yield* admin.unsafe(`create schema graphile_worker authorization ${owner}`)
      yield* (yield* migratorOf(yield* connect({ ...config, startupParameters: { role: owner } }))).migrate
      yield* admin.unsafe(`revoke create on schema graphile_worker from ${owner}`)
      yield* admin.unsafe(`grant ${owner} to ${member}`)
      const migrator = yield* migratorOf(yield* connect({ ...config, startupParameters: { role: member } }))
      assert.deepStrictEqual((yield* migrator.migrate).applied, [])
      yield* migrator.verify
    }))

  it.live("says so to a role from which row level security hides the jobs", () =>
    Effect.gen(function*() {
      const { admin, config, migrator } = yield* empty()
      yield* migrator.migrate
      const role = yield* makeRole(admin)
      const other = yield* migratorOf(yield* connect({ ...config, startupParameters: { role } }))
      const problemOf = <A>(effect: Effect.Effect<A, KongTaskError>) =>
        Effect.map(reasonOf(effect), (reason) => `${reason._tag}: ${reason.message}`)
      assert.include(yield* problemOf(other.migrate), "PrivilegeMissing: The role lacks a privilege: permission denied")

      yield* admin.unsafe(`grant usage on schema graphile_worker to ${role}`)
      yield* admin.unsafe(`grant all on all tables in schema graphile_worker to ${role}`)
      for (const effect of [other.migrate, other.verify]) {
        assert.include(
          yield* problemOf<unknown>(effect),
          "PrivilegeMissing: The role lacks a privilege: row level security"
        )
      }
      assert.isNotEmpty((yield* other.status).applied)

      yield* admin.unsafe(`alter role ${role} bypassrls`)
      yield* other.verify
      yield* admin.unsafe(`alter role ${role} nobypassrls`)
      const tables = yield* admin<{ name: string }>`
        select relname::text as name from pg_class
        where relnamespace = 'graphile_worker'::regnamespace and relrowsecurity`
      yield* Effect.forEach(
        tables,
        ({ name }) => admin.unsafe(`create policy ours on graphile_worker.${name} to ${role} using (true)`)
      )
      yield* other.verify
    }))

  it.live("makes what is new the property of the schema's owner, whoever migrates", () =>
    Effect.gen(function*() {
      const { admin, config, migrator } = yield* empty()
      const owner = yield* makeRole(admin)
      yield* admin.unsafe(`create schema graphile_worker authorization ${owner}`)
      yield* migrator.migrate
      yield* admin`drop index graphile_worker.jobs_claim_index`
      yield* admin`drop function graphile_worker.remove_job`
      assert.deepStrictEqual((yield* migrator.migrate).repaired, ["remove_job", "jobs_claim_index"])
      const owners = yield* admin<{ owner: string }>`
        select distinct relowner::regrole::text as owner from pg_class
        where relnamespace = 'graphile_worker'::regnamespace
        union
        select proowner::regrole::text from pg_proc where pronamespace = 'graphile_worker'::regnamespace`
      assert.deepStrictEqual(owners, [{ owner }])
      const theirs = yield* migratorOf(yield* connect({ ...config, startupParameters: { role: owner } }))
      assert.deepStrictEqual((yield* theirs.migrate).applied, [])
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
      yield* refuseDdl(admin, "tg_tag = 'CREATE TYPE'")
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
      const names = (yield* Scripts.load).migrations.map(({ name }) => name)
      const failed = names.indexOf("0004_pools")
      const [done, rest] = [names.slice(0, failed), names.slice(failed)]
      assert.isAbove(failed, 0)
      assert.deepStrictEqual((yield* migrator.status).applied.map(({ name }) => name), done)
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

  it.live("is left as it is by an older version: neither repaired nor called damaged", () =>
    Effect.gen(function*() {
      const { migrator, sql } = yield* empty()
      yield* migrator.migrate
      yield* sql`insert into graphile_worker._private_kongtask_migrations values (901, '0901_next', false)`
      yield* sql`drop index graphile_worker.jobs_claim_index`
      yield* sql`
        create or replace function graphile_worker._private_kongtask_notify(count bigint) returns void
        language sql as 'select'`
      yield* migrator.verify
      assert.deepStrictEqual((yield* migrator.migrate).repaired, [])
      assert.deepStrictEqual((yield* migrator.status).damaged, [])
    }))
})

describe("a server before PostgreSQL 12", () => {
  it.live("is refused by everything", () =>
    Effect.gen(function*() {
      const { sql } = yield* empty()
      const row = { server_version: "11.22", server_version_num: 110_022, has_schema: true }
      const old: PgClient.PgClient = {
        ...sql,
        withoutTransforms: () => old,
        unsafe: () => Effect.succeed([row])
      } as unknown as PgClient.PgClient
      const migrator = yield* migratorOf(old)
      for (const effect of [migrator.migrate, migrator.verify, migrator.status]) {
        assert.strictEqual(
          (yield* reasonOf<unknown>(effect)).message,
          "This server is PostgreSQL 11.22; KongTask needs 12 or later. Upgrade the server."
        )
      }
    }))
})

describe("render", () => {
  it("replaces both tokens and the tag of function bodies, and nothing else", () => {
    const script = "create function :schema.f() as $body$ select :schema_literal, :schemas, x::text $body$"
    assert.strictEqual(
      Scripts.render(script, "it's \"$kongtask$\""),
      "create function \"it's \"\"$kongtask$\"\"\".f() as $kongtask1$ select 'it''s \"$kongtask$\"', :schemas, x::text $kongtask1$"
    )
  })
})
