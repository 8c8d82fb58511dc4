/**
 * How long a single job takes from the call of `add` to the start of its handler and to its committed completion.
 */
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import { startAgent } from "../support/agents.ts"
import { type Entry, type Measured, onlyInFull, type Row } from "../support/bench.ts"
import { contestants, type Name } from "../support/contestant.ts"
import { committedChannel } from "../support/operations.ts"
import { Server } from "../support/server.ts"
import { scaled } from "./draining.ts"

/** A completion is told by its own transaction, alike for everybody: nobody's word is taken for it. */
const watchCommits = Effect.fnUntraced(function*(sql: PgClient.PgClient, name: Name) {
  const shared = contestants[name].schema === "graphile_worker"
  const payload = shared ? "old.payload" : "new.data"
  yield* sql.unsafe(`
    create function bench_committed() returns trigger language plpgsql as $body$
    begin
      if (${payload} ->> 'n')::int >= 0 then
        perform pg_notify('${committedChannel}', ${payload} ->> 'n');
      end if;
      return null;
    end
    $body$`)
  yield* sql.unsafe(
    shared
      ? `create trigger bench_committed after delete on graphile_worker._private_jobs
         for each row execute function bench_committed()`
      : `create trigger bench_committed after update on pgboss.job for each row
         when (new.state = 'completed' and old.state <> 'completed') execute function bench_committed()`
  )
}, Effect.orDie)

interface Latency {
  readonly samples: number
  /** Jobs of 50 ms a second, beside the measured ones. */
  readonly loadPerSecond: number
}

const concurrency = 10

const entry = (name: Name, { loadPerSecond, samples }: Latency): Entry => ({
  label: name,
  measure: Effect.gen(function*() {
    const { sql, url } = yield* (yield* Server).database
    const agent = yield* startAgent(name, url)
    yield* agent.ask("migrate", {})
    yield* watchCommits(sql, name)
    const count = yield* scaled(samples)
    const tasks = loadPerSecond > 0 ? { bench: 0, load: 50 } : { bench: 0 }
    const work = { concurrency, jobs: count, tasks }
    const { added, committed, started } = yield* agent.ask("latency", { work, samples: count, gap: 20, loadPerSecond })
    return {
      metrics: {
        "start p50 ms": started.p50,
        "start p95 ms": started.p95,
        "start p99 ms": started.p99,
        "start max ms": started.max,
        "committed p50 ms": committed.p50,
        "committed p95 ms": committed.p95,
        "committed p99 ms": committed.p99,
        "committed max ms": committed.max,
        "add p50 ms": added.p50,
        "add p99 ms": added.p99
      },
      configuration: { ...(yield* agent.ask("configuration", work)), samples: count, loadPerSecond }
    } satisfies Measured
  })
})

const common = { group: "latency", metric: "start p50 ms", unit: "ms", isMoreBetter: false } as const

export const rows: ReadonlyArray<Row> = [
  {
    ...common,
    id: "latency: idle worker",
    isInSubset: true,
    what: "One job at a time, about 20 ms after the last one was committed; from the call of add.",
    entries: [
      ...(["kongtask", "graphile-worker default", "graphile-worker best", "pg-boss notify"] as const).map((name) =>
        onlyInFull(entry(name, { samples: 200, loadPerSecond: 0 }), name === "graphile-worker best")
      ),
      onlyInFull(entry("pg-boss default", { samples: 10, loadPerSecond: 0 }), true)
    ]
  },
  {
    ...common,
    id: "latency: half-loaded worker",
    isInSubset: false,
    what: "The same while half of the worker's 10 handlers are busy with jobs of 50 ms.",
    entries: (["kongtask", "graphile-worker default", "graphile-worker best"] as const).map((name) =>
      entry(name, { samples: 200, loadPerSecond: 100 })
    )
  }
]
