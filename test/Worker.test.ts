import { describe, expect, it } from "@effect/vitest"
import {
  Cause,
  Context,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Latch,
  Layer,
  Option,
  Ref,
  Schema,
  type Scope
} from "effect"
import { SqlClient } from "effect/sql"
import { Job, Queue, Retry, Task, Worker } from "kongtask"
import { dedicatedServer, terminateBackends } from "./support/database.ts"
import { eventually } from "./support/events.ts"
import * as Test from "./support/kongtask.ts"

const test = <E>(
  name: string,
  effect: () => Effect.Effect<unknown, E, Layer.Success<ReturnType<typeof Test.layer>> | Scope.Scope>,
  timeout?: number
) => it.live(name, () => Effect.scoped(effect()).pipe(Effect.provide(Test.layer())), timeout)

/** A worker that only notifications, timers and outcomes wake. */
const unpolled = { pollInterval: "1 hour", handleSignals: false } as const

const Greet = Task.make("greet", {
  payload: { name: Schema.String, at: Schema.Date },
  success: Schema.Struct({ greeting: Schema.String })
})

class RateLimited extends Schema.TaggedError<RateLimited>()("RateLimited", { retryAfter: Schema.Number }) {}
class InvalidAddress extends Schema.TaggedError<InvalidAddress>()("InvalidAddress", { address: Schema.String }) {
  override get message() {
    return `${this.address} is no address`
  }
}

const Send = Task.make("send", {
  payload: { to: Schema.String },
  error: Schema.Union([RateLimited, InvalidAddress])
})

const Step = Task.make("step", { payload: { n: Schema.Int } })

/** Starts a worker in the test's scope. */
const start = <T extends Task.Any, R>(options: Worker.Options<T>, handlers: Layer.Layer<Task.ToHandler<T>, never, R>) =>
  Worker.run({ ...unpolled, ...options }).pipe(Effect.provide(handlers), Effect.forkScoped({ startImmediately: true }))

const lockedRows = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  sql<{ count: number }>`
    select (select count(*) from graphile_worker._private_jobs where locked_by is not null)::int
      + (select count(*) from graphile_worker._private_job_queues where locked_by is not null)::int
      + (select count(*) from graphile_worker._private_kongtask_pools)::int as count`).pipe(
    Effect.map(([row]) => row!.count)
  )

const jobOf = (id: Job.JobId) => Effect.map(Queue.get(id), Option.getOrThrow)

describe("a job's way through the worker", () => {
  test("hands the decoded payload to the handler and deletes the completed job", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const seen = yield* Deferred.make<readonly [{ readonly name: string; readonly at: Date }, Job.Running]>()
      const at = new Date("2026-01-02T03:04:05.678Z")
      const job = yield* Queue.add(Greet, { name: "Ada", at }, { jobKey: "greet:ada", priority: -3 })
      yield* start(
        { tasks: [Greet] },
        Greet.toLayer((payload, job) =>
          Effect.as(Deferred.succeed(seen, [payload, job] as const), { greeting: `Hello ${payload.name}` })
        )
      )
      yield* events.next("JobCompleted")

      const [payload, running] = yield* Deferred.await(seen)
      expect(payload).toEqual({ name: "Ada", at })
      expect(running).toMatchObject({
        id: job.id,
        task: "greet",
        attempt: 1,
        maxAttempts: 25,
        isLastAttempt: false,
        key: "greet:ada",
        priority: -3
      })
      expect(yield* Queue.get(job.id)).toEqual(Option.none())
    }))

  test("runs a task without a payload", () =>
    Effect.gen(function*() {
      const Tick = Task.make("tick")
      yield* Queue.add(Tick, undefined)
      const summary = yield* Worker.runOnce({ tasks: [Tick] }).pipe(Effect.provide(Tick.toLayer(() => Effect.void)))
      expect(summary).toMatchObject({ completed: 1, failed: 0 })
    }))

  test("gives each attempt a scope of its own and the handler its services", () =>
    Effect.gen(function*() {
      class Greeting extends Context.Service<Greeting, { readonly word: string }>()("test/Greeting") {}
      const log = yield* Ref.make<ReadonlyArray<string>>([])
      const note = (line: string) => Ref.update(log, (lines) => [...lines, line])
      const Handler = Step.toLayer(({ n }) =>
        Effect.gen(function*() {
          const { word } = yield* Greeting
          yield* Effect.acquireRelease(note(`${word} ${n}`), () => note(`released ${n}`))
        })
      ).pipe(Layer.provide(Layer.succeed(Greeting, { word: "hi" })))
      yield* Queue.addMany([Step.request({ n: 1 }), Step.request({ n: 2 })])
      yield* Worker.runOnce({ tasks: [Step], concurrency: 1 }).pipe(Effect.provide(Handler))
      expect(yield* Ref.get(log)).toEqual(["hi 1", "released 1", "hi 2", "released 2"])
    }))

  test("builds a handler that is made by an effect once", () =>
    Effect.gen(function*() {
      let built = 0
      let runs = 0
      const Handler = Step.toLayer(Effect.sync(() => {
        built++
        return () => Effect.sync(() => void runs++)
      }))
      yield* Queue.addMany([1, 2, 3].map((n) => Step.request({ n })))
      yield* Worker.runOnce({ tasks: [Step] }).pipe(Effect.provide(Handler))
      expect([built, runs]).toEqual([1, 3])
    }))

  test("runs at most as many handlers at once as its concurrency, and that many", () =>
    Effect.gen(function*() {
      let running = 0
      let most = 0
      const full = yield* Latch.make(false)
      const Handler = Step.toLayer(() =>
        Effect.gen(function*() {
          running++
          most = Math.max(most, running)
          if (running === 4) yield* full.open
          yield* full.await
          yield* Effect.yieldNow
          running--
        })
      )
      yield* Queue.addMany(Array.from({ length: 50 }, (_, n) => Step.request({ n })))
      const summary = yield* Worker.runOnce({ tasks: [Step], concurrency: 4 }).pipe(Effect.provide(Handler))
      expect(summary.completed).toBe(50)
      expect(most).toBe(4)
    }))

  test("is as quick with jobs on their last attempt, which are never prefetched", () =>
    Effect.gen(function*() {
      yield* Queue.addMany(
        Array.from({ length: 400 }, (_, n) => Step.request({ n }, { maxAttempts: n < 200 ? 25 : 1 }))
      )
      const events = yield* Test.watch
      const summary = yield* Worker.runOnce({ ...unpolled, tasks: [Step], concurrency: 2 }).pipe(
        Effect.provide(Step.toLayer(() => Effect.yieldNow))
      )
      expect(summary.completed).toBe(400)
      const idle = (yield* events.rest).filter((event) => event._tag === "PoolIdle")
      expect(idle.length).toBeLessThan(20)
    }))

  test("gives prefetched jobs back when the handlers before them take too long", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const gate = yield* Latch.make(false)
      yield* Queue.addMany(Array.from({ length: 3_000 }, (_, n) => Step.request({ n })))
      yield* start(
        { tasks: [Step], concurrency: 1 },
        Step.toLayer(({ n }) => n === 1_500 ? gate.await : Effect.void)
      )
      const { job } = yield* events.next("JobReleased")
      expect(yield* jobOf(job.id)).toMatchObject({ state: "ready", attempts: 0 })
      yield* gate.open
      yield* eventually(Queue.count(), { what: "the end of all jobs", until: (count) => count === 0 })
    }))

  test("keeps the order of priority, time and id at concurrency 1", () =>
    Effect.gen(function*() {
      const ran: Array<number> = []
      const Handler = Step.toLayer(({ n }) => Effect.sync(() => void ran.push(n)))
      const earlier = new Date(Date.now() - 60_000)
      yield* Queue.addMany([
        Step.request({ n: 4 }),
        Step.request({ n: 5 }),
        Step.request({ n: 3 }, { runAt: earlier }),
        Step.request({ n: 1 }, { priority: -1 }),
        Step.request({ n: 2 }, { priority: -1 }),
        Step.request({ n: 6 }, { priority: 1, runAt: earlier })
      ])
      yield* Worker.runOnce({ tasks: [Step], concurrency: 1 }).pipe(Effect.provide(Handler))
      expect(ran).toEqual([1, 2, 3, 4, 5, 6])
    }))

  test("runs the jobs of a named queue one at a time and in order, others beside them", () =>
    Effect.gen(function*() {
      const ran: Array<number> = []
      let running = 0
      const Handler = Step.toLayer(({ n }) =>
        Effect.gen(function*() {
          running++
          expect(running).toBe(1)
          yield* Effect.yieldNow
          ran.push(n)
          running--
        })
      )
      yield* Queue.addMany(Array.from({ length: 100 }, (_, n) => Step.request({ n }, { queueName: "serial" })))
      const summary = yield* Worker.runOnce({ tasks: [Step], concurrency: 10 }).pipe(Effect.provide(Handler))
      expect(summary.completed).toBe(100)
      expect(ran).toEqual(Array.from({ length: 100 }, (_, n) => n))
    }))
})

it.live("works in a schema of any name, administration included", () =>
  Effect.gen(function*() {
    const done = yield* Queue.addMany(
      [1, 2].map((n) => Step.request({ n }, { queueName: "serial", jobKey: `key ${n}` }))
    )
    const failing = yield* Queue.add(Send, { to: "nowhere" }, { maxAttempts: 1 })
    const summary = yield* Worker.runOnce({ tasks: [Step, Send] }).pipe(Effect.provide([
      Step.toLayer(() => Effect.void, { transactional: true }),
      Send.toLayer(({ to }) => Effect.fail(new InvalidAddress({ address: to })))
    ]))
    expect(summary).toMatchObject({ completed: 2, failed: 1 })
    expect(yield* Queue.get(done[0]!.id)).toEqual(Option.none())
    expect((yield* Queue.retry([failing.id])).map((job) => job.state)).toEqual(["ready"])
    expect((yield* Queue.stats()).all).toMatchObject({ ready: 1 })
    expect(Option.getOrThrow(yield* Queue.cancel(failing.id)).state).toBe("cancelled")
    yield* Queue.cleanup({ tasks: true, queues: true })
    expect(yield* Queue.count()).toBe(0)
  }).pipe(Effect.scoped, Effect.provide(Test.layer({ schema: "we\"ird Schéma" }))))

describe("failures", () => {
  test("a typed error decides its retry, and is kept while the job waits", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const limited = yield* Queue.add(Send, { to: "busy@example.org" })
      const invalid = yield* Queue.add(Send, { to: "nowhere" })
      yield* start(
        { tasks: [Send] },
        Send.toLayer(({ to }) =>
          to === "nowhere"
            ? Effect.fail(new InvalidAddress({ address: to }))
            : Effect.fail(new RateLimited({ retryAfter: 3600 })), {
          retry: Retry.byTag({
            RateLimited: (error) => Retry.after(Duration.seconds(error.retryAfter)),
            InvalidAddress: () => Retry.never
          })
        })
      )
      yield* events.many("JobFailed", 2)

      const retrying = yield* jobOf(limited.id)
      expect(retrying).toMatchObject({ state: "retrying", attempts: 1, lastError: "RateLimited", lockedBy: undefined })
      const delay = retrying.runAt.epochMilliseconds - retrying.updatedAt.epochMilliseconds
      expect(delay).toBe(3_600_000)
      expect(yield* jobOf(invalid.id)).toMatchObject({
        state: "failed",
        attempts: 25,
        maxAttempts: 25,
        lastError: "InvalidAddress: nowhere is no address"
      })
    }))

  test("retries until the attempts are used up, and wakes up for each retry by itself", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const job = yield* Queue.add(Step, { n: 1 }, { maxAttempts: 3 })
      const attempts: Array<number> = []
      yield* start(
        { tasks: [Step] },
        Step.toLayer((_, job) => Effect.suspend(() => Effect.die(attempts.push(job.attempt))), {
          retry: Retry.fixed("20 millis", { jitter: 0 })
        })
      )
      const failures = yield* events.many("JobFailed", 3)
      expect(attempts).toEqual([1, 2, 3])
      expect(failures.map((failure) => failure.retryIn === undefined)).toEqual([false, false, true])
      expect(yield* jobOf(job.id)).toMatchObject({ state: "failed", attempts: 3 })
    }))

  test("a defect is a failed attempt, and the worker goes on", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const job = yield* Queue.add(Step, { n: 0 })
      yield* start(
        { tasks: [Step], concurrency: 1 },
        Step.toLayer(({ n }) => n === 0 ? Effect.die(new Error("boom \u0000 \ud800")) : Effect.void)
      )
      yield* events.next("JobFailed")
      expect((yield* jobOf(job.id)).lastError).toMatch(/^Defect: Error: boom \u2400 \ufffd\n/)
      yield* Queue.add(Step, { n: 1 })
      yield* events.next("JobCompleted")
    }))

  test("a handler that throws or interrupts itself is a failed attempt", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      yield* Queue.addMany([Step.request({ n: 0 }), Step.request({ n: 1 })])
      yield* start(
        { tasks: [Step] },
        Step.toLayer(({ n }) => {
          if (n === 0) throw new Error("thrown")
          return Effect.interrupt
        })
      )
      const failures = yield* events.many("JobFailed", 2)
      expect(failures.map((failure) => failure.error.split("\n")[0]).toSorted()).toEqual([
        "Defect: Error: thrown",
        "The handler interrupted itself."
      ])
    }))

  test("a handler that outlives its timeout is interrupted, its finalizers run", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const finalized = yield* Deferred.make<void>()
      const job = yield* Queue.add(Step, { n: 1 })
      yield* start(
        { tasks: [Step] },
        Step.toLayer(() => Effect.onInterrupt(Effect.never, () => Deferred.succeed(finalized, undefined)), {
          timeout: "30 millis"
        })
      )
      yield* events.next("JobFailed")
      yield* Deferred.await(finalized)
      expect((yield* jobOf(job.id)).lastError).toBe("TimedOut: the handler was interrupted after 30ms")
    }))

  test("a payload that does not decode is retried, or fails for good if asked for", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const Strict = Task.make("strict", { payload: { n: Schema.Int } })
      yield* sql`select id::text from graphile_worker.add_job('step', '{"n": "one"}')`
      yield* sql`select id::text from graphile_worker.add_job('strict', '[1]')`
      const summary = yield* Worker.runOnce({ tasks: [Step, Strict] }).pipe(Effect.provide([
        Step.toLayer(() => Effect.void),
        Strict.toLayer(() => Effect.void, { onInvalidPayload: "fail" })
      ]))
      expect(summary).toMatchObject({ completed: 0, failed: 1 })
      const [retried] = yield* Queue.list({ task: Step })
      const [failed] = yield* Queue.list({ task: Strict })
      expect(retried).toMatchObject({ state: "retrying", attempts: 1 })
      expect(retried!.lastError).toMatch(/^InvalidPayload: Expected number/)
      expect(failed).toMatchObject({ state: "failed" })
    }))

  test("a result that does not encode is a failed attempt", () =>
    Effect.gen(function*() {
      const Even = Task.make("even", { success: Schema.Int.check(Schema.isMultipleOf(2)) })
      yield* Queue.add(Even, undefined)
      yield* Worker.runOnce({ tasks: [Even] }).pipe(Effect.provide(Even.toLayer(() => Effect.succeed(3))))
      const [job] = yield* Queue.list()
      expect(job!.lastError).toMatch(/^InvalidResult: /)
    }))

  test("a snooze does not count, and comes back in its time; a cancel ends the job", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const snoozed = yield* Queue.add(Step, { n: 0 }, { maxAttempts: 1, queueName: "serial" })
      const cancelled = yield* Queue.add(Step, { n: 1 })
      const attempts: Array<number> = []
      yield* start(
        { tasks: [Step] },
        Step.toLayer(({ n }, job) => {
          if (n === 1) return Job.cancel("nothing to do")
          return attempts.push(job.attempt) === 1 ? Job.snooze("50 millis") : Effect.void
        })
      )
      expect((yield* events.next("JobCompleted")).job.id).toBe(snoozed.id)
      expect(attempts).toEqual([1, 1])
      expect(yield* Queue.get(cancelled.id)).toEqual(Option.none())
    }))

  test("a snooze that nobody waits for is scheduled", () =>
    Effect.gen(function*() {
      const job = yield* Queue.add(Step, { n: 0 })
      const summary = yield* Worker.runOnce({ tasks: [Step] }).pipe(
        Effect.provide(Step.toLayer(() => Job.snooze("1 hour")))
      )
      expect(summary).toMatchObject({ completed: 0, failed: 0 })
      expect(yield* jobOf(job.id)).toMatchObject({ state: "scheduled", attempts: 0, lockedBy: undefined })
    }))

  test("a retry policy that dies is replaced by the default one", () =>
    Effect.gen(function*() {
      const job = yield* Queue.add(Step, { n: 1 })
      yield* Worker.runOnce({ tasks: [Step] }).pipe(Effect.provide(
        Step.toLayer(() => Effect.die("boom"), { retry: () => Effect.die("policy") })
      ))
      const failed = yield* jobOf(job.id)
      const delay = failed.runAt.epochMilliseconds - failed.updatedAt.epochMilliseconds
      expect(delay).toBeGreaterThan(2_400)
      expect(delay).toBeLessThan(3_000)
    }))
})

describe("waking up", () => {
  test("is told of new jobs while it is idle", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      yield* start({ tasks: [Step] }, Step.toLayer(() => Effect.void))
      yield* events.next("PoolListening")
      yield* events.next("PoolIdle")
      yield* Queue.add(Step, { n: 1 })
      yield* events.next("JobCompleted")
    }))

  test("wakes up when the next job is due", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      yield* start({ tasks: [Step], listen: false }, Step.toLayer(() => Effect.void))
      yield* Queue.add(Step, { n: 1 }, { delay: "300 millis" })
      const sleeper = yield* start({ tasks: [Step], listen: false }, Step.toLayer(() => Effect.void))
      yield* events.next("JobCompleted")
      yield* Fiber.interrupt(sleeper)
    }))

  test("polls where it cannot listen", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      yield* start({ tasks: [Step], listen: false, pollInterval: "20 millis" }, Step.toLayer(() => Effect.void))
      yield* events.next("PoolIdle")
      yield* Queue.add(Step, { n: 1 })
      yield* events.next("JobCompleted")
    }))

  test("listens again after its connections were ended, and misses nothing", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      yield* start({ tasks: [Step] }, Step.toLayer(() => Effect.void))
      yield* events.next("PoolListening")
      yield* events.next("PoolIdle")
      yield* terminateBackends("kongtask")
      yield* Queue.add(Step, { n: 1 })
      yield* events.next("JobCompleted")
      yield* events.rest
      yield* terminateBackends("kongtask")
      yield* events.next("PoolListening")
    }))
})

describe("transactional handlers", () => {
  const ledger = Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql`create table ledger (n int not null, attempt int not null)`
    return {
      write: (n: number, attempt: number) => Effect.orDie(sql`insert into ledger values (${n}, ${attempt})`),
      rows: sql<{ n: number; attempt: number }>`select n, attempt from ledger order by n, attempt`
    }
  })

  test("commit their writes and the completion of the job together", () =>
    Effect.gen(function*() {
      const { rows, write } = yield* ledger
      yield* Queue.addMany(
        Array.from({ length: 50 }, (_, n) => Step.request({ n }, { queueName: n % 2 === 0 ? "q" : undefined }))
      )
      const summary = yield* Worker.runOnce({ tasks: [Step], concurrency: 5 }).pipe(
        Effect.provide(Step.toLayer(({ n }, job) => write(n, job.attempt), { transactional: true }))
      )
      expect(summary).toMatchObject({ completed: 50, failed: 0 })
      expect((yield* rows).map((row) => row.n)).toEqual(Array.from({ length: 50 }, (_, n) => n))
      expect(yield* lockedRows).toBe(0)
    }))

  test("roll back what a failed attempt wrote, and record its failure", () =>
    Effect.gen(function*() {
      const { rows, write } = yield* ledger
      const events = yield* Test.watch
      const job = yield* Queue.add(Step, { n: 1 })
      yield* start(
        { tasks: [Step] },
        Step.toLayer(
          ({ n }, job) => Effect.andThen(write(n, job.attempt), job.attempt === 1 ? Effect.die("first") : Effect.void),
          { transactional: true, retry: Retry.after("10 millis") }
        )
      )
      const failed = yield* events.next("JobFailed")
      expect(failed.error).toContain("first")
      expect((yield* events.next("JobCompleted")).job).toMatchObject({ id: job.id, attempt: 2 })
      expect(yield* rows).toEqual([{ n: 1, attempt: 2 }])
    }))

  test("write nothing for a job that was taken away in the meantime", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const { rows, write } = yield* ledger
      const events = yield* Test.watch
      const finish = yield* Latch.make(false)
      yield* Queue.add(Step, { n: 1 })
      yield* start(
        { tasks: [Step] },
        Step.toLayer(({ n }, job) => Effect.andThen(write(n, job.attempt), finish.await), { transactional: true })
      )
      yield* events.next("JobStarted")
      yield* sql`update graphile_worker._private_jobs set locked_by = 'pool-000000000000000000'`
      yield* finish.open
      yield* events.next("JobLost")
      expect(yield* rows).toEqual([])
      expect(yield* Queue.count()).toBe(1)
    }))

  test("have their effects exactly once, however often the connections are ended", () =>
    Effect.gen(function*() {
      const { rows, write } = yield* ledger
      const events = yield* Test.watch
      yield* Queue.addMany(Array.from({ length: 300 }, (_, n) => Step.request({ n })))
      yield* start(
        { tasks: [Step], concurrency: 8 },
        Step.toLayer(({ n }, job) => Effect.andThen(write(n, job.attempt), Effect.yieldNow), {
          transactional: true,
          retry: Retry.after("10 millis")
        })
      )
      for (let round = 0; round < 5; round++) {
        yield* events.many("JobCompleted", 40)
        yield* terminateBackends()
      }
      yield* eventually(Queue.count(), { what: "the end of all jobs", until: (count) => count === 0 })
      // The pool may still hand out a connection that was ended.
      expect((yield* eventually(rows)).map((row) => row.n)).toEqual(Array.from({ length: 300 }, (_, n) => n))
    }))
})

describe("cancelling", () => {
  test("ends waiting jobs at once, prefetched ones before they start, and running ones by interruption", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const gate = yield* Latch.make(false)
      const finalized = yield* Deferred.make<void>()
      const running = yield* Queue.add(Step, { n: 0 })
      yield* start(
        { tasks: [Step], concurrency: 1 },
        Step.toLayer(({ n }) =>
          n === 0
            ? Effect.onInterrupt(Effect.never, () => Effect.andThen(gate.await, Deferred.succeed(finalized, undefined)))
            : Effect.void
        )
      )
      yield* events.next("JobStarted")
      const waiting = yield* Queue.add(Step, { n: 1 })
      expect(Option.getOrThrow(yield* Queue.cancel(waiting.id)).state).toBe("cancelled")
      expect(Option.getOrThrow(yield* Queue.cancel(running.id)).state).toBe("running")
      yield* gate.open
      expect((yield* events.next("JobCancelled")).job.id).toBe(running.id)
      yield* Deferred.await(finalized)
      expect(yield* Queue.count()).toBe(0)
      expect(yield* Queue.cancel(running.id)).toEqual(Option.none())
    }))

  test("inside a transaction that is rolled back asks for nothing", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const events = yield* Test.watch
      const finish = yield* Latch.make(false)
      const job = yield* Queue.add(Step, { n: 0 })
      yield* start({ tasks: [Step] }, Step.toLayer(() => finish.await))
      yield* events.next("JobStarted")
      yield* sql.withTransaction(Effect.andThen(Queue.cancel(job.id), Effect.fail("rolled back"))).pipe(Effect.ignore)
      yield* finish.open
      yield* events.next("JobCompleted")
    }))
})

describe("shutdown", () => {
  test("waits for the running handlers and records their outcomes", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const finish = yield* Latch.make(false)
      const done = yield* Queue.add(Step, { n: 1 })
      const waiting = yield* Queue.add(Step, { n: 2 })
      const worker = yield* start({ tasks: [Step], concurrency: 1 }, Step.toLayer(() => finish.await))
      yield* events.next("JobStarted")
      yield* Effect.forkScoped(Fiber.interrupt(worker), { startImmediately: true })
      yield* events.next("PoolStopping", (event) => event.running === 1)
      yield* finish.open
      yield* events.next("JobCompleted", (event) => event.job.id === done.id)
      yield* events.next("PoolStopped")
      expect(yield* jobOf(waiting.id)).toMatchObject({ state: "ready", attempts: 0 })
      expect(yield* lockedRows).toBe(0)
    }))

  test("interrupts handlers that take too long and gives their jobs back uncharged", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const finalized = yield* Deferred.make<void>()
      const job = yield* Queue.add(Step, { n: 1 }, { queueName: "held" })
      const worker = yield* start(
        { tasks: [Step], shutdownTimeout: "20 millis" },
        Step.toLayer(() => Effect.onInterrupt(Effect.never, () => Deferred.succeed(finalized, undefined)))
      )
      yield* events.next("JobStarted")
      yield* Fiber.interrupt(worker)
      yield* Deferred.await(finalized)
      yield* events.next("JobReleased")
      expect(yield* jobOf(job.id)).toMatchObject({ state: "ready", attempts: 0, lastError: undefined })
      expect(yield* lockedRows).toBe(0)
    }))

  test("leaves nothing locked when interrupted at any moment under load", () =>
    Effect.gen(function*() {
      const ran = new Map<number, number>()
      const Handler = Step.toLayer(({ n }) =>
        Effect.andThen(Effect.yieldNow, Effect.sync(() => void ran.set(n, (ran.get(n) ?? 0) + 1)))
      )
      yield* Queue.addMany(
        Array.from({ length: 2_000 }, (_, n) =>
          Step.request({ n }, { queueName: n % 4 === 0 ? `q${n % 16}` : undefined }))
      )
      for (let round = 0; (yield* Queue.count()) > 0; round++) {
        const events = yield* Test.watch
        const worker = yield* start({ tasks: [Step], concurrency: 7 }, Handler)
        let left = 1 + 37 * round
        yield* events.until((event) =>
          event._tag === "PoolIdle" || (event._tag === "JobStarted" && --left === 0)
        )
        yield* Fiber.interrupt(worker)
        expect(yield* lockedRows).toBe(0)
      }
      expect(ran.size).toBe(2_000)
      expect([...ran.values()].every((times) => times === 1)).toBe(true)
    }))

  test("drops the events of nobody: an interrupted worker ends with an interruption only", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const worker = yield* start({ tasks: [Step] }, Step.toLayer(() => Effect.void))
      yield* events.next("PoolIdle")
      yield* Fiber.interrupt(worker)
      const exit = yield* Fiber.await(worker)
      expect(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)).toBe(true)
    }))
})

describe("trouble with the database", () => {
  test("finished jobs stay finished when every connection is ended at once", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const ran = new Map<number, number>()
      const gate = yield* Latch.make(false)
      yield* Queue.addMany(Array.from({ length: 200 }, (_, n) => Step.request({ n })))
      yield* start(
        { tasks: [Step], concurrency: 20 },
        Step.toLayer(({ n }) => Effect.andThen(gate.await, Effect.sync(() => void ran.set(n, (ran.get(n) ?? 0) + 1))))
      )
      yield* events.many("JobStarted", 20)
      yield* terminateBackends("kongtask")
      yield* gate.open
      yield* eventually(Queue.count(), { what: "the end of all jobs", until: (count) => count === 0 })
      expect(ran.size).toBe(200)
      expect([...ran.values()].every((times) => times === 1)).toBe(true)
    }))

  test("a pool that was declared dead interrupts its handlers and goes on as a new one", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const events = yield* Test.watch
      const job = yield* Queue.add(Step, { n: 1 })
      const interrupted = yield* Deferred.make<number>()
      yield* start(
        { tasks: [Step], lease: "1 second", heartbeatInterval: "100 millis" },
        Step.toLayer((_, job) =>
          job.attempt === 1
            ? Effect.onInterrupt(Effect.never, () => Deferred.succeed(interrupted, job.attempt))
            : Effect.void
        )
      )
      const { pool } = yield* events.next("JobStarted")
      yield* events.next("PoolIdle")
      yield* sql`
        with pool as (delete from graphile_worker._private_kongtask_pools)
        update graphile_worker._private_jobs set locked_by = null, locked_at = null`
      yield* events.next("PoolLost", (event) => event.pool === pool)
      yield* Deferred.await(interrupted)
      const completed = yield* events.next("JobCompleted")
      expect(completed.pool).not.toBe(pool)
      expect(completed.job).toMatchObject({ id: job.id, attempt: 2 })
    }))

  test("frees the named queue of a job that was unlocked by hand", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const events = yield* Test.watch
      const finish = yield* Latch.make(false)
      yield* Queue.addMany([1, 2].map((n) => Step.request({ n }, { queueName: "serial" })))
      yield* start({ tasks: [Step] }, Step.toLayer(({ n }) => n === 1 ? finish.await : Effect.void))
      yield* events.next("JobStarted")
      yield* sql`delete from graphile_worker._private_jobs where locked_by is not null`
      yield* finish.open
      yield* events.next("JobLost")
      yield* events.next("JobCompleted")
      expect(yield* Queue.count()).toBe(0)
    }))

  test("an infinite snooze is a long one, and an error that cannot be described is recorded all the same", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const snoozed = yield* Queue.add(Step, { n: 0 })
      const failing = yield* Queue.add(Step, { n: 1 })
      yield* start(
        { tasks: [Step] },
        Step.toLayer(({ n }) =>
          n === 0 ? Job.snooze(Duration.infinity) : Effect.die({
            get message() {
              throw new Error("no message")
            }
          })
        )
      )
      yield* events.next("JobFailed")
      expect(yield* jobOf(failing.id)).toMatchObject({ state: "retrying", lockedBy: undefined })
      yield* eventually(jobOf(snoozed.id), { until: (job) => job.state === "scheduled" })
    }))

  test("runs a job whose payload is larger than the driver reads by default", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const Big = Task.make("big", { payload: { text: Schema.String } })
      yield* sql`
        select id::text from graphile_worker.add_job('big', json_build_object('text', repeat('x', 17 * 1024 * 1024)))`
      const summary = yield* Worker.runOnce({ tasks: [Big] }).pipe(Effect.provide(Big.toLayer(() => Effect.void)))
      expect(summary.completed).toBe(1)
    }))

  test("notices that its lease is lost while handlers have their time to end", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const events = yield* Test.watch
      yield* Queue.add(Step, { n: 1 })
      const interrupted = yield* Deferred.make<void>()
      const worker = yield* start(
        { tasks: [Step], lease: "1 second", heartbeatInterval: "100 millis", shutdownTimeout: "1 minute" },
        Step.toLayer(() => Effect.onInterrupt(Effect.never, () => Deferred.succeed(interrupted, undefined)))
      )
      yield* events.next("JobStarted")
      yield* Effect.forkScoped(Fiber.interrupt(worker), { startImmediately: true })
      yield* events.next("PoolStopping")
      yield* sql`delete from graphile_worker._private_kongtask_pools`
      yield* events.next("PoolLost")
      yield* Deferred.await(interrupted)
    }))

  test("gives up statements that get no answer, and goes on when they do", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const events = yield* Test.watch
      const job = yield* Queue.add(Step, { n: 1 })
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* sql`lock table graphile_worker._private_jobs in access exclusive mode`
        yield* start(
          { tasks: [Step], lease: "1 second", heartbeatInterval: "100 millis" },
          Step.toLayer(() => Effect.void)
        )
        const { error } = yield* events.next("DatabaseUnavailable")
        expect(error.message).toContain("no answer within 500ms")
      }))
      expect((yield* events.next("JobCompleted")).job).toMatchObject({ id: job.id, attempt: 1 })
    }))

  test("warns when the event loop was blocked for so long that the lease was at risk", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      yield* Queue.add(Step, { n: 1 })
      yield* start(
        { tasks: [Step], lease: "1 second", heartbeatInterval: "100 millis" },
        Step.toLayer(() =>
          Effect.sync(() => {
            const end = performance.now() + 600
            while (performance.now() < end);
          })
        )
      )
      const { blocked } = yield* events.next("PoolBlocked")
      expect(Duration.toMillis(blocked)).toBeGreaterThan(250)
    }))

  test("the outcome of a job that was taken away is not recorded", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const events = yield* Test.watch
      const finish = yield* Latch.make(false)
      const job = yield* Queue.add(Step, { n: 1 })
      yield* start({ tasks: [Step] }, Step.toLayer(() => finish.await))
      yield* events.next("JobStarted")
      yield* sql`update graphile_worker._private_jobs set locked_by = 'pool-000000000000000000'`
      yield* finish.open
      yield* events.next("JobLost")
      expect(yield* jobOf(job.id)).toMatchObject({ lockedBy: "pool-000000000000000000" })
    }))

  it.live(
    "keeps outcomes through a crash of the server and records them when it is back",
    () =>
      Effect.gen(function*() {
        const server = yield* dedicatedServer
        yield* Effect.gen(function*() {
          const events = yield* Test.watch
          const gate = yield* Latch.make(false)
          let runs = 0
          yield* Queue.addMany(Array.from({ length: 30 }, (_, n) => Step.request({ n })))
          yield* start(
            { tasks: [Step], concurrency: 10 },
            Step.toLayer(() => Effect.andThen(gate.await, Effect.sync(() => void runs++)))
          )
          yield* events.many("JobStarted", 10)
          yield* server.stop("immediate")
          yield* gate.open
          yield* events.next("DatabaseUnavailable")
          yield* server.start
          yield* events.many("JobCompleted", 30)
          expect(runs).toBe(30)
          expect(yield* Queue.count()).toBe(0)
        }).pipe(Effect.provide(Test.layerOn(server.config)))
      }).pipe(Effect.scoped),
    60_000
  )
})

describe("settings", () => {
  const Handler = Step.toLayer(() => Effect.void)
  const refused = (options: Omit<Worker.Options<typeof Step>, "tasks">, message: RegExp) =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Worker.runOnce({ tasks: [Step], ...options }))
      expect(error.reason._tag).toBe("InvalidConfiguration")
      expect(error.message).toMatch(message)
    })

  test("says which setting is out of its bounds", () =>
    Effect.gen(function*() {
      yield* refused({ concurrency: 0 }, /concurrency must be a whole number from 1 to 10000, not 0/)
      yield* refused({ concurrency: 2.5 }, /concurrency .* not 2\.5/)
      yield* refused({ pollInterval: 1 }, /pollInterval must be a finite duration of at least 10ms/)
      yield* refused({ lease: "10 millis" }, /lease must be a finite duration of at least 1s/)
      yield* refused({ lease: "3 seconds", heartbeatInterval: "2 seconds" }, /heartbeatInterval .* third of the lease/)
      const twice = yield* Effect.flip(Worker.runOnce({ tasks: [Step, Step] }))
      expect(twice.message).toMatch(/tasks names the task "step" twice/)
      const none = yield* Effect.flip(Worker.runOnce({ tasks: [] }))
      expect(none.message).toMatch(/tasks must name at least one task/)
    }).pipe(Effect.provide(Handler)))

  test("Worker.layer runs a worker beside the program and stops it with the layer", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      yield* Effect.gen(function*() {
        yield* Queue.add(Step, { n: 1 })
        yield* events.next("JobCompleted")
      }).pipe(Effect.provide(Worker.layer({ tasks: [Step] }).pipe(Layer.provide(Handler))))
      yield* events.next("PoolStopped")
      expect(yield* lockedRows).toBe(0)
    }))

  test("uses at most four connections of its own, whatever its concurrency", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const events = yield* Test.watch
      yield* Queue.addMany(Array.from({ length: 500 }, (_, n) => Step.request({ n })))
      let most = 0
      const count = sql<{ count: number }>`
        select count(*)::int as count from pg_stat_activity
        where datname = current_database() and application_name = 'kongtask'`
      yield* start(
        { tasks: [Step], concurrency: 100 },
        Step.toLayer(({ n }) =>
          n % 50 === 0
            ? count.pipe(Effect.map(([row]) => void (most = Math.max(most, row!.count))), Effect.orDie)
            : Effect.yieldNow
        )
      )
      yield* events.many("JobCompleted", 500)
      expect(most).toBeGreaterThan(0)
      expect(most).toBeLessThanOrEqual(4)
    }))
})

describe("forbidden flags", () => {
  test("leave jobs to others: a list of them", () =>
    Effect.gen(function*() {
      yield* Queue.add(Step, { n: 1 }, { flags: ["slow", "mail"] })
      yield* Queue.add(Step, { n: 2 }, { flags: ["mail"] })
      yield* Queue.add(Step, { n: 3 })
      const options = { tasks: [Step], ...unpolled }
      const StepLive = Step.toLayer(() => Effect.void)
      const first = yield* Worker.runOnce({ ...options, forbiddenFlags: ["slow", "other"] }).pipe(
        Effect.provide(StepLive)
      )
      expect(first).toMatchObject({ completed: 2, failed: 0 })
      expect((yield* Queue.list()).map((job) => job.payload)).toEqual([{ n: 1 }])
      expect(yield* Worker.runOnce(options).pipe(Effect.provide(StepLive))).toMatchObject({ completed: 1, failed: 0 })
    }))

  test("are asked for anew before a claim, once the last answer is too old", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const forbidden = yield* Ref.make<ReadonlyArray<string>>(["slow"])
      const asked = yield* Ref.make(0)
      const forbiddenFlags = Effect.andThen(Ref.update(asked, (count) => count + 1), Ref.get(forbidden))
      const slow = yield* Queue.add(Step, { n: 1 }, { flags: ["slow"] })
      yield* start(
        { tasks: [Step], pollInterval: "20 millis", forbiddenFlags, forbiddenFlagsTtl: "500 millis" },
        Step.toLayer(() => Effect.void)
      )
      const quick = yield* Queue.add(Step, { n: 2 })
      expect((yield* events.next("JobCompleted")).job.id).toBe(quick.id)
      yield* Effect.sleep("700 millis")
      expect(yield* Queue.count()).toBe(1)
      yield* Ref.set(forbidden, [])
      expect((yield* events.next("JobCompleted")).job.id).toBe(slow.id)
      expect(yield* Ref.get(asked)).toBeGreaterThan(1)
      expect(yield* Ref.get(asked)).toBeLessThan(8)
    }))

  test("that never come do not keep a worker from stopping", () =>
    Effect.gen(function*() {
      const asked = yield* Deferred.make<void>()
      const forbiddenFlags = Effect.andThen(Deferred.succeed(asked, undefined), Effect.never)
      const worker = yield* Worker.run({ tasks: [Step], ...unpolled, forbiddenFlags }).pipe(
        Effect.provide(Step.toLayer(() => Effect.void)),
        Effect.forkScoped
      )
      yield* Deferred.await(asked)
      yield* Effect.timeout(Fiber.interrupt(worker), "5 seconds")
      expect(yield* lockedRows).toBe(0)
    }))

  test("that are no flags stop the worker, saying so", () =>
    Effect.gen(function*() {
      const bad = [[""], ["\u0000"], [5], "slow", Effect.succeed([""]), Effect.void]
      for (const forbiddenFlags of bad) {
        const run = Worker.runOnce({ tasks: [Step], ...unpolled, forbiddenFlags: forbiddenFlags as never })
        const error = yield* Effect.flip(Effect.provide(run, Step.toLayer(() => Effect.void)))
        expect(error.reason).toMatchObject({ _tag: "InvalidConfiguration", field: "forbiddenFlags" })
      }
      for (const forbiddenFlagsTtl of [Infinity, "soon" as never, -1]) {
        const run = Worker.runOnce({ tasks: [Step], ...unpolled, forbiddenFlags: ["a"], forbiddenFlagsTtl })
        const error = yield* Effect.flip(Effect.provide(run, Step.toLayer(() => Effect.void)))
        expect(error.reason).toMatchObject({ _tag: "InvalidConfiguration", field: "forbiddenFlagsTtl" })
      }
    }))
})
