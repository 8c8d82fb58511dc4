import * as PgClient from "@effect/sql-pg/PgClient"
import * as PgPool from "@effect/sql-pg/PgPool"
import * as Effect from "effect/Effect"
import * as Reactivity from "effect/reactivity/Reactivity"
import type * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"

/** The driver's own limit of 16 MiB would close the connection at each claim of one large job, for ever. */
const maxMessageSize = 1024 * 1024 * 1024

const configOf = (client: PgClient.PgClient) => {
  const { transformJson: _1, transformQueryNames: _2, transformResultNames: _3, types: _4, ...config } = client.config
  return { ...config, maxMessageSize }
}

/**
 * A client of its own to the same database as the same role, closed with the
 * scope, without the settings that change how rows are read.
 */
export const derive = (
  client: PgClient.PgClient,
  maxConnections: number
): Effect.Effect<PgClient.PgClient, SqlError, Scope.Scope> =>
  PgClient.make({ ...configOf(client), maxConnections, applicationName: "kongtask" }).pipe(
    Effect.provide(Reactivity.layer)
  )

/**
 * Sessions to the same database, opened when they are needed. Each is lent to one borrower at a time, who may send
 * statements before the ones ahead are answered, and who must invalidate it when one of them may still be running.
 */
export const sessions = (
  client: PgClient.PgClient,
  maxConnections: number
): Effect.Effect<PgPool.PgPool, SqlError, Scope.Scope> =>
  PgPool.make({ ...configOf(client), maxConnections, minConnections: 0, multiplex: true, multiplexConcurrency: 1 })
