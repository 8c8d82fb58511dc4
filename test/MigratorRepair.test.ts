import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Scripts from "../src/internal/postgres/scripts.ts"
import * as KongTask from "../src/KongTask.ts"
import * as Migrator from "../src/Migrator.ts"
import { connect, empty, migratorOf, reasonOf } from "./support/migrator.ts"

describe("a schema that something else has changed", () => {
  it.live("is reported by verify and status, and repaired by migrate", () =>
    Effect.gen(function*() {
      const { admin, config, migrator } = yield* empty()
      yield* migrator.migrate
      yield* admin`
        create or replace function graphile_worker.add_job(
          identifier text, payload json default null, queue_name text default null, run_at timestamptz default null,
          max_attempts int default null, job_key text default null, priority int default null,
          flags text[] default null, job_key_mode text default 'replace'
        ) returns graphile_worker._private_jobs language sql as 'select null::graphile_worker._private_jobs'`
      yield* admin`drop index graphile_worker.jobs_queue_index`

      const reason = yield* reasonOf(migrator.verify)
      assert.deepStrictEqual(reason._tag === "SchemaDamaged" && reason.objects, ["add_job", "jobs_queue_index"])
      assert.include(reason.message, "add_job, jobs_queue_index")
      assert.deepStrictEqual((yield* migrator.status).damaged, ["add_job", "jobs_queue_index"])

      const other = yield* migratorOf(yield* connect({ ...config, maxConnections: 1 }))
      const reports = yield* Effect.all([migrator.migrate, other.migrate], { concurrency: 2 })
      assert.deepStrictEqual(reports.flatMap(({ repaired }) => repaired), ["add_job", "jobs_queue_index"])
      yield* migrator.verify
      assert.deepStrictEqual(yield* admin`select id::int from graphile_worker.add_job('a')`, [{ id: 1 }])
    }))

  it.live("is repaired in the embedded database too", () =>
    Effect.gen(function*() {
      const [sql, migrator] = yield* Effect.all([PgClient.PgClient, Migrator.Migrator])
      yield* sql`drop index graphile_worker.jobs_claim_index`
      yield* sql`drop function graphile_worker.remove_job`
      assert.deepStrictEqual((yield* migrator.migrate).repaired, ["remove_job", "jobs_claim_index"])
      yield* migrator.verify
      const interop = yield* migratorOf(sql, { interop: true })
      assert.lengthOf((yield* interop.migrate).repaired, 2)
      assert.lengthOf((yield* migrator.finishAdoption).dropped, 2)
    }).pipe(Effect.provide(KongTask.layerEmbedded())))

  it.live("works under its new name after it was renamed", () =>
    Effect.gen(function*() {
      const { migrator, sql } = yield* empty()
      yield* migrator.migrate
      yield* sql`alter schema graphile_worker rename to renamed`
      const renamed = yield* migratorOf(sql, { schema: "renamed" })
      assert.include((yield* renamed.migrate).repaired, "add_job")
      yield* renamed.verify
      assert.deepStrictEqual(yield* sql`select id::int from renamed.add_job('a')`, [{ id: 1 }])
    }))

  it.live("is refused when a function has got a twin with other arguments", () =>
    Effect.gen(function*() {
      const { migrator, sql } = yield* empty()
      yield* migrator.migrate
      yield* sql`drop function graphile_worker.remove_job`
      yield* sql`create function graphile_worker.remove_job(job_key text, reason text default '') returns int
        language sql as 'select 1'`
      const reason = yield* reasonOf(migrator.migrate)
      assert.strictEqual(reason._tag, "SchemaIncompatible")
      assert.include(reason.message, "remove_job with other arguments")
      assert.deepStrictEqual(
        yield* sql`select count(*)::int as n from pg_proc
          where proname = 'remove_job' and pronamespace = 'graphile_worker'::regnamespace`,
        [{ n: 1 }]
      )
    }))
})

describe("the indexes of graphile-worker", () => {
  const interopIndexes = ["jobs_main_index", "jobs_no_queue_index"]

  it.live("are there only when they are asked for, at once or later", () =>
    Effect.gen(function*() {
      const { migrator, sql } = yield* empty(undefined, { interop: true, schema: "both" })
      yield* migrator.migrate
      assert.isTrue((yield* migrator.status).interop)
      const plain = yield* migratorOf(sql)
      yield* plain.migrate
      assert.isFalse((yield* plain.status).interop)
      const later = yield* migratorOf(sql, { interop: true })
      assert.deepStrictEqual((yield* later.migrate).repaired, interopIndexes)
      assert.isTrue((yield* plain.status).interop)
      assert.deepStrictEqual((yield* plain.migrate).repaired, [])
    }))

  it.live("go with finishAdoption, which refuses where they are asked for", () =>
    Effect.gen(function*() {
      const { migrator, sql } = yield* empty()
      assert.strictEqual((yield* reasonOf(migrator.finishAdoption))._tag, "SchemaMissing")
      const interop = yield* migratorOf(sql, { interop: true })
      yield* interop.migrate
      assert.strictEqual((yield* reasonOf(interop.finishAdoption))._tag, "InvalidConfiguration")
      assert.deepStrictEqual((yield* migrator.finishAdoption).dropped, interopIndexes)
      assert.deepStrictEqual((yield* migrator.finishAdoption).dropped, [])
      yield* migrator.verify
      const inside = yield* sql.withTransaction(reasonOf(migrator.finishAdoption))
      assert.include(inside.message, "finishAdoption was called inside a transaction")
    }))
})

describe("the scripts", () => {
  it.live("let every function of a repeatable file be told from what others put in its place", () =>
    Effect.gen(function*() {
      const scripts = yield* Scripts.load
      const repeatable = scripts.migrations.filter((script) => script.repeatable).map(({ sql }) => sql).join("\n")
      const names = Array.from(
        repeatable.matchAll(/^create (?:or replace )?function :schema\.(\w+)/gm),
        ([, name]) => name
      )
      assert.deepStrictEqual(Scripts.fingerprints(scripts, "x").map(({ name }) => name), names)
      assert.strictEqual(new Set(names).size, names.length)
      assert.notMatch(repeatable, /^create (?!or replace )|^(?:alter|drop|insert) /m)
      const others = scripts.migrations.filter((script) => !script.repeatable).map(({ sql }) => sql).join("\n")
      assert.notMatch(others, /\bfunction\b/)
      assert.deepStrictEqual(scripts.indexes.map(({ name }) => name), [
        "jobs_claim_index",
        "jobs_queue_due_index",
        "jobs_queue_index"
      ])
      assert.deepStrictEqual(scripts.interop.map(({ name }) => name), ["jobs_main_index", "jobs_no_queue_index"])
    }))
})
