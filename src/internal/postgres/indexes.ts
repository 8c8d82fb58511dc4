/**
 * Indexes of a table that is in use.
 *
 * They are made and dropped `CONCURRENTLY`, which cannot be done in a
 * transaction. So the caller's transaction holds the migrator's lock, idle and
 * without a snapshot that the server would wait for, while a connection of its
 * own does the work. What a killed run leaves is an invalid index, or a backend
 * that is still at it.
 */
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { isEmbedded } from "../pglite/layer.ts"
import { derive } from "./client.ts"
import { quoteIdentifier } from "./schema.ts"
import { type IndexScript, render } from "./scripts.ts"

/** $1 the schema. Whether a session makes or drops an index of the jobs at the moment, or vacuums them. */
const busyStatement = `
  select exists (
    select from pg_catalog.pg_locks as held
    join pg_catalog.pg_stat_activity as session on session.pid = held.pid
    where held.relation = (
        select class.oid from pg_catalog.pg_class as class
        join pg_catalog.pg_namespace as namespace on namespace.oid = class.relnamespace
        where namespace.nspname = $1::text and class.relname = '_private_jobs'
      )
      and held.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
      and held.mode = 'ShareUpdateExclusiveLock' and held.granted
      and session.backend_type = 'client backend'
  ) as is_busy`

/** $1 the schema, $2 the names. Those of them that are there and can be used. */
const validStatement = `
  select class.relname::text as name
  from pg_catalog.pg_index as index
  join pg_catalog.pg_class as class on class.oid = index.indexrelid
  join pg_catalog.pg_namespace as namespace on namespace.oid = class.relnamespace
  where namespace.nspname = $1::text and class.relname = any ($2::text[]) and index.indisvalid`

/** The session is ours alone and ends with the work. */
const settingsStatement = `
  select
    pg_catalog.set_config('lock_timeout', '0', false),
    pg_catalog.set_config('statement_timeout', '0', false),
    pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false)`

/** Any utility statement: it ends the portal of the last query, and with it the snapshot that an index waits for. */
const forgetSnapshotStatement = "set local lock_timeout = '3s'"

/** The work of a killed run ends by itself; a second one beside it would be a deadlock. */
const untilFree = (sql: SqlClient.SqlClient, schema: string): Effect.Effect<void, SqlError> =>
  Effect.asVoid(Effect.repeat(
    Effect.tap(
      sql.unsafe<{ readonly is_busy: boolean }>(busyStatement, [schema]).unprepared,
      sql.unsafe(forgetSnapshotStatement).unprepared
    ),
    { while: (rows) => rows[0]!.is_busy, schedule: Schedule.spaced("250 millis") }
  ))

const concurrently = Effect.fnUntraced(function*(
  client: PgClient.PgClient,
  holder: SqlClient.SqlClient,
  statements: ReadonlyArray<string>
) {
  yield* holder.unsafe(forgetSnapshotStatement).unprepared
  const sql = yield* derive(client, 1)
  yield* sql.unsafe(settingsStatement).unprepared
  yield* Effect.forEach(statements, (statement) => sql.unsafe(statement).unprepared, { discard: true })
}, Effect.scoped)

/** Makes the indexes in the caller's transaction, which waits for all writers of the table and keeps them out. */
export const create = (
  sql: SqlClient.SqlClient,
  schema: string,
  indexes: ReadonlyArray<IndexScript>
): Effect.Effect<void, SqlError> =>
  Effect.forEach(indexes, (index) => sql.unsafe(render(index.sql, schema)).unprepared, { discard: true })

/**
 * Makes those indexes that are missing or invalid, while the table is in use.
 * `sql` is in a transaction that holds the migrator's lock.
 */
export const ensure = Effect.fnUntraced(function*(
  client: PgClient.PgClient,
  sql: SqlClient.SqlClient,
  schema: string,
  indexes: ReadonlyArray<IndexScript>
): Effect.fn.Return<void, SqlError> {
  if (indexes.length === 0) return
  if (isEmbedded(client)) return yield* create(sql, schema, indexes)
  yield* untilFree(sql, schema)
  const names = indexes.map(({ name }) => name)
  const valid = yield* sql.unsafe<{ readonly name: string }>(validStatement, [schema, names]).unprepared
  const lacking = indexes.filter((index) => valid.every(({ name }) => name !== index.name))
  const statements = Array.from(lacking, (index) => [
    `drop index concurrently if exists ${quoteIdentifier(schema)}.${quoteIdentifier(index.name)}`,
    render(index.sql, schema).replace("create index", "create index concurrently")
  ]).flat()
  if (statements.length > 0) yield* concurrently(client, sql, statements)
})

/** Drops those indexes that are there, while the table is in use. `sql` is as for `ensure`. */
export const drop = Effect.fnUntraced(function*(
  client: PgClient.PgClient,
  sql: SqlClient.SqlClient,
  schema: string,
  names: ReadonlyArray<string>
): Effect.fn.Return<void, SqlError> {
  if (names.length === 0) return
  const named = names.map((name) => `${quoteIdentifier(schema)}.${quoteIdentifier(name)}`)
  if (isEmbedded(client)) {
    return yield* Effect.forEach(named, (name) => sql.unsafe(`drop index if exists ${name}`).unprepared, {
      discard: true
    })
  }
  yield* untilFree(sql, schema)
  yield* concurrently(client, sql, named.map((name) => `drop index concurrently if exists ${name}`))
})
