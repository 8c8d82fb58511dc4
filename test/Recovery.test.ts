import { describe, expect, it } from "@effect/vitest"
import { Duration, Effect, Latch, type Layer, Option, Schema, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { Queue, Retry, Task, Worker } from "kongtask"
import { make as makeStore } from "../src/internal/postgres/store.ts"
import { dedicatedServerWith } from "./support/database.ts"
import { pause } from "./support/events.ts"
import * as Test from "./support/kongtask.ts"

const test = <E>(
  name: string,
  effect: () => Effect.Effect<unknown, E, Layer.Success<ReturnType<typeof Test.layer>> | Scope.Scope>
) => it.live(name, () => Effect.scoped(effect()).pipe(Effect.provide(Test.layer())))

const Step = Task.make("step", { payload: { n: Schema.Int } })
const lease = Duration.minutes(1)
const store = makeStore({ schema: "graphile_worker" })

/** A job that `pool` has held for so long, and its queue with it. */
const held = Effect.fnUntraced(function*(pool: string, age: string, options: { readonly queueName?: string } = {}) {
  const sql = yield* SqlClient.SqlClient
  const { id } = yield* Queue.add(Step, { n: 1 }, options)
  yield* sql`update graphile_worker._private_jobs
    set locked_by = ${pool}, locked_at = now() - ${age}::text::interval, updated_at = now() - ${age}::text::interval,
      attempts = attempts + 1
    where id = ${id}::text::int8`
  yield* sql`update graphile_worker._private_job_queues
    set locked_by = ${pool}, locked_at = now() - ${age}::text::interval
    where queue_name = ${options.queueName ?? ""}`
  return id
})

const stateOf = (id: Parameters<typeof Queue.get>[0]) =>
  Effect.map(Queue.get(id), (job) => Option.getOrThrow(job).state)

const renewedAt = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) =>
    sql<{ id: string; age: number }>`select id::text, extract(epoch from now() - locked_at)::float8 as age
    from graphile_worker._private_jobs order by id`
)

describe("a sweep", () => {
  test("frees what an unknown pool of ours holds, after a lease, and what another system holds, after four hours", () =>
    Effect.gen(function*() {
      const { sweep } = yield* store
      const orphan = yield* held("kongtask-gone", "2 minutes", { queueName: "serial" })
      const fresh = yield* held("kongtask-new", "1 second")
      const foreign = yield* held("worker-abc", "5 hours", { queueName: "other" })
      const busy = yield* held("worker-abc", "3 hours")
      expect(yield* sweep(lease)).toEqual({ released: 2, failed: 0 })
      expect(yield* stateOf(orphan)).toBe("ready")
      expect(yield* stateOf(foreign)).toBe("ready")
      expect(yield* stateOf(fresh)).toBe("running")
      expect(yield* stateOf(busy)).toBe("running")
      const sql = yield* SqlClient.SqlClient
      const [queues] = yield* sql<{ locked: number }>`
        select count(locked_by)::int as locked from graphile_worker._private_job_queues`
      expect(queues!.locked).toBe(0)
      const [record] = yield* Queue.failedAttempts(orphan)
      expect(record).toMatchObject({
        attempt: 1,
        tag: "PoolDied",
        message: "The pool kongtask-gone died while it held the job."
      })
    }))

  test("leaves the jobs of registered pools alone, however old their locks are", () =>
    Effect.gen(function*() {
      const { registerPool, sweep } = yield* store
      yield* registerPool("kongtask-here", lease)
      const id = yield* held("kongtask-here", "9 hours")
      expect(yield* sweep(lease)).toEqual({ released: 0, failed: 0 })
      expect(yield* stateOf(id)).toBe("running")
    }))

  test("fails a job that had no attempt left", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const { sweep } = yield* store
      const id = yield* held("kongtask-gone", "2 minutes")
      yield* sql`update graphile_worker._private_jobs set attempts = 25`
      expect(yield* sweep(lease)).toEqual({ released: 0, failed: 1 })
      const job = Option.getOrThrow(yield* Queue.get(id))
      expect(job).toMatchObject({
        state: "failed",
        lastError: "The pool kongtask-gone died while it ran attempt 25, the last one."
      })
    }))

  test("is done once in five minutes by all pools together", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const { sweep } = yield* store
      expect(yield* sweep(lease)).toEqual({ released: 0, failed: 0 })
      yield* held("kongtask-gone", "2 minutes")
      expect(yield* sweep(lease)).toBe(undefined)
      yield* sql`update graphile_worker._private_kongtask_housekeeping set done_at = now() - interval '6 minutes'`
      expect(yield* sweep(lease)).toEqual({ released: 1, failed: 0 })
    }))

  test("forgets what is recorded of jobs that somebody else has deleted", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const { sweep } = yield* store
      const { id } = yield* Queue.add(Step, { n: 1 })
      yield* Worker.runOnce({ tasks: [Step] }).pipe(
        Effect.provide(Step.toLayer(() => Effect.die("no"), { retry: Retry.never }))
      )
      yield* sweep(lease)
      expect(yield* Queue.failedAttempts(id)).toHaveLength(1)
      yield* sql`delete from graphile_worker._private_jobs`
      yield* sql`delete from graphile_worker._private_kongtask_housekeeping`
      yield* sweep(lease)
      expect(yield* Queue.failedAttempts(id)).toEqual([])
    }))
})

describe("locks that are held for hours", () => {
  test("are renewed, so that nobody takes the job for abandoned", () =>
    Effect.gen(function*() {
      const { renew } = yield* store
      const long = yield* held("kongtask-here", "3 hours", { queueName: "serial" })
      const short = yield* held("kongtask-here", "30 minutes")
      const other = yield* held("worker-abc", "3 hours")
      yield* renew("kongtask-here", [long, short, other])
      const ages = (yield* renewedAt).map(({ age }) => Math.round(age / 60))
      expect(ages).toEqual([0, 30, 180])
      const sql = yield* SqlClient.SqlClient
      const [queue] = yield* sql<{ age: number }>`
        select extract(epoch from now() - locked_at)::float8 as age from graphile_worker._private_job_queues`
      expect(queue!.age).toBeLessThan(60)
    }))

  test("of a superseded job stay, so that it is still known as such", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const { renew } = yield* store
      const id = yield* held("kongtask-here", "3 hours")
      yield* sql`update graphile_worker._private_jobs set key = null, updated_at = now()`
      yield* renew("kongtask-here", [id])
      expect(Math.round((yield* renewedAt)[0]!.age / 3600)).toBe(3)
    }))
})

test("a test's clock moves timeouts and delays, but no lease: that one is the database's", () =>
  Effect.gen(function*() {
    const events = yield* Test.watch
    const started = yield* Latch.make(false)
    yield* Effect.gen(function*() {
      yield* Worker.run({ tasks: [Step], handleSignals: false }).pipe(
        Effect.provide(Step.toLayer(() => Effect.andThen(started.open, Effect.never), { timeout: "1 hour" })),
        Effect.forkScoped({ startImmediately: true })
      )
      const { pool } = yield* events.next("PoolStarted")
      yield* Queue.add(Step, { n: 1 })
      yield* started.await
      yield* TestClock.adjust("59 minutes")
      yield* pause("200 millis")
      yield* TestClock.adjust("2 minutes")
      const failed = yield* events.next("JobFailed")
      expect(failed).toMatchObject({ pool, error: "TimedOut: the handler was interrupted after 1h" })
      expect(Duration.toMinutes(failed.duration)).toBeGreaterThanOrEqual(60)
    }).pipe(Effect.provide(TestClock.layer()))
  }))

it.live(
  "an idle worker sends at most one statement a poll interval, heartbeats included",
  () =>
    Effect.gen(function*() {
      const server = yield* dedicatedServerWith({ settings: { log_statement: "all", log_line_prefix: "%a|" } })
      yield* Effect.gen(function*() {
        const events = yield* Test.watch
        yield* Worker.run({
          tasks: [Step],
          concurrency: 100,
          pollInterval: "100 millis",
          heartbeatInterval: "500 millis",
          lease: "2 seconds",
          handleSignals: false
        }).pipe(Effect.provide(Step.toLayer(() => Effect.void)), Effect.forkScoped({ startImmediately: true }))
        const statements = Effect.map(
          server.log,
          (log) => log.match(/^kongtask\|LOG: {2}(statement|execute)/gm)?.length ?? 0
        )
        yield* events.next("PoolListening")
        yield* events.many("PoolIdle", 3)
        const before = yield* statements
        const polls = 30
        yield* events.many("PoolIdle", polls)
        const sent = (yield* statements) - before
        expect(sent).toBeGreaterThanOrEqual(polls - 1)
        expect(sent).toBeLessThanOrEqual(polls + 1)
        const sql = yield* SqlClient.SqlClient
        const [pool] = yield* sql<{ beats: number }>`
        select extract(epoch from heartbeat_at - started_at)::float8 as beats
        from graphile_worker._private_kongtask_pools`
        expect(pool!.beats).toBeGreaterThan(2)
      }).pipe(Effect.scoped, Effect.provide(Test.layerOn(server.config)))
    }).pipe(Effect.scoped),
  60_000
)

it.live("what was finished is recorded after an outage that was longer than the lease", () =>
  Effect.gen(function*() {
    const server = yield* dedicatedServerWith()
    yield* Effect.gen(function*() {
      const events = yield* Test.watch
      const gate = yield* Latch.make(false)
      let runs = 0
      yield* Queue.addMany(
        Array.from({ length: 10 }, (_, n) => Step.request({ n }, { queueName: n < 2 ? "q" : `${n}` }))
      )
      yield* Worker.run({
        tasks: [Step],
        lease: "2 seconds",
        heartbeatInterval: "200 millis",
        handleSignals: false
      }).pipe(
        Effect.provide(Step.toLayer(() => Effect.andThen(gate.await, Effect.sync(() => void runs++)))),
        Effect.forkScoped({ startImmediately: true })
      )
      yield* events.many("JobStarted", 9)
      yield* server.stop("immediate")
      yield* gate.open
      yield* events.next("PoolLost")
      yield* server.start
      yield* events.many("JobCompleted", 10)
      expect(runs).toBe(10)
      expect(yield* Queue.count()).toBe(0)
    }).pipe(Effect.scoped, Effect.provide(Test.layerOn(server.config)))
  }).pipe(Effect.scoped), 60_000)
