import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Schedule from "effect/Schedule"
import * as SqlClient from "effect/sql/SqlClient"
import { isSqlError, type SqlError } from "effect/sql/SqlError"
import { fileURLToPath } from "node:url"
import { InvalidConfiguration, isKongTaskError, KongTaskError, MigrationFailed } from "../../KongTaskError.ts"
import { fromSqlError, sqlErrorDetail, sqlState, withTransaction } from "./errors.ts"
import { quoteIdentifier, quoteLiteral } from "./schema.ts"

/** A file of the package's folder `migrations`, `0001_contract.sql` for one. */
export interface Script {
  readonly id: number
  /** The file's name without `.sql`. */
  readonly name: string
  /** Whether a program that does not know this migration can no longer use the schema. */
  readonly breaking: boolean
  readonly sql: string
}

/** What the database says about the schema, and about itself. */
export interface Inspection {
  readonly serverVersion: string
  readonly serverVersionNum: number
  readonly hasSchema: boolean
  /** Whether the table `migrations` is there, which a graphile-worker makes first. */
  readonly hasContract: boolean
  /** Whether the table is there in which we record our migrations. */
  readonly hasLedger: boolean
  /** What is recorded, oldest first. */
  readonly applied: ReadonlyArray<AppliedRow>
}

/** One recorded migration. */
export interface AppliedRow {
  readonly id: number
  readonly name: string
  readonly breaking: boolean
  /** Milliseconds since the epoch, as text. */
  readonly applied_at: string
}

const folder = "../../../migrations/"

const unreadable = (cause: unknown): KongTaskError =>
  new KongTaskError({
    reason: new InvalidConfiguration({
      field: "migrations",
      problem: `cannot be read: ${cause instanceof Error ? cause.message : String(cause)}. They are the package's ` +
        `folder "migrations"; a bundler has to keep kongtask external, or copy the folder`
    })
  })

const parse = (file: string, sql: string): Effect.Effect<Script, KongTaskError> => {
  const id = /^(\d{4})_\w+\.sql$/.exec(file)?.[1]
  const breaking = /^-- breaking: (true|false)\r?\n/.exec(sql)?.[1]
  return id === undefined || breaking === undefined
    ? Effect.fail(unreadable(`${file} has no number in its name or no flag in its first line`))
    : Effect.succeed({ id: Number(id), name: file.slice(0, -".sql".length), breaking: breaking === "true", sql })
}

/** Reads the package's migrations, oldest first. */
export const load: Effect.Effect<ReadonlyArray<Script>, KongTaskError> = Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  const directory = yield* Effect.try({
    try: () => fileURLToPath(new URL(folder, import.meta.url)),
    catch: unreadable
  })
  const names = yield* Effect.mapError(files.readDirectory(directory), unreadable)
  return yield* Effect.forEach(
    names.filter((name) => name.endsWith(".sql")).toSorted(),
    (name) =>
      files.readFileString(`${directory}/${name}`).pipe(
        Effect.mapError(unreadable),
        Effect.flatMap((sql) => parse(name, sql))
      )
  )
}).pipe(Effect.provide(NodeFileSystem.layer))

/** A dollar quote that the text does not contain, so that it can stand around it. */
const dollarQuote = (text: string): string => {
  let tag = "$kongtask$"
  for (let n = 1; text.includes(tag); n++) tag = `$kongtask${n}$`
  return tag
}

/**
 * A script for one schema. Scripts quote function bodies with `$body$`, which
 * becomes a tag that the name of the schema does not contain.
 */
export const render = (sql: string, schema: string): string => {
  const identifier = quoteIdentifier(schema)
  const literal = quoteLiteral(schema)
  const body = dollarQuote(schema)
  return sql
    .replaceAll("$body$", () => body)
    .replaceAll(/:schema(_literal)?\b/g, (_, isLiteral) => isLiteral === undefined ? identifier : literal)
}

/** Many statements as one: the driver's protocol takes only one at a time. */
const asOneStatement = (script: string): string => {
  const inner = dollarQuote(script)
  const outer = dollarQuote(script + inner)
  return `do ${outer} begin execute ${inner}${script}${inner}; end ${outer}`
}

/** $1 the schema. Reads system catalogs, which needs no privilege. */
const inspectStatement = `
  select
    current_setting('server_version')::text as server_version,
    current_setting('server_version_num')::int as server_version_num,
    exists (select from pg_catalog.pg_namespace where nspname = $1::text) as has_schema,
    coalesce(bool_or(class.relname = 'migrations'), false) as has_contract,
    coalesce(bool_or(class.relname = '_private_kongtask_migrations'), false) as has_ledger
  from pg_catalog.pg_class as class
  join pg_catalog.pg_namespace as namespace on namespace.oid = class.relnamespace
  where namespace.nspname = $1::text and class.relkind in ('r', 'p')
    and class.relname in ('migrations', '_private_kongtask_migrations')`

interface InspectRow {
  readonly server_version: string
  readonly server_version_num: number
  readonly has_schema: boolean
  readonly has_contract: boolean
  readonly has_ledger: boolean
}

const appliedStatement = (schema: string): string => `
  select
    id::int as id, name::text as name, breaking::bool as breaking,
    floor(extract(epoch from applied_at) * 1000)::bigint::text as applied_at
  from ${schema}._private_kongtask_migrations
  order by 1`

/** No row level security: a role that only reads must be able to see that the schema is up to date. */
const ledgerStatement = (schema: string): string => `
  create table ${schema}._private_kongtask_migrations (
    id int primary key,
    name text not null,
    breaking boolean not null,
    applied_at timestamptz not null default now()
  )`

/** Looks without touching anything: one or two reads. */
export const inspect = Effect.fnUntraced(function*(
  sql: SqlClient.SqlClient,
  schema: string
): Effect.fn.Return<Inspection, SqlError> {
  const [found] = yield* sql.unsafe<InspectRow>(inspectStatement, [schema])
  const { has_contract, has_ledger, has_schema, server_version, server_version_num } = found!
  return {
    serverVersion: server_version,
    serverVersionNum: server_version_num,
    hasSchema: has_schema,
    hasContract: has_contract,
    hasLedger: has_ledger,
    applied: has_ledger ? yield* sql.unsafe<AppliedRow>(appliedStatement(quoteIdentifier(schema))) : []
  }
})

/** How long a starting process waits for another one that is migrating, and how long DDL may make others wait. */
const migratorPatience = "30s"
const ddlPatience = "3s"

/** The caller's session may have any settings; these hold until the transaction ends. */
const settingsStatement = `
  select
    pg_catalog.set_config('lock_timeout', '${migratorPatience}', true),
    pg_catalog.set_config('statement_timeout', '0', true),
    pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true)`

/** $1 the schema. One migrator a schema at a time, until the transaction ends. */
const lockStatement = `
  select pg_advisory_xact_lock(hashtextextended('kongtask/migrate/' || $1::text, 0))::text`

const ddlPatienceStatement = `select set_config('lock_timeout', '${ddlPatience}', true)`

const apply = Effect.fnUntraced(function*(
  sql: SqlClient.SqlClient,
  schema: string,
  script: Script,
  inspection: Inspection
): Effect.fn.Return<void, SqlError> {
  const quoted = quoteIdentifier(schema)
  if (!inspection.hasSchema) yield* sql.unsafe(`create schema ${quoted}`).unprepared
  if (!inspection.hasLedger) yield* sql.unsafe(ledgerStatement(quoted)).unprepared
  yield* sql.unsafe(asOneStatement(render(script.sql, schema))).unprepared
  yield* sql.unsafe(
    `insert into ${quoted}._private_kongtask_migrations (id, name, breaking) values ($1::int, $2::text, $3::bool)`,
    [script.id, script.name, script.breaking]
  ).unprepared
})

const isLockConflict = (error: KongTaskError | SqlError): boolean =>
  isSqlError(error) && ["55P03", "40P01"].includes(sqlState(error) ?? "")

/** Twelve tries in about 20 seconds of pauses, beside what each waits for its locks. */
const lockRetries = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("2 seconds")]).pipe(
  Schedule.jittered,
  Schedule.upTo({ times: 12 })
)

const failure = (script: Script) => (error: KongTaskError | SqlError): KongTaskError => {
  if (isKongTaskError(error)) return error
  const known = fromSqlError("migrate")(error)
  return known.reason._tag === "ConnectionFailed" || known.reason._tag === "PrivilegeMissing"
    ? known
    : new KongTaskError({
      reason: new MigrationFailed({ migration: `${script.name}.sql`, detail: sqlErrorDetail(error), cause: error })
    })
}

/**
 * Applies the first script that is missing, in a transaction of its own under
 * the schema's advisory lock, and answers it, or `undefined` when there is
 * none. `pick` looks at the state under the lock: another process may have been
 * here since.
 */
export const applyNext = (
  sql: SqlClient.SqlClient,
  schema: string,
  expected: Script,
  pick: (inspection: Inspection) => Effect.Effect<Script | undefined, KongTaskError>
): Effect.Effect<Script | undefined, KongTaskError> =>
  Effect.gen(function*() {
    yield* sql.unsafe(settingsStatement).unprepared
    yield* sql.unsafe(lockStatement, [schema]).unprepared
    yield* sql.unsafe(ddlPatienceStatement).unprepared
    const inspection = yield* inspect(sql, schema)
    const script = yield* pick(inspection)
    if (script !== undefined) yield* apply(sql, schema, script, inspection)
    return script
  }).pipe(
    withTransaction(sql),
    Effect.provideService(SqlClient.BeginTransaction, "begin isolation level read committed"),
    Effect.retry({ while: isLockConflict, schedule: lockRetries }),
    Effect.mapError(failure(expected))
  )
