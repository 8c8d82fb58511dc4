import * as Effect from "effect/Effect"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { quoteIdentifier } from "./schema.ts"
import type { Fingerprint } from "./scripts.ts"

/** The oldest supported major version of PostgreSQL. */
export const minimumServer = 12

/** What the database says about the schema, and about itself. */
export interface Inspection {
  readonly serverVersion: string
  readonly serverVersionNum: number
  readonly hasSchema: boolean
  /** Whether the table is there in which we record our migrations. */
  readonly hasLedger: boolean
  /** What is recorded in it, oldest first. */
  readonly applied: ReadonlyArray<AppliedRow>
  /** The table `migrations`, which a graphile-worker makes first; undefined where there is none. */
  readonly contract: ReadonlyArray<ContractRow> | undefined
  /** The role that has the schema's objects, where it is another one than the current. */
  readonly owner: string | undefined
  /** Whether row level security hides the rows of our tables from the current role. */
  readonly isHidden: boolean
  /** Of the functions that were asked for, what is there. Several where a name is overloaded. */
  readonly functions: ReadonlyArray<Fingerprint>
  /** The indexes of the jobs. */
  readonly indexes: ReadonlyArray<{ readonly name: string; readonly isValid: boolean }>
}

/** One recorded migration. */
export interface AppliedRow {
  readonly id: number
  readonly name: string
  readonly breaking: boolean
  /** Milliseconds since the epoch, as text. */
  readonly applied_at: string
  /** The number of graphile-worker's last migration, in the rows that an adoption recorded. */
  readonly adopted_from: number | null
}

/** A row of the table `migrations`; the id is null in a table that is not graphile-worker's. */
export interface ContractRow {
  readonly id: string | null
  readonly breaking: boolean
}

/** $1 the schema. Reads system catalogs, which needs no privilege, and only what every server has. */
const serverStatement = `
  select
    pg_catalog.current_setting('server_version')::text as server_version,
    pg_catalog.current_setting('server_version_num')::int as server_version_num,
    exists (select from pg_catalog.pg_namespace where nspname = $1::text) as has_schema`

interface ServerRow {
  readonly server_version: string
  readonly server_version_num: number
  readonly has_schema: boolean
}

/** $1 the schema, $2 the names of its functions. Reads system catalogs, which needs no privilege. */
const catalogStatement = `
  with space as (
    select oid, nspowner from pg_catalog.pg_namespace where nspname = $1::text
  ), relations as (
    select class.oid, class.relname, class.relowner, class.relrowsecurity
    from pg_catalog.pg_class as class
    join space on space.oid = class.relnamespace
    where class.relkind in ('r', 'p') and (class.relname = 'migrations' or class.relname ^@ '_private_')
  )
  select
    exists (select from relations where relname = 'migrations') as has_contract,
    exists (select from relations where relname = '_private_kongtask_migrations') as has_ledger,
    (
      select rolname::text from pg_catalog.pg_roles
      where oid = coalesce(
          (select relowner from relations where relname = '_private_jobs'),
          (select nspowner from space)
        )
        and rolname <> current_user and not rolname ^@ 'pg_'
        and pg_catalog.pg_has_role(oid, 'member')
        and pg_catalog.has_schema_privilege(rolname, (select oid from space), 'create')
    ) as owner,
    exists (
      select from relations
      where relrowsecurity and pg_catalog.row_security_active(oid)
        and (relname ^@ '_private_kongtask_' or relname in ('_private_jobs', '_private_job_queues', '_private_tasks'))
        and not exists (select from pg_catalog.pg_policy where polrelid = relations.oid)
    ) as is_hidden,
    (
      select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
        'name', proname,
        'hash', pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(prosrc, 'UTF8')), 'hex')
      )), '[]')::text
      from pg_catalog.pg_proc
      where pronamespace = (select oid from space) and proname = any ($2::text[])
    ) as functions,
    (
      select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
        'name', class.relname, 'isValid', index.indisvalid
      )), '[]')::text
      from pg_catalog.pg_index as index
      join pg_catalog.pg_class as class on class.oid = index.indexrelid
      where index.indrelid = (select oid from relations where relname = '_private_jobs')
    ) as indexes`

interface CatalogRow {
  readonly has_contract: boolean
  readonly has_ledger: boolean
  readonly owner: string | null
  readonly is_hidden: boolean
  readonly functions: string
  readonly indexes: string
}

const appliedStatement = (schema: string): string => `
  select
    id::int as id, name::text as name, breaking::bool as breaking, adopted_from::int as adopted_from,
    floor(extract(epoch from applied_at) * 1000)::bigint::text as applied_at
  from ${schema}._private_kongtask_migrations
  order by 1`

/** Old tables have no column breaking, and a foreign one may have other columns altogether. */
const contractStatement = (schema: string): string => `
  select
    pg_catalog.to_jsonb(migration) ->> 'id' as id,
    coalesce(pg_catalog.to_jsonb(migration) ->> 'breaking', 'false') = 'true' as breaking
  from ${schema}.migrations as migration`

/** Looks without touching anything: up to four reads. */
export const inspect = Effect.fnUntraced(function*(
  sql: SqlClient.SqlClient,
  schema: string,
  functions: ReadonlyArray<string>
): Effect.fn.Return<Inspection, SqlError> {
  const [server] = yield* sql.unsafe<ServerRow>(serverStatement, [schema])
  const { has_schema, server_version, server_version_num } = server!
  const isReadable = has_schema && server_version_num >= minimumServer * 10_000
  const [catalog] = isReadable ? yield* sql.unsafe<CatalogRow>(catalogStatement, [schema, functions]) : []
  const quoted = quoteIdentifier(schema)
  return {
    serverVersion: server_version,
    serverVersionNum: server_version_num,
    hasSchema: has_schema,
    hasLedger: catalog?.has_ledger ?? false,
    applied: catalog?.has_ledger === true ? yield* sql.unsafe<AppliedRow>(appliedStatement(quoted)) : [],
    contract: catalog?.has_contract === true ? yield* sql.unsafe<ContractRow>(contractStatement(quoted)) : undefined,
    owner: catalog?.owner ?? undefined,
    isHidden: catalog?.is_hidden ?? false,
    functions: JSON.parse(catalog?.functions ?? "[]"),
    indexes: JSON.parse(catalog?.indexes ?? "[]")
  }
})
