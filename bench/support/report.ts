/**
 * What was measured, as a file, a table and a table of goals.
 */
import { goals, type Ratio } from "./goals.ts"
import type { Machine } from "./machine.ts"
import { type Result, type RowResult, show } from "./runner.ts"

export interface Report {
  readonly measuredAt: string
  readonly machine: Machine
  readonly postgres: {
    readonly version: string
    readonly origin: string
    readonly inMemory: boolean
    readonly settings: Readonly<Record<string, string>>
  }
  readonly versions: Readonly<Record<string, string>>
  readonly options: { readonly rounds: number; readonly scale: number; readonly full: boolean }
  readonly rows: ReadonlyArray<RowResult>
  readonly ratios: Readonly<Record<string, Ratio>>
}

/** Where, with what settings: two lines that belong to every figure. */
export const setting = ({ machine, measuredAt, options, postgres, versions }: Report): ReadonlyArray<string> => {
  const { cores, memoryGB, processor, system } = machine
  const { fsync, shared_buffers, synchronous_commit } = postgres.settings
  return [
    `${processor}, ${cores} cores for server and clients, ${memoryGB} GB, ${system}; load ${
      show(machine.load)
    } at the start`,
    `PostgreSQL ${postgres.version} with its defaults (fsync ${fsync}, synchronous_commit ${synchronous_commit}, `
    + `shared_buffers ${shared_buffers}), data ${postgres.inMemory ? "in memory" : "on disk"}, loopback TCP; `
    + `Node ${versions["node"]}`,
    `${measuredAt.slice(0, 10)}, KongTask ${versions["kongtask"]}, graphile-worker ${versions["graphile-worker"]} and `
    + `${versions["graphile-worker 0.16"]}, pg-boss ${versions["pg-boss"]}; medians of ${options.rounds} rounds`
    + (options.scale === 1 ? "" : `; job counts × ${options.scale}: for a look at the program, not at the numbers`)
  ]
}

const align = (lines: ReadonlyArray<ReadonlyArray<string>>, left: ReadonlySet<number>): ReadonlyArray<string> => {
  const widths = lines[0]!.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)))
  return lines.map((line) =>
    line.map((cell, column) => left.has(column) ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!))
      .join("  ").trimEnd()
  )
}

const configurationOf = ({ configuration }: Result): string =>
  Object.entries(configuration).map(([name, value]) => `${name} ${JSON.stringify(value)}`).join(", ")

const tableOf = (row: RowResult): string => {
  const reference = row.results[0]?.median[row.metric] ?? Number.NaN
  const others = [...new Set(row.results.flatMap((result) => Object.keys(result.median)))]
    .filter((metric) => metric !== row.metric)
  const lines = [
    ["", row.unit, "min–max", `× ${row.results[0]?.contestant}`, ...others],
    ...row.results.map((result) => {
      const value = result.median[row.metric] ?? Number.NaN
      const spread = `${show(result.min[row.metric] ?? Number.NaN)}–${show(result.max[row.metric] ?? Number.NaN)}`
      return [
        result.contestant,
        show(value),
        spread,
        show(value / reference),
        ...others.map((metric) => show(result.median[metric] ?? Number.NaN))
      ]
    })
  ]
  return [
    row.id,
    row.what,
    ...align(lines, new Set([0])),
    ...row.results.map((result) => `  ${result.contestant}: ${configurationOf(result)}`)
  ].join("\n")
}

const ratioText = ({ max, median, min }: Ratio): string => `${show(median)} (${show(min)}–${show(max)})`

/** The table for standard output. */
export const text = (report: Report): string => {
  const ratios = Object.entries(report.ratios).map(([key, ratio]) => [key, ratioText(ratio)])
  return [
    setting(report).join("\n"),
    ...report.rows.map(tableOf),
    ...(ratios.length === 0 ? [] : [["Ratios", ...align(ratios, new Set([0]))].join("\n")])
  ].join("\n\n")
}

/** The table of goals for docs/performance.md. */
export const markdown = (report: Report | undefined): string => {
  const lines = goals.map(({ goal, isMet, key, what }) => {
    const ratio = report?.ratios[key]
    const measured = ratio === undefined ? "" : ratioText(ratio)
    const verdict = ratio === undefined || goal === "–" ? "" : isMet(ratio.median) ? "yes" : "no"
    return `| ${what} | ${goal} | ${measured} | ${verdict} |`
  })
  return [
    "| what | goal | measured: median (min–max) | met |",
    "| --- | --- | --- | --- |",
    ...lines,
    ...(report === undefined ? [] : ["", ...setting(report).map((line) => `- ${line}`)])
  ].join("\n")
}
