/**
 * Installs and upgrades the database schema of the queue.
 *
 * The schema is a set of numbered migrations. Each is applied once, in a
 * transaction of its own, and recorded in the table
 * `_private_kongtask_migrations` of the schema. Any number of processes may
 * migrate at the same time: one does, the others wait for it and go on.
 *
 * `KongTaskLive` migrates when it is built; this module is for programs that
 * migrate in a step of their own, with a role of its own.
 *
 * @since 0.1.0
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { fromSqlError } from "./internal/postgres/errors.ts"
import * as Migrations from "./internal/postgres/migrations.ts"
import { defaultSchema, validateSchemaName } from "./internal/postgres/schema.ts"
import {
  InvalidConfiguration,
  KongTaskError,
  SchemaIncompatible,
  SchemaMissing,
  ServerTooOld
} from "./KongTaskError.ts"

/** The oldest supported major version of PostgreSQL. */
const minimumServer = 12

/**
 * A migration of this version of KongTask, or of a newer one.
 *
 * @category models
 * @since 0.1.0
 */
export interface Migration {
  readonly id: number
  /** The name of its file without the ending: `"0001_contract"`. */
  readonly name: string
  /** Whether a version of KongTask that does not know this migration refuses the schema. */
  readonly breaking: boolean
}

/**
 * A migration that is recorded in the database.
 *
 * @category models
 * @since 0.1.0
 */
export interface AppliedMigration extends Migration {
  readonly appliedAt: DateTime.Utc
}

/**
 * Where a schema stands.
 *
 * @category models
 * @since 0.1.0
 */
export interface MigrationStatus {
  readonly schema: string
  /** The server's version, as it tells it: `"15.18"`. */
  readonly serverVersion: string
  /** What is applied, oldest first. Empty when the schema does not exist. */
  readonly applied: ReadonlyArray<AppliedMigration>
  /** What `migrate` would apply, oldest first. */
  readonly pending: ReadonlyArray<Migration>
  /** Those of `applied` that a newer version made and this one does not know. */
  readonly newer: ReadonlyArray<AppliedMigration>
}

/**
 * What `migrate` did.
 *
 * @category models
 * @since 0.1.0
 */
export interface MigrationReport {
  readonly schema: string
  /** What this call applied, oldest first; empty when the schema was up to date, or another process was faster. */
  readonly applied: ReadonlyArray<Migration>
}

/**
 * Options of `Migrator.layer`.
 *
 * @category options
 * @since 0.1.0
 */
export interface MigratorOptions {
  /** The name of the schema, at most 63 bytes; default `"graphile_worker"`. It is used as given, in quotes. */
  readonly schema?: string | undefined
}

const incompatible = (schema: string, problem: string): KongTaskError =>
  new KongTaskError({ reason: new SchemaIncompatible({ schema, problem }) })

const refuseServer = (inspection: Migrations.Inspection): Effect.Effect<void, KongTaskError> =>
  inspection.serverVersionNum >= minimumServer * 10_000
    ? Effect.void
    : Effect.fail(
      new KongTaskError({
        reason: new ServerTooOld({ version: inspection.serverVersion, minimum: minimumServer })
      })
    )

const refuseForeign = (schema: string, inspection: Migrations.Inspection): Effect.Effect<void, KongTaskError> =>
  inspection.hasContract && !inspection.hasLedger
    ? Effect.fail(incompatible(
      schema,
      "graphile-worker made it, and this version of KongTask cannot adopt its schemas. Use another schema name."
    ))
    : Effect.void

const refuseNewer = (status: MigrationStatus): Effect.Effect<void, KongTaskError> => {
  const breaking = status.newer.filter((migration) => migration.breaking)
  return breaking.length === 0 ? Effect.void : Effect.fail(incompatible(
    status.schema,
    `a newer KongTask changed it (${breaking.map((migration) => migration.name).join(", ")}). ` +
      "Upgrade kongtask in this program to that version."
  ))
}

const toApplied = (row: Migrations.AppliedRow): AppliedMigration => ({
  id: row.id,
  name: row.name,
  breaking: row.breaking,
  appliedAt: DateTime.makeUnsafe(Number(row.applied_at))
})

const toMigration = ({ breaking, id, name }: Migration): Migration => ({ id, name, breaking })

const make = Effect.fnUntraced(function*(options: MigratorOptions) {
  const schema = yield* validateSchemaName(options.schema ?? defaultSchema)
  const scripts = yield* Migrations.load
  const sql = (yield* PgClient.PgClient).withoutTransforms()

  const statusOf = Effect.fnUntraced(function*(
    inspection: Migrations.Inspection
  ): Effect.fn.Return<MigrationStatus, KongTaskError> {
    yield* refuseServer(inspection)
    yield* refuseForeign(schema, inspection)
    const applied = inspection.applied.map(toApplied)
    return {
      schema,
      serverVersion: inspection.serverVersion,
      applied,
      pending: scripts.filter(({ id }) => applied.every((row) => row.id !== id)).map(toMigration),
      newer: applied.filter(({ id }) => scripts.every((script) => script.id !== id))
    }
  })

  const usableStatusOf = Effect.fnUntraced(function*(inspection: Migrations.Inspection) {
    const status = yield* statusOf(inspection)
    yield* refuseNewer(status)
    return status
  })

  const inspect = Effect.suspend(() => Migrations.inspect(sql, schema)).pipe(
    Effect.mapError(fromSqlError("read the state of the schema"))
  )

  const firstPending = (status: MigrationStatus): Migrations.Script | undefined =>
    scripts.find(({ id }) => id === status.pending[0]?.id)

  const refuseTransaction = Effect.flatMap(
    Effect.serviceOption(sql.transactionService),
    (transaction) =>
      Option.isNone(transaction) ? Effect.void : Effect.fail(
        new KongTaskError({
          reason: new InvalidConfiguration({
            field: "migrate",
            problem: "was called inside a transaction; migrations need transactions of their own. " +
              "Call it, or build the Layer that migrates, outside of sql.withTransaction"
          })
        })
      )
  )

  const migrate = Effect.gen(function*() {
    yield* refuseTransaction
    const applied: Array<Migration> = []
    let next = firstPending(yield* Effect.flatMap(inspect, usableStatusOf))
    while (next !== undefined) {
      const done: Migrations.Script | undefined = yield* Migrations.applyNext(
        sql,
        schema,
        next,
        (inspection) => Effect.map(usableStatusOf(inspection), firstPending)
      )
      if (done === undefined) break
      applied.push(toMigration(done))
      next = firstPending(yield* Effect.flatMap(inspect, usableStatusOf))
    }
    return { schema, applied }
  })

  const verify = Effect.gen(function*() {
    const inspection = yield* inspect
    const { applied, pending } = yield* usableStatusOf(inspection)
    if (pending.length > 0) {
      const names = applied.length === 0 ? [] : pending.map((migration) => migration.name)
      return yield* new KongTaskError({ reason: new SchemaMissing({ schema, pending: names }) })
    }
  })

  return Migrator.of({
    migrate: Effect.withSpan(migrate, "Migrator.migrate", { attributes: { schema } }),
    status: Effect.withSpan(Effect.flatMap(inspect, statusOf), "Migrator.status", { attributes: { schema } }),
    verify: Effect.withSpan(verify, "Migrator.verify", { attributes: { schema } })
  })
})

/**
 * Installs, upgrades and checks one schema.
 *
 * **Details**
 *
 * Everything fails with `ServerTooOld` before PostgreSQL 12, and with
 * `SchemaIncompatible` for a schema that graphile-worker made.
 *
 * @category services
 * @since 0.1.0
 */
export class Migrator extends Context.Service<Migrator, {
  /**
   * Applies what is missing.
   *
   * **Details**
   *
   * An up-to-date schema costs two reads: no lock is taken and nothing is
   * created, so that a role without the right to create can start the program.
   * Otherwise each migration is a transaction under an advisory lock of the
   * schema. Its DDL waits 3 seconds at most for the locks of others, and is
   * tried again up to 12 times. Nothing of a failed migration stays behind, not
   * even a schema that it created.
   *
   * Fails with `SchemaIncompatible` when a newer KongTask applied a breaking
   * migration (newer ones that are not breaking are fine), with
   * `PrivilegeMissing`, with `MigrationFailed`, and with `InvalidConfiguration`
   * inside a transaction of the same client, which it never joins.
   */
  readonly migrate: Effect.Effect<MigrationReport, KongTaskError>
  /** Says what is applied and what is not. Two reads; changes nothing. */
  readonly status: Effect.Effect<MigrationStatus, KongTaskError>
  /**
   * Fails with `SchemaMissing` unless all migrations are applied, and with
   * `SchemaIncompatible` as `migrate` does. Two reads; changes nothing.
   */
  readonly verify: Effect.Effect<void, KongTaskError>
}>()("kongtask/Migrator") {
  /**
   * The migrator of one schema. Building it reads the package's migration files
   * and sends no statement. Fails with `InvalidConfiguration` for a name that
   * PostgreSQL cannot have as a schema, or when the files are not where the
   * package has them.
   */
  static readonly layer = (options?: MigratorOptions): Layer.Layer<Migrator, KongTaskError, PgClient.PgClient> =>
    Layer.effect(Migrator, make(options ?? {}))
}

/**
 * Applies what is missing; see `Migrator.migrate`.
 *
 * @category migrating
 * @since 0.1.0
 */
export const migrate: Effect.Effect<MigrationReport, KongTaskError, Migrator> = Migrator.use((migrator) =>
  migrator.migrate
)

/**
 * Says what is applied and what is not; see `Migrator.status`.
 *
 * @category migrating
 * @since 0.1.0
 */
export const status: Effect.Effect<MigrationStatus, KongTaskError, Migrator> = Migrator.use((migrator) =>
  migrator.status
)

/**
 * Fails unless the schema can be used as it is; see `Migrator.verify`.
 *
 * @category migrating
 * @since 0.1.0
 */
export const verify: Effect.Effect<void, KongTaskError, Migrator> = Migrator.use((migrator) => migrator.verify)
