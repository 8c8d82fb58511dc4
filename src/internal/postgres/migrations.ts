import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as SqlClient from "effect/sql/SqlClient"
import { isSqlError, type SqlError } from "effect/sql/SqlError"
import { isKongTaskError, KongTaskError, MigrationFailed, SchemaIncompatible } from "../../KongTaskError.ts"
import { fromSqlError, sqlErrorDetail, sqlState, withTransaction } from "./errors.ts"
import * as Indexes from "./indexes.ts"
import { inspect, type Inspection } from "./inspection.ts"
import type { Step } from "./plan.ts"
import { quoteIdentifier } from "./schema.ts"
import { asOneStatement, fingerprints, render, type Script, type Scripts } from "./scripts.ts"

/** One schema, and the connection to it. */
export interface Target {
  readonly client: PgClient.PgClient
  /** The client as it is without the transformations that its user may have asked for. */
  readonly sql: SqlClient.SqlClient
  readonly schema: string
  readonly scripts: Scripts
  /** Whether a new schema gets graphile-worker's indexes. */
  readonly interop: boolean
}

/** What a run is at, for the message of its failure. */
interface Progress {
  file: string
}

/** Looks without touching anything. */
export const look = ({ schema, scripts, sql }: Target): Effect.Effect<Inspection, SqlError> =>
  inspect(sql, schema, fingerprints(scripts, schema).map(({ name }) => name))

/** No row level security: a role that only reads must be able to see that the schema is up to date. */
const ledgerStatement = (schema: string): string => `
  create table ${schema}._private_kongtask_migrations (
    id int primary key,
    name text not null,
    breaking boolean not null,
    applied_at timestamptz not null default now(),
    adopted_from int
  )`

const recordStatement = (schema: string): string => `
  insert into ${schema}._private_kongtask_migrations (id, name, breaking, adopted_from)
  values ($1::int, $2::text, $3::bool, $4::int)`

/** $1 the schema, $2 names. Those that more than one function has. */
const overloadedStatement = `
  select proc.proname::text as name
  from pg_catalog.pg_proc as proc
  join pg_catalog.pg_namespace as namespace on namespace.oid = proc.pronamespace
  where namespace.nspname = $1::text and proc.proname = any ($2::text[])
  group by proc.proname having count(*) > 1`

/**
 * The caller's session may have any settings; these hold until the transaction
 * ends. DDL makes others wait 3 seconds at most; the transaction itself may be
 * idle for as long as an index takes.
 */
const settingsStatement = `
  select
    pg_catalog.set_config('lock_timeout', '3s', true),
    pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true),
    (
      select count(pg_catalog.set_config(name, '0', true))::int from pg_catalog.pg_settings
      where name in ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')
    )`

/**
 * $1 the schema. One migrator a schema at a time, until the transaction ends.
 * Never waited for: the snapshot of a waiting statement would keep an index
 * from being finished, and so the lock from being given up.
 */
const lockStatement = `
  select pg_catalog.pg_try_advisory_xact_lock(
    pg_catalog.hashtextextended('kongtask/migrate/' || $1::text, 0)
  ) as is_locked`

/** Another process has the lock. */
class Busy extends Data.TaggedError("Busy") {}

const isLockConflict = (error: unknown): boolean =>
  isSqlError(error) && ["55P03", "40P01"].includes(sqlState(error) ?? "")

/** Twelve tries in about 20 seconds of pauses, beside what each waits for its locks. */
const lockRetries = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("2 seconds")]).pipe(
  Schedule.jittered,
  Schedule.upTo({ times: 12 })
)

const busyRetries = Schedule.jittered(Schedule.spaced("200 millis"))

/** So many tries of another process's lock pass before this one says that it waits. */
const patience = 50

const failure = (progress: Progress) => (error: KongTaskError | SqlError): KongTaskError => {
  if (isKongTaskError(error)) return error
  const known = fromSqlError("migrate")(error)
  return known.reason._tag === "ConnectionFailed" || known.reason._tag === "PrivilegeMissing"
    ? known
    : new KongTaskError({
      reason: new MigrationFailed({ migration: progress.file, detail: sqlErrorDetail(error), cause: error })
    })
}

/** Works in a transaction that has the schema's lock, however long another process has it. */
const exclusively = <A>(
  { schema, sql }: Target,
  progress: Progress,
  work: Effect.Effect<A, KongTaskError | SqlError>
): Effect.Effect<A, KongTaskError> =>
  Effect.suspend(() => {
    let tries = 0
    return Effect.gen(function*() {
      yield* sql.unsafe(settingsStatement).unprepared
      const [lock] = yield* sql.unsafe<{ readonly is_locked: boolean }>(lockStatement, [schema]).unprepared
      if (lock?.is_locked !== true) return yield* new Busy()
      return yield* work
    }).pipe(
      withTransaction(sql),
      Effect.provideService(SqlClient.BeginTransaction, "begin isolation level read committed"),
      Effect.tapErrorTag("Busy", () =>
        ++tries === patience
          ? Effect.logWarning(`The schema "${schema}" is being migrated by another process; waiting until it is done.`)
          : Effect.void),
      Effect.retry({ while: (error) => error._tag === "Busy", schedule: busyRetries }),
      Effect.retry({ while: isLockConflict, schedule: lockRetries }),
      Effect.catchTag("Busy", Effect.die),
      Effect.mapError(failure(progress))
    )
  })

/** A function beside ours with other arguments would make every call of it ambiguous. */
const refuseOverloads = Effect.fnUntraced(function*(
  { schema, scripts, sql }: Target
): Effect.fn.Return<void, KongTaskError | SqlError> {
  const names = fingerprints(scripts, schema).map(({ name }) => name)
  const overloaded = yield* sql.unsafe<{ readonly name: string }>(overloadedStatement, [schema, names]).unprepared
  if (overloaded.length === 0) return
  return yield* new KongTaskError({
    reason: new SchemaIncompatible({
      schema,
      problem: `it has ${overloaded.map(({ name }) => name).join(", ")} with other arguments than this version of ` +
        "KongTask knows. Drop those functions, or upgrade kongtask if a newer graphile-worker made them."
    })
  })
})

const runScripts = Effect.fnUntraced(function*(target: Target, progress: Progress, scripts: ReadonlyArray<Script>) {
  for (const script of scripts) {
    progress.file = `${script.name}.sql`
    yield* target.sql.unsafe(asOneStatement(render(script.sql, target.schema))).unprepared
  }
  if (scripts.some(({ repeatable }) => repeatable)) yield* refuseOverloads(target)
})

const record = (
  { schema, sql }: Target,
  scripts: ReadonlyArray<Script>,
  adoptedFrom: number | null
): Effect.Effect<void, SqlError> =>
  Effect.forEach(
    scripts,
    ({ breaking, id, name }) =>
      sql.unsafe(recordStatement(quoteIdentifier(schema)), [id, name, breaking, adoptedFrom]).unprepared,
    { discard: true }
  )

/** What is made belongs to the owner of what is there, whoever of those who may makes it. */
const becomeOwner = ({ sql }: Target, { owner }: Inspection): Effect.Effect<void, SqlError> =>
  owner === undefined
    ? Effect.void
    : Effect.asVoid(sql.unsafe("select pg_catalog.set_config('role', $1::text, true)", [owner]).unprepared)

const adopt = Effect.fnUntraced(function*(
  target: Target,
  progress: Progress,
  inspection: Inspection,
  step: Extract<Step, { readonly _tag: "Adopt" }>
) {
  const { client, schema, scripts, sql } = target
  progress.file = "indexes.sql"
  yield* Indexes.ensure(client, sql, schema, scripts.indexes)
  yield* becomeOwner(target, inspection)
  progress.file = "adopt.sql"
  yield* sql.unsafe(ledgerStatement(quoteIdentifier(schema))).unprepared
  yield* sql.unsafe(asOneStatement(render(scripts.adoption, schema))).unprepared
  yield* runScripts(target, progress, step.migrations.slice(1))
  yield* record(target, step.migrations, step.from)
})

const apply = Effect.fnUntraced(function*(
  target: Target,
  progress: Progress,
  inspection: Inspection,
  step: Extract<Step, { readonly _tag: "Apply" }>
) {
  const { interop, schema, scripts, sql } = target
  progress.file = `${step.migrations[0]!.name}.sql`
  yield* becomeOwner(target, inspection)
  if (!inspection.hasSchema) yield* sql.unsafe(`create schema ${quoteIdentifier(schema)}`).unprepared
  if (!inspection.hasLedger) yield* sql.unsafe(ledgerStatement(quoteIdentifier(schema))).unprepared
  yield* runScripts(target, progress, step.migrations)
  if (inspection.applied.length === 0) {
    yield* Indexes.create(sql, schema, interop ? [...scripts.indexes, ...scripts.interop] : scripts.indexes)
  }
  yield* record(target, step.migrations, null)
})

const repair = Effect.fnUntraced(function*(
  target: Target,
  progress: Progress,
  inspection: Inspection,
  step: Extract<Step, { readonly _tag: "Repair" }>
) {
  const { client, schema, scripts, sql } = target
  progress.file = "indexes.sql"
  yield* Indexes.ensure(client, sql, schema, step.indexes)
  if (step.functions.length === 0) return
  yield* becomeOwner(target, inspection)
  yield* runScripts(target, progress, scripts.migrations.filter(({ repeatable }) => repeatable))
})

/**
 * Takes one step in a transaction of its own under the schema's lock, and
 * answers it, or `undefined` when there is none. `pick` looks at the state
 * under the lock: another process may have been here since.
 */
export const takeStep = (
  target: Target,
  pick: (inspection: Inspection) => Effect.Effect<Step | undefined, KongTaskError>
): Effect.Effect<Step | undefined, KongTaskError> => {
  const progress: Progress = { file: "" }
  return exclusively(
    target,
    progress,
    Effect.gen(function*() {
      const inspection = yield* look(target)
      const step = yield* pick(inspection)
      switch (step?._tag) {
        case "Adopt":
          yield* adopt(target, progress, inspection, step)
          break
        case "Apply":
          yield* apply(target, progress, inspection, step)
          break
        case "Repair":
          yield* repair(target, progress, inspection, step)
      }
      return step
    })
  )
}

/** Drops graphile-worker's indexes, and answers the names of those that were there. */
export const dropInterop = (
  target: Target,
  check: (inspection: Inspection) => Effect.Effect<void, KongTaskError>
): Effect.Effect<ReadonlyArray<string>, KongTaskError> =>
  exclusively(
    target,
    { file: "interop.sql" },
    Effect.gen(function*() {
      const { client, schema, scripts, sql } = target
      const inspection = yield* look(target)
      yield* check(inspection)
      const names = scripts.interop.map(({ name }) => name).filter((name) =>
        inspection.indexes.some((index) => index.name === name)
      )
      yield* Indexes.drop(client, sql, schema, names)
      return names
    })
  )
