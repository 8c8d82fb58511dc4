/**
 * Named queues, whose jobs run one after the other.
 */
import { type Entry, onlyInFull, type Row } from "../support/bench.ts"
import type { Name } from "../support/contestant.ts"
import { until } from "./draining.ts"

const seconds = 5

const entry = (name: Name, queues: number, jobs: number): Entry => ({
  label: name,
  measure: until({ name, concurrency: 10, queues, jobs, seconds })
})

/** More jobs than anybody does in the time would only take longer to add. */
const row = (queues: number, jobs: number, isInSubset: boolean): Row => ({
  id: `serial: ${queues.toLocaleString("en")} ${queues === 1 ? "queue" : "queues"}`,
  group: "serial",
  what:
    `No-op jobs spread over ${queues.toLocaleString("en")} named ${queues === 1 ? "queue" : "queues"}, one process, `
    + `10 handlers at once; what is done within ${seconds} seconds counts.`,
  metric: "jobs/s",
  unit: "jobs/s",
  isMoreBetter: true,
  isInSubset,
  entries: [
    entry("kongtask", queues, jobs),
    entry("graphile-worker 0.16.6", queues, 2_000),
    entry("graphile-worker default", queues, 2_000),
    // Its local queue is fast while no two of its 500 jobs are of one queue.
    onlyInFull(entry("graphile-worker best", queues, queues > 2_000 ? jobs : 2_000), true)
  ]
})

export const rows: ReadonlyArray<Row> = [
  row(1, 10_000, true),
  row(10, 10_000, false),
  row(1_000, 10_000, false),
  row(5_000, 10_000, false)
]
