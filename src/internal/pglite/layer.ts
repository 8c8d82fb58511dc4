/**
 * The embedded database as a `PgClient`.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as SqlClient from "effect/sql/SqlClient"
import type { Duplex } from "node:stream"
import type { KongTaskError } from "../../KongTaskError.ts"
import * as Engine from "./engine.ts"
import { failed } from "./fileSystem.ts"
import * as Maintenance from "./maintenance.ts"
import * as VirtualServer from "./virtualServer.ts"

const EmbeddedId = "~kongtask/Embedded" as const

/**
 * What `layer` takes.
 */
export interface Options {
  /** The directory of the database, made when it is missing; a database in memory when left out. */
  readonly dataDir?: string | undefined
  readonly applicationName?: string | undefined
}

/**
 * Opens PGlite for the life of the layer and provides clients of it.
 *
 * A client derived from the provided one's `config` by `PgClient.make` opens
 * further connections to the same database.
 *
 * Fails with `DataDirectoryInUse` and `EmbeddedDatabaseFailed`.
 */
export const layer = (options: Options): Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, KongTaskError> =>
  PgClient.layerFrom(Effect.gen(function*() {
    const engine = yield* Engine.open(options.dataDir)
    const connect = yield* VirtualServer.make(engine)
    const stream: () => Duplex = Object.assign(() => connect(), { [EmbeddedId]: EmbeddedId })
    const client = yield* PgClient.make({
      stream,
      ssl: false,
      username: "postgres",
      database: "postgres",
      applicationName: options.applicationName
    }).pipe(
      Effect.mapError((error) => failed(options.dataDir, error.message, error))
    )
    yield* Effect.forkScoped(Maintenance.run(client))
    return client
  }))

/**
 * Whether a client, or the one that it was derived from, is of this layer.
 */
export const isEmbedded = (client: PgClient.PgClient): boolean =>
  client.config.stream !== undefined && EmbeddedId in client.config.stream
