/**
 * Opens PGlite and runs cycles of the wire protocol on it.
 *
 * A cycle is what a client sends up to and including a `Sync` or a `Query`.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { KongTaskError } from "../../KongTaskError.ts"
import * as DataDirectory from "./dataDirectory.ts"
import { codeOf, failed } from "./fileSystem.ts"

/**
 * One session of PostgreSQL that runs one cycle at a time.
 */
export interface Engine {
  /**
   * Runs a cycle and hands over its answer in pieces, which are valid only
   * during the call. A rejection means that the engine broke and that nothing
   * more may be run on it; an error of SQL is part of the answer.
   */
  readonly execute: (cycle: Uint8Array, onData: (bytes: Uint8Array) => void) => Promise<void>
}

/** The status with which PGlite's wasm leaves for PostgreSQL's own error handling. */
const postgresError = 100

/**
 * The nesting that PostgreSQL itself refuses with an error, in place of the
 * default of 2 MB that the stack of JavaScript cannot hold.
 */
const stackLimit = ["-c", "max_stack_depth=200kB"]

const statusOf = (cause: unknown): unknown =>
  typeof cause === "object" && cause !== null && "status" in cause ? cause.status : undefined

type WasmFunction = (...args: Array<unknown>) => unknown

/**
 * PGlite takes every exception of its wasm for an error of SQL and goes on, on
 * a FATAL for ever. This makes the first one that is something else end the
 * cycle, and every later use of the engine.
 */
const stopWhenBroken = (module: Record<string, unknown>): () => unknown => {
  let broken: { readonly cause: unknown } | undefined
  const wrap = (name: string, around: (original: WasmFunction) => WasmFunction) => {
    const original = module[name]
    if (typeof original === "function") module[name] = around(original.bind(module))
  }
  const unlessBroken = (original: WasmFunction): WasmFunction => (...args) => {
    if (broken !== undefined) throw broken.cause
    return original(...args)
  }
  wrap("_PostgresMainLoopOnce", (original) => () => {
    const result = Result.try(() => original())
    if (Result.isSuccess(result)) return result.success
    if (statusOf(result.failure) !== postgresError) broken ??= { cause: result.failure }
    throw result.failure
  })
  wrap("stackRestore", unlessBroken)
  wrap("_PostgresSendReadyForQueryIfNecessary", unlessBroken)
  wrap("_pgl_pq_flush", unlessBroken)
  return () => broken?.cause
}

const load = (dataDir: string | undefined) =>
  Effect.tryPromise({
    try: () => import("@electric-sql/pglite"),
    catch: (cause) =>
      failed(
        dataDir,
        codeOf(cause) === "ERR_MODULE_NOT_FOUND"
          ? "the package @electric-sql/pglite is not installed. Run `npm install @electric-sql/pglite`."
          : "the package @electric-sql/pglite cannot be loaded. Run `npm install @electric-sql/pglite` again.",
        cause
      )
  })

const start = Effect.fnUntraced(function*(dataDir: string | undefined, database: string | undefined) {
  const { PGlite } = yield* load(dataDir)
  const log: Array<string> = []
  const keepLast = (line: string) => {
    if (log.push(line) > 3) log.shift()
    return false
  }
  const db = yield* Effect.tryPromise({
    try: () =>
      PGlite.create({
        ...(database === undefined ? {} : { dataDir: database }),
        startParams: [...PGlite.defaultStartParams, ...stackLimit],
        onStderr: keepLast,
        onStdout: keepLast
      }),
    catch: (cause) => {
      const said = log.map((line) => line.replace(/^.*?\] /, "")).join(" ")
      const problem = `PGlite cannot open it (${cause instanceof Error ? cause.message : String(cause)})${
        said === "" ? "" : `: ${said}`
      }.`
      return failed(dataDir, problem, cause)
    }
  })
  const brokenBy = stopWhenBroken(db.Module as unknown as Record<string, unknown>)
  const engine: Engine = {
    execute: (cycle, onData) => db.execProtocolRawStream(cycle, { syncToFs: false, onRawData: onData })
  }
  // A broken engine must not write its last checkpoint: recovery starts from the log.
  const close = Effect.suspend(() =>
    Effect.ignore(
      Effect.tryPromise(() => brokenBy() === undefined ? db.close() : db.fs?.closeFs() ?? Promise.resolve())
    )
  )
  return { engine, close }
})

/**
 * Opens a database for this scope: in a directory, or in memory.
 *
 * Fails with `DataDirectoryInUse` and `EmbeddedDatabaseFailed`.
 */
export const open = Effect.fnUntraced(
  function*(dataDir: string | undefined): Effect.fn.Return<Engine, KongTaskError, Scope.Scope> {
    const directory = dataDir === undefined ? undefined : yield* DataDirectory.open(dataDir)
    const { engine } = yield* Effect.acquireRelease(
      start(directory?.path, directory?.database),
      ({ close }) => close
    )
    if (directory !== undefined) yield* directory.complete
    return engine
  }
)
