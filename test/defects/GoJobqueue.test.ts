/**
 * Defects of go-jobqueue (0.7.0), by their numbers in docs/lineage.md: each test
 * fails where the defect is.
 */
import { PgClient } from "@effect/sql-pg"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Fiber, Latch, Layer, Queue as Buffer, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { KongTask, Queue, Retry, Worker, type WorkerEvent } from "kongtask"
import { Act } from "../fixtures/act.ts"
import { eventually, within } from "../support/events.ts"
import * as Test from "../support/kongtask.ts"
import {
  alone,
  countStatements,
  drained,
  jobOf,
  Other,
  pagesOfClaim,
  spawnWorker,
  start,
  Step,
  test,
  unpolled,
  waiting,
  whileJobsAreLocked
} from "./scene.ts"

const done = Step.toLayer(() => Effect.void)

const steps = (count: number) => Array.from({ length: count }, (_, n) => Step.request({ n }))

describe("waking up and going on", () => {
  test("go-jobqueue 1: a deferred job and a retry run when they are due, though nobody polls or notifies", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const deferred = yield* Queue.add(Step, { n: 1 }, { delay: "300 millis" })
      const retried = yield* Queue.add(Step, { n: 2 })
      yield* start(
        { ...alone, tasks: [Step] },
        Step.toLayer(({ n }, job) => n === 2 && job.attempt === 1 ? Effect.die("not yet") : Effect.void, {
          retry: Retry.after("200 millis")
        })
      )
      const completed = yield* events.many("JobCompleted", 2)
      expect(completed.map(({ job }) => [job.id, job.attempt]).toSorted()).toEqual([[deferred.id, 1], [retried.id, 2]])
    }))

  test("go-jobqueue 2: a failure says whether it is tried again, and its error stays until then", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const before = yield* Deferred.make<string | undefined>()
      const job = yield* Queue.add(Step, { n: 1 }, { maxAttempts: 2 })
      yield* start(
        { tasks: [Step] },
        Step.toLayer((_, job) =>
          job.attempt === 1
            ? Effect.die("the first")
            : Effect.andThen(Deferred.succeed(before, job.lastError), Effect.die("the second")), {
          retry: Retry.after("1 hour")
        })
      )
      const first = yield* events.next("JobFailed")
      expect(Duration.toMillis(first.retryIn!)).toBe(3_600_000)
      expect(yield* jobOf(job.id)).toMatchObject({ state: "retrying", attempts: 1 })
      expect((yield* jobOf(job.id)).lastError).toContain("the first")
      yield* Queue.reschedule([job.id], { runAt: new Date(0) })
      expect((yield* events.next("JobFailed")).retryIn).toBeUndefined()
      expect(yield* Deferred.await(before)).toContain("the first")
      expect((yield* jobOf(job.id)).lastError).toContain("the second")
    }))

  test("go-jobqueue 3: a claim of three tasks costs the same before 20,000 due jobs", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* Queue.addMany([1, 2, 3].flatMap((n) => [Step.request({ n }), Other.request({ n })]))
      yield* Queue.add(Act, { act: "return" })
      const backlog = (count: number) =>
        sql`
          insert into graphile_worker._private_jobs (task_id, run_at)
          select id, now() - n * interval '1 second'
          from generate_series(1, ${count}::int) as n, graphile_worker._private_tasks`
      yield* backlog(30)
      const before = yield* pagesOfClaim("step", "other", "act")
      yield* backlog(7_000)
      const after = yield* pagesOfClaim("step", "other", "act")
      expect(before).toBeGreaterThan(20)
      expect(after).toBeLessThan(before * 1.5 + 20)
    }))

  test("go-jobqueue 4: running workers find a crash, not only starting ones, and it costs the job an attempt", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      yield* start(
        { ...alone, tasks: [Act], concurrency: 1, lease: "1 second", heartbeatInterval: "200 millis" },
        Act.toLayer(({ act }) => act === "hang" ? Effect.never : Effect.void)
      )
      yield* events.next("PoolIdle")
      const child = yield* spawnWorker
      // The worker of this process neither polls nor listens: the child has the job.
      const job = yield* Queue.add(Act, { act: "kill" }, { maxAttempts: 2 })
      yield* child.line(`running ${job.id} attempt 1`)
      expect((yield* child.exit).signal).toBe("SIGKILL")
      const { recovery } = yield* events.next("PoolsReleased")
      expect(recovery).toMatchObject({ released: 1, failed: 0 })
      expect((yield* events.next("JobCompleted")).job).toMatchObject({
        id: job.id,
        attempt: 2,
        isLastAttempt: true
      })
    }))

  test("go-jobqueue 6: an idle worker stops at once, and stopping at any moment of the start neither hangs nor dies", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const idle = yield* start({ ...alone, tasks: [Step] }, done)
      yield* events.next("PoolIdle")
      yield* within(Fiber.interrupt(idle), "5 seconds", "the end of an idle worker")
      yield* Queue.addMany(Array.from({ length: 40 }, (_, n) => Step.request({ n }, { queueName: `queue ${n % 4}` })))
      const moments = Array.from({ length: 16 }, (_, n) => 8 * n)
      yield* within(
        Effect.forEach(moments, (yields) =>
          Effect.gen(function*() {
            const worker = yield* start({ tasks: [Step], concurrency: 2 }, done)
            for (let n = 0; n < yields; n++) yield* Effect.yieldNow
            yield* Fiber.interrupt(worker)
            yield* Fiber.interrupt(worker)
          }), { concurrency: 4, discard: true }),
        "20 seconds",
        "the end of all workers"
      )
      expect(yield* Queue.count({ state: "running" })).toBe(0)
      yield* start({ tasks: [Step] }, done)
      yield* drained
    }))

  test("go-jobqueue 7: a worker whose claim has failed claims again by itself", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const events = yield* Test.watch
      const job = yield* Queue.add(Step, { n: 1 })
      yield* whileJobsAreLocked(Effect.gen(function*() {
        yield* start({ ...alone, tasks: [Step] }, done)
        const [claim] = yield* eventually(waiting, { what: "the claim", until: (pids) => pids.length === 1 })
        yield* sql`select pg_terminate_backend(${claim!}::int)`
        yield* events.next("DatabaseUnavailable")
      }))
      expect((yield* events.next("JobCompleted")).job).toMatchObject({ id: job.id, attempt: 1 })
    }))
})

describe("who owns a job", () => {
  test("go-jobqueue 5: the late outcome of a worker that was given up changes nothing", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const [first, second] = [yield* Latch.make(false), yield* Latch.make(false)]
      const job = yield* Queue.add(Step, { n: 1 })
      const run = start(
        { ...alone, tasks: [Step] },
        Step.toLayer((_, job) => job.attempt === 1 ? Effect.andThen(first.await, Effect.die("late")) : second.await)
      )
      yield* run
      const { pool } = yield* events.next("JobStarted")
      yield* Queue.forceUnlock([pool])
      yield* run
      const again = yield* events.next("JobStarted")
      expect(again.job).toMatchObject({ id: job.id, attempt: 2 })
      yield* first.open
      yield* events.next("JobLost", (event) => event.pool === pool)
      expect(yield* jobOf(job.id)).toMatchObject({ state: "running", attempts: 2, lockedBy: again.pool })
      yield* second.open
      expect((yield* events.next("JobCompleted")).pool).toBe(again.pool)
      expect(yield* Queue.count()).toBe(0)
    }))

  test("go-jobqueue 5: a running job cannot be reset, so that it never runs twice at once", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const finish = yield* Latch.make(false)
      const job = yield* Queue.add(Step, { n: 1 })
      yield* start({ tasks: [Step] }, Step.toLayer(() => finish.await))
      const { pool } = yield* events.next("JobStarted")
      expect(yield* Queue.retry([job.id])).toEqual([])
      expect(yield* Queue.reschedule([job.id], { runAt: new Date(0), attempts: 0 })).toEqual([])
      expect(yield* jobOf(job.id)).toMatchObject({ state: "running", attempts: 1, lockedBy: pool })
      yield* finish.open
      yield* events.next("JobCompleted")
    }))

  test("go-jobqueue 12: a shutdown gives one attempt back, and not all that have failed", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const job = yield* Queue.add(Step, { n: 1 })
      const worker = yield* start(
        { ...alone, tasks: [Step], shutdownTimeout: 0 },
        Step.toLayer((_, job) => job.attempt < 3 ? Effect.die(`attempt ${job.attempt}`) : Effect.never, {
          retry: Retry.after("10 millis")
        })
      )
      yield* events.next("JobStarted", (event) => event.job.attempt === 3)
      yield* Fiber.interrupt(worker)
      yield* events.next("JobReleased")
      expect(yield* jobOf(job.id)).toMatchObject({ attempts: 2, lockedBy: undefined })
      expect((yield* jobOf(job.id)).lastError).toContain("attempt 2")
    }))

  test("go-jobqueue 13: the jobs of one transaction run in the order in which they were added", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const ran: Array<number> = []
      yield* sql.withTransaction(Effect.gen(function*() {
        for (let n = 0; n < 10; n++) yield* Queue.add(Step, { n })
        yield* Queue.addMany(Array.from({ length: 40 }, (_, n) => Step.request({ n: 10 + n })))
        for (let n = 50; n < 60; n++) yield* Queue.add(Step, { n })
      }))
      const created = (yield* Queue.list()).map((job) => job.createdAt.epochMilliseconds)
      expect(new Set(created).size).toBe(1)
      yield* Worker.runOnce({ ...unpolled, tasks: [Step], concurrency: 1 }).pipe(
        Effect.provide(Step.toLayer(({ n }) => Effect.sync(() => void ran.push(n))))
      )
      expect(ran).toEqual(Array.from({ length: 60 }, (_, n) => n))
    }))
})

describe("listeners and services", () => {
  test("go-jobqueue 8: each outcome is told once, by the worker that ran the job, with the job and without a query", () =>
    Effect.gen(function*() {
      // Fresh, as another process has it.
      const another = yield* Layer.build(Layer.fresh(KongTask.layer()))
      const watches = [yield* Test.watch, yield* Effect.provideContext(Test.watch, another)]
      const { count, traced } = countStatements()
      const gate = yield* Latch.make(false)
      yield* Queue.addMany(steps(200))
      const run = start(
        { tasks: [Step], concurrency: 5 },
        Step.toLayer(({ n }) => n < 10 ? gate.await : Effect.yieldNow)
      )
      const workers = [yield* traced(run), yield* traced(Effect.provideContext(run, another))]
      for (const { next } of watches) yield* next("JobStarted")
      yield* gate.open
      yield* drained
      yield* Fiber.interruptAll(workers)
      const told = yield* Effect.forEach(
        watches,
        ({ rest }) =>
          Effect.map(rest, (events) => events.flatMap((event) => event._tag === "JobCompleted" ? [event.job.id] : []))
      )
      expect(told.every((ids) => ids.length > 0)).toBe(true)
      expect(told.flat()).toHaveLength(200)
      expect(new Set(told.flat()).size).toBe(200)
      expect(count("kongtask_jobs")).toBe(0)
    }))

  test("go-jobqueue 9: listeners and retry policies end with their scope, whatever they are", () =>
    Effect.gen(function*() {
      const { events } = yield* Worker.Worker
      const heard: Array<WorkerEvent.WorkerEvent> = []
      const listener = yield* events.pipe(
        Stream.runForEach((event) => Effect.sync(() => void heard.push(event))),
        Effect.forkScoped({ startImmediately: true })
      )
      yield* Fiber.interrupt(listener)
      const [one, two] = yield* Queue.addMany(steps(2))
      const dies = (retry: Retry.Decision) =>
        Worker.runOnce({ ...unpolled, tasks: [Step], concurrency: 1 }).pipe(
          Effect.provide(Step.toLayer(() => Effect.die("no"), { retry }))
        )
      expect(yield* dies(Retry.after("1 hour"))).toMatchObject({ completed: 0, failed: 0 })
      yield* Queue.reschedule([two!.id], { runAt: new Date(0) })
      expect(yield* dies(Retry.never)).toMatchObject({ completed: 0, failed: 1 })
      expect([(yield* jobOf(one!.id)).state, (yield* jobOf(two!.id)).state]).toEqual(["retrying", "failed"])
      expect(heard).toEqual([])
    }))

  it.live("go-jobqueue 10: one process has as many queues as it likes, each on its database", () =>
    Effect.gen(function*() {
      const open = Effect.gen(function*() {
        const context = yield* Layer.build(Test.layer())
        const ran: Array<number> = []
        const handler = Step.toLayer(({ n }) => Effect.sync(() => void ran.push(n)))
        return {
          add: (n: number) => Effect.provideContext(Queue.add(Step, { n }), context),
          run: Effect.provideContext(Effect.provide(Worker.runOnce({ ...unpolled, tasks: [Step] }), handler), context),
          ran
        }
      })
      const [one, two] = [yield* open, yield* open]
      expect((yield* one.add(1)).id).toBe("1")
      expect((yield* two.add(2)).id).toBe("1")
      yield* Effect.all([one.run, two.run], { concurrency: 2 })
      expect([one.ran, two.ran]).toEqual([[1], [2]])
    }).pipe(Effect.scoped))
})

describe("what is kept, and what comes by itself", () => {
  test("go-jobqueue 14: a completed job leaves nothing behind, and failed ones of any queue can be cleared up", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* Queue.addMany([1, 2, 3, 4].map((n) => Step.request({ n }, { queueName: n % 2 === 0 ? "q" : undefined })))
      const summary = yield* Worker.runOnce({ ...unpolled, tasks: [Step] }).pipe(
        Effect.provide(Step.toLayer(({ n }) => n < 3 ? Effect.void : Effect.die("no"), { retry: Retry.never }))
      )
      expect(summary).toMatchObject({ completed: 2, failed: 2 })
      expect(yield* Queue.count()).toBe(2)
      expect(yield* Queue.cleanup({ failedJobs: 0, queues: true, tasks: true })).toEqual({
        failedJobs: 2,
        queues: 1,
        tasks: 1
      })
      const [left] = yield* sql<{ count: number }>`
        select ((select count(*) from graphile_worker._private_jobs)
          + (select count(*) from graphile_worker._private_job_queues))::int as count`
      expect(left!.count).toBe(0)
    }))

  test("go-jobqueue 15: a task without a policy backs off, and a key keeps jobs apart", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const job = yield* Queue.dedupe(Step, { n: 1 }, { key: "key" })
      expect((yield* Queue.dedupe(Step, { n: 2 }, { key: "key" })).id).toBe(job.id)
      yield* start({ tasks: [Step] }, Step.toLayer(() => Effect.die("no")))
      const { retryIn } = yield* events.next("JobFailed")
      expect(Duration.toMillis(retryIn!)).toBeGreaterThan(2_400)
      expect(Duration.toMillis(retryIn!)).toBeLessThan(3_000)
    }))

  test("go-jobqueue 15: adding many jobs notifies once", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const heard = yield* sql.listen("jobs:insert")
      yield* Queue.addMany(steps(1_000))
      yield* Queue.add(Step, { n: -1 })
      const counts = [yield* Buffer.take(heard), yield* Buffer.take(heard)].map(({ payload }) =>
        (JSON.parse(payload) as { readonly count: number }).count
      )
      expect(counts).toEqual([1_000, 1])
    }))
})
