/**
 * How fast jobs are run: by concurrency, processes, number of jobs, duration of the handler, size of the payload.
 */
import { type Entry, onlyInFull, type Row } from "../support/bench.ts"
import type { Name } from "../support/contestant.ts"
import { drain, drainEntry } from "./draining.ts"

const common = { metric: "jobs/s", unit: "jobs/s", isMoreBetter: true } as const

/** Contestants that are so slow that they get fewer jobs, all of the same kind. */
const slow: ReadonlySet<Name> = new Set(["graphile-worker default", "pg-boss single", "graphile-worker docs"])

/** Few enough for its rate, where the others get `jobs`. */
const jobsOf = (name: Name, jobs: number): number => slow.has(name) ? Math.min(jobs, 5_000) : jobs

const everybody: ReadonlyArray<Name> = [
  "kongtask",
  "graphile-worker best",
  "graphile-worker default",
  "graphile-worker docs",
  "pg-boss batch",
  "pg-boss single",
  "bare loop",
  "bare loop, 2 streams"
]
const usual: ReadonlyArray<Name> = ["kongtask", "graphile-worker best", "graphile-worker default"]
const fast: ReadonlyArray<Name> = ["kongtask", "graphile-worker best", "bare loop", "bare loop, 2 streams"]

const rare: ReadonlySet<Name> = new Set(["graphile-worker docs", "pg-boss single", "bare loop"])

const byConcurrency = (concurrency: number, isInSubset: boolean): Row => ({
  ...common,
  id: `drain: concurrency ${concurrency}`,
  group: "drain",
  what: `No-op jobs, one process, ${concurrency} handlers at once.`,
  isInSubset,
  entries: (concurrency === 10 ? everybody : usual).map((name) =>
    onlyInFull(drainEntry(name, { concurrency, jobs: jobsOf(name, 200_000) }), rare.has(name))
  )
})

const footprint: Row = {
  ...common,
  id: "footprint: concurrency 10",
  group: "footprint",
  what: "The drain again, with the transactions and row versions a job, and the size of the indexes after it.",
  isInSubset: false,
  rounds: 1,
  entries: everybody.map((name) => drainEntry(name, { concurrency: 10, jobs: jobsOf(name, 20_000), footprint: true }))
}

const byJobs = (jobs: number, isInSubset: boolean): Row => ({
  ...common,
  id: `drain: ${jobs.toLocaleString("en")} jobs`,
  group: "drain",
  what: `${jobs.toLocaleString("en")} no-op jobs, one process, 10 handlers at once.`,
  isInSubset,
  isHuge: jobs > 200_000,
  entries: fast.map((name) => drainEntry(name, { concurrency: 10, jobs }))
})

/** graphile-worker is fastest with two processes of one handler each on two cores, so that is in its list. */
const byProcesses = (count: number, concurrency: number, isInSubset: boolean): Row => ({
  ...common,
  id: `processes: ${count} × concurrency ${concurrency}`,
  group: "processes",
  what: `200,000 no-op jobs, ${count} processes, ${concurrency} handlers at once in each.`,
  isInSubset,
  entries: usual.map((name) =>
    onlyInFull(
      drainEntry(name, { concurrency, count, jobs: jobsOf(name, 200_000) }),
      name === "graphile-worker default"
    )
  )
})

const byDuration = (millis: number, concurrency: number, isInSubset: boolean): Row => ({
  ...common,
  id: `duration: ${millis} ms × concurrency ${concurrency}`,
  group: "duration",
  what: `Handlers that sleep ${millis} ms; ${concurrency * 1000 / millis} jobs a second at best.`,
  isInSubset,
  entries: [...usual, "pg-boss single" as const].map((name) =>
    drainEntry(name, { concurrency, millis, jobs: concurrency * 2_000 / millis })
  )
})

const byPayload = (padBytes: number, jobs: number, isInSubset: boolean): Row => ({
  ...common,
  id: `payload: ${padBytes} bytes`,
  group: "payload",
  what: `Payloads of ${padBytes} bytes, 10 handlers at once.`,
  isInSubset,
  entries: usual.map((name) => drainEntry(name, { concurrency: 10, padBytes, jobs: jobsOf(name, jobs) }))
})

const streams: Row = {
  ...common,
  id: "streams: 20 claim streams",
  group: "streams",
  what: "No-op jobs, 20 workers of one handler each, in 2 processes: 20 that claim at once.",
  isInSubset: false,
  entries: usual.map((name) =>
    drainEntry(name, { concurrency: 1, count: 2, workers: 10, maxPoolSize: 4, jobs: jobsOf(name, 200_000) })
  )
}

const mixedEntry = (label: string, processes: ReadonlyArray<Name>): Entry => ({
  label,
  measure: drain({ processes, concurrency: 10, jobs: 50_000 })
})

const mixed: Row = {
  ...common,
  id: "mixed: a fleet on one schema",
  group: "mixed",
  what: "No-op jobs of one task, two processes on a schema that both kinds of workers can use, 10 handlers in each.",
  isInSubset: false,
  entries: [
    mixedEntry("kongtask + graphile-worker best", ["kongtask, interop indexes", "graphile-worker best"]),
    mixedEntry("kongtask × 2", ["kongtask, interop indexes", "kongtask, interop indexes"]),
    mixedEntry("graphile-worker best × 2", ["graphile-worker best", "graphile-worker best"])
  ]
}

const order: Row = {
  id: "order: concurrency 1",
  group: "order",
  what: "Jobs of ten priorities, one handler at a time: how many start after one that they stand before.",
  metric: "inversions",
  unit: "inversions",
  isMoreBetter: false,
  isInSubset: false,
  rounds: 1,
  entries: usual.map((name) => drainEntry(name, { concurrency: 1, jobs: 2_000, isOrdered: true }))
}

const held: Row = {
  ...common,
  id: "held transaction: 200,000 jobs",
  group: "held",
  what: "200,000 no-op jobs while a transaction is held open, so that no dead row can be cleaned up.",
  isInSubset: false,
  entries: [
    ...["kongtask" as const, "graphile-worker best" as const].flatMap((name) => [
      drainEntry(name, { concurrency: 10, jobs: 200_000, heldTransaction: true }),
      { ...drainEntry(name, { concurrency: 10, jobs: 200_000 }), label: `${name}, none held` }
    ]),
    drainEntry("graphile-worker default", { concurrency: 10, jobs: 5_000, heldTransaction: true })
  ]
}

export const rows: ReadonlyArray<Row> = [
  byConcurrency(1, false),
  byConcurrency(10, true),
  byConcurrency(24, false),
  footprint,
  byJobs(20_000, false),
  byJobs(200_000, false),
  byJobs(1_000_000, false),
  ...[1, 2, 4].map((count) => byProcesses(count, 10, count === 2)),
  byProcesses(2, 1, true),
  byProcesses(4, 1, false),
  byProcesses(4, 24, false),
  ...[5, 50].flatMap((millis) => [10, 24].map((concurrency) => byDuration(millis, concurrency, false))),
  byPayload(100, 20_000, false),
  byPayload(10_000, 5_000, false),
  streams,
  mixed,
  order,
  held
]
