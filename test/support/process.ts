/**
 * TypeScript programs as child processes, killed with their scope.
 */
import type * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import { type ChildProcess, spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { within } from "./events.ts"
import { onSudden } from "./guard.ts"

/** The child did not do what was awaited; the message ends with what it wrote. */
export class ChildFailed extends Data.TaggedError("ChildFailed")<{ readonly message: string }> {}

/** How a child ended: by itself with a code, or by a signal. */
export interface ChildExit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** A running child. */
export interface Child {
  readonly pid: number
  /** The lines of its standard output that nobody has taken yet; ended when it closes. */
  readonly lines: Queue.Dequeue<string, Cause.Done>
  /** Takes lines up to the first that matches, and returns it; default 30 seconds. */
  readonly line: (
    matching: string | RegExp,
    options?: { readonly within?: Duration.Input | undefined }
  ) => Effect.Effect<string, ChildFailed>
  /** All of its standard output so far, taken or not. */
  readonly stdout: Effect.Effect<string>
  readonly stderr: Effect.Effect<string>
  /** Waits for its end. */
  readonly exit: Effect.Effect<ChildExit>
  /** Signals the child alone; returns at once. `exit` waits for the effect. */
  readonly kill: (signal: NodeJS.Signals) => Effect.Effect<void>
  /** `kill -9` of the child and all it has started, then waits for its end. */
  readonly killGroup: Effect.Effect<ChildExit>
}

/** Options of `spawnScript`. */
export interface SpawnOptions {
  readonly args?: ReadonlyArray<string> | undefined
  /** Joins or replaces this process's environment; `undefined` takes a variable away. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined
  readonly cwd?: string | undefined
  /** Its standard input, which ends with it. Default: none. */
  readonly input?: string | undefined
}

/** The child is no test: it must not see that one runs it. */
const environment = (env: SpawnOptions["env"]): NodeJS.ProcessEnv => ({
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(VITEST|NODE_ENV$|TEST$)/.test(name))),
  ...env
})

const signalGroup = (child: ChildProcess): void => {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL")
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error
  }
}

/** Runs a script, TypeScript too, against this package's sources; it and its group are killed with the scope. */
export const spawnScript = Effect.fnUntraced(function*(
  script: string | URL,
  options: SpawnOptions = {}
): Effect.fn.Return<Child, never, Scope.Scope> {
  const path = script instanceof URL ? fileURLToPath(script) : script
  const queue = yield* Queue.unbounded<string, Cause.Done>()
  const written = { stdout: "", stderr: "" }
  let ended: ChildExit | undefined

  const child = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn(process.execPath, ["--conditions=kongtask-source", path, ...(options.args ?? [])], {
        cwd: options.cwd,
        detached: true,
        env: environment(options.env),
        stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"]
      })
      // It may end before it has read everything.
      child.stdin?.on("error", () => {}).end(options.input)
      child.on("error", (error) => written.stderr += String(error))
      child.on("close", (code, signal) => ended = { code, signal })
      child.stderr!.setEncoding("utf8").on("data", (text: string) => written.stderr += text)
      createInterface({ input: child.stdout! }).on("line", (line) => {
        written.stdout += `${line}\n`
        Queue.offerUnsafe(queue, line)
      }).on("close", () => Queue.endUnsafe(queue))
      return child
    }),
    (child) => Effect.andThen(Effect.sync(() => signalGroup(child)), exit(child))
  )

  function exit(of: ChildProcess): Effect.Effect<ChildExit> {
    return Effect.callback((resume) => {
      if (ended !== undefined) return resume(Effect.succeed(ended))
      const done = (code: number | null, signal: NodeJS.Signals | null) => resume(Effect.succeed({ code, signal }))
      of.once("close", done)
      return Effect.sync(() => void of.off("close", done))
    })
  }

  const pid = child.pid
  if (pid === undefined) return yield* Effect.die(new Error(`${process.execPath} could not be started`))
  yield* onSudden("kill -KILL \"-$1\"", [String(pid)])

  const failed = (what: string): ChildFailed =>
    new ChildFailed({ message: `${path}: ${what}\nstdout:\n${written.stdout}\nstderr:\n${written.stderr}` })

  const line: Child["line"] = (matching, lineOptions) => {
    const matches = (text: string) => typeof matching === "string" ? text.includes(matching) : matching.test(text)
    const take = Effect.gen(function*() {
      while (true) {
        const text = yield* Queue.take(queue)
        if (matches(text)) return text
      }
    })
    return within(take, lineOptions?.within ?? "30 seconds", "the line").pipe(
      Effect.mapError((error) => failed(error._tag === "NotInTime" ? error.message : `ended without ${matching}`))
    )
  }

  return {
    pid,
    lines: queue,
    line,
    stdout: Effect.sync(() => written.stdout),
    stderr: Effect.sync(() => written.stderr),
    exit: exit(child),
    kill: (signal) => Effect.sync(() => void child.kill(signal)),
    killGroup: Effect.andThen(Effect.sync(() => signalGroup(child)), exit(child))
  }
})
