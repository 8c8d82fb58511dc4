/**
 * The ready-made Layers: queue, worker, scheduler and migrator on one database.
 *
 * - `KongTaskLive` on a `PgClient` that the program provides
 * - `KongTask.layer` the same, with options
 * - `KongTask.layerConfig` from the environment and the configuration file, `PgClient` included
 * - `KongTask.layerEmbedded` on PostgreSQL inside the process, no server needed
 *
 * Each of them migrates the schema when it is built, and fails with a
 * `KongTaskError` that says what to do when the database cannot be used. None
 * falls back to the embedded database by itself.
 *
 * @since 0.1.0
 */
import type * as PgClient from "@effect/sql-pg/PgClient"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import type * as SqlClient from "effect/sql/SqlClient"
import * as Connection from "./internal/configuration/connection.ts"
import { resolve } from "./internal/configuration/resolve.ts"
import type { Values } from "./internal/configuration/settings.ts"
import * as Embedded from "./internal/pglite/layer.ts"
import * as PostgresStore from "./internal/postgres/store.ts"
import * as JobStore from "./JobStore.ts"
import type { KongTaskError } from "./KongTaskError.ts"
import * as Migrator from "./Migrator.ts"
import * as Queue from "./Queue.ts"
import * as Scheduler from "./Scheduler.ts"
import * as Worker from "./Worker.ts"

/**
 * What each of the layers provides.
 *
 * @category models
 * @since 0.1.0
 */
export type Services = Queue.Queue | Worker.Worker | Scheduler.Scheduler | Migrator.Migrator

/**
 * @category models
 * @since 0.1.0
 */
export interface Options extends Queue.Options {
  /** The schema that holds the jobs, 1 to 63 bytes; it may be shared with graphile-worker. Default: `graphile_worker`. */
  readonly schema?: string | undefined
  /** Whether to bring the schema up to date; `false` only verifies that it is. Default: true. */
  readonly migrate?: boolean | undefined
  /** See `Migrator.MigratorOptions`: indexes for graphile-worker's workers on a schema that KongTask makes. */
  readonly interop?: boolean | undefined
  /** See `Migrator.MigratorOptions`: which schemas of graphile-worker's may be taken over. */
  readonly adopt?: Migrator.MigratorOptions["adopt"]
}

/**
 * @category models
 * @since 0.1.0
 */
export interface EmbeddedOptions extends Options {
  /** Where the database lives; made when it is not there. Left out, it lives in memory and ends with the process. */
  readonly dataDir?: string | undefined
}

/**
 * What a configuration file may say: `kongtask.config.ts` exports it as its default.
 *
 * **Example**
 *
 * ```ts
 * export default { schema: "jobs", tasks: "./tasks", jobs: 20 } satisfies KongTask.Configuration
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export type Configuration = {
  readonly [Name in keyof Values]?: NonNullable<Values[Name]> extends infer Value
    ? Value extends Redacted.Redacted ? string | undefined
    : Value extends Duration.Duration ? string | number | undefined
    : Value extends ReadonlyArray<string> ? string | ReadonlyArray<string> | undefined
    : Value | undefined
    : never
}

const defaultSchema = "graphile_worker"

/** `opened` runs once the schema is up to date, before anybody can claim. */
const storeOf = (
  options: Options | undefined,
  opened: (store: JobStore.Store) => Effect.Effect<unknown, KongTaskError> = () => Effect.void
): Layer.Layer<JobStore.JobStore | Migrator.Migrator, KongTaskError, PgClient.PgClient> => {
  const schema = options?.schema ?? defaultSchema
  return Layer.effect(
    JobStore.JobStore,
    Effect.gen(function*() {
      yield* (options?.migrate === false ? Migrator.verify : Migrator.migrate)
      const store = yield* PostgresStore.make({ schema })
      yield* opened(store)
      return store
    })
  ).pipe(Layer.provideMerge(Migrator.Migrator.layer({ ...options, schema })))
}

/**
 * The store alone, migrated: what `layer` builds its services on. For a program that wraps it, with `layerServices`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerStore = (
  options?: Omit<Options, keyof Queue.Options>
): Layer.Layer<JobStore.JobStore | Migrator.Migrator, KongTaskError, PgClient.PgClient> => storeOf(options)

/**
 * Queue, worker and scheduler on a store that the program provides.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerServices = (
  options?: Queue.Options
): Layer.Layer<Exclude<Services, Migrator.Migrator>, never, JobStore.JobStore> =>
  // A worker that is shared with another call's services would run that one's jobs.
  Layer.mergeAll(
    Queue.Queue.layer(options),
    Layer.fresh(Worker.Worker.layer),
    Layer.fresh(Scheduler.Scheduler.layer)
  )

/** Everything above the connection. */
const services = (
  options: Options | undefined,
  opened?: (store: JobStore.Store) => Effect.Effect<unknown, KongTaskError>
): Layer.Layer<Services, KongTaskError, PgClient.PgClient> => {
  const store = storeOf(options, opened)
  return Layer.merge(
    Layer.provide(layerServices(options), store),
    Layer.effect(Migrator.Migrator, Migrator.Migrator).pipe(Layer.provide(store))
  )
}

/**
 * Queue, worker, scheduler and migrator on the program's own `PgClient`, migrated.
 *
 * **Details**
 *
 * An `add` inside `sql.withTransaction` of that same client joins the
 * transaction. A worker opens connections of its own, with that client's
 * settings.
 *
 * **Example**
 *
 * ```ts
 * const Database = PgClient.layer({ url: Redacted.make("postgres://localhost/app") })
 *
 * program.pipe(Effect.provide(KongTask.layer({ schema: "jobs" })), Effect.provide(Database))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<Services, KongTaskError, PgClient.PgClient> => services(options)

/**
 * `KongTask.layer` with its defaults.
 *
 * **Gotchas**
 *
 * It is one layer, and built once where a program provides it several times. For a second database in the same program
 * call `KongTask.layer()`.
 *
 * @category layers
 * @since 0.1.0
 */
export const KongTaskLive: Layer.Layer<Services, KongTaskError, PgClient.PgClient> = services(undefined)

/**
 * Everything from the environment and the configuration file, the `PgClient`
 * included, so that the program's own statements and transactions use the same one.
 *
 * **Details**
 *
 * Reads the settings of the connection, `schema`, `maxPoolSize` and
 * `preparedStatements`, from environment variables (`DATABASE_URL`, `PGDATABASE`,
 * `KONGTASK_SCHEMA` and so on, through the `ConfigProvider`), else from
 * `kongtask.config.{ts,js,json,yaml,toml}` in the working folder or the nearest
 * one above; docs/configuration.md lists them. Without an address it fails with
 * `ConnectionNotConfigured`, with a wrong value it names the variable, or file,
 * line and column.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig: Layer.Layer<Services | PgClient.PgClient | SqlClient.SqlClient, KongTaskError> = Layer.unwrap(
  Effect.gen(function*() {
    const configuration = yield* resolve()
    const target = yield* Connection.target(configuration)
    const schema = configuration.settings.schema.value
    return target._tag === "Embedded"
      ? layerEmbedded({ schema, dataDir: target.dataDir })
      : Layer.provideMerge(services({ schema }), Connection.layer(target.config))
  })
)

/**
 * Everything on PostgreSQL inside the process (PGlite), for development, small
 * programs and tests: no server, one process.
 *
 * **Details**
 *
 * The directory is locked: a second process gets `DataDirectoryInUse`. Since
 * nobody else can have it open, the jobs that an earlier process left running
 * are released as soon as it is opened, each with its attempt charged.
 *
 * Needs the package `@electric-sql/pglite`. A crash of the process loses
 * nothing; a crash of the machine may, as in `synchronous_commit = off`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerEmbedded = (
  options?: EmbeddedOptions
): Layer.Layer<Services | PgClient.PgClient | SqlClient.SqlClient, KongTaskError> =>
  Layer.provideMerge(
    services(options, (store) => store.releasePools("all")),
    Embedded.layer({ dataDir: options?.dataDir })
  )
