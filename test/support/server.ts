/**
 * PostgreSQL servers of our own: each in a temporary directory, on a unix socket
 * there and on a loopback port, stopped with its scope.
 */
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type ChildProcess, spawn } from "node:child_process"
import { chownSync, closeSync, mkdirSync, openSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { join } from "node:path"
import type { Binaries } from "./binaries.ts"
import { readOr } from "./directory.ts"
import { pause } from "./events.ts"

/** A server could not be made, started or stopped; the message ends with its log. */
export class ServerFailed extends Data.TaggedError("ServerFailed")<{ readonly message: string }> {}

/** How a server stops: ending sessions, as in a crash of the machine, or waiting for sessions. */
export type StopMode = "fast" | "immediate" | "smart"

/** A server of our own. */
export interface Server {
  /** The socket's directory. */
  readonly host: string
  readonly port: number
  readonly username: string
  readonly password: string
  /** The postmaster's process id; fails while it is stopped. */
  readonly pid: Effect.Effect<number, ServerFailed>
  readonly log: Effect.Effect<string>
  /** Returns when the postmaster has exited. Does nothing to a stopped server. */
  readonly stop: (mode: StopMode) => Effect.Effect<void>
  /** Returns when the server accepts connections, on the same port as before. Does nothing to a running one. */
  readonly start: Effect.Effect<void, ServerFailed>
}

const username = "postgres"
const password = "postgres"
const stopSignals = { fast: "SIGINT", immediate: "SIGQUIT", smart: "SIGTERM" } as const

/** Without a fast disk's help: nothing here survives the machine, everything survives the process. */
const settings: Readonly<Record<string, string>> = {
  fsync: "off",
  synchronous_commit: "off",
  full_page_writes: "off",
  max_connections: "200",
  shared_buffers: "32MB",
  listen_addresses: "127.0.0.1"
}

/** What PostgreSQL's programs inherit: no setting of somebody's own server. */
const environment = (): NodeJS.ProcessEnv => ({
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("PG"))),
  LC_ALL: "C"
})

const launch = (binaries: Binaries, program: string, args: ReadonlyArray<string>, directory: string): ChildProcess => {
  const [command = "", ...rest] = [...binaries.wrapper, join(binaries.directory, program), ...args]
  const log = openSync(join(directory, "log"), "a")
  const child = spawn(command, rest, {
    ...binaries.runAs,
    cwd: join(directory, "server"),
    detached: true,
    env: environment(),
    stdio: ["ignore", log, log]
  })
  closeSync(log)
  child.on("error", () => {})
  return child
}

const hasExited = (child: ChildProcess): boolean =>
  child.pid === undefined || child.exitCode !== null || child.signalCode !== null

const exited = (child: ChildProcess): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    if (hasExited(child)) return resume(Effect.void)
    child.ref()
    const done = () => resume(Effect.void)
    child.once("exit", done)
    return Effect.sync(() => void child.off("exit", done))
  })

const freePort = Effect.callback<number>((resume) => {
  const probe = createServer()
  probe.listen(0, "127.0.0.1", () => {
    const address = probe.address()
    const port = address !== null && typeof address === "object" ? address.port : 0
    probe.close(() => resume(Effect.succeed(port)))
  })
})

const failure = (directory: string, what: string): ServerFailed =>
  new ServerFailed({ message: `${what}. Its log ends with:\n${readOr(join(directory, "log"), "").slice(-4000)}` })

const initialise = Effect.fnUntraced(function*(binaries: Binaries, directory: string) {
  const passwordFile = join(directory, "server", "password")
  mkdirSync(join(directory, "server"))
  mkdirSync(join(directory, "data"), { mode: 0o700 })
  writeFileSync(passwordFile, password)
  if (binaries.runAs !== undefined) {
    const { gid, uid } = binaries.runAs
    for (const name of ["server", "data", "server/password"]) chownSync(join(directory, name), uid, gid)
  }
  const child = launch(binaries, "initdb", [
    ...["-D", join(directory, "data"), "-U", username, "-E", "UTF8", "--locale=C", "--no-sync"],
    ...["--auth-local=trust", "--auth-host=scram-sha-256", `--pwfile=${passwordFile}`]
  ], directory)
  yield* Effect.onInterrupt(exited(child), () => Effect.sync(() => child.kill("SIGKILL")))
  if (child.exitCode !== 0) return yield* failure(directory, "initdb failed")
})

/** Ready is what the postmaster itself writes into its pid file. */
const isReady = (directory: string, child: ChildProcess): boolean => {
  const lines = readOr(join(directory, "data", "postmaster.pid"), "").split("\n")
  return Number(lines[0]) === child.pid && lines[7]?.trim() === "ready"
}

const untilReady = Effect.fnUntraced(function*(directory: string, child: ChildProcess) {
  const deadline = performance.now() + 60_000
  while (!isReady(directory, child)) {
    if (hasExited(child)) return yield* failure(directory, "postgres did not start")
    if (performance.now() > deadline) return yield* failure(directory, "postgres did not start within 60 seconds")
    yield* pause("10 millis")
  }
})

/** Options of `makeServer`. */
export interface ServerOptions {
  /** Server settings that replace or join the defaults. */
  readonly settings?: Readonly<Record<string, string>> | undefined
  /** How long a fast stop may take before the postmaster is killed; default 20 seconds. */
  readonly patience?: Duration.Input | undefined
}

/** Makes a database cluster in `directory`, starts its server, and stops it when the scope closes. */
export const makeServer = Effect.fnUntraced(function*(
  binaries: Binaries,
  directory: string,
  options: ServerOptions = {}
): Effect.fn.Return<Server, ServerFailed, Scope.Scope> {
  yield* initialise(binaries, directory)
  const host = join(directory, "server")
  const flags = Object.entries({ ...settings, ...options.settings }).flatMap((
    [name, value]
  ) => ["-c", `${name}=${value}`])
  let port = yield* freePort
  let child: ChildProcess | undefined

  const startOn = Effect.fnUntraced(function*(port: number) {
    const started = launch(binaries, "postgres", [
      ...["-D", join(directory, "data"), "-k", host, "-p", String(port)],
      ...flags
    ], directory)
    child = started
    yield* untilReady(directory, started)
    started.unref()
  })
  const stop = Effect.fnUntraced(function*(mode: StopMode) {
    const stopping = child
    if (stopping === undefined || hasExited(stopping)) return
    stopping.kill(stopSignals[mode])
    if (mode === "smart") return yield* exited(stopping)
    yield* Effect.raceFirst(
      exited(stopping),
      Effect.tap(pause(options.patience ?? "20 seconds"), () => Effect.sync(() => stopping.kill("SIGKILL")))
    )
    yield* exited(stopping)
  })

  yield* Effect.addFinalizer(() => stop("fast"))
  for (let attempt = 1; attempt <= 5; attempt++) {
    const result = yield* Effect.result(startOn(port))
    if (result._tag === "Success") break
    if (attempt === 5 || !result.failure.message.includes("Address already in use")) return yield* result.failure
    port = yield* freePort
  }

  return {
    host,
    port,
    username,
    password,
    pid: Effect.suspend(() =>
      child?.pid === undefined || hasExited(child)
        ? Effect.fail(new ServerFailed({ message: "The server is stopped" }))
        : Effect.succeed(child.pid)
    ),
    log: Effect.sync(() => readOr(join(directory, "log"), "")),
    stop,
    start: Effect.suspend(() => child === undefined || hasExited(child) ? startOn(port) : Effect.void)
  }
})
