/**
 * KongTask beside graphile-worker, pg-boss and a bare loop over the driver, in turn, on a PostgreSQL server of its own.
 *
 *     npm run bench                          the usual part, in less than ten minutes on two cores
 *     npm run bench -- --only drain,latency  these groups
 *     npm run bench -- --full                everything but the drain of 1,000,000 jobs (--million)
 *     npm run bench -- --list                what there is
 *
 * Progress goes to standard error, the table to standard output, all figures to bench/results/latest.json and the
 * picture to bench/results/latest.svg. See docs/performance.md.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Console from "effect/Console"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { all } from "./rows/index.ts"
import { type Row, Sizes } from "./support/bench.ts"
import { ratiosOf } from "./support/goals.ts"
import { install } from "./support/install.ts"
import { describeMachine, describeVersions } from "./support/machine.ts"
import { plot } from "./support/plot.ts"
import { markdown, type Report, text } from "./support/report.ts"
import { progress, type RowResult, runRow } from "./support/runner.ts"
import { Server } from "./support/server.ts"

const defaultOutput = join(import.meta.dirname, "results", "latest")

const flags = {
  full: Flag.Boolean("full").pipe(
    Flag.withDefault(false),
    Flag.withDescription("Every row, not only the usual part: about an hour")
  ),
  million: Flag.Boolean("million").pipe(
    Flag.withDefault(false),
    Flag.withDescription("The drain of 1,000,000 jobs too")
  ),
  only: Flag.String("only").pipe(
    Flag.withDefault(""),
    Flag.withDescription("These groups, or rows whose name contains one of these words, separated by commas")
  ),
  rounds: Flag.Int("rounds").pipe(Flag.withDefault(3), Flag.withDescription("How often each contestant is measured")),
  scale: Flag.Finite("scale").pipe(
    Flag.withDefault(1),
    Flag.withDescription("Multiplies all counts of jobs: 0.01 tries the program out")
  ),
  output: Flag.String("output").pipe(
    Flag.withDefault(defaultOutput),
    Flag.withDescription("Where the figures (.json) and the picture (.svg) are written, without the ending")
  ),
  list: Flag.Boolean("list").pipe(Flag.withDefault(false), Flag.withDescription("Only tell which rows there are")),
  json: Flag.Boolean("json").pipe(
    Flag.withDefault(false),
    Flag.withDescription("Print the figures as JSON instead of the table")
  ),
  markdown: Flag.Boolean("markdown").pipe(
    Flag.withDefault(false),
    Flag.withDescription("Only print the goals and what the last run measured, for docs/performance.md")
  ),
  plot: Flag.Boolean("plot").pipe(
    Flag.withDefault(false),
    Flag.withDescription("Only draw the last run's figures again")
  )
}

interface Selection {
  readonly full: boolean
  readonly million: boolean
  readonly only: string
}

const usualPart = (row: Row): Row => ({
  ...row,
  entries: row.entries.filter(({ isOnlyInFull }) => isOnlyInFull !== true)
})

/** Rows that are named are run in full, whether or not they are in the usual part. */
const select = ({ full, million, only }: Selection): ReadonlyArray<Row> => {
  // A comma before a digit belongs to a number in a row's name.
  const words = only.split(/,(?!\d)/).map((word) => word.trim()).filter((word) => word !== "")
  const possible = all.filter((row) => row.isHuge !== true || million)
  if (words.length > 0) {
    return possible.filter((row) => words.some((word) => row.group === word || row.id.includes(word)))
  }
  return full ? possible : possible.filter((row) => row.isInSubset || row.isHuge === true).map(usualPart)
}

const list = (rows: ReadonlyArray<Row>): string =>
  all.map((row) => `${rows.some(({ id }) => id === row.id) ? "*" : " "} ${row.id}\n    ${row.what}`).join("\n")
  + "\n\n* is what these options run."

const read = (path: string): Report | undefined =>
  existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) as Report : undefined

/** Written after each row, so that an interrupted run has its figures too. */
const write = Effect.fnUntraced(function*(report: Report, output: string) {
  mkdirSync(join(output, ".."), { recursive: true })
  writeFileSync(`${output}.json`, `${JSON.stringify(report, undefined, 2)}\n`)
  if (report.rows.length > 0) writeFileSync(`${output}.svg`, yield* plot(report))
})

const measure = Effect.fnUntraced(function*(rows: ReadonlyArray<Row>, options: Report["options"], output: string) {
  const { inMemory, origin, settings, version } = yield* Server
  const results: Array<RowResult> = []
  const base = {
    measuredAt: DateTime.formatIso(yield* DateTime.now),
    machine: describeMachine(),
    postgres: { version, origin, inMemory, settings },
    versions: describeVersions(),
    options
  }
  const reportOf = (): Report => ({ ...base, rows: results, ratios: ratiosOf(results) })
  for (const row of rows) {
    results.push(yield* runRow(row, options.rounds))
    yield* write(reportOf(), output)
  }
  return reportOf()
})

const bench = Command.make("bench", flags, (given) =>
  Effect.gen(function*() {
    const rows = select(given)
    if (given.list) return yield* Console.log(list(rows))
    if (given.markdown) return yield* Console.log(markdown(read(`${given.output}.json`)))
    yield* install
    if (given.plot) {
      const last = read(`${given.output}.json`)
      return yield* last === undefined ? Console.error("There is no last run.") : write(last, given.output)
    }
    const { full, output, rounds, scale } = given
    yield* progress(`${rows.length} rows, ${rounds} rounds.`)
    const started = performance.now()
    const report = yield* measure(rows, { rounds, scale, full }, output).pipe(
      Effect.provide(Layer.merge(Server.layer, Layer.succeed(Sizes, { scale })))
    )
    yield* progress(`\n${Math.round((performance.now() - started) / 1000)} seconds. Written: ${output}.json and .svg\n`)
    yield* Console.log(given.json ? JSON.stringify(report) : text(report))
    if (report.rows.some(({ results }) => results.some(({ problems }) => problems.length > 0))) process.exitCode = 1
  })).pipe(
    Command.withDescription("Measures KongTask beside graphile-worker, pg-boss and a bare loop over the driver.")
  )

bench.pipe(Command.run({ version: "0.1.0" }), Effect.provide(NodeServices.layer), NodeRuntime.runMain)
