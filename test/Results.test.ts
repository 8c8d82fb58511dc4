import { PgClient } from "@effect/sql-pg"
import { describe, expect, it } from "@effect/vitest"
import {
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  type Layer,
  Option,
  Queue as Buffer,
  Schema,
  type Scope,
  Stream
} from "effect"
import { Job, Queue, Retry, Task, Worker } from "kongtask"
import { TestDatabase } from "./support/database.ts"
import { eventually } from "./support/events.ts"
import * as Graphile from "./support/graphile.ts"
import * as Test from "./support/kongtask.ts"
import { spawnScript } from "./support/process.ts"

const test = <E>(
  name: string,
  effect: () => Effect.Effect<unknown, E, Layer.Success<ReturnType<typeof Test.layer>> | Scope.Scope>
) => it.live(name, () => Effect.scoped(effect()).pipe(Effect.provide(Test.layer({ interop: true }))), 60_000)

class Refused extends Schema.TaggedError<Refused>()("Refused", { at: Schema.Date, code: Schema.BigInt }) {}

const Compute = Task.make("compute", {
  payload: { act: Schema.Literals(["ok", "refuse", "die", "cancel", "wrong", "large", "hang"]) },
  success: Schema.Struct({ at: Schema.Date, text: Schema.String }),
  error: Refused
})

const at = new Date("2026-01-02T03:04:05Z")

const ComputeLive = Compute.toLayer(({ act }) => {
  switch (act) {
    case "ok":
      return Effect.succeed({ at, text: "a \u0000 and \ud800" })
    case "refuse":
      return Effect.fail(new Refused({ at, code: 12345678901234567890n }))
    case "die":
      return Effect.die(new Error("no way"))
    case "cancel":
      return Job.cancel("not \u0000 wanted")
    case "wrong":
      return Effect.succeed({ at: "yesterday", text: "" } as never)
    case "large":
      return Effect.succeed({ at, text: "x".repeat(1024 * 1024) })
    case "hang":
      return Effect.never
  }
}, { retry: Retry.never })

const Quick = Task.make("quick", { payload: Schema.Int, success: Schema.Int })
const Silent = Task.make("silent", { payload: Schema.Int })

const work = (options: Partial<Worker.Options<typeof Compute>> = {}) =>
  Worker.run({ tasks: [Compute], handleSignals: false, ...options }).pipe(
    Effect.provide(ComputeLive),
    Effect.forkScoped({ startImmediately: true })
  )

describe("execute", () => {
  test("answers the handler's result, or fails with the task's own error, decoded", () =>
    Effect.gen(function*() {
      yield* work()
      expect(yield* Queue.execute(Compute, { act: "ok" })).toEqual({ at, text: "a \u0000 and \ud800" })
      const error = yield* Effect.flip(Queue.execute(Compute, { act: "refuse" }))
      expect(error).toBeInstanceOf(Refused)
      expect(error).toEqual(new Refused({ at, code: 12345678901234567890n }))
    }))

  test("says what else became of the job, with all of its attempts", () =>
    Effect.gen(function*() {
      yield* work()
      const died = yield* Effect.flip(Queue.execute(Compute, { act: "die" }))
      expect(died).toMatchObject({ _tag: "JobFailed", task: "compute", attempts: [{ attempt: 1, tag: "Defect" }] })
      expect(died.message).toMatch(/has failed for good: Defect: Error: no way/)
      const refusedBySchema = yield* Effect.flip(Queue.execute(Compute, { act: "wrong" }))
      expect(refusedBySchema).toMatchObject({ _tag: "JobFailed", attempts: [{ tag: "InvalidResult" }] })
      expect(yield* Effect.flip(Queue.execute(Compute, { act: "cancel" }))).toMatchObject({
        _tag: "JobCancelled",
        reason: "not ␀ wanted"
      })
      expect(yield* Effect.flip(Queue.execute(Compute, { act: "large" }))).toMatchObject({
        _tag: "ResultNotRetained",
        state: "completed"
      })
    }))

  test("adds nothing inside a transaction, where its job could not run", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      yield* work()
      const inside = sql.withTransaction(Queue.execute(Compute, { act: "ok" }))
      expect(yield* Effect.flip(inside)).toMatchObject({ _tag: "AwaitedInTransaction" })
      const added = sql.withTransaction(
        Effect.flatMap(Queue.add(Compute, { act: "ok" }), (job) => Queue.awaitResult(Compute, job))
      )
      expect(yield* Effect.flip(added)).toMatchObject({ _tag: "AwaitedInTransaction" })
      expect(yield* Queue.count()).toBe(0)
    }))

  test("leaves the job alone when it is interrupted, or cancels it if asked to", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      yield* work()
      const left = yield* Effect.forkChild(Queue.execute(Compute, { act: "hang" }))
      const { job } = yield* events.next("JobStarted")
      yield* Fiber.interrupt(left)
      const ended = yield* Effect.forkChild(Queue.execute(Compute, { act: "hang" }, { cancelOnInterrupt: true }))
      const second = yield* events.next("JobStarted")
      yield* Fiber.interrupt(ended)
      expect((yield* events.next("JobCancelled")).job.id).toBe(second.job.id)
      expect(Option.getOrThrow(yield* Queue.get(job.id)).state).toBe("running")
    }))

  test("waits for the job that has its key, where that is left as it is", () =>
    Effect.gen(function*() {
      const options = { jobKey: "one", jobKeyMode: "dedupe" } as const
      const waits = yield* Effect.forEach([1, 2, 3], (n) => Effect.forkChild(Queue.execute(Quick, n, options)))
      yield* eventually(Queue.count(), { until: (count) => count === 1 })
      yield* Worker.run({ tasks: [Quick], handleSignals: false }).pipe(
        Effect.provide(Quick.toLayer((n) => Effect.as(Effect.sleep("200 millis"), n * 10))),
        Effect.forkScoped
      )
      const results = yield* Effect.forEach(waits, Fiber.join)
      expect(new Set(results).size).toBe(1)
      expect([10, 20, 30]).toContain(results[0])
    }))

  test("works for hundreds at once, by either lane", () =>
    Effect.gen(function*() {
      yield* Worker.run({ tasks: [Quick], concurrency: 20, handleSignals: false }).pipe(
        Effect.provide(Quick.toLayer((n) => Effect.succeed(n + 1))),
        Effect.forkScoped
      )
      const results = yield* Effect.forEach(
        Array.from({ length: 600 }, (_, n) => n),
        (n) => Queue.execute(Quick, n),
        { concurrency: "unbounded" }
      )
      expect(results).toEqual(Array.from({ length: 600 }, (_, n) => n + 1))
    }))
})

describe("awaitResult", () => {
  test("answers what is retained by the job, its task or its worker", () =>
    Effect.gen(function*() {
      const Kept = Task.make("kept", { payload: Schema.Int, success: Schema.Int, retain: "1 hour" })
      const ofJob = yield* Queue.add(Quick, 1, { retain: "1 hour" })
      const ofTask = yield* Queue.add(Kept, 2)
      const ofWorker = yield* Queue.add(Quick, 3)
      const ofNobody = yield* Queue.add(Quick, 4, { retain: 0 })
      const ofVoid = yield* Queue.add(Silent, 5)
      yield* Worker.runOnce({ tasks: [Quick, Kept, Silent], retain: "1 hour" }).pipe(
        Effect.provide([
          Quick.toLayer((n) => Effect.succeed(n)),
          Kept.toLayer((n) => Effect.succeed(n)),
          Silent.toLayer(() => Effect.succeed("something" as never))
        ])
      )
      expect(yield* Queue.awaitResult(Quick, ofJob)).toBe(1)
      expect(yield* Queue.awaitResult(Kept, ofTask.id)).toBe(2)
      expect(yield* Queue.awaitResult(Quick, ofWorker)).toBe(3)
      expect(yield* Queue.awaitResult(Silent, ofVoid)).toBeUndefined()
      expect(yield* Effect.flip(Queue.awaitResult(Quick, ofNobody))).toMatchObject({
        _tag: "ResultNotRetained",
        state: undefined
      })
    }))

  test("keeps the results of short jobs that run in batches, and of transactional ones", () =>
    Effect.gen(function*() {
      const Exact = Task.make("exact", { payload: Schema.Int, success: Schema.Int })
      const numbers = Array.from({ length: 3_000 }, (_, n) => n)
      const jobs = yield* Queue.addMany(numbers.map((n) => Quick.request(n, n % 3 === 0 ? { retain: "1 hour" } : {})))
      const exact = yield* Queue.add(Exact, 7, { retain: "1 hour" })
      yield* Worker.runOnce({ tasks: [Quick, Exact], concurrency: 10 }).pipe(
        Effect.provide([
          Quick.toLayer((n) => Effect.succeed(n * 2)),
          Exact.toLayer((n) => Effect.succeed(n * 3), { transactional: true })
        ])
      )
      const kept = yield* Effect.forEach(jobs.filter((_, n) => n % 3 === 0), (job) => Queue.awaitResult(Quick, job), {
        concurrency: 10
      })
      expect(kept).toEqual(numbers.filter((n) => n % 3 === 0).map((n) => n * 2))
      expect(yield* Queue.awaitResult(Exact, exact)).toBe(21)
    }))

  test("ends without a result for a job that keeps none, and for those that never were or are past", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const job = yield* Queue.add(Quick, 1)
      const wait = yield* Effect.forkChild(Effect.flip(Queue.awaitResult(Quick, job)))
      yield* eventually(sql`select from graphile_worker._private_kongtask_job_details where awaited`, {
        until: (rows) => rows.length === 1
      })
      yield* Worker.runOnce({ tasks: [Quick] }).pipe(Effect.provide(Quick.toLayer((n) => Effect.succeed(n))))
      expect(yield* Fiber.join(wait)).toMatchObject({ _tag: "ResultNotRetained", state: "completed" })

      const past = yield* Queue.add(Quick, 2, { retain: "1 hour" })
      yield* Worker.runOnce({ tasks: [Quick] }).pipe(Effect.provide(Quick.toLayer((n) => Effect.succeed(n))))
      yield* sql`update graphile_worker._private_kongtask_history set expires_at = now()`
      expect(yield* Effect.flip(Queue.awaitResult(Quick, past))).toMatchObject({
        _tag: "ResultNotRetained",
        state: undefined
      })
      expect(yield* Effect.flip(Queue.awaitResult(Quick, "999999" as Job.JobId))).toMatchObject({ _tag: "JobNotFound" })
      const bad = yield* Effect.flip(Queue.awaitResult(Quick, "abc" as Job.JobId))
      expect(bad.message).toMatch(/job must be the id of a job/)
      const other = yield* Queue.add(Silent, 1)
      for (const asked of [other, other.id]) {
        expect(yield* Effect.flip(Queue.awaitResult(Quick, asked as Job.Job))).toMatchObject({
          _tag: "JobNotFound",
          actual: "silent"
        })
      }
    }))

  test("ends when the job is cancelled, removed, replaced or failed by hand, and goes on over a retry", () =>
    Effect.gen(function*() {
      const add = (jobKey: string) => Queue.add(Compute, { act: "ok" }, { jobKey, delay: "1 hour", retain: "1 hour" })
      const outcomeOf = (job: Job.Job) => Effect.forkChild(Effect.flip(Queue.awaitResult(Compute, job)))
      const [cancelled, removed, replaced, failed] = yield* Effect.forEach(["a", "b", "c", "d"], add)
      const waits = yield* Effect.forEach([cancelled!, removed!, replaced!, failed!], outcomeOf)
      yield* Queue.cancel(cancelled!.id)
      yield* Queue.remove({ key: "b" })
      const again = yield* add("c")
      expect(again).toMatchObject({ id: replaced!.id, revision: 1 })
      yield* Queue.fail([failed!.id], "by hand")
      expect(yield* Effect.forEach(waits, Fiber.join)).toMatchObject([
        { _tag: "JobCancelled", reason: undefined },
        { _tag: "JobCancelled", reason: "removed" },
        { _tag: "JobCancelled", reason: "replaced by its key" },
        { _tag: "JobFailed", error: "by hand" }
      ])
      yield* Queue.retry([failed!.id, again.id])
      const late = yield* Effect.forEach([failed!, again], (job) => Effect.forkChild(Queue.awaitResult(Compute, job)))
      yield* work()
      expect(yield* Effect.forEach(late, Fiber.join)).toMatchObject([{ at }, { at }])
    }))

  test("is ended by graphile-worker too, which keeps no result", () =>
    Effect.gen(function*() {
      const { url } = yield* TestDatabase
      const sql = yield* PgClient.PgClient
      const waits = yield* Effect.forEach([Queue.execute(Quick, 1), Queue.execute(Silent, 2)], (wait) =>
        Effect.forkChild(Effect.exit(wait as Effect.Effect<unknown, unknown, Queue.Queue>)))
      yield* eventually(Queue.count(), {
        until: (count) =>
          count === 2
      })
      yield* Graphile.start({ url, sql }, { quick: async () => {}, silent: async () => {} })
      const [quick, silent] = yield* Effect.forEach(waits, Fiber.join)
      expect(Option.getOrThrow(Exit.findErrorOption(quick!))).toMatchObject({
        _tag: "ResultNotRetained",
        state: "completed"
      })
      expect(silent).toEqual(Exit.void)
    }))

  test("polls where nothing is told, and listens again when the connection was lost", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const listening = sql<{ pid: number }>`
        select pid from pg_stat_activity
        where query ilike 'listen%kongtask:watched%' and datname = current_database()`
      const watched = sql`select from graphile_worker._private_kongtask_job_details where awaited`
      const asked = Effect.gen(function*() {
        const job = yield* Queue.add(Silent, 1, { retain: "1 hour" })
        const wait = yield* Effect.forkChild(Queue.awaitResult(Silent, job))
        yield* eventually(watched, { until: (rows) => rows.length === 1 })
        return { job, wait }
      })
      const untold = yield* asked
      yield* sql`update graphile_worker._private_kongtask_job_details set awaited = false`
      yield* Queue.complete([untold.job.id])
      expect(yield* Fiber.join(untold.wait)).toBeUndefined()

      const told = yield* asked
      const [lost] = yield* eventually(listening, { until: (rows) => rows.length === 1 })
      yield* sql`select pg_terminate_backend(${lost!.pid}::int)`
      yield* eventually(listening, { until: (rows) => rows.length === 1 && rows[0]!.pid !== lost!.pid })
      yield* Queue.complete([told.job.id])
      expect(yield* Fiber.join(told.wait)).toBeUndefined()
    }))

  test("says that a stored result is of another version of the task", () =>
    Effect.gen(function*() {
      const Newer = Task.make("quick", { payload: Schema.Int, success: Schema.String })
      const job = yield* Queue.add(Quick, 1, { retain: "1 hour" })
      yield* Worker.runOnce({ tasks: [Quick] }).pipe(Effect.provide(Quick.toLayer((n) => Effect.succeed(n))))
      expect(yield* Effect.flip(Queue.awaitResult(Newer, job))).toMatchObject({
        _tag: "UndecodableOutcome",
        what: "result"
      })
    }))

  test("answers in another process than the one that runs the job", () =>
    Effect.gen(function*() {
      const { url } = yield* TestDatabase
      const child = yield* spawnScript(new URL("fixtures/answering.ts", import.meta.url), {
        env: { DATABASE_URL: url }
      })
      yield* child.line("ready")
      const Answer = Task.make("answer", { payload: Schema.Int, success: Schema.String, error: Refused })
      expect(yield* Queue.execute(Answer, 1)).toBe("1 by the other process")
      expect(yield* Effect.flip(Queue.execute(Answer, -1))).toBeInstanceOf(Refused)
      const job = yield* Queue.add(Answer, 2, { retain: "1 hour" })
      const results = yield* Effect.all([Queue.awaitResult(Answer, job), Queue.awaitResult(Answer, job.id)], {
        concurrency: 2
      })
      expect(results).toEqual(["2 by the other process", "2 by the other process"])
    }))
})

describe("retain", () => {
  test("refuses what is no time", () =>
    Effect.gen(function*() {
      for (const retain of [-1, Number.NaN, "2000000000 days" as const]) {
        const error = yield* Effect.flip(Queue.add(Quick, 1, { retain }))
        expect(error).toMatchObject({ _tag: "InvalidJob", field: "retain" })
      }
      const worker = Worker.runOnce({ tasks: [Quick], retain: -1 }).pipe(
        Effect.provide(Quick.toLayer((n) => Effect.succeed(n)))
      )
      expect((yield* Effect.flip(worker)).message).toMatch(/retain must be/)
      yield* Queue.add(Quick, 1, { retain: Duration.infinity })
      expect(yield* Queue.count()).toBe(1)
    }))
})

describe("progress", () => {
  const Copy = Task.make("copy", {
    payload: Schema.Int,
    progress: Schema.Struct({ at: Schema.Date, done: Schema.Int })
  })

  test("is what the handler reports, from the last value on, until the job stops", () =>
    Effect.gen(function*() {
      const steps = yield* Effect.forEach([1, 2, 3], () => Deferred.make<void>())
      const job = yield* Queue.add(Copy, 1)
      yield* Worker.run({ tasks: [Copy], handleSignals: false }).pipe(
        Effect.provide(Copy.toLayer((_, job) =>
          Effect.forEach(steps, (step, n) => Effect.andThen(job.report({ at, done: n }), Deferred.await(step)))
        )),
        Effect.forkScoped
      )
      const seen: Array<number> = []
      const reading = yield* Queue.progress(Copy, job).pipe(
        Stream.runForEach(({ at: time, done }) => {
          expect(time).toEqual(at)
          seen.push(done)
          return Deferred.succeed(steps[done]!, undefined)
        }),
        Effect.forkChild
      )
      yield* Fiber.join(reading)
      expect(seen).toEqual([0, 1, 2])
      expect(yield* Stream.runCollect(Queue.progress(Copy, job))).toEqual([])
    }))

  test("that comes fast is written now and then, the latest value always", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const told = yield* sql.listen("kongtask:watched")
      const job = yield* Queue.add(Copy, 1)
      yield* Worker.run({ tasks: [Copy], handleSignals: false }).pipe(
        Effect.provide(Copy.toLayer((_, job) =>
          Effect.andThen(
            Effect.forEach(Array.from({ length: 1_001 }), (_, done) => job.report({ at, done }), { discard: true }),
            Effect.never
          )
        )),
        Effect.forkScoped
      )
      const last = yield* Stream.runHead(Stream.filter(Queue.progress(Copy, job), ({ done }) => done === 1_000))
      expect(Option.isSome(last)).toBe(true)
      // One write at once, one with the last value, and one that a slow machine may have put between them.
      expect(yield* Buffer.size(told)).toBeLessThanOrEqual(3)
    }))

  test("that its schema refuses, or that is too large, fails the attempt", () =>
    Effect.gen(function*() {
      const Text = Task.make("text", { progress: Schema.String })
      const wrong = yield* Queue.add(Text, undefined)
      const TextLive = Text.toLayer(
        (_, job) => job.attempt === 1 ? job.report(1 as never) : job.report("x".repeat(70_000)),
        { retry: Retry.after(0) }
      )
      yield* Worker.runOnce({ tasks: [Text] }).pipe(Effect.provide(TextLive))
      yield* Worker.runOnce({ tasks: [Text] }).pipe(Effect.provide(TextLive))
      const attempts = yield* Queue.failedAttempts(wrong.id)
      expect(attempts[0]).toMatchObject({ tag: "Defect" })
      expect(attempts[1]!.message).toMatch(/progress must have at most 65536 bytes/)
    }))

  test("of a job that never was is an error", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Stream.runDrain(Queue.progress(Copy, "999999" as Job.JobId)))
      expect(error).toMatchObject({ _tag: "JobNotFound" })
    }))
})
