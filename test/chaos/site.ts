/**
 * The databases that cases run on.
 */
import { PgClient } from "@effect/sql-pg"
import { Effect, Redacted, type Scope } from "effect"
import { Reactivity } from "effect/reactivity"
import { inject } from "vitest"
import { dedicatedServer, freshDatabase } from "../support/database.ts"
import * as Proxy from "./proxy.ts"
import * as Standby from "./standby.ts"

/** Where a database is reached. */
export interface Site {
  /** For workers and for the case itself. */
  readonly url: string
}

const behind = (url: string, port: number): string => {
  const changed = new URL(url)
  changed.hostname = "127.0.0.1"
  changed.port = String(port)
  return changed.toString()
}

/** A database of its own on the run's server. */
export const database = Effect.map(freshDatabase(), ({ config, name, url }) => ({ name, config, url }))

/** A database of its own whose connections go through a proxy. */
export const proxied = Effect.gen(function*() {
  const { url } = yield* freshDatabase()
  const { hostname, port } = new URL(url)
  const proxy = yield* Proxy.make({ host: hostname, port: Number(port === "" ? 5432 : port) })
  return { url: behind(url, proxy.port), proxy }
})

/** A server of its own, which may be stopped and started. */
export const server = dedicatedServer

/** A primary behind a proxy, and a standby that may take its place. */
export const replicated = Effect.gen(function*() {
  const { binaries } = inject("kongtaskPostgres")
  if ("unavailable" in binaries) return yield* Effect.die(new Error(binaries.unavailable))
  const pair = yield* Standby.make(binaries)
  const proxy = yield* Proxy.make(pair.primary)
  return {
    url: `postgres://${pair.username}:${pair.password}@127.0.0.1:${proxy.port}/postgres`,
    pair,
    proxy
  }
})

/** One short piece of work on a connection of its own, as somebody from outside. */
export const outside = <A, E>(
  config: PgClient.PgPoolConfig,
  use: (sql: PgClient.PgClient) => Effect.Effect<A, E>
) =>
  PgClient.makeClient({ ...config, applicationName: "chaos-outside" }).pipe(
    Effect.flatMap(use),
    Effect.scoped,
    Effect.provide(Reactivity.layer),
    Effect.orDie
  )

/** The case's own client. */
export const clientOf = (site: Site) =>
  PgClient.layer({ url: Redacted.make(site.url), maxConnections: 4, applicationName: "chaos-driver" })

export type Made<S extends Site> = Effect.Effect<S, never, Scope.Scope>
