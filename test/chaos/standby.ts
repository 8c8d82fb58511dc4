/**
 * A primary and its synchronous standby: no commit is acknowledged before the
 * standby has it. The standby is a copy of the stopped primary's files.
 */
import { PgClient } from "@effect/sql-pg"
import { Effect, type Scope } from "effect"
import { Reactivity } from "effect/reactivity"
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { chownSync, closeSync, mkdirSync, openSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { join } from "node:path"
import type { Binaries } from "../support/binaries.ts"
import { makeDirectory, readOr } from "../support/directory.ts"
import { eventually, pause } from "../support/events.ts"
import { makeServer } from "../support/server.ts"
import * as Proxy from "./proxy.ts"

export interface Pair {
  readonly primary: Proxy.Target
  readonly standby: Proxy.Target
  readonly username: string
  readonly password: string
  /**
   * Cuts the standby off from the primary, without either of them noticing; a while later the primary is stopped as by a
   * crash, and the standby takes its place. What the primary has acknowledged in between without the standby is lost.
   */
  readonly failOver: Effect.Effect<void>
}

const freePort = Effect.callback<number>((resume) => {
  const probe = createServer()
  probe.listen(0, "127.0.0.1", () => {
    const address = probe.address()
    probe.close(() => resume(Effect.succeed(address !== null && typeof address === "object" ? address.port : 0)))
  })
})

const query = <Row extends object>(host: string, port: number, username: string, text: string) =>
  PgClient.makeClient({ host, port, username, database: "postgres", applicationName: "chaos-standby" }).pipe(
    Effect.flatMap((sql) => sql.unsafe<Row>(text)),
    Effect.scoped,
    Effect.provide(Reactivity.layer)
  )

const standbySettings: Readonly<Record<string, string>> = {
  fsync: "off",
  full_page_writes: "off",
  max_connections: "200",
  shared_buffers: "32MB",
  listen_addresses: "127.0.0.1",
  hot_standby: "on"
}

const exited = (child: ChildProcess): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
    child.once("exit", () => resume(Effect.void))
  })

/** Starts a server on a data directory that is there already; it is stopped with the scope. */
const startStandby = Effect.fnUntraced(function*(binaries: Binaries, directory: string, port: number) {
  const host = join(directory, "server")
  const flags = Object.entries(standbySettings).flatMap(([name, value]) => ["-c", `${name}=${value}`])
  const [command = "", ...rest] = [...binaries.wrapper, join(binaries.directory, "postgres")]
  yield* Effect.acquireRelease(
    Effect.sync(() => {
      const log = openSync(join(directory, "log"), "a")
      const child = spawn(
        command,
        [...rest, "-D", join(directory, "data"), "-k", host, "-p", String(port), ...flags],
        {
          ...binaries.runAs,
          cwd: host,
          detached: true,
          env: {
            ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("PG"))),
            LC_ALL: "C"
          },
          stdio: ["ignore", log, log]
        }
      )
      closeSync(log)
      return child
    }),
    (child) => Effect.andThen(Effect.sync(() => void child.kill("SIGQUIT")), exited(child))
  )
  return host
})

export const make = Effect.fnUntraced(function*(binaries: Binaries): Effect.fn.Return<Pair, never, Scope.Scope> {
  const home = yield* makeDirectory("data")
  const primary = yield* Effect.orDie(makeServer(binaries, home, { settings: { synchronous_commit: "on" } }))
  yield* primary.stop("fast")

  const copy = yield* makeDirectory("data")
  const data = join(copy, "data")
  const replication = yield* Proxy.make({ host: "127.0.0.1", port: primary.port })
  const connection = {
    host: "127.0.0.1",
    port: replication.port,
    user: primary.username,
    password: primary.password,
    application_name: "chaos"
  }
  const copied = spawnSync("cp", ["-a", join(home, "data"), data])
  if (copied.status !== 0) return yield* Effect.die(new Error(`cp: ${copied.stderr.toString()}`))
  rmSync(join(data, "postmaster.pid"), { force: true })
  mkdirSync(join(copy, "server"))
  writeFileSync(join(data, "standby.signal"), "")
  writeFileSync(
    join(data, "postgresql.auto.conf"),
    `primary_conninfo = '${Object.entries(connection).map(([name, value]) => `${name}=${value}`).join(" ")}'\n`
  )
  if (binaries.runAs !== undefined) {
    const { gid, uid } = binaries.runAs
    for (const path of [join(copy, "server"), join(data, "standby.signal"), join(data, "postgresql.auto.conf")]) {
      chownSync(path, uid, gid)
    }
  }

  yield* Effect.orDie(primary.start)
  const port = yield* freePort
  const host = yield* startStandby(binaries, copy, port)
  const onPrimary = <Row extends object>(text: string) => query<Row>(primary.host, primary.port, primary.username, text)
  const states = "select state, sync_state from pg_stat_replication where application_name = 'chaos'"
  const until = (wanted: (row: { readonly state: string; readonly sync_state: string }) => boolean) =>
    eventually(onPrimary<{ readonly state: string; readonly sync_state: string }>(states), {
      what: `a streaming standby (its log: ${readOr(join(copy, "log"), "").slice(-2000)})`,
      until: (rows) => rows.some(wanted),
      every: "100 millis",
      within: "30 seconds"
    }).pipe(Effect.orDie)
  yield* until(({ state }) => state === "streaming")
  yield* Effect.orDie(onPrimary("alter system set synchronous_standby_names = 'chaos'"))
  yield* Effect.orDie(onPrimary("select pg_reload_conf()"))
  yield* until(({ sync_state }) => sync_state === "sync")

  return {
    primary: { host: "127.0.0.1", port: primary.port },
    standby: { host: "127.0.0.1", port },
    username: primary.username,
    password: primary.password,
    failOver: Effect.gen(function*() {
      yield* replication.sever
      yield* pause("400 millis")
      yield* primary.stop("immediate")
      yield* replication.leadTo({ host: "127.0.0.1", port: primary.port })
      yield* Effect.orDie(query(host, port, primary.username, "select pg_promote(true, 30)"))
      yield* eventually(
        query<{ readonly standby: boolean }>(
          host,
          port,
          primary.username,
          "select pg_is_in_recovery() as standby"
        ),
        { what: "the promotion", until: ([row]) => row?.standby === false, within: "30 seconds" }
      ).pipe(Effect.orDie)
    })
  }
})
