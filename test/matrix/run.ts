/**
 * Runs the tests that need a server on every supported major version of
 * PostgreSQL, one after the other, and checks that the one before them is
 * refused.
 *
 *     npm run test:matrix                    all versions, all tests that need a server
 *     npm run test:matrix -- 12 18           these versions
 *     npm run test:matrix -- 12 test/store   that version, the test files of which this is a part of the path
 *
 * The servers come from this folder's own package-lock.json: 460 MB, for Linux on x64.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import { spawn, spawnSync } from "node:child_process"
import { join } from "node:path"
import { findBinaries } from "../support/binaries.ts"
import { directoryOf, supported, tooOld } from "./programs.ts"

const root = join(import.meta.dirname, "../..")

/** They are about no server: documents, an example, the database in the process. */
const withoutServer = [
  "test/Docs.test.ts",
  "test/LinkChecker.test.ts",
  "test/pglite/**",
  "test/store/EmbeddedStore.test.ts"
]

interface Row {
  readonly major: number
  readonly version: string
  readonly passed: string
  readonly failed: string
  readonly seconds: string
  readonly isGood: boolean
}

/** Runs vitest on the programs in that directory; what it writes is shown, and its standard output answered. */
const vitest = (args: ReadonlyArray<string>, programs: string): Effect.Effect<{ code: number; output: string }> =>
  Effect.callback((resume) => {
    const { KONGTASK_TEST_DATABASE_URL: _, ...env } = process.env
    const child = spawn(process.execPath, [join(root, "node_modules/vitest/vitest.mjs"), "run", ...args], {
      cwd: root,
      env: { ...env, KONGTASK_TEST_POSTGRES: programs },
      stdio: ["ignore", "pipe", "inherit"]
    })
    let output = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      output += text
      process.stdout.write(text)
    })
    child.on("close", (code) => resume(Effect.succeed({ code: code ?? 1, output })))
    return Effect.sync(() => void child.kill("SIGTERM"))
  })

const test = Effect.fnUntraced(function*(major: number, args: ReadonlyArray<string>) {
  const programs = yield* directoryOf(major)
  process.env["KONGTASK_TEST_POSTGRES"] = programs
  const { version } = yield* findBinaries
  console.log(`\nPostgreSQL ${version}`)
  const started = performance.now()
  const { code, output } = yield* vitest(args, programs)
  const [, passed = "-", failed = "-"] = /^Tests: (\d+) passed, (\d+) failed/m.exec(output) ?? []
  const seconds = ((performance.now() - started) / 1000).toFixed(0)
  const row: Row = { major, version, passed, failed, seconds, isGood: code === 0 && failed === "0" }
  return row
}, Effect.scoped)

const print = (rows: ReadonlyArray<Row>): void => {
  const lines = [
    ["major", "version", "passed", "failed", "seconds", ""],
    ...rows.map(({ failed, isGood, major, passed, seconds, version }) => {
      const verdict = !isGood ? "FAILED" : major === tooOld ? "refused, as it should be" : "ok"
      return [String(major), version, passed, failed, seconds, verdict]
    })
  ]
  const widths = lines[0]!.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)))
  const textOf = (line: ReadonlyArray<string>) =>
    line.map((cell, column) => column < 5 ? cell.padStart(widths[column]!) : cell).join("  ").trimEnd()
  console.log(`\n${lines.map(textOf).join("\n")}`)
}

const program = Effect.gen(function*() {
  const args = process.argv.slice(2)
  const majors = args.filter((arg) => /^\d+$/.test(arg)).map(Number)
  const unknown = majors.filter((major) => !supported.includes(major))
  if (unknown.length > 0) {
    return yield* Effect.die(
      new Error(`There is no PostgreSQL ${unknown.join(", ")} here, but ${supported.join(", ")}`)
    )
  }
  const filters = args.filter((arg) => !/^\d+$/.test(arg))
  const installed = spawnSync("npm", ["ci", "--no-audit", "--no-fund"], { cwd: import.meta.dirname, stdio: "inherit" })
  if (installed.status !== 0) return yield* Effect.die(new Error("npm ci failed"))

  const rows = [yield* test(tooOld, ["--config", "test/matrix/vitest.config.ts"])]
  const options = ["--reporter=dot", "--reporter=./test/support/reporter.ts"]
  for (const major of majors.length > 0 ? majors : supported) {
    rows.push(yield* test(major, [...options, ...withoutServer.map((path) => `--exclude=${path}`), ...filters]))
  }
  print(rows)
  process.exitCode = rows.every(({ isGood }) => isGood) ? 0 : 1
})

NodeRuntime.runMain(program)
