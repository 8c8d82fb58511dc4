/**
 * The command line in a terminal, which `script` of every Unix makes.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import { script } from "./cli.ts"
import { onSudden } from "./guard.ts"

export interface Terminal {
  /** All that it has shown so far, with what a terminal obeys. */
  readonly shown: Effect.Effect<string>
  /** Types these characters. */
  readonly type: (text: string) => Effect.Effect<void>
  /** Waits for its end, and answers the exit code of the command. */
  readonly end: Effect.Effect<number | null>
}

const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

/** As `script` of Linux and that of the BSDs want it. */
const argumentsOf = (words: ReadonlyArray<string>): ReadonlyArray<string> =>
  process.platform === "linux"
    ? ["--quiet", "--return", "--command", words.map(quote).join(" "), "/dev/null"]
    : ["-q", "/dev/null", ...words]

/** Starts a command in a terminal of 80 columns. */
export const start = Effect.fnUntraced(function*(
  args: ReadonlyArray<string>,
  env: Readonly<Record<string, string | undefined>>
): Effect.fn.Return<Terminal, never, Scope.Scope> {
  const command = [
    "sh",
    "-c",
    `stty rows 24 cols 80; exec "$@"`,
    "sh",
    process.execPath,
    "--conditions=kongtask-source"
  ]
  let shown = ""
  let code: number | null | undefined
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn("script", argumentsOf([...command, script, ...args]), {
        detached: true,
        env: { ...process.env, TERM: "xterm", ...env },
        stdio: ["pipe", "pipe", "inherit"]
      })
      child.stdin.on("error", () => {})
      child.stdout.setEncoding("utf8").on("data", (text: string) => shown += text)
      child.on("error", (error) => shown += String(error))
      child.on("close", (exitCode) => code = exitCode)
      return child
    }),
    (child) => Effect.sync(() => void (code === undefined && child.kill("SIGKILL")))
  )
  yield* onSudden("kill -KILL \"-$1\"", [String(child.pid)])
  return {
    shown: Effect.sync(() => shown),
    type: (text) => Effect.sync(() => void child.stdin.write(text)),
    end: Effect.callback((resume) => {
      if (code !== undefined) return resume(Effect.succeed(code))
      child.once("close", (exitCode) => resume(Effect.succeed(exitCode)))
    })
  }
})
