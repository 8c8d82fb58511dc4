/**
 * Ratios between contestants, and what the design asks of them. A ratio is taken within a round and only then the
 * median over the rounds, so that it is always one of neighbours in time.
 */
import type { RowResult } from "./runner.ts"
import { median } from "./statistics.ts"

/** One contestant's metric in one row: a value a round. */
type Series = ReadonlyArray<number>

export interface Ratio {
  readonly median: number
  readonly min: number
  readonly max: number
  readonly rounds: number
}

export interface Goal {
  /** The key in `ratios`. */
  readonly key: string
  /** As the design words it. */
  readonly what: string
  readonly goal: string
  readonly isMet: (value: number) => boolean
  /** The values a round, undefined where a row was not run. */
  readonly values: (rows: ReadonlyArray<RowResult>) => Series | undefined
}

const series = (
  rows: ReadonlyArray<RowResult>,
  id: string,
  contestant: string,
  metric?: string
): Series | undefined => {
  const row = rows.find((row) => row.id === id)
  const runs = row?.results.find((result) => result.contestant === contestant)?.runs
  if (row === undefined || runs === undefined) return undefined
  return runs.map((run) => run?.[metric ?? row.metric] ?? Number.NaN)
}

/** Round by round, the best of several series. */
const best = (all: ReadonlyArray<Series | undefined>): Series | undefined => {
  const given = all.filter((one) => one !== undefined)
  if (given.length === 0) return undefined
  return given[0]!.map((_, round) => Math.max(...given.map((one) => one[round] ?? 0).filter((value) => value > 0)))
}

const divided = (above: Series | undefined, below: Series | undefined): Series | undefined =>
  above === undefined || below === undefined ? undefined : above.map((value, round) => value / below[round]!)

const atLeast = (bound: number) => (value: number) => value >= bound
const atMost = (bound: number) => (value: number) => value <= bound

/** A row's rate of KongTask over that of others, the best of them. */
const over = (id: string, others: ReadonlyArray<string>, metric?: string): Goal["values"] => (rows) =>
  divided(series(rows, id, "kongtask", metric), best(others.map((other) => series(rows, id, other, metric))))

const fleets = [
  "processes: 2 × concurrency 1",
  "processes: 1 × concurrency 10",
  "processes: 2 × concurrency 10",
  "processes: 4 × concurrency 10",
  "processes: 4 × concurrency 1",
  "processes: 4 × concurrency 24"
]

const single = "drain: concurrency 10"
const gwBest = "graphile-worker best"
const gwDefault = "graphile-worker default"

const latencyGoal = (load: string, percentile: string): Goal => ({
  key: `latency ${percentile}, ${load} worker: defaults / graphile-worker default`,
  what: `add → handler start, ${load} worker, ${percentile}`,
  goal: load === "idle" ? "≤ 0.5× graphile-worker" : "–",
  isMet: load === "idle" ? atMost(0.5) : () => true,
  values: over(`latency: ${load} worker`, [gwDefault], `start ${percentile} ms`)
})

const flatGoals = [
  "1,000,000 future jobs",
  "100,000 dead jobs",
  "100,000 jobs of other tasks",
  "100,000 named queues",
  "50,000 jobs behind a busy queue"
].flatMap((clutter): ReadonlyArray<Goal> => [
  {
    key: `claim beside ${clutter} / beside none`,
    what: `claim of 500 jobs beside ${clutter}`,
    goal: "≤ 1.5× the empty table",
    isMet: atMost(1.5),
    values: (rows) =>
      divided(series(rows, "claim: 500 jobs", `kongtask, ${clutter}`), series(rows, "claim: 500 jobs", "kongtask"))
  },
  {
    key: `drain beside ${clutter} / beside none`,
    what: `drain beside ${clutter}`,
    goal: "≥ 0.8 of the rate without",
    isMet: atLeast(0.8),
    values: (rows) =>
      divided(series(rows, `flat: ${clutter}`, "kongtask"), series(rows, "flat: an empty table", "kongtask"))
  }
])

const serialGoals = ["1 queue", "10 queues", "1,000 queues", "5,000 queues"].map((queues): Goal => ({
  key: `serial, ${queues}: defaults / best graphile-worker`,
  what: `${queues}, serial`,
  goal: "≥ 10× the better of 0.16.6 and 0.18",
  isMet: atLeast(10),
  values: over(`serial: ${queues}`, ["graphile-worker 0.16.6", gwDefault, gwBest])
}))

export const goals: ReadonlyArray<Goal> = [
  {
    key: "drain: defaults / graphile-worker best",
    what: "drain, defaults, no tuning, one process",
    goal: "≥ 5× graphile-worker's best (3.5× at the least)",
    isMet: atLeast(5),
    values: over(single, [gwBest, "graphile-worker docs"])
  },
  {
    key: "drain: defaults / graphile-worker default",
    what: "drain, defaults, against defaults",
    goal: "≥ 50× graphile-worker's default",
    isMet: atLeast(50),
    values: over(single, [gwDefault])
  },
  {
    key: "drain, best number of processes: defaults / graphile-worker best",
    what: "drain, each at its best number of processes",
    goal: "≥ 3× its best-tuned rate",
    isMet: atLeast(3),
    values: (rows) =>
      divided(
        best(fleets.map((id) => series(rows, id, "kongtask"))),
        best(fleets.map((id) => series(rows, id, gwBest)))
      )
  },
  {
    key: "drain: bare loop",
    what: "drain / bare driver loop with the same SQL",
    goal: "≥ 0.8",
    isMet: atLeast(0.8),
    values: over(single, ["bare loop", "bare loop, 2 streams"])
  },
  {
    key: "drain: defaults / pg-boss batch",
    what: "drain against pg-boss's batches of 1,000 jobs",
    goal: "–",
    isMet: () => true,
    values: over(single, ["pg-boss batch"])
  },
  {
    key: "drain: defaults / pg-boss single",
    what: "drain against pg-boss's single-job handlers",
    goal: "–",
    isMet: () => true,
    values: over(single, ["pg-boss single"])
  },
  ...serialGoals,
  {
    key: "free jobs behind 100,000 of one queue / behind none",
    what: "free jobs behind 100,000 jobs of one queue",
    goal: "≥ 0.8 of their rate without them",
    isMet: atLeast(0.8),
    values: (rows) =>
      divided(
        series(rows, "flat: 100,000 jobs of one queue", "kongtask"),
        series(rows, "flat: an empty table", "kongtask")
      )
  },
  ...flatGoals,
  {
    key: "order at concurrency 1: inversions",
    what: "order at concurrency 1, one task",
    goal: "no inversion of (priority, run_at, id)",
    isMet: atMost(0),
    values: (rows) => series(rows, "order: concurrency 1", "kongtask")
  },
  {
    key: "add 1 fiber / graphile-worker default",
    what: "add, 1 fiber",
    goal: "–",
    isMet: () => true,
    values: over("add: 1 fiber", [gwDefault])
  },
  {
    key: "add 24 fibers / graphile-worker default",
    what: "add, 24 fibers",
    goal: "≥ 5× graphile-worker",
    isMet: atLeast(5),
    values: over("add: 24 fibers", [gwDefault])
  },
  {
    key: "add bulk of 1,000 / graphile-worker default",
    what: "add, bulk of 1,000",
    goal: "≥ 2× graphile-worker",
    isMet: atLeast(2),
    values: over("add: bulk of 1,000", [gwDefault])
  },
  latencyGoal("idle", "p50"),
  latencyGoal("idle", "p99"),
  latencyGoal("half-loaded", "p50"),
  latencyGoal("half-loaded", "p99"),
  {
    key: "idle: statements a poll interval",
    what: "idle worker, 24 handlers",
    goal: "≤ 1 statement a poll interval of 2 s, heartbeat included",
    isMet: atMost(1),
    values: (rows) => series(rows, "idle: concurrency 24", "kongtask")?.map((perSecond) => perSecond * 2)
  },
  {
    key: "held transaction / none held",
    what: "a transaction held open during a 200,000-job drain",
    goal: "≥ 0.5× the normal rate",
    isMet: atLeast(0.5),
    values: (rows) => {
      const id = "held transaction: 200,000 jobs"
      return divided(series(rows, id, "kongtask"), series(rows, id, "kongtask, none held"))
    }
  }
]

/** Of all goals whose rows were run. */
export const ratiosOf = (rows: ReadonlyArray<RowResult>): Readonly<Record<string, Ratio>> =>
  Object.fromEntries(goals.flatMap(({ key, values }): ReadonlyArray<readonly [string, Ratio]> => {
    const all = (values(rows) ?? []).filter((value) => Number.isFinite(value))
    if (all.length === 0) return []
    return [[key, { median: median(all), min: Math.min(...all), max: Math.max(...all), rounds: all.length }]]
  }))
