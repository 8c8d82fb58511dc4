import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Reactivity from "effect/reactivity/Reactivity"
import type * as SqlClient from "effect/sql/SqlClient"
import { fromSqlError, withTransaction } from "../src/internal/postgres/errors.ts"
import * as Database from "./support/database.ts"

const connect = (config: PgClient.PgPoolConfig) => PgClient.make(config).pipe(Effect.provide(Reactivity.layer))

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

  it.live("knows the schema that it is told, whatever its name", () =>
    Effect.gen(function*() {
      const sql = yield* migrated
      const schema = "we\"ird Schéma (1).x"
      const quoted = `"${schema.replaceAll("\"", "\"\"")}"`
      const reasonOf = (text: string) =>
        Effect.map(Effect.flip(sql.unsafe(text)), (error) => fromSqlError("test", schema)(error).reason)
      for (const what of [`null::${quoted}.job_spec`, `${quoted}.add_job('a')`, `(select id from ${quoted}.jobs)`]) {
        const reason = yield* reasonOf(`select ${what}`)
        assert.deepStrictEqual(reason._tag === "SchemaMissing" && reason.schema, schema, what)
      }
      yield* sql.unsafe(`create schema ${quoted}`)
      for (const what of [`null::${quoted}.job_spec`, `${quoted}.add_job('a')`, `(select id from ${quoted}.jobs)`]) {
        const reason = yield* reasonOf(`select ${what}`)
        assert.deepStrictEqual(reason._tag === "SchemaMissing" && reason.schema, schema, what)
      }
      for (const text of [`select from ${quoted}.users`, "select from other._private_jobs", "select from users"]) {
        assert.strictEqual((yield* reasonOf(text))._tag, "StatementFailed", text)
      }
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
