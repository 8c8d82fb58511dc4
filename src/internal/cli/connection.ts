/**
 * The database of a command. Loaded when a command needs it, so that the others start fast.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type { MigratorOptions } from "../../Migrator.ts"
import type { GivenSettings } from "./flags.ts"
import { root } from "./root.ts"

/** The settings that were given as flags of every command. */
export const given: Effect.Effect<GivenSettings, never, Root> = Effect.map(
  root,
  ({ config, databaseUrl, embedded, schema }): GivenSettings => ({ config, databaseUrl, embedded, schema })
)

type Root = Effect.Services<typeof root>

const client = (settings: GivenSettings) =>
  Layer.unwrap(Effect.gen(function*() {
    if (settings.embedded !== undefined) {
      const Embedded = yield* Effect.promise(() => import("../pglite/layer.ts"))
      return Embedded.layer({ dataDir: settings.embedded })
    }
    const PgClient = yield* Effect.promise(() => import("@effect/sql-pg/PgClient"))
    const { fromSqlError } = yield* Effect.promise(() => import("../postgres/errors.ts"))
    return PgClient.layer({ url: settings.databaseUrl ?? Redacted.make(process.env["DATABASE_URL"] ?? "") }).pipe(
      Layer.catch((error) => Layer.effectContext(Effect.fail(fromSqlError("connect")(error))))
    )
  }))

/** Migrator and client alone, on a schema in whatever state. */
export const database = (options?: MigratorOptions) =>
  Layer.unwrap(Effect.gen(function*() {
    const settings = yield* given
    const { Migrator } = yield* Effect.promise(() => import("../../Migrator.ts"))
    return Layer.provideMerge(Migrator.layer({ ...options, schema: settings.schema }), client(settings))
  }))

/** Everything, on a schema that is up to date; an embedded one is brought up to date. */
export const services = (options: { readonly migrate?: boolean; readonly given?: GivenSettings } = {}) =>
  Layer.unwrap(Effect.gen(function*() {
    const settings = { ...yield* given, ...options.given }
    const KongTask = yield* Effect.promise(() => import("../../KongTask.ts"))
    const migrate = options.migrate ?? settings.embedded !== undefined
    return Layer.provideMerge(KongTask.layer({ schema: settings.schema, migrate }), client(settings))
  }))

/** The module, which a command loads when it needs it. */
export const migrator = Effect.promise(() => import("../../Migrator.ts"))

/** The settings as they are in force. */
export const resolved = given
