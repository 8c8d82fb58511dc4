import * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import * as Reactivity from "effect/reactivity/Reactivity"
import type * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"

/** The driver's own limit of 16 MiB would close the connection at each claim of one large job, for ever. */
const maxMessageSize = 1024 * 1024 * 1024

/**
 * A client of its own to the same database as the same role, closed with the
 * scope, without the settings that change how rows are read.
 */
export const derive = (
  client: PgClient.PgClient,
  maxConnections: number
): Effect.Effect<PgClient.PgClient, SqlError, Scope.Scope> => {
  const { transformJson: _1, transformQueryNames: _2, transformResultNames: _3, types: _4, ...config } = client.config
  return PgClient.make({ ...config, maxConnections, maxMessageSize, applicationName: "kongtask" }).pipe(
    Effect.provide(Reactivity.layer)
  )
}
