/**
 * Queue and worker behind PgBouncer. `npm run test:system` runs it, for it needs that program.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Latch, type Layer, Option, Schema, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { Queue, Retry, Task, Worker } from "kongtask"
import * as Database from "../support/database.ts"
import { eventually } from "../support/events.ts"
import * as Test from "../support/kongtask.ts"
import * as PgBouncer from "./pgbouncer.ts"

const Step = Task.make("step", { payload: { n: Schema.Int } })

/** What docs/operations.md tells to set, with a lease that a test can wait for. */
const polling = {
  tasks: [Step],
  listen: false,
  pollInterval: "50 millis",
  lease: "3 seconds",
  heartbeatInterval: "200 millis",
  handleSignals: false
} as const

type Services = Layer.Success<ReturnType<typeof Test.layerOn>> | Database.TestDatabase | Scope.Scope

const test = <E>(
  name: string,
  body: (pooler: PgBouncer.PgBouncer) => Effect.Effect<unknown, E, Services>,
  options: PgBouncer.Options & Database.DatabaseOptions = {}
) =>
  it.live(name, () =>
    Effect.gen(function*() {
      const database = yield* Database.freshDatabase(options)
      yield* Effect.gen(function*() {
        const pooler = yield* PgBouncer.make(options)
        yield* Effect.provide(body(pooler), Test.layerOn(pooler.config))
      }).pipe(Effect.provideService(Database.TestDatabase, database))
    }).pipe(Effect.scoped))

const start = <R>(handler: Layer.Layer<Task.ToHandler<typeof Step>, never, R>, options: object = {}) =>
  Worker.run({ ...polling, ...options }).pipe(Effect.provide(handler), Effect.forkScoped({ startImmediately: true }))

const drained = eventually(Queue.count(), {
  until: (count) => count === 0,
  what: "an empty queue",
  within: "30 seconds"
})

const locks = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  sql<{ count: number }>`
    select ((select count(*) from graphile_worker._private_jobs where locked_by is not null)
      + (select count(*) from graphile_worker._private_job_queues where locked_by is not null)
      + (select count(*) from graphile_worker._private_kongtask_pools))::int as count`).pipe(
    Effect.map(([row]) => row!.count)
  )

const requests = (count: number, options: (n: number) => Parameters<typeof Step.request>[1] = () => ({})) =>
  Array.from({ length: count }, (_, n) => Step.request({ n }, options(n)))

/** Counts the runs of each job. */
const counting = () => {
  const runs = new Map<number, number>()
  return { runs, ran: (n: number) => Effect.sync(() => void runs.set(n, (runs.get(n) ?? 0) + 1)) }
}

const once = (count: number) => Array.from({ length: count }, () => 1)

describe("behind PgBouncer in transaction mode", () => {
  test("an empty database is migrated, and jobs are added, run, failed and tried again", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const [kept] = yield* Queue.addMany([Step.request({ n: 1 }, { jobKey: "one" }), Step.request({ n: 2 })])
      const replaced = yield* Queue.add(Step, { n: 3 }, { jobKey: "one" })
      expect(replaced).toMatchObject({ id: kept!.id, revision: 1 })
      yield* start(Step.toLayer(({ n }, job) => n === 3 && job.attempt === 1 ? Effect.die("once") : Effect.void, {
        retry: Retry.fixed("50 millis")
      }))
      expect((yield* events.next("JobFailed")).job.id).toBe(replaced.id)
      expect((yield* events.next("JobCompleted", (event) => event.job.id === replaced.id)).job.attempt).toBe(2)
      yield* drained
    }), { migrated: false })

  test("a running job is cancelled with the next heartbeat", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const interrupted = yield* Latch.make(false)
      const job = yield* Queue.add(Step, { n: 1 })
      yield* start(Step.toLayer(() => Effect.onInterrupt(Effect.never, () => interrupted.open)))
      yield* events.next("JobStarted")
      expect(Option.getOrThrow(yield* Queue.cancel(job.id)).state).toBe("running")
      yield* interrupted.await
      yield* events.next("JobCancelled")
      expect(yield* Queue.get(job.id)).toEqual(Option.none())
    }))

  test("what a transactional handler writes is written once, and not at all by a failed attempt", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`create table public.effects (n int)`
      yield* Queue.addMany(requests(200))
      yield* start(
        Step.toLayer(({ n }, job) =>
          sql`insert into public.effects values (${n})`.pipe(
            Effect.andThen(n % 3 === 0 && job.attempt === 1 ? Effect.die("after the write") : Effect.void),
            Effect.orDie
          ), { transactional: true, retry: Retry.fixed("10 millis") })
      )
      yield* drained
      const rows = yield* sql<{ n: number }>`select n from public.effects order by n`
      expect(rows.map(({ n }) => n)).toEqual(Array.from({ length: 200 }, (_, n) => n))
    }))

  test(
    "a named queue runs one job at a time and in order, with two workers and two server connections",
    () =>
      Effect.gen(function*() {
        const order = new Map<string, Array<number>>()
        const busy = new Set<string>()
        let overlaps = 0
        yield* Queue.addMany(requests(200, (n) => ({ queueName: `q${n % 8}` })))
        const handler = Step.toLayer(({ n }, { queueName = "" }) =>
          Effect.gen(function*() {
            if (busy.has(queueName)) overlaps++
            busy.add(queueName)
            order.set(queueName, [...order.get(queueName) ?? [], n])
            yield* Effect.sleep("1 millis")
            busy.delete(queueName)
          })
        )
        yield* start(handler)
        yield* start(handler)
        yield* drained
        expect(overlaps).toBe(0)
        expect([...order].toSorted()).toEqual(
          Array.from({ length: 8 }, (_, q) => [`q${q}`, Array.from({ length: 25 }, (_, n) => n * 8 + q)])
        )
      }),
    { poolSize: 2 }
  )

  test(
    "2,000 jobs are run once each by three workers on four server connections, and nothing stays locked",
    () =>
      Effect.gen(function*() {
        const { ran, runs } = counting()
        yield* Queue.addMany(requests(2_000))
        const workers = yield* Effect.forEach([1, 2, 3], () => start(Step.toLayer(({ n }) => ran(n))))
        yield* drained
        yield* Fiber.interruptAll(workers)
        expect([...runs.values()]).toEqual(once(2_000))
        expect(yield* locks).toBe(0)
      }),
    { poolSize: 4 }
  )

  test("an add inside the program's own transaction is part of it", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* Effect.exit(sql.withTransaction(Effect.andThen(Queue.add(Step, { n: 1 }), Effect.fail("undone"))))
      expect(yield* Queue.count()).toBe(0)
      yield* sql.withTransaction(Queue.addMany(requests(2)))
      expect(yield* Queue.count()).toBe(2)
    }))

  test("a worker that is told to listen goes on polling", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const { ran, runs } = counting()
      const worker = yield* start(Step.toLayer(({ n }) => ran(n)), { listen: true, pollInterval: "200 millis" })
      yield* events.next("PoolIdle")
      for (let n = 0; n < 20; n++) {
        yield* Queue.add(Step, { n })
        yield* events.next("JobCompleted")
      }
      const { error } = yield* events.next("ListenFailed")
      expect(error.message).toContain("notifications do not arrive (behind a transaction-mode pooler")
      yield* Fiber.interrupt(worker)
      expect([...runs.values()]).toEqual(once(20))
      expect(yield* locks).toBe(0)
    }))

  test("a worker records what it has finished when PgBouncer was killed and is back", (pooler) =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const { ran, runs } = counting()
      const gate = yield* Latch.make(false)
      yield* Queue.addMany(requests(200))
      yield* start(Step.toLayer(({ n }) => Effect.andThen(gate.await, ran(n))), {
        lease: "30 seconds",
        concurrency: 20
      })
      yield* events.many("JobStarted", 20)
      yield* pooler.kill
      yield* gate.open
      yield* events.next("DatabaseUnavailable")
      yield* pooler.start
      yield* drained
      expect([...runs.values()]).toEqual(once(200))
    }))

  test("a worker goes on when PgBouncer is killed again and again under load", (pooler) =>
    Effect.gen(function*() {
      const { ran, runs } = counting()
      const events = yield* Test.watch
      const total = 3_000
      yield* Queue.addMany(requests(total, (n) => ({ queueName: n % 10 === 0 ? `q${n % 30}` : undefined })))
      yield* start(Step.toLayer(({ n }) => Effect.andThen(Effect.sleep("1 millis"), ran(n))), { lease: "30 seconds" })
      for (let round = 0; round < 4; round++) {
        yield* events.many("JobCompleted", 150)
        yield* pooler.kill
        yield* events.next("DatabaseUnavailable")
        yield* pooler.start
      }
      yield* drained
      expect([...runs.values()]).toEqual(once(total))
    }))
})

describe("behind PgBouncer in session mode", () => {
  test("a worker is told of new jobs, with everything prepared", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const worker = yield* start(Step.toLayer(() => Effect.void), { listen: true, pollInterval: "1 hour" })
      yield* events.next("PoolListening")
      yield* events.next("PoolIdle")
      for (let n = 0; n < 20; n++) {
        yield* Queue.add(Step, { n })
        yield* events.next("JobCompleted")
      }
      yield* Fiber.interrupt(worker)
      expect(yield* locks).toBe(0)
    }), { mode: "session", poolSize: 20 })
})
