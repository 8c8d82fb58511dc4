/**
 * What the tests of other systems' defects share: a task or two, a worker that
 * nothing but its own wits wakes, and looks at what only the database knows.
 */
import { PgClient } from "@effect/sql-pg"
import { it } from "@effect/vitest"
import { Effect, type Layer, Logger, Option, Schema, type Scope, Tracer } from "effect"
import { SqlClient } from "effect/sql"
import { type Job, Queue, Task, Worker } from "kongtask"
import { TestDatabase } from "../support/database.ts"
import { eventually } from "../support/events.ts"
import * as Test from "../support/kongtask.ts"
import { connect } from "../support/migrator.ts"
import { spawnScript } from "../support/process.ts"

export const Step = Task.make("step", { payload: { n: Schema.Int } })
export const Other = Task.make("other", { payload: { n: Schema.Int } })

/** A worker that only notifications, timers and outcomes wake. */
export const unpolled = { pollInterval: "1 hour", handleSignals: false } as const

/** One that not even notifications wake. */
export const alone = { ...unpolled, listen: false } as const

type Services = Layer.Success<ReturnType<typeof Test.layer>> | Scope.Scope

export const test = <E>(name: string, effect: () => Effect.Effect<unknown, E, Services>) =>
  it.live(name, () => Effect.scoped(effect()).pipe(Effect.provide(Test.layer())), 60_000)

/** Starts a worker in the test's scope. */
export const start = <T extends Task.Any, R>(
  options: Worker.Options<T>,
  handlers: Layer.Layer<Task.ToHandler<T>, never, R>
) =>
  Worker.run({ ...unpolled, ...options }).pipe(Effect.provide(handlers), Effect.forkScoped({ startImmediately: true }))

/** A worker as a process of its own, which prints what it does. */
export const spawnWorker = Effect.flatMap(
  TestDatabase,
  ({ url }) => spawnScript(new URL("../fixtures/worker.ts", import.meta.url), { env: { DATABASE_URL: url } })
)

export const jobOf = (id: Job.JobId) => Effect.map(Queue.get(id), Option.getOrThrow)

/** Waits until no job is left. */
export const drained = Effect.suspend(() =>
  eventually(Queue.count(), { what: "the end of all jobs", until: (count) => count === 0, within: "20 seconds" })
)

/** How many rows name a pool: jobs and queues that are held, and pools. */
export const held = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  sql<{ count: number }>`
    select ((select count(*) from graphile_worker._private_jobs where locked_by is not null)
      + (select count(*) from graphile_worker._private_job_queues where locked_by is not null)
      + (select count(*) from graphile_worker._private_kongtask_pools))::int as count`).pipe(
    Effect.map(([row]) => row!.count)
  )

/** The sessions of workers that wait for a lock, such as one of a claim that is kept waiting. */
export const waiting = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  sql<{ pid: number }>`
    select pid from pg_stat_activity
    where datname = current_database() and application_name = 'kongtask' and wait_event_type = 'Lock'`).pipe(
    Effect.map((rows) => rows.map(({ pid }) => pid))
  )

/** Keeps every claim of the database waiting during the effect, by a transaction of a client of its own. */
export const whileJobsAreLocked = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const { config } = yield* TestDatabase
    const sql = yield* connect({ ...config, maxConnections: 1 })
    return yield* sql.withTransaction(
      Effect.andThen(sql`lock table graphile_worker._private_jobs in access exclusive mode`, effect)
    )
  })

/** The statements that are sent under a tracer, by their text. */
export const countStatements = () => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  const texts = () => spans.flatMap((span) => (span.attributes.get("db.query.text") as string | undefined) ?? [])
  return {
    traced: Effect.provideService(Tracer.Tracer, tracer),
    count: (...parts: ReadonlyArray<string>) =>
      texts().filter((text) => parts.length === 0 || parts.some((part) => text.includes(part))).length
  }
}

/** A logger that keeps what it is told, with its annotations. */
export const collectLogs = () => {
  const lines: Array<string> = []
  const logger = Logger.map(Logger.formatLogFmt, (line) => {
    lines.push(line)
  })
  return { lines, layer: Logger.layer([logger]) }
}

interface Buffers {
  readonly "QUERY PLAN": ReadonlyArray<
    { readonly Plan: { readonly "Shared Hit Blocks": number; readonly "Shared Read Blocks": number } }
  >
}

/** How many pages a claim of ten jobs looks at in a session that has claimed before. Nothing stays claimed. */
export const pagesOfClaim = (...tasks: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const sql = yield* PgClient.PgClient
    const claim = sql.unsafe<Buffers>(
      `explain (analyze, buffers, format json) select *
       from graphile_worker._private_kongtask_claim('kongtask-pages', $1::text[], 10, 10, null)`,
      [tasks]
    ).unprepared
    const undone = new Error("undone")
    let pages = 0
    yield* sql.withTransaction(Effect.gen(function*() {
      yield* sql`
        insert into graphile_worker._private_kongtask_pools (id, lease) values ('kongtask-pages', interval '1 hour')`
      const first = sql.withTransaction(Effect.andThen(claim, Effect.fail(undone)))
      yield* Effect.catchIf(first, (error) => error === undone, () => Effect.void)
      const [row] = yield* claim
      const { Plan } = row!["QUERY PLAN"][0]!
      pages = Plan["Shared Hit Blocks"] + Plan["Shared Read Blocks"]
      return yield* Effect.fail(undone)
    })).pipe(Effect.catchIf((error) => error === undone, () => Effect.void))
    return pages
  })
