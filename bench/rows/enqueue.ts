/**
 * How fast jobs are added while no worker runs.
 */
import * as Effect from "effect/Effect"
import { startAgent } from "../support/agents.ts"
import type { Entry, Measured, Row } from "../support/bench.ts"
import type { Name } from "../support/contestant.ts"
import { Server } from "../support/server.ts"
import * as Usage from "../support/usage.ts"
import { scaled } from "./draining.ts"

interface Enqueue {
  readonly fibers: number
  readonly calls: number
  /** Jobs in each call. */
  readonly batch: number
}

const entry = (name: Name, { batch, calls, fibers }: Enqueue): Entry => ({
  label: name,
  measure: Effect.gen(function*() {
    const count = yield* scaled(calls)
    const { sql, url } = yield* (yield* Server).database
    const agent = yield* startAgent(name, url)
    yield* agent.ask("migrate", {})
    const { use, value } = yield* Usage.measured(sql, agent.ask("add", { fibers, batch, calls: count, padBytes: 0 }))
    const jobs = count * batch
    return {
      metrics: {
        "jobs/s": jobs / (value.end - value.start) * 1000,
        "p50 ms": value.p50,
        "p99 ms": value.p99,
        "Node CPU µs/job": value.cpu * 1000 / jobs,
        // Its tenth more is the warm-up.
        "PostgreSQL CPU µs/job": use.cpu * 1000 / (jobs * 1.1),
        "WAL bytes/job": use.walBytes / (jobs * 1.1)
      },
      configuration: { fibers, batch, calls: count }
    } satisfies Measured
  })
})

const row = (id: string, what: string, isInSubset: boolean, options: Enqueue): Row => ({
  id: `add: ${id}`,
  group: "add",
  what,
  metric: "jobs/s",
  unit: "jobs/s",
  isMoreBetter: true,
  isInSubset,
  entries: (["kongtask", "graphile-worker default", "pg-boss default"] as const).map((name) => entry(name, options))
})

export const rows: ReadonlyArray<Row> = [
  row("1 fiber", "One job a call, one call after the other.", false, { fibers: 1, calls: 2_000, batch: 1 }),
  row("24 fibers", "One job a call, 24 calls at once.", true, { fibers: 24, calls: 5_000, batch: 1 }),
  row("bulk of 1,000", "1,000 jobs a call, one call after the other.", true, { fibers: 1, calls: 50, batch: 1_000 })
]
