/**
 * Starts `child.ts` for the life of a scope.
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Readline from "node:readline"
import { fileURLToPath } from "node:url"

const program = fileURLToPath(new URL("./child.ts", import.meta.url))

export interface Child {
  readonly pid: number
  /** The next line of its output, without its end. */
  readonly line: Effect.Effect<string>
  readonly send: (line: string) => Effect.Effect<void>
  /** `kill -9`, and the lines that it wrote before; done when the process is gone and its output read. */
  readonly kill: Effect.Effect<ReadonlyArray<string>>
}

export const start = (
  mode: "race" | "open" | "write",
  dataDir: string,
  nodeOptions: ReadonlyArray<string> = []
) =>
  Effect.acquireRelease(
    Effect.gen(function*() {
      const lines = yield* Queue.unbounded<string>()
      const child = ChildProcess.spawn(process.execPath, [...nodeOptions, program, mode, dataDir], {
        stdio: ["pipe", "pipe", "inherit"]
      })
      Readline.createInterface({ input: child.stdout }).on("line", (line) => {
        Queue.offerUnsafe(lines, line)
      })
      const closed = new Promise<void>((resolve) => child.once("close", () => resolve()))
      const self: Child = {
        pid: child.pid!,
        line: Queue.take(lines),
        send: (line) => Effect.sync(() => child.stdin.write(`${line}\n`)),
        kill: Effect.gen(function*() {
          child.kill("SIGKILL")
          yield* Effect.promise(() => closed)
          return yield* Queue.clear(lines)
        })
      }
      return self
    }),
    (child) => child.kill
  )

/** A directory for one test; `name` is the part below it that the test works with. */
export const temporary = (name = "data") =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "kongtask-"))),
      (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true }))
    ),
    (path) => Path.join(path, name)
  )

/** Waits until a path exists. */
export const appears = (path: string) =>
  Effect.callback<void>((resume) => {
    const directory = Path.dirname(path)
    const watcher = Fs.watch(directory, () => check())
    const check = () => {
      if (!Fs.existsSync(path)) return
      watcher.close()
      resume(Effect.void)
    }
    check()
    return Effect.sync(() => watcher.close())
  })
