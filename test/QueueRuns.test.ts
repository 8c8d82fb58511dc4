/** Named queues under a worker: runs of jobs under one lease, one after the other, and never two at once. */
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Latch, type Layer, Schema, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { type Job, Queue, Retry, Task, Worker } from "kongtask"
import { eventually } from "./support/events.ts"
import * as Test from "./support/kongtask.ts"

const test = <E>(
  name: string,
  effect: () => Effect.Effect<unknown, E, Layer.Success<ReturnType<typeof Test.layer>> | Scope.Scope>
) => it.live(name, () => Effect.scoped(effect()).pipe(Effect.provide(Test.layer())), 60_000)

const Step = Task.make("step", { payload: { n: Schema.Int }, error: Schema.String })

const steps = (count: number, options: Job.Options = {}) =>
  Array.from({ length: count }, (_, n) => Step.request({ n }, { queueName: "serial", ...options }))

/** A worker that only notifications, timers and outcomes wake. */
const start = (options: Partial<Worker.Options<typeof Step>>, handler: Layer.Layer<Task.ToHandler<typeof Step>>) =>
  Worker.run({ tasks: [Step], pollInterval: "1 hour", handleSignals: false, ...options }).pipe(
    Effect.provide(handler),
    Effect.forkScoped({ startImmediately: true })
  )

/** A handler that keeps a ledger: what ran, in which order, and how many at most at once in a queue. */
const ledger = (work: (n: number) => Effect.Effect<void, string> = () => Effect.void) => {
  const ran: Array<number> = []
  const busy = new Map<string, number>()
  const seen = { most: 0 }
  const handler = Step.toLayer(({ n }, { queueName = "" }) =>
    Effect.suspend(() => {
      ran.push(n)
      busy.set(queueName, (busy.get(queueName) ?? 0) + 1)
      seen.most = Math.max(seen.most, busy.get(queueName)!)
      return Effect.ensuring(work(n), Effect.sync(() => void busy.set(queueName, busy.get(queueName)! - 1)))
    }), { retry: Retry.fixed("1 hour") })
  return { ran, seen, handler }
}

const noJobs = eventually(Queue.count(), { what: "the end of all jobs", until: (count) => count === 0 })

const held = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(
    sql<{ jobs: number; queues: number }>`
      select (select count(*)::int from graphile_worker._private_jobs where locked_by is not null) as jobs,
        (select count(*)::int from graphile_worker._private_job_queues where locked_by is not null) as queues`,
    ([row]) => row!
  ))

/** Starts a worker that knows how short the jobs are, and answers its events. */
const warm = Effect.fnUntraced(function*(
  handler: Layer.Layer<Task.ToHandler<typeof Step>>,
  options: Partial<Worker.Options<typeof Step>> = {}
) {
  const events = yield* Test.watch
  const worker = yield* start(options, handler)
  yield* Queue.add(Step, { n: -1 }, { queueName: "serial" })
  yield* events.next("JobCompleted")
  yield* eventually(held, { what: "a free queue", until: ({ queues }) => queues === 0 })
  return { events, worker }
})

describe("a run", () => {
  test("takes many quick jobs of a queue at a claim and keeps their order", () =>
    Effect.gen(function*() {
      const { handler, ran, seen } = ledger()
      yield* Queue.addMany(steps(1_000))
      const events = yield* Test.watch
      yield* start({ concurrency: 10 }, handler)
      yield* events.many("JobCompleted", 1_000)
      yield* noJobs
      expect(ran).toEqual(Array.from({ length: 1_000 }, (_, n) => n))
      expect(seen.most).toBe(1)
      expect(yield* eventually(held, { what: "a free queue", until: ({ queues }) => queues === 0 })).toEqual({
        jobs: 0,
        queues: 0
      })
    }))

  test("writes its queue's lease twice, however many jobs it is", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`create table written (count int)`
      yield* sql`insert into written values (0)`
      yield* sql.unsafe(`create function count_written() returns trigger language plpgsql as $$
        begin update public.written set count = count + 1; return null; end $$`)
      yield* sql`
        create trigger count_written after update on graphile_worker._private_job_queues
        for each row execute function count_written()`
      yield* Queue.addMany(steps(1_000))
      yield* start({}, ledger().handler)
      yield* noJobs
      const [row] = yield* sql<{ count: number }>`select count from written`
      expect(row!.count).toBeGreaterThanOrEqual(10)
      expect(row!.count).toBeLessThan(300)
    }))

  test("is one job where jobs are long", () =>
    Effect.gen(function*() {
      const { handler, ran } = ledger(() => Effect.sleep("150 millis"))
      yield* Queue.addMany(steps(4))
      yield* start({}, handler)
      yield* eventually(Effect.sync(() => ran.length), { what: "two jobs", until: (count) => count >= 3 })
      expect((yield* held).jobs).toBe(1)
    }))

  test("goes on after a job that failed, and leaves that one its time", () =>
    Effect.gen(function*() {
      const { handler, ran } = ledger((n) => n === 1 ? Effect.fail("no") : Effect.void)
      const { events } = yield* warm(handler)
      const added = yield* Queue.addMany(steps(5))
      yield* events.many("JobCompleted", 4)
      expect(ran).toEqual([-1, 0, 1, 2, 3, 4])
      expect((yield* Queue.list()).map(({ attempts, id, state }) => ({ attempts, id, state }))).toEqual([
        { attempts: 1, id: added[1]!.id, state: "retrying" }
      ])
      yield* eventually(held, { what: "a free queue", until: ({ queues }) => queues === 0 })
    }))

  test("never holds a job on its last attempt that does not start at once", () =>
    Effect.gen(function*() {
      const gate = yield* Latch.make(false)
      const { handler, ran } = ledger((n) => n === 0 ? gate.await : Effect.void)
      const { events } = yield* warm(handler)
      const [first] = yield* Queue.addMany([
        Step.request({ n: 0 }, { queueName: "serial" }),
        Step.request({ n: 1 }, { queueName: "serial" }),
        Step.request({ n: 2 }, { queueName: "serial", maxAttempts: 1 }),
        Step.request({ n: 3 }, { queueName: "serial" })
      ])
      yield* events.next("JobStarted", ({ job }) => job.id === first!.id)
      const states = (yield* Queue.list()).map(({ state }) => state)
      expect(states).toEqual(["running", "running", "ready", "ready"])
      yield* gate.open
      yield* events.many("JobCompleted", 4)
      expect(ran).toEqual([-1, 0, 1, 2, 3])
    }))

  test("gives back what waits too long, uncharged, and keeps the queue for its running job", () =>
    Effect.gen(function*() {
      const gate = yield* Latch.make(false)
      const { handler, ran, seen } = ledger((n) => n === 0 ? gate.await : Effect.void)
      const { events } = yield* warm(handler)
      yield* Queue.addMany(steps(5))
      yield* events.many("JobReleased", 4)
      const jobs = yield* Queue.list()
      expect(jobs.map(({ attempts, state }) => ({ attempts, state }))).toEqual([
        { attempts: 1, state: "running" },
        ...Array.from({ length: 4 }, () => ({ attempts: 0, state: "ready" }))
      ])
      const other = ledger()
      yield* start({}, other.handler)
      yield* Effect.sleep("200 millis")
      expect(other.ran).toEqual([])
      expect((yield* held).queues).toBe(1)
      yield* gate.open
      yield* noJobs
      expect([...ran, ...other.ran].toSorted((a, b) => a - b)).toEqual([-1, 0, 1, 2, 3, 4])
      expect(Math.max(seen.most, other.seen.most)).toBe(1)
    }))

  test("gives back what waits at the shutdown, and frees the queue with its running job", () =>
    Effect.gen(function*() {
      const gate = yield* Latch.make(false)
      const { handler, ran } = ledger((n) => n === 0 ? gate.await : Effect.void)
      const { events, worker } = yield* warm(handler)
      const [first] = yield* Queue.addMany(steps(5))
      yield* events.next("JobStarted", ({ job }) => job.id === first!.id)
      const stopping = yield* Effect.forkScoped(Fiber.interrupt(worker), { startImmediately: true })
      yield* events.many("JobReleased", 4)
      expect(yield* held).toEqual({ jobs: 1, queues: 1 })
      yield* gate.open
      yield* Fiber.join(stopping)
      expect(ran).toEqual([-1, 0])
      expect(yield* held).toEqual({ jobs: 0, queues: 0 })
      expect((yield* Queue.list()).map(({ attempts }) => attempts)).toEqual([0, 0, 0, 0])
    }))

  test("goes on when its running job or a waiting one is cancelled", () =>
    Effect.gen(function*() {
      const { handler, ran } = ledger((n) => n === 0 ? Effect.never : Effect.void)
      const { events } = yield* warm(handler, { heartbeatInterval: "100 millis" })
      const added = yield* Queue.addMany(steps(4))
      yield* events.next("JobStarted", ({ job }) => job.id === added[0]!.id)
      yield* Queue.cancel(added[2]!.id)
      yield* events.next("JobCancelled", ({ job }) => job.id === added[2]!.id)
      yield* Queue.cancel(added[0]!.id)
      yield* events.many("JobCompleted", 2)
      yield* noJobs
      expect(ran).toEqual([-1, 0, 1, 3])
      yield* eventually(held, { what: "a free queue", until: ({ queues }) => queues === 0 })
    }))

  test("is no more a pool's whose jobs were unlocked, and begins anew with its first job", () =>
    Effect.gen(function*() {
      const started = yield* Deferred.make<void>()
      const ended = yield* Deferred.make<void>()
      const first = ledger((n) =>
        n === 0
          ? Effect.andThen(
            Deferred.succeed(started, undefined),
            Effect.onInterrupt(Effect.never, () => Deferred.succeed(ended, undefined))
          )
          : Effect.void
      )
      const { events } = yield* warm(first.handler, { heartbeatInterval: "100 millis", shutdownTimeout: "100 millis" })
      yield* Queue.addMany(steps(5))
      yield* Deferred.await(started)
      const sql = yield* SqlClient.SqlClient
      const [pool] = yield* sql<{ id: string }>`select id from graphile_worker._private_kongtask_pools`
      const unlocked = yield* Queue.forceUnlock([pool!.id])
      expect(unlocked).toHaveLength(5)
      yield* events.next("PoolLost")
      yield* Deferred.await(ended)
      yield* eventually(Effect.sync(() => first.ran.filter((n) => n === 0).length), {
        what: "the next attempt",
        until: (attempts) => attempts === 2
      })
      expect(first.ran).toEqual([-1, 0, 0])
      expect(first.seen.most).toBe(1)
    }))

  test("goes on after one of its jobs was unlocked by hand, and frees the queue in the end", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const gate = yield* Latch.make(false)
      const { handler, seen } = ledger((n) => n === 0 ? gate.await : Effect.void)
      const { events } = yield* warm(handler)
      const added = yield* Queue.addMany(steps(4))
      yield* events.next("JobStarted", ({ job }) => job.id === added[0]!.id)
      yield* sql`
        update graphile_worker._private_jobs set locked_at = null, locked_by = null
        where id in (${added[0]!.id}, ${added[3]!.id})`
      yield* gate.open
      yield* noJobs
      expect(seen.most).toBe(1)
      yield* eventually(held, { what: "a free queue", until: ({ queues }) => queues === 0 })
    }))
})

describe("many queues", () => {
  test("run one job each at a time, in order, with several workers and outcomes of every kind", () =>
    Effect.gen(function*() {
      const names = Array.from({ length: 30 }, (_, n) => `queue ${n}`)
      const ledgers = Array.from({ length: 3 }, () => ledger((n) => n % 7 === 3 ? Effect.fail("no") : Effect.yieldNow))
      const order = new Map<string, Array<number>>()
      const busy = new Set<string>()
      let overlaps = 0
      const handler = Step.toLayer(({ n }, { queueName }) =>
        Effect.suspend(() => {
          if (busy.has(queueName!)) overlaps++
          busy.add(queueName!)
          order.set(queueName!, [...order.get(queueName!) ?? [], n])
          return Effect.ensuring(
            n % 7 === 3 ? Effect.fail("no") : Effect.yieldNow,
            Effect.sync(() => void busy.delete(queueName!))
          )
        }), { retry: Retry.never })
      yield* Queue.addMany(names.flatMap((queueName) => steps(40, { queueName })))
      yield* Effect.forEach(ledgers, () => start({ concurrency: 5, pollInterval: "50 millis" }, handler))
      yield* eventually(
        Effect.sync(() => Array.from(order.values(), (ran) => ran.length).reduce((sum, n) => sum + n, 0)),
        { what: "all jobs", until: (count) => count >= 30 * 40 }
      )
      expect(overlaps).toBe(0)
      for (const ran of order.values()) expect(ran).toEqual(Array.from({ length: 40 }, (_, n) => n))
    }))

  test("do not keep jobs without a queue waiting behind a long backlog", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const { handler } = ledger()
      yield* Queue.add(Step, { n: 0 }, { queueName: "serial" })
      yield* sql`
        insert into graphile_worker._private_jobs (task_id, job_queue_id, payload, priority)
        select task_id, job_queue_id, '{"n": 1}', -1 from graphile_worker._private_jobs, generate_series(1, 20000)`
      const free = yield* Queue.addMany(steps(50, { queueName: undefined, priority: 5 }))
      const events = yield* Test.watch
      yield* start({}, handler)
      const ids = new Set(free.map(({ id }) => id))
      for (let left = ids.size; left > 0; left--) yield* events.next("JobCompleted", ({ job }) => ids.has(job.id))
      expect(yield* Queue.count({ queueName: "serial" })).toBeGreaterThan(10_000)
    }))
})

describe("a transactional job", () => {
  test("of a run completes in its own transaction and leaves the queue to the others", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`create table written (n int)`
      const ran: Array<number> = []
      const handler = Step.toLayer(({ n }) => {
        ran.push(n)
        return n === 2 ? Effect.fail("no") : Effect.orDie(sql`insert into written values (${n})`)
      }, { transactional: true, retry: Retry.fixed("1 hour") })
      const { events } = yield* warm(handler as Layer.Layer<Task.ToHandler<typeof Step>>)
      yield* Queue.addMany(steps(20))
      yield* events.many("JobCompleted", 19)
      expect(ran).toEqual([-1, ...Array.from({ length: 20 }, (_, n) => n)])
      expect(yield* eventually(held, { what: "a free queue", until: ({ queues }) => queues === 0 })).toEqual({
        jobs: 0,
        queues: 0
      })
    }))
})
