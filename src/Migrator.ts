/**
 * Installs and upgrades the database schema of the queue, and adopts the one of
 * a graphile-worker.
 *
 * The schema is a set of numbered migrations. Each is applied once, in a
 * transaction of its own, and recorded in the table
 * `_private_kongtask_migrations` of the schema. Any number of processes may
 * migrate at the same time: one does, the others wait for it and go on.
 *
 * A schema that graphile-worker migrated to 19 or 20 is adopted in place: its
 * jobs stay and its workers go on, beside those of KongTask, for as long as they
 * are wanted. `finishAdoption` then drops the indexes that only they used.
 *
 * `KongTaskLive` migrates when it is built; this module is for programs that
 * migrate in a step of their own.
 *
 * **Roles.** Whoever migrates must own the tables or be a member of the role
 * that does, and needs `CREATE` on the database for a new schema. What it makes
 * belongs to that owner. The tables have row level security without policies,
 * which hides every row from other roles: a program's role must be the owner, a
 * member of it, or have `BYPASSRLS` or policies of its own besides its grants.
 *
 * **Connections.** Indexes of a table in use are made on one further connection.
 * Behind a pooler in transaction mode, migrate over a direct connection.
 *
 * @since 0.1.0
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Context from "effect/Context"
import type * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Dump from "./internal/postgres/dump.ts"
import { fromSqlError } from "./internal/postgres/errors.ts"
import * as Migrations from "./internal/postgres/migrations.ts"
import * as Plan from "./internal/postgres/plan.ts"
import { defaultSchema, validateSchemaName } from "./internal/postgres/schema.ts"
import * as Scripts from "./internal/postgres/scripts.ts"
import { InvalidConfiguration, KongTaskError, SchemaDamaged, SchemaMissing } from "./KongTaskError.ts"

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
 * That a schema was made by graphile-worker.
 *
 * @category models
 * @since 0.1.0
 */
export interface Adoption {
  /** The number of the last migration of graphile-worker that it had: 16 to 20. */
  readonly from: number
  readonly at: DateTime.Utc
  /** Whether the indexes that only graphile-worker uses are gone; see `Migrator.finishAdoption`. */
  readonly isFinished: boolean
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
  /** What is applied, oldest first. Empty when the schema does not exist, or waits for its adoption. */
  readonly applied: ReadonlyArray<AppliedMigration>
  /** What `migrate` would apply, oldest first. */
  readonly pending: ReadonlyArray<Migration>
  /** Those of `applied` that a newer version made and this one does not know. */
  readonly newer: ReadonlyArray<AppliedMigration>
  /** Set when graphile-worker made the schema and KongTask adopted it. */
  readonly adopted: Adoption | undefined
  /** Whether the indexes are there that graphile-worker's claims use. */
  readonly interop: boolean
  /**
   * The functions and indexes that something else has overwritten or dropped, and
   * `migrate` would repair. Empty while anything is pending, and when a newer
   * version has migrated the schema.
   */
  readonly damaged: ReadonlyArray<string>
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
  /** The number of graphile-worker's last migration, when this call adopted its schema. */
  readonly adoptedFrom: number | undefined
  /** The names of the functions and indexes that this call made again, or for the first time with `interop`. */
  readonly repaired: ReadonlyArray<string>
}

/**
 * What `finishAdoption` did.
 *
 * @category models
 * @since 0.1.0
 */
export interface FinishReport {
  readonly schema: string
  /** The names of the indexes that were dropped. */
  readonly dropped: ReadonlyArray<string>
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
  /**
   * Whether the schema has the two indexes that graphile-worker's claims use;
   * without them its workers read all jobs for each claim. Every index costs each
   * job. Default: only a schema that graphile-worker made has them, until
   * `finishAdoption`.
   */
  readonly interop?: boolean | undefined
  /**
   * Which schemas of graphile-worker are adopted:
   *
   * - `"live"` (default) those at 19 or 20, beside whose workers KongTask works
   * - `"breaking"` also those at 16 to 18, whose running workers stop, and refuse
   *   to start again until they are upgraded to a version that knows migration 19
   */
  readonly adopt?: "live" | "breaking" | undefined
}

const make = Effect.fnUntraced(function*(options: MigratorOptions) {
  const schema = yield* validateSchemaName(options.schema ?? defaultSchema)
  const scripts = yield* Scripts.load
  const client = yield* PgClient.PgClient
  const settings: Plan.Settings = { schema, interop: options.interop ?? false, adopt: options.adopt ?? "live" }
  const target: Migrations.Target = {
    client,
    sql: client.withoutTransforms(),
    schema,
    scripts,
    interop: settings.interop
  }

  const inspect = Effect.suspend(() => Migrations.look(target)).pipe(
    Effect.mapError(fromSqlError("read the state of the schema", schema))
  )

  const refuseTransaction = (operation: string) =>
    Effect.flatMap(
      Effect.serviceOption(target.sql.transactionService),
      (transaction) =>
        Option.isNone(transaction) ? Effect.void : Effect.fail(
          new KongTaskError({
            reason: new InvalidConfiguration({
              field: operation,
              problem: "was called inside a transaction; migrations need transactions of their own. " +
                "Call it, or build the Layer that migrates, outside of sql.withTransaction"
            })
          })
        )
    )

  const refuseMissing = ({ applied }: MigrationStatus) =>
    applied.length > 0
      ? Effect.void
      : Effect.fail(new KongTaskError({ reason: new SchemaMissing({ schema, pending: [] }) }))

  const migrate = Effect.gen(function*() {
    yield* refuseTransaction("migrate")
    const applied: Array<Migration> = []
    const repaired: Array<string> = []
    let adoptedFrom: number | undefined
    while (true) {
      const inspection = yield* inspect
      const next = yield* Plan.nextStep(settings, scripts, inspection)
      if (next === undefined) {
        yield* Plan.checkUsable(settings, scripts, inspection)
        return { schema, applied, adoptedFrom, repaired }
      }
      // What a repair did not repair, another one won't.
      if (next._tag === "Repair" && repaired.length > 0) {
        return yield* new KongTaskError({ reason: new SchemaDamaged({ schema, objects: Plan.objectsOf(next) }) })
      }
      const done = yield* Migrations.takeStep(target, (seen) => Plan.nextStep(settings, scripts, seen))
      if (done?._tag === "Adopt") adoptedFrom = done.from
      if (done?._tag === "Repair") repaired.push(...Plan.objectsOf(done))
      else if (done !== undefined) applied.push(...done.migrations.map(Plan.toMigration))
    }
  })

  const finishAdoption = Effect.gen(function*() {
    yield* refuseTransaction("finishAdoption")
    if (settings.interop) {
      return yield* new KongTaskError({
        reason: new InvalidConfiguration({
          field: "interop",
          problem: "asks for the indexes that finishAdoption drops; leave it out"
        })
      })
    }
    const dropped = yield* Migrations.dropInterop(
      target,
      Effect.fnUntraced(function*(inspection) {
        yield* refuseMissing(yield* Plan.usableStatusOf(settings, scripts, inspection))
      })
    )
    return { schema, dropped }
  })

  const dump = Effect.gen(function*() {
    const inspection = yield* inspect
    yield* refuseMissing(yield* Plan.statusOf(settings, scripts, inspection))
    return yield* Effect.mapError(Dump.print(target.sql, schema), fromSqlError("print the schema", schema))
  })

  const attributes = { schema }
  const status = Effect.flatMap(inspect, (inspection) => Plan.statusOf(settings, scripts, inspection))
  const verify = Effect.flatMap(inspect, (inspection) => Plan.checkUsable(settings, scripts, inspection))

  return Migrator.of({
    migrate: Effect.withSpan(migrate, "Migrator.migrate", { attributes }),
    status: Effect.withSpan(status, "Migrator.status", { attributes }),
    verify: Effect.withSpan(verify, "Migrator.verify", { attributes }),
    dump: Effect.withSpan(dump, "Migrator.dump", { attributes }),
    finishAdoption: Effect.withSpan(finishAdoption, "Migrator.finishAdoption", { attributes })
  })
})

/**
 * Installs, upgrades, adopts and checks one schema.
 *
 * **Details**
 *
 * Everything fails with `ServerTooOld` before PostgreSQL 12, and with
 * `SchemaIncompatible` for a schema of graphile-worker that cannot be adopted,
 * or that a newer graphile-worker changed in a way that this version does not
 * know.
 *
 * @category services
 * @since 0.1.0
 */
export class Migrator extends Context.Service<Migrator, {
  /**
   * Applies what is missing, adopts what graphile-worker made, and repairs what
   * something else has overwritten.
   *
   * **Details**
   *
   * An up-to-date schema costs four reads: no lock is taken and nothing is
   * created, so that a role without the right to create can start the program.
   * Otherwise each migration is a transaction under an advisory lock of the
   * schema, which is waited for as long as another process has it. Its DDL waits
   * 3 seconds at most for the locks of others, and is tried again up to 12 times.
   * Nothing of a failed migration stays behind, not even a schema that it created.
   *
   * An adoption first makes the indexes of KongTask's claims, `CONCURRENTLY`:
   * reads and writes go on, and it ends only after every transaction that was
   * open in the database has. Then it does the rest in one transaction, which
   * takes no lock on the jobs (at 16 to 18 it does, for the moment of dropping a
   * trigger). When it fails or is killed at any time, the next call goes on.
   *
   * Fails with `SchemaIncompatible` when a newer KongTask applied a breaking
   * migration (newer ones that are not breaking are fine, and what such a schema
   * has is then neither checked nor repaired), with `PrivilegeMissing`, also when
   * row level security would hide the jobs from this role, with
   * `MigrationFailed`, and with `InvalidConfiguration` inside a transaction of the
   * same client, which it never joins.
   */
  readonly migrate: Effect.Effect<MigrationReport, KongTaskError>
  /** Says what is applied and what is not. Up to four reads; changes nothing. */
  readonly status: Effect.Effect<MigrationStatus, KongTaskError>
  /**
   * Fails with `SchemaMissing` unless all migrations are applied, with
   * `SchemaDamaged` when something else has overwritten a function or dropped an
   * index, and with `SchemaIncompatible` and `PrivilegeMissing` as `migrate` does.
   * Four reads; changes nothing.
   */
  readonly verify: Effect.Effect<void, KongTaskError>
  /**
   * Prints the schema as the SQL that makes it: for a review, for a comparison of
   * two databases, or to install it by other means than `migrate`. The package has
   * that of a new schema in `migrations/schema.sql`.
   *
   * **Details**
   *
   * Executed in an empty database, it gives a schema that `verify` accepts,
   * without jobs. It has the types, tables, functions, views, indexes, triggers and
   * comments, which tables have row level security, and the rows that say which
   * migrations are applied. The order is fixed, so that equal schemas give equal
   * texts; but PostgreSQL 16 and later print the columns of the view `jobs` without
   * the name of its table, and 12 to 15 with it. It has no owners, privileges and
   * policies, which name the roles of one server.
   *
   * Up to four reads, and twelve in a transaction that is rolled back, or in a
   * savepoint of the transaction that is open on the client; some 20 milliseconds,
   * however many jobs there are. It changes nothing and waits for nothing but DDL.
   *
   * Fails with `SchemaMissing` where nothing is applied yet.
   */
  readonly dump: Effect.Effect<string, KongTaskError>
  /**
   * Drops the two indexes that only graphile-worker's claims use, once its last
   * worker is gone. Nothing else changes: its producers can go on, and its workers
   * could too, but would read all jobs for each claim.
   *
   * **Details**
   *
   * They are dropped `CONCURRENTLY`, which waits for the transactions that use the
   * jobs and keeps nobody waiting. It can be called again at any time.
   *
   * Fails with `SchemaMissing` before the schema is adopted, and with
   * `InvalidConfiguration` where `interop` is on, or inside a transaction.
   */
  readonly finishAdoption: Effect.Effect<FinishReport, KongTaskError>
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

/**
 * Prints the schema as the SQL that makes it; see `Migrator.dump`.
 *
 * @category migrating
 * @since 0.1.0
 */
export const dump: Effect.Effect<string, KongTaskError, Migrator> = Migrator.use((migrator) => migrator.dump)

/**
 * Drops the indexes that only graphile-worker uses; see `Migrator.finishAdoption`.
 *
 * @category migrating
 * @since 0.1.0
 */
export const finishAdoption: Effect.Effect<FinishReport, KongTaskError, Migrator> = Migrator.use((migrator) =>
  migrator.finishAdoption
)
