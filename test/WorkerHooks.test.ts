import { describe, expect, it } from "@effect/vitest"
import { Context, Deferred, Duration, Effect, Layer, Option, Ref, Schema, type Scope, Stream } from "effect"
import { Job, Queue, Retry, Task, Worker } from "kongtask"
import { eventually } from "./support/events.ts"
import * as Test from "./support/kongtask.ts"

const test = <E>(
  name: string,
  effect: () => Effect.Effect<unknown, E, Layer.Success<ReturnType<typeof Test.layer>> | Scope.Scope>
) => it.live(name, () => Effect.scoped(effect()).pipe(Effect.provide(Test.layer())))

class Refused extends Schema.TaggedError<Refused>()("Refused", { at: Schema.Date, code: Schema.BigInt }) {}

const Step = Task.make("step", {
  payload: { act: Schema.Literals(["ok", "fail", "die", "snooze", "cancel"]) },
  error: Refused
})

const at = new Date("2026-01-02T03:04:05Z")
const StepLive = Step.toLayer(({ act }) => {
  switch (act) {
    case "ok":
      return Effect.void
    case "fail":
      return Effect.fail(new Refused({ at, code: 12345678901234567890n }))
    case "die":
      return Effect.die(new Error("no way"))
    case "snooze":
      return Job.snooze("1 hour")
    case "cancel":
      return Job.cancel("not wanted")
  }
}, { retry: Retry.after("1 hour") })

/** Calls of hooks, in their order. */
class Log extends Context.Service<Log, Ref.Ref<ReadonlyArray<string>>>()("test/Log") {
  static readonly layer = Layer.effect(Log, Ref.make<ReadonlyArray<string>>([]))
}
const log = (line: string) => Effect.flatMap(Log, Ref.update((lines) => [...lines, line]))

describe("hooks", () => {
  test("run before, around and after each attempt, with services of their own", () =>
    Effect.gen(function*() {
      for (const act of ["ok", "fail", "snooze", "cancel"] as const) yield* Queue.add(Step, { act })
      yield* Worker.runOnce({
        tasks: [Step],
        concurrency: 1,
        hooks: {
          before: (job) => log(`before ${job.task} ${job.attempt}`),
          around: (attempt) => log("in").pipe(Effect.andThen(attempt), Effect.ensuring(log("out"))),
          after: (_, outcome) => log(outcome._tag)
        }
      }).pipe(Effect.provide(StepLive))
      const before = "before step 1"
      expect(yield* Effect.flatMap(Log, Ref.get)).toEqual([
        ...["in", before, "out", "Completed"],
        ...["in", before, "out", "Failed"],
        ...["in", before, "out", "Snoozed"],
        ...["in", before, "out", "Cancelled"]
      ])
    }).pipe(Effect.provide(Log.layer)))

  test("that die fail the attempt before it starts, and change nothing once it has ended", () =>
    Effect.gen(function*() {
      const ran = yield* Ref.make(0)
      const Counted = Step.toLayer(() => Ref.update(ran, (n) => n + 1), { retry: Retry.after("1 hour") })
      const job = yield* Queue.add(Step, { act: "ok" })
      yield* Worker.runOnce({ tasks: [Step], hooks: { before: () => Effect.die("not today") } }).pipe(
        Effect.provide(Counted)
      )
      expect(yield* Ref.get(ran)).toBe(0)
      const failed = Option.getOrThrow(yield* Queue.get(job.id))
      expect(failed).toMatchObject({ state: "retrying", attempts: 1 })
      expect(failed.lastError).toMatch(/^Defect: .*not today/)

      yield* Queue.retry([job.id])
      const summary = yield* Worker.runOnce({ tasks: [Step], hooks: { after: () => Effect.die("too late") } }).pipe(
        Effect.provide(Counted)
      )
      expect(summary).toEqual({ completed: 1, failed: 0, retried: 0, snoozed: 0, cancelled: 0, lost: 0 })
    }))

  test("around an attempt are interrupted with it", () =>
    Effect.gen(function*() {
      const started = yield* Deferred.make<void>()
      const ended = yield* Deferred.make<void>()
      const job = yield* Queue.add(Step, { act: "ok" })
      yield* Worker.run({
        tasks: [Step],
        handleSignals: false,
        hooks: { around: (attempt) => Effect.onInterrupt(attempt, () => Deferred.succeed(ended, undefined)) }
      }).pipe(
        Effect.provide(Step.toLayer(() => Effect.andThen(Deferred.succeed(started, undefined), Effect.never))),
        Effect.forkScoped({ startImmediately: true })
      )
      yield* Deferred.await(started)
      yield* Queue.cancel(job.id)
      yield* Deferred.await(ended)
      yield* eventually(Queue.count(), { until: (count) => count === 0 })
    }))
})

describe("the events of a worker", () => {
  test("tell a job's life and how long each attempt took", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      for (const act of ["ok", "fail", "snooze", "cancel"] as const) yield* Queue.add(Step, { act })
      const summary = yield* Worker.runOnce({ tasks: [Step], concurrency: 1 }).pipe(Effect.provide(StepLive))
      expect(summary).toEqual({ completed: 1, failed: 0, retried: 1, snoozed: 1, cancelled: 1, lost: 0 })
      const started = yield* events.next("PoolStarted")
      expect(started.tasks).toEqual(["step"])
      const told = yield* events.rest
      const tags = told.map((event) => event._tag)
      expect(tags).toEqual(expect.arrayContaining(["ClaimStarted", "JobsClaimed", "PoolIdle", "PoolStopping"]))
      expect(tags.filter((tag) => tag === "JobStarted")).toHaveLength(4)
      for (const event of told) {
        expect(event.pool).toBe(started.pool)
        if ("duration" in event) expect(Duration.toMillis(event.duration)).toBeGreaterThan(0)
      }
      expect(tags.at(-1)).toBe("PoolStopped")
    }))

  test("never wait for a subscriber that does not read", () =>
    Effect.gen(function*() {
      const worker = yield* Worker.Worker
      const first = yield* Deferred.make<void>()
      yield* worker.events.pipe(
        Stream.runForEach(() => Effect.andThen(Deferred.succeed(first, undefined), Effect.never)),
        Effect.forkScoped({ startImmediately: true })
      )
      const count = 6_000
      yield* Queue.addMany(Array.from({ length: count }, () => Step.request({ act: "ok" })))
      const summary = yield* Worker.runOnce({ tasks: [Step] }).pipe(Effect.provide(StepLive))
      yield* Deferred.await(first)
      expect(summary.completed).toBe(count)
    }))
})

describe("failed attempts", () => {
  const runOnce = Worker.runOnce({ tasks: [Step] }).pipe(Effect.provide(StepLive))

  test("are recorded with their message, tag, encoded error, number and time", () =>
    Effect.gen(function*() {
      const { id } = yield* Queue.add(Step, { act: "fail" })
      yield* runOnce
      yield* Queue.reschedule([id], { delay: 0 })
      yield* runOnce
      const attempts = yield* Queue.failedAttempts(id)
      expect(attempts.map(({ attempt, message, tag }) => ({ attempt, message, tag }))).toEqual([
        { attempt: 1, message: "Refused", tag: "Refused" },
        { attempt: 2, message: "Refused", tag: "Refused" }
      ])
      expect(attempts[0]!.data).toEqual({ _tag: "Refused", at: at.toISOString(), code: "12345678901234567890" })
      expect(attempts[0]!.failedAt.epochMilliseconds).toBeLessThan(attempts[1]!.failedAt.epochMilliseconds)
    }))

  test("of a defect have no data", () =>
    Effect.gen(function*() {
      const { id } = yield* Queue.add(Step, { act: "die" })
      yield* runOnce
      const [attempt] = yield* Queue.failedAttempts(id)
      expect(attempt).toMatchObject({ tag: "Defect", data: undefined })
      expect(attempt!.message).toMatch(/^Defect: Error: no way\n/)
    }))

  test("are forgotten with their job, and none is made by a snooze", () =>
    Effect.gen(function*() {
      const job = yield* Queue.add(Step, { act: "snooze" })
      yield* runOnce
      expect(yield* Queue.failedAttempts(job.id)).toEqual([])

      const { id } = yield* Queue.add(Step, { act: "fail" })
      yield* runOnce
      yield* Queue.retry([id])
      yield* Worker.runOnce({ tasks: [Step] }).pipe(Effect.provide(Step.toLayer(() => Effect.void)))
      expect(yield* Queue.get(id)).toEqual(Option.none())
      expect(yield* Queue.failedAttempts(id)).toEqual([])
    }))
})
