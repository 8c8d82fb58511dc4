/**
 * The screen of `kongtask stats`.
 */
import type * as DateTime from "effect/DateTime"
import * as Job from "../../Job.ts"
import type * as JobStore from "../../JobStore.ts"
import * as Counts from "./counts.ts"
import * as Format from "./format.ts"
import type { Colors } from "./Output.ts"
import * as Table from "./table.ts"

/** What was seen at one moment. */
export interface Snapshot {
  readonly at: DateTime.Utc
  readonly stats: JobStore.Stats
  readonly pools: ReadonlyArray<JobStore.Pool>
}

interface Size {
  readonly columns: number
  readonly rows: number
}

const most = (rows: ReadonlyArray<Counts.Row>, count: number): ReadonlyArray<Counts.Row> =>
  rows.length <= count
    ? rows
    : rows.toSorted((a, b) => Counts.total(b.counts) - Counts.total(a.counts)).slice(0, count)

/** `+120/s` where the number of jobs in a state has changed. */
const change = (state: Job.State, now: Snapshot, before: Snapshot | undefined): string => {
  if (before === undefined) return ""
  const seconds = (now.at.epochMilliseconds - before.at.epochMilliseconds) / 1000
  const difference = now.stats.all[state] - before.stats.all[state]
  if (seconds <= 0 || difference === 0) return ""
  const rate = difference / seconds
  return `${rate > 0 ? "+" : "−"}${Format.count(Math.abs(Math.round(rate * 10) / 10))}/s`
}

const summary = (now: Snapshot, before: Snapshot | undefined, columns: number): ReadonlyArray<string> => {
  const rows = Job.State.literals.map((state) => ({ state, count: now.stats.all[state] }))
    .filter(({ count, state }) => count > 0 || change(state, now, before) !== "")
  if (rows.length === 0) return []
  return [
    "",
    ...Table.render(
      [
        { title: "STATE", cell: ({ state }) => state },
        { title: "JOBS", cell: ({ count }) => Format.count(count), isNumber: true },
        { title: "CHANGE", cell: ({ state }) => change(state, now, before), isNumber: true }
      ],
      rows,
      columns
    )
  ]
}

const section = (
  title: string,
  counts: ReadonlyMap<string, JobStore.Counts>,
  columns: number,
  limit: number
): ReadonlyArray<string> => {
  const rows = Counts.rowsOf(counts)
  if (rows.length === 0 || limit < 1) return []
  const shown = most(rows, limit)
  const rest = rows.length - shown.length
  return [
    "",
    ...Table.render(Counts.columns(title), shown, columns),
    ...(rest > 0 ? [`… and ${Format.count(rest)} more`] : [])
  ]
}

/** The lines, no more than `size.rows` of them: states, workers, then the largest tasks and queues. */
export const render = (
  now: Snapshot,
  before: Snapshot | undefined,
  size: Size,
  colors: Colors
): ReadonlyArray<string> => {
  const alive = now.pools.filter(({ isAlive }) => isAlive === true).length
  const dead = now.pools.filter(({ isAlive }) => isAlive === false).length
  const held = now.pools.reduce((sum, { jobs }) => sum + jobs, 0)
  const head = [
    `${colors.bold(Format.many(Counts.total(now.stats.all), "job"))}  ${Format.many(alive, "worker")}${
      dead > 0 ? `, ${colors.red(`${dead} dead`)}` : ""
    }, ${Format.many(held, "job")} held  ${colors.dim(Format.iso(now.at).replace(/\.\d+Z$/, "Z"))}`,
    ...summary(now, before, size.columns)
  ]
  // Each section has a blank line, its titles, and perhaps a line that says how many are left out.
  const left = size.rows - head.length
  const perSection = Number.isFinite(left) ? Math.floor(left / 2) - 3 : left
  return [
    ...head,
    ...section("TASK", now.stats.tasks, size.columns, perSection),
    ...section("QUEUE", now.stats.queues, size.columns, perSection)
  ].slice(0, size.rows)
}
