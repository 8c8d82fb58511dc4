/**
 * What a worker costs that has nothing to do, and how long it takes to start and to stop.
 */
import * as Effect from "effect/Effect"
import { startAgent } from "../support/agents.ts"
import { type Entry, type Measured, onlyInFull, type Row } from "../support/bench.ts"
import { contestants, type Name } from "../support/contestant.ts"
import * as Fill from "../support/fill.ts"
import { Server } from "../support/server.ts"
import * as Usage from "../support/usage.ts"
import { fillFor } from "./draining.ts"

/** As `log_statement = all` writes them, for both protocols. */
const statementsIn = (log: string): number => [...log.matchAll(/^.*LOG: {2}(?:statement|execute [^:]+):/gm)].length

const rare: ReadonlySet<Name> = new Set(["graphile-worker best", "pg-boss notify"])

/** Long enough for a heartbeat of every 10 seconds to be in it twice. */
const seconds = 20

const idle = (name: Name, concurrency: number): Entry => ({
  label: name,
  measure: Effect.gen(function*() {
    const server = yield* Server
    const { sql, url } = yield* server.database
    yield* Effect.orDie(sql`select current_database() as name`.pipe(
      Effect.flatMap(([row]) =>
        sql.unsafe(`alter database ${String((row as { name: string }).name)} set log_statement = 'all'`)
      )
    ))
    const agent = yield* startAgent(name, url)
    yield* agent.ask("migrate", {})
    yield* agent.ask("start", { work: { concurrency, jobs: 0, tasks: { bench: 0 } } })
    yield* Effect.sleep("3 seconds")

    const before = yield* agent.ask("used", {})
    // Without the statements of the measurement itself.
    const idling = Effect.gen(function*() {
      const logged = (yield* server.log).length
      yield* Effect.sleep(seconds * 1000)
      return statementsIn((yield* server.log).slice(logged))
    })
    const { use, value: statements } = yield* Usage.measured(sql, idling)
    const after = yield* agent.ask("used", {})
    const connections = yield* Usage.connections(sql)
    return {
      metrics: {
        "statements/s": statements / seconds,
        "Node CPU %": (after.cpu - before.cpu) / seconds / 10,
        "PostgreSQL CPU %": use.cpu / seconds / 10,
        connections,
        "RSS MB": after.rss
      },
      configuration: { ...(yield* agent.ask("configuration", { concurrency })), seconds }
    } satisfies Measured
  })
})

const idleRow = (concurrency: number, isInSubset: boolean): Row => ({
  id: `idle: concurrency ${concurrency}`,
  group: "idle",
  what: `A worker with ${concurrency} handlers and nothing to do for ${seconds} seconds.`,
  metric: "statements/s",
  unit: "statements/s",
  isMoreBetter: false,
  isInSubset,
  rounds: 1,
  entries: (["kongtask", "graphile-worker default", "graphile-worker best", "pg-boss notify"] as const).map((name) =>
    onlyInFull(idle(name, concurrency), rare.has(name))
  )
})

const startAndStop = (name: Name): Entry => ({
  label: name,
  measure: Effect.gen(function*() {
    const { sql, url } = yield* (yield* Server).database
    const maker = yield* startAgent(name, url)
    yield* maker.ask("migrate", {})
    yield* fillFor(maker, sql, 1)
    if (contestants[name].schema === "graphile_worker") yield* Fill.settleDown(sql)
    const agent = yield* startAgent(name, url)
    const work = { concurrency: 10, jobs: 1, tasks: { bench: 0 } }
    const { firstJobAfter = Number.NaN } = yield* agent.ask("start", { work })
    yield* Effect.sleep("500 millis")
    const stopped = yield* agent.ask("stop", {})
    return {
      metrics: {
        "process to first job ms": agent.loadedAfter + firstJobAfter,
        "load ms": agent.loadedAfter,
        "first job ms": firstJobAfter,
        "stop ms": stopped
      },
      configuration: yield* agent.ask("configuration", work)
    } satisfies Measured
  })
})

const start: Row = {
  id: "start: process to first job",
  group: "start",
  what:
    "From the start of the process to the start of the first job's handler, the schema being up to date; then the stop.",
  metric: "process to first job ms",
  unit: "ms",
  isMoreBetter: false,
  isInSubset: true,
  entries: (["kongtask", "graphile-worker default", "graphile-worker best", "pg-boss notify"] as const).map((name) =>
    onlyInFull(startAndStop(name), rare.has(name))
  )
}

export const rows: ReadonlyArray<Row> = [idleRow(10, false), idleRow(24, true), start]
