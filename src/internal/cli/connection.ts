/**
 * The settings of a command, and the database that they name.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { KongTaskError } from "../../KongTaskError.ts"
import type { MigratorOptions } from "../../Migrator.ts"
import type { Configuration, Flags } from "./configuration.ts"
import { root } from "./root.ts"

type Root = Effect.Services<typeof root>

// Neither the driver nor a parser is loaded before a command needs one, so that the others start fast.
export const configuration = Effect.promise(() => import("./configuration.ts"))
const connection = Effect.promise(() => import("../configuration/connection.ts"))

/** The module, for the commands that need it. */
export const migrator = Effect.promise(() => import("../../Migrator.ts"))

/** The settings, the flags of every command and those that are given here before all others. */
export const resolve = Effect.fnUntraced(function*(
  flags: Flags = {}
): Effect.fn.Return<Configuration, KongTaskError, Root> {
  const { config, databaseUrl, debug, embedded, schema } = yield* root
  const { resolve } = yield* configuration
  return yield* resolve({
    file: config,
    flags: { databaseUrl, embedded, schema, debug: debug ? true : undefined, ...flags }
  })
})

/** Migrator and client alone, on a schema in whatever state. */
export const database = (options?: Omit<MigratorOptions, "schema">) =>
  Layer.unwrap(Effect.gen(function*() {
    const resolved = yield* resolve()
    const { client } = yield* configuration
    const { Migrator } = yield* migrator
    return Layer.provideMerge(
      Migrator.layer({ ...options, schema: resolved.settings.schema.value }),
      client(resolved)
    )
  }))

/** Everything, on a schema that is up to date already; an embedded one is brought up to date. */
export const services = Layer.unwrap(Effect.gen(function*() {
  const resolved = yield* resolve()
  const { services } = yield* configuration
  const { target } = yield* connection
  return services(resolved, { migrate: (yield* target(resolved))._tag === "Embedded" })
}))

/** Everything for a worker, which brings its schema up to date unless it is told not to. */
export const workerServices = (resolved: Configuration, migrate: boolean) =>
  Layer.unwrap(Effect.map(configuration, ({ services }) => services(resolved, { migrate })))
