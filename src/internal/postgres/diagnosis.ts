/**
 * What `Doctor` asks the database: nothing is locked, nothing changes.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as SqlClient from "effect/sql/SqlClient"
import type { KongTaskError } from "../../KongTaskError.ts"
import { fromSqlError } from "./errors.ts"
import { quoteIdentifier } from "./schema.ts"

export interface Server {
  readonly version: string
  readonly version_number: number
  readonly database: string
  readonly role: string
  readonly is_standby: boolean
  readonly is_read_only: boolean
  readonly connections: number
  readonly max_connections: number
  readonly is_autovacuum_on: boolean
}

/** Settings, and the sessions of all databases. */
const server = `
  select
    current_setting('server_version') as version,
    current_setting('server_version_num')::int as version_number,
    current_database()::text as database,
    current_user::text as role,
    pg_is_in_recovery() as is_standby,
    current_setting('default_transaction_read_only')::bool as is_read_only,
    (select count(*) from pg_stat_activity where backend_type = 'client backend')::int as connections,
    current_setting('max_connections')::int as max_connections,
    current_setting('autovacuum')::bool as is_autovacuum_on`

/** The time of the server, in ms. */
const clock = "select (extract(epoch from clock_timestamp()) * 1000)::float8 as now"

export interface Rights {
  readonly can_create_schema: boolean
  readonly schema_exists: boolean
  readonly can_use_schema: boolean
  /** Tables that the role may not read and write. */
  readonly denied: ReadonlyArray<string>
  /** Tables whose rows row level security hides from the role. */
  readonly hidden: ReadonlyArray<string>
}

/** $1 schema. Catalogs only. */
const rights = `
  select
    has_database_privilege(current_database(), 'create') as can_create_schema,
    schema.oid is not null as schema_exists,
    coalesce(has_schema_privilege(schema.oid, 'usage'), false) as can_use_schema,
    array(
      select class.relname::text from pg_class as class
      where class.relnamespace = schema.oid and class.relkind = 'r' and not (
        has_table_privilege(class.oid, 'select') and has_table_privilege(class.oid, 'insert')
        and has_table_privilege(class.oid, 'update') and has_table_privilege(class.oid, 'delete')
      )
      order by class.relname
    )::text[] as denied,
    array(
      select class.relname::text from pg_class as class
      where class.relnamespace = schema.oid and class.relkind = 'r' and row_security_active(class.oid)
      order by class.relname
    )::text[] as hidden
  from (select) as one
  left join pg_namespace as schema on schema.nspname = $1::text`

export interface Workers {
  readonly alive: number
  readonly dead: ReadonlyArray<string>
  /** Holders of jobs that are not registered, with locks older than they may be. */
  readonly orphans: ReadonlyArray<string>
  /** Whether somebody without heartbeats, such as graphile-worker, holds jobs. */
  readonly has_foreign: boolean
  /** Jobs that have been due for longer than a minute, 10,001 at most. */
  readonly overdue: number
}

/** Scans the jobs once for their holders; `overdue` reads 10,001 rows at most by the claim's index. */
const workers = (schema: string) => `
  with holders as (
    select locked_by as id, min(locked_at) as oldest
    from ${schema}._private_jobs
    where locked_by is not null and locked_at < 'infinity'
    group by locked_by
  ), foreign_holders as (
    select id, oldest, id like 'kongtask-%' as is_ours
    from holders
    where not exists (select from ${schema}._private_kongtask_pools as pool where pool.id = holders.id)
  )
  select
    (select count(*) from ${schema}._private_kongtask_pools where heartbeat_at + lease > now())::int as alive,
    array(
      select id from ${schema}._private_kongtask_pools where heartbeat_at + lease <= now() order by heartbeat_at
    )::text[] as dead,
    array(
      select id from foreign_holders
      where oldest < now() - case when is_ours then interval '5 minutes' else interval '4 hours' end
      order by oldest
    )::text[] as orphans,
    exists (select from foreign_holders where not is_ours) as has_foreign,
    (
      select count(*) from (
        select from ${schema}._private_jobs
        where is_available and run_at < now() - interval '1 minute'
        limit 10001
      ) as due
    )::int as overdue`

export interface Transactions {
  readonly open: ReadonlyArray<{
    readonly pid: number
    readonly application: string
    readonly state: string
    readonly seconds: number
  }>
  /** Sessions of other roles, of which this one sees nothing. */
  readonly unseen: number
  readonly prepared: ReadonlyArray<string>
  /** Replication slots that nobody uses and that hold rows back. */
  readonly slots: ReadonlyArray<string>
}

/** $1 seconds. Whatever keeps deleted rows of this database from being vacuumed. */
const transactions = `
  with others as (
    select pid, application_name, state, xact_start, backend_xid, backend_xmin
    from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
  )
  select
    coalesce((
      select jsonb_agg(jsonb_build_object(
        'pid', pid, 'application', application_name, 'state', state,
        'seconds', floor(extract(epoch from now() - xact_start))
      ) order by xact_start)
      from others
      where xact_start < now() - $1::float8 * interval '1 second'
    ), '[]')::text as open,
    (select count(*) from others where state is null)::int as unseen,
    array(
      select gid from pg_prepared_xacts
      where database = current_database() and prepared < now() - $1::float8 * interval '1 second'
      order by prepared
    )::text[] as prepared,
    array(
      select slot_name::text from pg_replication_slots where not active and xmin is not null order by slot_name
    )::text[] as slots`

export interface TableSize {
  readonly name: string
  readonly live: number
  readonly dead: number
  /** Of the table itself and of its indexes, without what is stored apart. */
  readonly bytes: number
  readonly is_autovacuum_off: boolean
  /** ms; null where it never was. */
  readonly vacuumed_at: number | null
}

/** $1 schema. Statistics and file sizes. */
const sizes = `
  select
    stat.relname::text as name,
    stat.n_live_tup::float8 as live,
    stat.n_dead_tup::float8 as dead,
    (pg_relation_size(stat.relid) + pg_indexes_size(stat.relid))::float8 as bytes,
    coalesce('autovacuum_enabled=false' = any (class.reloptions), false) as is_autovacuum_off,
    (extract(epoch from greatest(stat.last_vacuum, stat.last_autovacuum)) * 1000)::float8 as vacuumed_at
  from pg_stat_user_tables as stat
  join pg_class as class on class.oid = stat.relid
  where stat.schemaname = $1::text
  order by stat.relname`

/** $1 schema. Indexes that an interrupted build has left behind. */
const invalidIndexes = `
  select class.relname::text as name
  from pg_index as index
  join pg_class as class on class.oid = index.indexrelid
  join pg_namespace as schema on schema.oid = class.relnamespace
  where schema.nspname = $1::text and not index.indisvalid
  order by class.relname`

export interface Diagnosis {
  readonly server: Effect.Effect<Server, KongTaskError>
  /** Milliseconds since the epoch. */
  readonly clock: Effect.Effect<number, KongTaskError>
  readonly rights: Effect.Effect<Rights, KongTaskError>
  readonly workers: Effect.Effect<Workers, KongTaskError>
  readonly transactions: (openFor: Duration.Duration) => Effect.Effect<Transactions, KongTaskError>
  readonly sizes: Effect.Effect<ReadonlyArray<TableSize>, KongTaskError>
  readonly invalidIndexes: Effect.Effect<ReadonlyArray<string>, KongTaskError>
}

/** The questions, one statement each. */
export const make = (sql: SqlClient.SqlClient, schema: string): Diagnosis => {
  const rows = <Row extends object>(text: string, params: ReadonlyArray<unknown> = []) =>
    Effect.mapError(sql.unsafe<Row>(text, params), fromSqlError("examine the database", schema))
  const row = <Row extends object>(text: string, params?: ReadonlyArray<unknown>) =>
    Effect.map(rows<Row>(text, params), ([first]) => first!)
  return {
    server: row<Server>(server),
    clock: Effect.map(row<{ readonly now: number }>(clock), ({ now }) => now),
    rights: row<Rights>(rights, [schema]),
    workers: row<Workers>(workers(quoteIdentifier(schema))),
    transactions: (openFor) =>
      Effect.map(
        row<Omit<Transactions, "open"> & { readonly open: string }>(transactions, [Duration.toSeconds(openFor)]),
        (answer) => ({ ...answer, open: JSON.parse(answer.open) as Transactions["open"] })
      ),
    sizes: rows<TableSize>(sizes, [schema]),
    invalidIndexes: Effect.map(
      rows<{ readonly name: string }>(invalidIndexes, [schema]),
      (rows) => rows.map(({ name }) => name)
    )
  }
}
