/**
 * The configuration of a command: its settings, each with where it comes from, and the layers that they make.
 */
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as SqlClient from "effect/sql/SqlClient"
import type * as KongTask from "../../KongTask.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import type { Configuration } from "../configuration/resolve.ts"

export {
  type Configuration,
  describeSource,
  display,
  type Flags,
  type Options,
  resolve,
  type Resolved,
  type Source
} from "../configuration/resolve.ts"
export { type Name, names, parseDuration, type Setting, settings, type Values } from "../configuration/settings.ts"

const connection = Effect.promise(() => import("../configuration/connection.ts"))

/** The client alone: a server's, or one of the embedded database. */
export const client = (
  configuration: Configuration
): Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, KongTaskError> =>
  Layer.unwrap(Effect.gen(function*() {
    const { layer, target } = yield* connection
    const named = yield* target(configuration)
    if (named._tag === "Server") return layer(named.config)
    const Embedded = yield* Effect.promise(() => import("../pglite/layer.ts"))
    return Embedded.layer({ dataDir: named.dataDir })
  }))

/** Everything, in the configured schema; `options` go to `KongTask.layer`, or to `KongTask.layerEmbedded`. */
export const services = (
  configuration: Configuration,
  options?: Omit<KongTask.Options, "schema">
): Layer.Layer<KongTask.Services | PgClient.PgClient | SqlClient.SqlClient, KongTaskError> =>
  Layer.unwrap(Effect.gen(function*() {
    const KongTask = yield* Effect.promise(() => import("../../KongTask.ts"))
    const { layer, target } = yield* connection
    const named = yield* target(configuration)
    const schema = configuration.settings.schema.value
    return named._tag === "Server"
      ? Layer.provideMerge(KongTask.layer({ ...options, schema }), layer(named.config))
      : KongTask.layerEmbedded({ ...options, schema, dataDir: named.dataDir })
  }))
