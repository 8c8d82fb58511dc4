/**
 * The ready-made Layers: queue, worker, scheduler and migrator on one database.
 *
 * - `KongTaskLive` on a `PgClient` that the program provides
 * - `KongTask.layer` the same, with options
 * - `KongTask.layerConfig` from the environment, `PgClient` included
 * - `KongTask.layerEmbedded` on PostgreSQL inside the process, no server needed
 *
 * Each of them migrates the schema when it is built, and fails with a
 * `KongTaskError` that says what to do when the database cannot be used. None
 * falls back to the embedded database by itself.
 *
 * @since 0.1.0
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as SqlClient from "effect/sql/SqlClient"
import * as Embedded from "./internal/pglite/layer.ts"
import { fromSqlError } from "./internal/postgres/errors.ts"
import * as PostgresStore from "./internal/postgres/store.ts"
import * as JobStore from "./JobStore.ts"
import { ConnectionNotConfigured, InvalidConfiguration, KongTaskError } from "./KongTaskError.ts"
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

const defaultSchema = "graphile_worker"

/** Everything above the connection; `opened` runs once the schema is up to date, before anybody can claim. */
const services = (
  options: Options | undefined,
  opened: (store: JobStore.Store) => Effect.Effect<unknown, KongTaskError> = () => Effect.void
): Layer.Layer<Services, KongTaskError, PgClient.PgClient> => {
  const schema = options?.schema ?? defaultSchema
  const store = Layer.effect(
    JobStore.JobStore,
    Effect.gen(function*() {
      yield* (options?.migrate === false ? Migrator.verify : Migrator.migrate)
      const store = yield* PostgresStore.make({ schema })
      yield* opened(store)
      return store
    })
  )
  // A worker that is shared with another call's services would run that one's jobs.
  return Layer.mergeAll(
    Queue.Queue.layer(options),
    Layer.fresh(Worker.Worker.layer),
    Layer.fresh(Scheduler.Scheduler.layer)
  ).pipe(
    Layer.provide(store),
    Layer.provideMerge(Migrator.Migrator.layer({ ...options, schema }))
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

const connection = Config.all({
  url: Config.option(Config.Redacted("DATABASE_URL")),
  host: Config.option(Config.String("PGHOST")),
  port: Config.option(Config.Port("PGPORT")),
  username: Config.option(Config.String("PGUSER")),
  password: Config.option(Config.Redacted("PGPASSWORD")),
  database: Config.option(Config.String("PGDATABASE"))
})

const settings = Config.all({
  schema: Config.String("KONGTASK_SCHEMA").pipe(
    Config.orElse(() => Config.String("GRAPHILE_WORKER_SCHEMA")),
    Config.withDefault(defaultSchema)
  ),
  maxConnections: Config.Int("KONGTASK_MAX_CONNECTIONS").pipe(Config.withDefault(10))
})

const fromConfig = <A>(config: Config.Config<A>): Effect.Effect<A, KongTaskError> =>
  Effect.mapError(
    Effect.suspend(() => config),
    (error) =>
      new KongTaskError({ reason: new InvalidConfiguration({ field: "the environment", problem: error.message }) })
  )

const clientFromConfig = Effect.gen(function*() {
  const { database, host, password, port, url, username } = yield* fromConfig(connection)
  if (Option.isNone(url) && Option.isNone(database)) {
    return yield* new KongTaskError({
      reason: new ConnectionNotConfigured({ looked: ["DATABASE_URL", "PGDATABASE (with PGHOST, PGUSER, …)"] })
    })
  }
  const { maxConnections } = yield* fromConfig(settings)
  if (maxConnections < 2) {
    return yield* new KongTaskError({
      reason: new InvalidConfiguration({
        field: "KONGTASK_MAX_CONNECTIONS",
        problem: `must be 2 or more, not ${maxConnections}`
      })
    })
  }
  return PgClient.layer({
    maxConnections,
    applicationName: "kongtask",
    ...(Option.isSome(url) ? { url: url.value } : {
      host: Option.getOrUndefined(host),
      port: Option.getOrUndefined(port),
      username: Option.getOrUndefined(username),
      password: Option.getOrUndefined(password),
      database: Option.getOrUndefined(database)
    })
  }).pipe(Layer.catch((error) => Layer.effectContext(Effect.fail(fromSqlError("connect")(error)))))
})

/**
 * Everything from the environment, the `PgClient` included, so that the
 * program's own statements and transactions use the same one.
 *
 * **Details**
 *
 * Reads `DATABASE_URL`, or `PGDATABASE` with `PGHOST`, `PGPORT`, `PGUSER` and
 * `PGPASSWORD`; `KONGTASK_SCHEMA` (older name: `GRAPHILE_WORKER_SCHEMA`) and
 * `KONGTASK_MAX_CONNECTIONS` (2 or more, default 10). Without an address it
 * fails with `ConnectionNotConfigured`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig: Layer.Layer<Services | PgClient.PgClient | SqlClient.SqlClient, KongTaskError> = Layer.unwrap(
  Effect.gen(function*() {
    const client = yield* clientFromConfig
    const { schema } = yield* fromConfig(settings)
    return Layer.provideMerge(services({ schema }), client)
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
