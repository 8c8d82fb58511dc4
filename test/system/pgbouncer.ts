/**
 * PgBouncer before a test's database, on a unix socket in a temporary directory, killed with its
 * scope.
 */
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import { type ChildProcess, spawn } from "node:child_process"
import { accessSync, chownSync, constants, mkdirSync, writeFileSync } from "node:fs"
import { createConnection } from "node:net"
import { join } from "node:path"
import { TestDatabase } from "../support/database.ts"
import { isRoot, makeDirectory, nobody, readOr } from "../support/directory.ts"
import { pause } from "../support/events.ts"
import { onSudden } from "../support/guard.ts"

const missing = "These tests need PgBouncer, and there is none on the PATH or in /usr/sbin: apt-get install pgbouncer"

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

const program = Effect.suspend(() => {
  const directories = [...(process.env["PATH"] ?? "").split(":"), "/usr/sbin"]
  const found = directories.map((directory) => join(directory, "pgbouncer")).find(isExecutable)
  return found === undefined ? Effect.die(new Error(missing)) : Effect.succeed(found)
})

export interface PgBouncer {
  /** A client of the test's database through it, with nothing prepared in transaction mode. */
  readonly config: PgClient.PgPoolConfig
  /** Ends it as `kill -9` does, and every session with it. */
  readonly kill: Effect.Effect<void>
  /** Returns when it accepts connections. */
  readonly start: Effect.Effect<void>
}

/** Only the directory tells its sockets apart. */
const port = 6432

const quoted = (value: string) => `'${value.replaceAll("'", "''")}'`

const settings = (directory: string, url: URL, mode: string, poolSize: number) => `
[databases]
* = host=${quoted(url.hostname)} port=${url.port || "5432"} user=${quoted(decodeURIComponent(url.username))} password=${
  quoted(decodeURIComponent(url.password))
}
[pgbouncer]
listen_port = ${port}
unix_socket_dir = ${directory}
auth_type = any
pool_mode = ${mode}
default_pool_size = ${poolSize}
max_client_conn = 200
`

const exited = (child: ChildProcess): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
    const done = () => resume(Effect.void)
    child.once("exit", done)
    return Effect.sync(() => void child.off("exit", done))
  })

const accepts = (path: string): Effect.Effect<boolean> =>
  Effect.callback((resume) => {
    const socket = createConnection(path)
    const answer = (is: boolean) => {
      socket.destroy()
      resume(Effect.succeed(is))
    }
    socket.once("connect", () => answer(true)).once("error", () => answer(false))
  })

/** Options of `make`. */
export interface Options {
  /** How many connections to the server all clients share; default 10. */
  readonly poolSize?: number | undefined
  /** When a connection to the server goes to another client: after the transaction, by default, or the session. */
  readonly mode?: "transaction" | "session" | undefined
}

export const make = Effect.fnUntraced(function*(
  options: Options = {}
): Effect.fn.Return<PgBouncer, never, TestDatabase | Scope.Scope> {
  const { name, url } = yield* TestDatabase
  const { mode = "transaction", poolSize = 10 } = options
  const path = yield* program
  const base = yield* makeDirectory("data")
  const directory = join(base, "pgbouncer")
  const file = join(base, "pgbouncer.ini")
  const log = () => readOr(join(directory, "log"), "").slice(-4000)
  mkdirSync(directory)
  writeFileSync(file, `${settings(directory, new URL(url), mode, poolSize)}logfile = ${directory}/log\n`)
  // It refuses to run as root.
  if (isRoot()) { for (const owned of [directory, file]) chownSync(owned, nobody.uid, nobody.gid) }

  let child: ChildProcess | undefined
  const kill = Effect.suspend(() => {
    if (child === undefined) return Effect.void
    child.kill("SIGKILL")
    return exited(child)
  })
  const start = Effect.gen(function*() {
    const started = spawn(path, ["-q", file], { ...(isRoot() ? nobody : {}), cwd: "/", stdio: "ignore" })
    started.on("error", () => {})
    child = started
    const deadline = performance.now() + 20_000
    while (!(yield* accepts(join(directory, `.s.PGSQL.${port}`)))) {
      if (started.exitCode !== null || performance.now() > deadline) {
        return yield* Effect.die(new Error(`PgBouncer does not run. Its log ends with:\n${log()}`))
      }
      yield* pause("10 millis")
    }
    yield* onSudden("kill -KILL \"$1\"", [String(started.pid)])
  })

  const scope = yield* Effect.scope
  yield* Effect.addFinalizer(() => kill)
  const startInScope = Effect.provideService(start, Scope.Scope, scope)
  yield* startInScope
  return {
    config: {
      host: directory,
      port,
      username: "postgres",
      database: name,
      prepare: mode === "session",
      maxConnections: 10
    },
    kill,
    start: startInScope
  }
})
