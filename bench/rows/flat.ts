/**
 * What else stands in the table must not matter: drains and claims beside the clutter that the design names.
 */
import * as Effect from "effect/Effect"
import { startAgent } from "../support/agents.ts"
import { type Entry, type Measured, type Row, Sizes } from "../support/bench.ts"
import { type Name } from "../support/contestant.ts"
import * as Fill from "../support/fill.ts"
import { Server } from "../support/server.ts"
import { median, percentiles } from "../support/statistics.ts"
import { until } from "./draining.ts"

const names: Readonly<Record<Fill.Clutter, string>> = {
  future: "1,000,000 future jobs",
  dead: "100,000 dead jobs",
  foreign: "100,000 jobs of other tasks",
  queues: "100,000 named queues",
  busy: "50,000 jobs behind a busy queue",
  backlog: "100,000 jobs of one queue"
}

const kinds: ReadonlyArray<Fill.Clutter | undefined> = [undefined, "future", "dead", "foreign", "queues", "busy"]

const nameOf = (kind: Fill.Clutter | undefined): string => kind === undefined ? "an empty table" : names[kind]

const entry = (name: Name, jobs: number, clutter: Fill.Clutter | undefined): Entry => ({
  label: name,
  measure: until({ name, concurrency: 10, jobs, clutter, seconds: 15 })
})

const drains = (kind: Fill.Clutter | undefined): Row => ({
  id: `flat: ${nameOf(kind)}`,
  group: "flat",
  what: `Free no-op jobs beside ${
    nameOf(kind)
  }, one process, 10 handlers at once; what is done within 15 seconds counts.`,
  metric: "jobs/s",
  unit: "jobs/s",
  isMoreBetter: true,
  isInSubset: false,
  entries: [
    entry("kongtask", 20_000, kind),
    entry("graphile-worker best", 20_000, kind),
    entry("graphile-worker default", 2_000, kind)
  ]
})

const claimsOf = (clutter: Fill.Clutter | undefined): Entry["measure"] =>
  Effect.gen(function*() {
    const { scale } = yield* Sizes
    const { sql, url } = yield* (yield* Server).database
    const agent = yield* startAgent("kongtask", url)
    yield* agent.ask("migrate", {})
    // The statements are planned before there is anything to plan for.
    yield* agent.ask("claims", { count: 10 })
    if (clutter !== undefined) yield* Fill.clutter(sql, clutter, scale)
    yield* Fill.fill(sql, { count: 20_000 })
    yield* Fill.settleDown(sql)
    const times = yield* agent.ask("claims", { count: 35 })
    // The first ones read the table into the caches.
    const measured = times.slice(5)
    return {
      metrics: { "ms": median(measured), "max ms": percentiles(measured).max },
      configuration: { jobsEachClaim: 500 }
    } satisfies Measured
  })

const claims: Row = {
  id: "claim: 500 jobs",
  group: "flat",
  what: "One durable claim of 500 jobs, beside each kind of clutter; the median of 30.",
  metric: "ms",
  unit: "ms",
  isMoreBetter: false,
  isInSubset: true,
  rounds: 1,
  entries: kinds.map((kind) => ({
    label: kind === undefined ? "kongtask" : `kongtask, ${nameOf(kind)}`,
    measure: claimsOf(kind)
  }))
}

export const rows: ReadonlyArray<Row> = [...[...kinds, "backlog" as const].map(drains), claims]
