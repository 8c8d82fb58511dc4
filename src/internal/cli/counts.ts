/**
 * Counts of jobs by their state, as rows of a table.
 */
import * as Job from "../../Job.ts"
import type * as JobStore from "../../JobStore.ts"
import * as Format from "./format.ts"
import type * as Table from "./table.ts"

export interface Row {
  readonly name: string
  readonly counts: JobStore.Counts
}

export const rowsOf = (counts: ReadonlyMap<string, JobStore.Counts>): ReadonlyArray<Row> =>
  Array.from(counts, ([name, counts]) => ({ name, counts })).toSorted((a, b) => a.name.localeCompare(b.name, "en"))

export const total = (counts: JobStore.Counts): number => Object.values(counts).reduce((sum, each) => sum + each, 0)

/** A name, then how many there are in each state; states without any take no room. */
export const columns = (title: string): ReadonlyArray<Table.Column<Row>> => [
  { title, cell: ({ name }) => name, isFlexible: true },
  ...Job.State.literals.map((state): Table.Column<Row> => ({
    title: state.toUpperCase(),
    cell: ({ counts }) => counts[state] === 0 ? "" : Format.count(counts[state]),
    isNumber: true
  })),
  { title: "TOTAL", cell: ({ counts }) => Format.count(total(counts)), isNumber: true }
]
