/**
 * The command line as a process of its own.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { fileURLToPath } from "node:url"
import { TestDatabase } from "./database.ts"
import { type Child, type SpawnOptions, spawnScript } from "./process.ts"

/** Run by node, with the condition `kongtask-source`. */
export const script = fileURLToPath(new URL("../../src/cli.ts", import.meta.url))

/** How a command ended, and what it printed. */
export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export interface Options extends Pick<SpawnOptions, "cwd" | "env" | "input"> {}

/** Nothing of the machine's own settings reaches a command. */
const cleared = Object.fromEntries(
  Object.keys(process.env).filter((name) =>
    /^(PG|DATABASE_URL|KONGTASK_|GRAPHILE_|NO_COLOR|FORCE_COLOR|COLUMNS)/.test(name)
  )
    .map((name) => [name, undefined])
)

/** Starts a command. */
export const start = (
  args: ReadonlyArray<string>,
  { env, ...options }: Options = {}
): Effect.Effect<Child, never, Scope.Scope> => spawnScript(script, { ...options, args, env: { ...cleared, ...env } })

/** Runs a command to its end. */
export const run = Effect.fnUntraced(function*(args: ReadonlyArray<string>, options?: Options) {
  const child = yield* start(args, options)
  const exit = yield* child.exit
  return { ...exit, stdout: yield* child.stdout, stderr: yield* child.stderr } satisfies Ended
}, Effect.scoped)

/** Runs a command on the test's database. */
export const onDatabase = Effect.fnUntraced(function*(args: ReadonlyArray<string>, options: Options = {}) {
  const { url } = yield* TestDatabase
  return yield* run(args, { ...options, env: { DATABASE_URL: url, ...options.env } })
})

/** The same with `--json`, its answer read. */
export const json = Effect.fnUntraced(function*(args: ReadonlyArray<string>, options: Options = {}) {
  const ended = yield* onDatabase([...args, "--json"], options)
  return { ...ended, answer: JSON.parse(ended.stdout) as any }
})
