/**
 * Defects of goque (0.8.10), by their numbers in docs/lineage.md: each test
 * fails where the defect is.
 */
import { PgClient } from "@effect/sql-pg"
import { describe, expect, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Fiber, Latch, Layer, Option, Redacted, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { KongTask, Queue, Retry, Task, Worker } from "kongtask"
import { inspect } from "node:util"
import { Act } from "../fixtures/act.ts"
import * as Database from "../support/database.ts"
import { eventually, within } from "../support/events.ts"
import * as Test from "../support/kongtask.ts"
import { connect } from "../support/migrator.ts"
import {
  alone,
  collectLogs,
  countStatements,
  drained,
  held,
  jobOf,
  pagesOfClaim,
  spawnWorker,
  start,
  Step,
  test,
  unpolled
} from "./scene.ts"

const done = Step.toLayer(() => Effect.void)

const steps = (count: number) => Array.from({ length: count }, (_, n) => Step.request({ n }))

describe("fetching", () => {
  test("goque 1: a claim does not wait for jobs that another transaction has locked", () =>
    Effect.gen(function*() {
      const { config } = yield* Database.TestDatabase
      const another = yield* connect({ ...config, maxConnections: 1 })
      const events = yield* Test.watch
      const [locked] = yield* Queue.addMany(steps(20))
      yield* another.withTransaction(Effect.gen(function*() {
        yield* another`select id from graphile_worker._private_jobs where id = ${locked!.id}::text::int8 for update`
        yield* start({ ...alone, tasks: [Step] }, done)
        const ran = yield* events.many("JobCompleted", 19)
        expect(ran.map(({ job }) => job.id)).not.toContain(locked!.id)
      }))
      expect((yield* events.next("JobCompleted")).job).toMatchObject({ id: locked!.id, attempt: 1 })
    }))

  test("goque 2: a claim costs the same before 20,000 new and retried jobs, and beside as many that wait", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* Queue.add(Step, { n: 0 })
      const backlog = (count: number) =>
        sql`
          insert into graphile_worker._private_jobs (task_id, run_at, attempts, last_error)
          select id, due.run_at, n % 2, 'no'
          from generate_series(1, ${count}::int) as n, graphile_worker._private_tasks,
            lateral (values (now() - n * interval '1 second'), (now() + n * interval '1 minute')) as due (run_at)`
      yield* backlog(50)
      const before = yield* pagesOfClaim("step")
      yield* backlog(20_000)
      const after = yield* pagesOfClaim("step")
      expect(before).toBeGreaterThan(20)
      expect(after).toBeLessThan(before * 1.5 + 20)
    }))

  test("goque 3: a worker claims at once and again, and a long job keeps it from nothing", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const gate = yield* Latch.make(false)
      yield* Queue.addMany(steps(300))
      yield* start(
        { ...alone, tasks: [Step], concurrency: 2 },
        Step.toLayer(({ n }) => n === 0 ? gate.await : Effect.void)
      )
      yield* events.many("JobCompleted", 299)
      yield* gate.open
      yield* events.next("JobCompleted")
    }))

  test("goque 4: an idle worker of many tasks sends one statement a poll, on few connections", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const events = yield* Test.watch
      const tasks = Array.from({ length: 20 }, (_, n) => Task.make(`task ${n}`))
      const handlers = tasks.map((task) => task.toLayer(() => Effect.void))
      const { count, traced } = countStatements()
      const polls = 8
      const worker = yield* traced(
        start(
          { ...alone, pollInterval: "20 millis", tasks, concurrency: 50 },
          Layer.mergeAll(handlers[0]!, ...handlers)
        )
      )
      yield* events.many("PoolIdle", polls)
      const [sessions] = yield* sql<{ count: number }>`
        select count(*)::int as count from pg_stat_activity
        where datname = current_database() and application_name = 'kongtask'`
      yield* Fiber.interrupt(worker)
      const idle = (yield* events.rest).filter(({ _tag }) => _tag === "PoolIdle").length
      const claims = count("_private_kongtask_claim(")
      expect(claims).toBeGreaterThanOrEqual(polls)
      expect(claims).toBeLessThanOrEqual(polls + idle + 1)
      // One to register, one to leave, and none of each task's own.
      expect(count() - claims).toBeLessThan(10)
      expect(sessions!.count).toBeLessThanOrEqual(4)
    }))
})

describe("crashes", () => {
  test("goque 6: a handler that dies has failed at once, and frees its queue", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const [dying] = yield* Queue.addMany(
        [0, 1].map((n) => Step.request({ n }, { queueName: "serial", maxAttempts: 1 }))
      )
      yield* start({ ...alone, tasks: [Step] }, Step.toLayer(({ n }) => n === 0 ? Effect.die("boom") : Effect.void))
      yield* events.next("JobFailed")
      yield* events.next("JobCompleted")
      expect(yield* jobOf(dying!.id)).toMatchObject({ state: "failed", attempts: 1, lockedBy: undefined })
      expect((yield* jobOf(dying!.id)).lastError).toContain("boom")
    }))

  test("goque 7: a job that kills its process has failed when its attempts are used up", () =>
    Effect.gen(function*() {
      const child = yield* spawnWorker
      const job = yield* Queue.add(Act, { act: "kill" }, { maxAttempts: 1 })
      yield* child.line(`running ${job.id} attempt 1`)
      expect((yield* child.exit).signal).toBe("SIGKILL")
      const events = yield* Test.watch
      yield* start(
        { ...alone, tasks: [Act], lease: "1 second", heartbeatInterval: "200 millis" },
        Act.toLayer(() => Effect.void)
      )
      const { recovery } = yield* events.next("PoolsReleased")
      expect(recovery).toMatchObject({ released: 0, failed: 1 })
      expect(yield* jobOf(job.id)).toMatchObject({ state: "failed", attempts: 1 })
      expect((yield* jobOf(job.id)).lastError).toMatch(/died while it ran attempt 1/)
    }))

  test("goque 7: a job that takes longer than the lease is not run a second time", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const events = yield* Test.watch
      const finish = yield* Latch.make(false)
      const job = yield* Queue.add(Step, { n: 1 })
      const run = start(
        { tasks: [Step], lease: "1 second", heartbeatInterval: "100 millis" },
        Step.toLayer(() => finish.await)
      )
      yield* run
      const { pool } = yield* events.next("JobStarted")
      yield* run
      const age = sql<{ age: number }>`
        select min(extract(epoch from heartbeat_at - started_at))::float8 as age
        from graphile_worker._private_kongtask_pools`
      yield* eventually(age, { what: "both pools' life beyond a lease", until: ([row]) => row!.age > 1.2 })
      yield* finish.open
      const completed = yield* events.until((event) => "job" in event)
      expect(completed).toMatchObject({ _tag: "JobCompleted", pool, job: { id: job.id, attempt: 1 } })
    }))

  test("goque 8: a cancelled job is interrupted where it runs, and stays cancelled", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const finalized = yield* Deferred.make<void>()
      const job = yield* Queue.add(Step, { n: -1 })
      yield* start(
        { tasks: [Step], concurrency: 20 },
        Step.toLayer(({ n }) =>
          n < 0
            ? Effect.onInterrupt(Effect.never, () => Deferred.succeed(finalized, undefined))
            : Effect.yieldNow
        )
      )
      yield* events.next("JobStarted")
      expect(Option.getOrThrow(yield* Queue.cancel(job.id)).state).toBe("running")
      expect((yield* events.next("JobCancelled")).job.id).toBe(job.id)
      yield* Deferred.await(finalized)
      // At whatever moment of its life: whichever comes first, the job ends once.
      const others = yield* Queue.addMany(steps(200))
      yield* Effect.forEach(others, ({ id }) => Queue.cancel(id), { concurrency: 5, discard: true })
      yield* drained
      expect((yield* events.rest).filter(({ _tag }) => _tag === "JobFailed" || _tag === "JobLost")).toEqual([])
      expect(yield* eventually(held, { until: (count) => count === 1 })).toBe(1)
    }))

  test("goque 9: a worker may be stopped before it has begun, and what it has fetched goes back", () =>
    Effect.gen(function*() {
      const early = yield* Effect.forkScoped(
        Effect.provide(Worker.run({ ...unpolled, tasks: [Step] }), done)
      )
      yield* within(Fiber.interrupt(early), "5 seconds", "the end of a worker that has not begun")
      const events = yield* Test.watch
      const gate = yield* Latch.make(false)
      yield* Queue.addMany(steps(1_000))
      let ran = 0
      const worker = yield* start(
        { tasks: [Step], concurrency: 1 },
        Step.toLayer(({ n }) => Effect.andThen(n === 500 ? gate.await : Effect.void, Effect.sync(() => void ran++)))
      )
      yield* events.next("JobStarted", (event) => ran === 500 && event.job.attempt === 1)
      yield* Effect.forkScoped(Fiber.interrupt(worker), { startImmediately: true })
      yield* events.next("PoolStopping", (event) => event.running === 1)
      yield* gate.open
      yield* Fiber.await(worker)
      expect(ran).toBe(501)
      expect(yield* Queue.count()).toBe(499)
      expect((yield* Queue.list({ limit: 1_000 })).every((job) => job.attempts === 0 && job.state === "ready")).toBe(
        true
      )
      expect(yield* held).toBe(0)
    }))
})

describe("time and room", () => {
  const skewed = (millis: number) =>
    Effect.map(Clock.Clock, (clock): Clock.Clock => {
      const currentTimeMillisUnsafe = () => clock.currentTimeMillisUnsafe() + millis
      const currentTimeNanosUnsafe = () => clock.currentTimeNanosUnsafe() + BigInt(millis) * 1_000_000n
      return {
        currentTimeMillisUnsafe,
        currentTimeMillis: Effect.sync(currentTimeMillisUnsafe),
        currentTimeNanosUnsafe,
        currentTimeNanos: Effect.sync(currentTimeNanosUnsafe),
        monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
        monotonicTimeNanos: clock.monotonicTimeNanos,
        sleep: (duration) => clock.sleep(duration)
      }
    })

  for (const [which, hours] of [["slow", -24], ["fast", 24]] as const) {
    test(`goque 10: jobs are due by the database's clock, not by one of the program's that is ${which}`, () =>
      Effect.gen(function*() {
        const clock = yield* skewed(hours * 3_600_000)
        yield* Effect.gen(function*() {
          const later = yield* Queue.add(Step, { n: 1 }, { delay: "1 hour" })
          const now = yield* Queue.add(Step, { n: 2 }, { maxAttempts: 2 })
          const summary = yield* Worker.runOnce({ ...unpolled, tasks: [Step] }).pipe(
            Effect.provide(Step.toLayer(({ n }, job) => n === 2 && job.attempt === 1 ? Effect.die("no") : Effect.void, {
              retry: Retry.after(0)
            }))
          )
          expect(summary).toMatchObject({ completed: 1, failed: 0 })
          expect(yield* Queue.get(now.id)).toEqual(Option.none())
          expect(yield* jobOf(later.id)).toMatchObject({ state: "scheduled", attempts: 0 })
        }).pipe(Effect.provideService(Clock.Clock, clock))
      }))
  }

  test("goque 11: failed jobs stay until somebody clears them up, by their age", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* Queue.add(Step, { n: 1 }, { maxAttempts: 1 })
      yield* Worker.runOnce({ ...unpolled, tasks: [Step] }).pipe(Effect.provide(Step.toLayer(() => Effect.die("no"))))
      yield* sql`
        update graphile_worker._private_jobs
        set updated_at = now() - interval '1 year', run_at = now() - interval '1 year'`
      yield* Worker.runOnce({ ...unpolled, tasks: [Step] }).pipe(Effect.provide(done))
      expect(yield* Queue.cleanup({ tasks: true, queues: true })).toMatchObject({ failedJobs: 0 })
      expect(yield* Queue.cleanup({ failedJobs: "400 days" })).toMatchObject({ failedJobs: 0 })
      expect(yield* Queue.count({ state: "failed" })).toBe(1)
      expect(yield* Queue.cleanup({ failedJobs: "300 days" })).toMatchObject({ failedJobs: 1 })
    }))

  test("goque 12: the recorded error is the last one, and bounded", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const job = yield* Queue.add(Step, { n: 1 }, { maxAttempts: 4 })
      yield* start(
        { ...alone, tasks: [Step] },
        Step.toLayer((_, job) => Effect.die(`attempt ${job.attempt} ${"x".repeat(1_000_000)}`), {
          retry: Retry.after(0)
        })
      )
      yield* events.many("JobFailed", 4)
      const { lastError } = yield* jobOf(job.id)
      expect(lastError).toContain("attempt 4")
      expect(lastError).not.toContain("attempt 3")
      expect(lastError!.length).toBeLessThanOrEqual(10_000)
      const attempts = yield* Queue.failedAttempts(job.id)
      expect(attempts.map(({ attempt, message }) => [attempt, message.length <= 10_000])).toEqual(
        [1, 2, 3, 4].map((attempt) => [attempt, true])
      )
    }))

  test("goque 14: a key is unique while its job is active, and free afterwards", () =>
    Effect.gen(function*() {
      const reject = { jobKey: "order 1", jobKeyMode: "reject" } as const
      const first = yield* Queue.add(Step, { n: 1 }, reject)
      const refused = yield* Effect.flip(Queue.add(Step, { n: 2 }, reject))
      expect(refused).toMatchObject({ _tag: "DuplicateJobKey", existing: first.id, state: "ready" })
      yield* Worker.runOnce({ ...unpolled, tasks: [Step] }).pipe(Effect.provide(done))
      const second = yield* Queue.add(Step, { n: 3 }, reject)
      expect(second.id).not.toBe(first.id)
    }))

  test("goque 14: a failed job does not keep a key from those that dedupe, as it does with unsafe_dedupe", () =>
    Effect.gen(function*() {
      const failed = yield* Queue.add(Step, { n: 1 }, { jobKey: "key" })
      yield* Queue.fail([failed.id])
      const unsafe = yield* Queue.add(Step, { n: 2 }, { jobKey: "key", jobKeyMode: "unsafe_dedupe" })
      expect(unsafe).toMatchObject({ id: failed.id, state: "failed" })
      const fresh = yield* Queue.dedupe(Step, { n: 3 }, { key: "key" })
      expect(fresh).toMatchObject({ state: "ready", payload: { n: 3 } })
      expect(fresh.id).not.toBe(failed.id)
      expect(yield* jobOf(failed.id)).toMatchObject({ state: "failed", key: undefined })
    }))
})

describe("secrets and lists", () => {
  it.live("goque 15: no error and no log tells the password", () => {
    const { layer, lines } = collectLogs()
    return Effect.gen(function*() {
      const { url } = yield* Database.freshDatabase()
      for (const change of [{ password: "s3cret-w0rd" }, { password: "s3cret-w0rd", port: "1" }]) {
        const address = Object.assign(new URL(url), change)
        const failure = yield* Layer.build(
          Layer.provide(KongTask.layer(), PgClient.layer({ url: Redacted.make(address.href) }))
        ).pipe(
          Effect.tapCause((cause) => Effect.logError("It failed.", cause)),
          Effect.flip
        )
        yield* Effect.logError(
          JSON.stringify(failure),
          String(failure),
          inspect(failure, { depth: 10, showHidden: true })
        )
      }
      expect(lines).toHaveLength(4)
      expect(lines.join()).not.toContain("s3cret")
    }).pipe(Effect.provide(layer), Effect.scoped)
  })

  test("goque 15: a list is a page, and a stream reads page by page", () =>
    Effect.gen(function*() {
      yield* Queue.addMany(steps(1_500))
      expect(yield* Queue.list()).toHaveLength(100)
      const { count, traced } = countStatements()
      const first = yield* traced(Queue.stream().pipe(Stream.take(10), Stream.runCollect))
      expect(first).toHaveLength(10)
      expect(count()).toBe(1)
      expect(yield* Queue.stream().pipe(Stream.runFold(() => 0, (sum) => sum + 1))).toBe(1_500)
    }))
})
