/**
 * The drain, of which most rows are variants: jobs are in the table, the clock runs until all of them are committed.
 */
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import { type Agent, startAgent } from "../support/agents.ts"
import { type Entry, type Measured, MeasurementFailed, Sizes } from "../support/bench.ts"
import { contestants, type Name, now } from "../support/contestant.ts"
import * as Fill from "../support/fill.ts"
import type { WorkSpec } from "../support/operations.ts"
import { Server } from "../support/server.ts"
import * as Usage from "../support/usage.ts"

export interface Drain {
  /** One process each. */
  readonly processes: ReadonlyArray<Name>
  readonly concurrency: number
  readonly jobs: number
  /** Workers in each process; default 1. */
  readonly workers?: number | undefined
  /** As in `Work`. */
  readonly maxPoolSize?: number | undefined
  /** What a handler sleeps, in milliseconds; default 0. */
  readonly millis?: number | undefined
  readonly padBytes?: number | undefined
  readonly clutter?: Fill.Clutter | undefined
  /** Holds a transaction with a snapshot open meanwhile. */
  readonly heldTransaction?: boolean | undefined
  /** Gives the jobs priorities and counts those that start after one that they stand before. */
  readonly isOrdered?: boolean | undefined
  /** Also counts transactions and row versions, which takes some seconds more. */
  readonly footprint?: boolean | undefined
}

const warmUpJobs = 2_000

/** Everybody's JIT and caches are warmed by as many jobs of the same kind. */
const warmUpOf = (scale: number): number => Math.max(50, Math.round(warmUpJobs * scale))

export const scaled = (count: number): Effect.Effect<number, never, Sizes> =>
  Effect.map(Sizes, ({ scale }) => Math.max(10, Math.round(count * scale)))

/** Adds due jobs to a contestant's tables. */
export const fillFor = (agent: Agent, sql: PgClient.PgClient, jobs: number, padBytes = 0) =>
  contestants[agent.name].schema === "graphile_worker"
    ? Fill.fill(sql, { count: jobs, padBytes })
    : agent.ask("fill", { jobs, padBytes })

const left = (sql: PgClient.PgClient, name: Name, after: string) =>
  (contestants[name].schema === "graphile_worker"
    ? sql.unsafe<{ left: number }>(
      `select count(*)::float8 as left from graphile_worker._private_jobs where id > ${after}`
    )
    : sql<{ left: number }>`
      select count(*)::float8 as left from pgboss.job where name = 'bench' and state <> 'completed'`).pipe(
      Effect.map(([row]) => row!.left),
      Effect.orDie
    )

/** A transaction with a snapshot, as a long report or a dump has one. */
const holdTransaction = Effect.fnUntraced(function*(sql: PgClient.PgClient) {
  const connection = yield* sql.reserve
  for (const statement of ["begin isolation level repeatable read", "select txid_current()"]) {
    yield* connection.execute(statement, [], undefined)
  }
  yield* Effect.addFinalizer(() => Effect.ignore(connection.execute("rollback", [], undefined)))
}, Effect.orDie)

interface Left {
  readonly sql: PgClient.PgClient
  readonly name: Name
  /** Jobs up to that id are clutter. */
  readonly after: string
}

/**
 * When the last completion was committed. `runOnce` of graphile-worker 0.18 answers before that; what is still there
 * some seconds later was left behind.
 */
const committed = Effect.fnUntraced(function*({ after, name, sql }: Left, end: number) {
  let remaining = yield* left(sql, name, after)
  if (remaining === 0) return end
  for (let look = 0; look < 1000 && remaining > 0; look++) {
    yield* Effect.sleep("5 millis")
    remaining = yield* left(sql, name, after)
  }
  return remaining === 0 ? now() : yield* new MeasurementFailed({ message: `${name} left ${remaining} jobs` })
})

/** Drains with all agents at once. */
const drainAll = Effect.fnUntraced(function*(
  agents: ReadonlyArray<Agent>,
  work: WorkSpec,
  workers: number,
  isLeft: Left
) {
  const answers = yield* Effect.forEach(
    agents,
    (agent) => agent.ask("drain", { work, workers }),
    { concurrency: "unbounded" }
  )
  const end = yield* committed(isLeft, Math.max(...answers.map(({ end }) => end)))
  return {
    millis: end - Math.min(...answers.map(({ start }) => start)),
    cpu: answers.reduce((sum, { cpu }) => sum + cpu, 0),
    inversions: answers.reduce((sum, { inversions }) => sum + inversions, 0),
    rss: Math.max(...answers.map(({ rss }) => rss)),
    peakRss: Math.max(...answers.map(({ peakRss }) => peakRss))
  }
})

/** What a drain leaves behind and how many connections it has at most, beside its result. */
const withFootprint = Effect.fnUntraced(function*<A, E, R>(
  sql: PgClient.PgClient,
  schema: string,
  jobs: number,
  draining: Effect.Effect<A, E, R>
) {
  const before = yield* Usage.counts(sql)
  let connections = 0
  const sample = Effect.map(Usage.connections(sql), (count) => void (connections = Math.max(connections, count)))
  const result = yield* Effect.raceFirst(
    draining,
    Effect.forever(Effect.andThen(sample, Effect.sleep("100 millis")))
  )
  const after = yield* Usage.counts(sql)
  return {
    result,
    footprint: {
      "transactions/job": (after.transactions - before.transactions) / jobs,
      "dead rows/job": (after.deadRows - before.deadRows) / jobs,
      "index bytes/job": (yield* Usage.indexBytes(sql, schema)) / jobs,
      "connections": connections
    }
  }
})

export const drain = (options: Drain): Entry["measure"] =>
  Effect.gen(function*() {
    const { scale } = yield* Sizes
    const jobs = yield* scaled(options.jobs)
    const { sql, url } = yield* (yield* Server).database
    const agents: Array<Agent> = []
    for (const name of options.processes) agents.push(yield* startAgent(name, url))
    const first = agents[0]!
    const schema = contestants[first.name].schema
    const isShared = schema === "graphile_worker"
    yield* first.ask("migrate", {})

    const { concurrency, maxPoolSize, workers = 1 } = options
    const warmUp = warmUpOf(scale)
    yield* fillFor(first, sql, warmUp * agents.length, options.padBytes)
    yield* drainAll(agents, { concurrency, maxPoolSize, jobs: warmUp, tasks: { bench: 0 } }, workers, {
      sql,
      name: first.name,
      after: "0"
    })

    if (options.clutter !== undefined) yield* Fill.clutter(sql, options.clutter, scale)
    const after = isShared ? yield* Fill.lastId(sql) : "0"
    yield* fillFor(first, sql, jobs, options.padBytes)
    if (options.isOrdered === true) yield* Fill.prioritise(sql, after)
    yield* Fill.settleDown(sql)
    if (options.heldTransaction === true) yield* holdTransaction(sql)

    const tasks = { bench: options.millis ?? 0 }
    const draining = Usage.measured(
      sql,
      drainAll(agents, { concurrency, maxPoolSize, jobs, tasks }, workers, { sql, name: first.name, after })
    )
    const { footprint, result: { use, value } } = options.footprint === true
      ? yield* withFootprint(sql, schema, jobs, draining)
      : { footprint: {}, result: yield* draining }
    const configuration = yield* first.ask("configuration", { concurrency, maxPoolSize })
    return {
      metrics: {
        "jobs/s": jobs / value.millis * 1000,
        "Node CPU µs/job": value.cpu * 1000 / jobs,
        "PostgreSQL CPU µs/job": use.cpu * 1000 / jobs,
        "WAL bytes/job": use.walBytes / jobs,
        "RSS MB": value.rss,
        "peak RSS MB": value.peakRss,
        ...(options.isOrdered === true && { "inversions": value.inversions }),
        ...footprint
      },
      configuration: {
        ...configuration,
        jobs,
        processes: options.processes.length,
        ...(workers > 1 && { workers }),
        ...(options.millis !== undefined && { handlerMillis: options.millis })
      }
    } satisfies Measured
  })

/** An entry of one contestant; more processes are as many of it. */
export const drainEntry = (name: Name, options: Omit<Drain, "processes"> & { readonly count?: number }): Entry => ({
  label: name,
  measure: drain({ ...options, processes: Array.from({ length: options.count ?? 1 }, () => name) })
})

export interface Until {
  readonly name: Name
  readonly concurrency: number
  readonly jobs: number
  readonly queues?: number | undefined
  readonly clutter?: Fill.Clutter | undefined
  /** When to stop waiting, in seconds. */
  readonly seconds: number
}

/** A running worker until the jobs are committed or the time is over: what was done in it counts. */
export const until = ({ clutter, concurrency, name, queues, seconds, ...options }: Until): Entry["measure"] =>
  Effect.gen(function*() {
    const { scale } = yield* Sizes
    const jobs = yield* scaled(options.jobs)
    const { sql, url } = yield* (yield* Server).database
    const agent = yield* startAgent(name, url)
    yield* agent.ask("migrate", {})
    const warmUp = warmUpOf(scale)
    yield* Fill.fill(sql, { count: warmUp })
    const tasks = { bench: 0 }
    yield* agent.ask("until", {
      work: { concurrency, jobs: warmUp, tasks },
      pending: Fill.pendingAfter("0"),
      seconds: 60
    })
    if (clutter !== undefined) yield* Fill.clutter(sql, clutter, scale)
    const after = yield* Fill.lastId(sql)
    yield* Fill.fill(sql, { count: jobs, queues })
    yield* Fill.settleDown(sql)
    const { use, value } = yield* Usage.measured(
      sql,
      agent.ask("until", { work: { concurrency, jobs, tasks }, pending: Fill.pendingAfter(after), seconds })
    )
    const done = jobs - (yield* left(sql, name, after))
    return {
      metrics: {
        "jobs/s": done / (value.end - value.start) * 1000,
        "done": done,
        "Node CPU µs/job": value.cpu * 1000 / Math.max(1, done),
        "PostgreSQL CPU µs/job": use.cpu * 1000 / Math.max(1, done),
        "WAL bytes/job": use.walBytes / Math.max(1, done),
        "peak RSS MB": value.peakRss
      },
      configuration: { ...(yield* agent.ask("configuration", { concurrency })), jobs, ...(queues && { queues }) }
    } satisfies Measured
  })
