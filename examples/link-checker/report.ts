/**
 * The table at the end.
 */
import type { Result } from "./Runs.ts"

/** Up to so many files each has a row; beyond it each folder has one. */
const maxFileRows = 20

type Row = readonly [name: string, ...counts: ReadonlyArray<number>]

const table = (
  heading: readonly [string, ...ReadonlyArray<string>],
  rows: ReadonlyArray<Row>
): ReadonlyArray<string> => {
  const cells = [heading, ...rows.map((row) => row.map(String))]
  const widths = heading.map((_, column) => Math.max(...cells.map((row) => row[column]!.length)))
  return cells.map((row) =>
    row.map((cell, column) => column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!)).join("  ")
  )
}

const sum = (results: ReadonlyArray<Result>, of: (result: Result) => number): number =>
  results.reduce((total, result) => total + of(result), 0)

const counts = (results: ReadonlyArray<Result>): ReadonlyArray<number> => [
  results.length,
  sum(results, ({ links }) => links),
  sum(results, ({ broken }) => broken),
  sum(results, ({ attempts }) => attempts)
]

/** The first folder of a path; `.` for a file beside the others, all folders for one that is elsewhere. */
const folderOf = (file: string): string => {
  const end = /^(?:[/\\]|[A-Za-z]:)/.test(file) ? file.search(/[/\\][^/\\]*$/) : file.search(/[/\\]/)
  return end === -1 ? "." : file.slice(0, end)
}

/** The files by folder or one by one, the total, and all that is wrong with the failed ones. */
export const report = (results: ReadonlyArray<Result>): string => {
  const groups = Map.groupBy(results, ({ file }) => results.length <= maxFileRows ? file : folderOf(file))
  const failed = results.filter(({ problem }) => problem !== null)
  const [heading, ...rows] = table(
    ["failed", "links", "broken", "attempts"],
    failed.map(({ attempts, broken, file, links }) => [file, links, broken, attempts])
  )
  const problems = failed.map(({ problem }) => `  ${problem!.replaceAll("\n", "\n  ")}`)
  return [
    "",
    ...table(["", "files", "links", "broken", "attempts"], [
      ...Array.from(groups, ([name, group]): Row => [name, ...counts(group)]),
      ["total", ...counts(results)]
    ]),
    "",
    ...failed.length === 0 ? [] : [heading, ...rows.flatMap((row, index) => [row, problems[index]]), ""]
  ].join("\n")
}

/** `elapsed` in milliseconds. */
export const rate = (jobs: number, elapsed: number): string => {
  const seconds = Math.max(elapsed, 1) / 1000
  return `${jobs} jobs in ${seconds.toFixed(2)} s: ${
    (jobs / seconds).toFixed(jobs < 10 * seconds ? 1 : 0)
  } jobs a second`
}
