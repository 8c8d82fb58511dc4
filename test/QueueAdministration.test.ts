import { PgClient } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import { type Duration, Effect, Option, Stream } from "effect"
import { Reactivity } from "effect/reactivity"
import { Job, type KongTaskError, Queue, Task } from "kongtask"
import * as Database from "./support/database.ts"
import * as Kong from "./support/kongtask.ts"

const Plain = Task.make("plain")

it.layer(Kong.layer())("Queue", (it) => {
  describe("in the mode reject", () => {
    it.effect("refuses a key that is taken, and leaves the transaction usable", () =>
      Effect.gen(function*() {
        const Once = Task.make("once")
        const sql = yield* PgClient.PgClient
        const existing = yield* Queue.add(Once, undefined, { jobKey: "once", delay: "1 hour" })
        const again = { jobKey: "once", jobKeyMode: "reject" } as const
        yield* sql.withTransaction(Effect.gen(function*() {
          const error = yield* Effect.flip(Queue.add(Once, undefined, again))
          assert.instanceOf(error, Job.DuplicateJobKey)
          assert.deepInclude(error, { task: "once", key: "once", existing: existing.id, state: "scheduled" })
          assert.strictEqual(
            error.message,
            `A job of task "once" was not added: job ${existing.id}, which is scheduled, has its key.`
          )
          const many = yield* Effect.flip(
            Queue.addMany([
              Once.request(undefined),
              Once.request(undefined, { ...again, jobKey: "new" }),
              Once.request(undefined, again)
            ])
          )
          assert.deepInclude(many, { _tag: "DuplicateJobKey", existing: existing.id, index: 2 })
          assert.include(many.message, "(job 2 of the call)")
          assert.strictEqual(yield* Queue.count({ task: Once }), 1)
          yield* Queue.add(Once, undefined, { ...again, jobKey: "new" })
        }))
        assert.strictEqual(yield* Queue.count({ task: Once }), 2)
      }))

    it.effect("says when the jobs of one call have one key", () =>
      Effect.gen(function*() {
        const Twice = Task.make("twice")
        const error = yield* Effect.flip(Queue.addMany([
          Twice.request(undefined, { jobKey: "twice" }),
          Twice.request(undefined, { jobKey: "twice", jobKeyMode: "reject" })
        ]))
        const problem = "is the key of job 0 of the same call, and its mode is reject"
        assert.deepInclude(error, { _tag: "InvalidJob", field: "jobKey", problem, index: 1 })
        assert.strictEqual(yield* Queue.count({ task: Twice }), 0)
      }))

    it.effect("uses up no id for a refusal", () =>
      Effect.gen(function*() {
        const Thrifty = Task.make("thrifty")
        const { id } = yield* Queue.add(Thrifty, undefined, { jobKey: "thrifty" })
        for (let n = 0; n < 5; n++) {
          yield* Effect.flip(Queue.add(Thrifty, undefined, { jobKey: "thrifty", jobKeyMode: "reject" }))
        }
        assert.strictEqual((yield* Queue.add(Thrifty, undefined)).id, String(BigInt(id) + 1n))
      }))
  })

  it.effect("debounces: the last call decides when and with what", () =>
    Effect.gen(function*() {
      const first = yield* Queue.debounce(Plain, undefined, { key: "debounce", delay: "1 minute", priority: 1 })
      const last = yield* Queue.debounce(Plain, undefined, { key: "debounce", delay: "1 hour", priority: 2 })
      assert.deepInclude(last, { id: first.id, priority: 2, revision: 1, state: "scheduled" })
      assert.isAbove(last.runAt.epochMilliseconds, first.runAt.epochMilliseconds)
    }))

  it.effect("throttles: the first call decides when, the last with what", () =>
    Effect.gen(function*() {
      const first = yield* Queue.throttle(Plain, undefined, { key: "throttle", delay: "1 minute", priority: 1 })
      const last = yield* Queue.throttle(Plain, undefined, { key: "throttle", delay: "1 hour", priority: 2 })
      assert.deepInclude(last, { id: first.id, priority: 2, revision: 1, runAt: first.runAt })
    }))

  it.effect("dedupes: a waiting job is the answer, a failed one is not", () =>
    Effect.gen(function*() {
      const first = yield* Queue.dedupe(Plain, undefined, { key: "dedupe", priority: 1 })
      assert.deepStrictEqual(yield* Queue.dedupe(Plain, undefined, { key: "dedupe", priority: 2 }), first)
      yield* Queue.fail([first.id])
      const second = yield* Queue.dedupe(Plain, undefined, { key: "dedupe", priority: 2 })
      assert.notStrictEqual(second.id, first.id)
      const error = yield* Effect.flip(Queue.dedupe(Plain, undefined, {} as Queue.KeyedOptions))
      assert.deepInclude(error, { _tag: "InvalidJob", field: "jobKey", limit: 512, actual: 0 })
    }))

  it.effect("finds a job by its key", () =>
    Effect.gen(function*() {
      const job = yield* Queue.add(Plain, undefined, { jobKey: "by key" })
      assert.deepStrictEqual(yield* Queue.getByKey("by key"), Option.some(job))
      assert.deepStrictEqual(yield* Queue.getByKey("nobody's"), Option.none())
    }))

  it.effect("streams all jobs, beyond one page", () =>
    Effect.gen(function*() {
      const Streamed = Task.make("streamed")
      const added = yield* Queue.addMany(Array.from({ length: 2001 }, () => Streamed.request(undefined)))
      const jobs = yield* Stream.runCollect(Queue.stream({ task: Streamed }))
      assert.deepStrictEqual(jobs.map((job) => job.id), added.map((job) => job.id))
      assert.lengthOf(yield* Stream.runCollect(Stream.take(Queue.stream({ task: Streamed }), 3)), 3)
      assert.lengthOf(yield* Stream.runCollect(Queue.stream({ task: Task.make("never") })), 0)
    }))

  it.effect("filters by flag and time, and counts by state, task and queue", () =>
    Effect.gen(function*() {
      const Counted = Task.make("counted")
      const runAt = new Date("2040-01-01T00:00:00Z")
      const [a, b] = yield* Queue.addMany([
        Counted.request(undefined, { flags: ["a"], queueName: "counted" }),
        Counted.request(undefined, { runAt })
      ])
      assert.deepStrictEqual(yield* Queue.list({ task: Counted, flag: "a" }), [a!])
      assert.deepStrictEqual(yield* Queue.list({ task: Counted, runAfter: runAt }), [b!])
      assert.deepStrictEqual(yield* Queue.list({ task: Counted, runBefore: runAt, addedAfter: new Date(0) }), [a!])
      assert.strictEqual(yield* Queue.count({ task: Counted, addedBefore: new Date(0) }), 0)
      const stats = yield* Queue.stats({ task: Counted })
      assert.deepInclude(stats.all, { ready: 1, scheduled: 1, failed: 0 })
      assert.deepInclude(stats.tasks.get("counted"), { ready: 1, scheduled: 1 })
      assert.deepInclude(stats.queues.get("counted"), { ready: 1, scheduled: 0 })
    }))

  it.effect("joins the caller's transaction with every change, and refuses another client's", () =>
    Effect.gen(function*() {
      const Changed = Task.make("changed")
      const sql = yield* PgClient.PgClient
      const { config } = yield* Database.TestDatabase
      const other = yield* PgClient.make(config).pipe(Effect.provide(Reactivity.layer))
      const job = yield* Queue.add(Changed, undefined, { delay: "1 hour" })
      const changes: ReadonlyArray<Effect.Effect<unknown, unknown, Queue.Queue>> = [
        Queue.fail([job.id]),
        Queue.retry([job.id]),
        Queue.reschedule([job.id], { priority: 3 }),
        Queue.complete([job.id]),
        Queue.forceUnlock(["pool"]),
        Queue.cleanup({ tasks: true, queues: true, failedJobs: 0 }),
        Queue.add(Changed, undefined, { jobKey: "changed", jobKeyMode: "reject" }),
        Queue.dedupe(Changed, undefined, { key: "changed" })
      ]
      for (const change of changes) {
        yield* Effect.flip(sql.withTransaction(Effect.andThen(change, Effect.fail("undone"))))
        const error = yield* Effect.flip(other.withTransaction(change))
        assert.deepNestedInclude(error, { "reason._tag": "OtherTransaction" })
        assert.deepStrictEqual(yield* Queue.list({ task: Changed }), [job])
      }
    }))

  describe("refuses", () => {
    const id = "1" as Job.JobId
    const bad = (values: ReadonlyArray<unknown>, use: (value: never) => Effect.Effect<unknown, unknown, Queue.Queue>) =>
      values.map((value) => use(value as never))
    const notWhole = [Number.NaN, Infinity, 1.5, 1n, "1", 32_768]
    const notText = ["\u0000", "\ud800", 5]
    const notTime = [new Date(Number.NaN), "tomorrow", 5, new Date("+010000-01-01T00:00:00Z")]
    const notDuration: ReadonlyArray<unknown> = [Number.NaN, Infinity, "soon", 1e18] satisfies ReadonlyArray<
      Duration.Input | string
    >
    const cases: Record<string, ReadonlyArray<Effect.Effect<unknown, unknown, Queue.Queue>>> = {
      "priority": bad([...notWhole, -32_769], (priority) => Queue.reschedule([id], { priority })),
      "attempts": bad([...notWhole, -1], (attempts) => Queue.reschedule([id], { attempts })),
      "maxAttempts": bad([...notWhole, 0], (maxAttempts) => Queue.reschedule([id], { maxAttempts })),
      "runAt": bad(notTime, (runAt) => Queue.reschedule([id], { runAt })),
      "delay": [
        ...bad(notDuration, (delay) => Queue.reschedule([id], { delay })),
        Queue.reschedule([id], { delay: 1, runAt: new Date() })
      ],
      "ids": [
        ...bad(["", "0", "x", "1e3", "-1", "9223372036854775808", 1, 1n, Number.NaN], (id) => Queue.complete([id])),
        Queue.fail(["" as never]),
        Queue.retry(["" as never]),
        Queue.reschedule(["" as never], {})
      ],
      "message": bad(notText, (message) => Queue.fail([id], message)),
      "pools": bad(["", ...notText], (pool) => Queue.forceUnlock([pool])),
      "failedJobs": bad([...notDuration, true, -1], (failedJobs) => Queue.cleanup({ failedJobs })),
      "tasks": bad(["yes", 1, null], (tasks) => Queue.cleanup({ tasks })),
      "key": [
        ...bad(["", undefined, ...notText, "x".repeat(513)], (key) => Queue.getByKey(key)),
        ...bad(notText, (key) => Queue.count({ key }))
      ],
      "flag": bad(notText, (flag) => Queue.stats({ flag })),
      "queueName": bad(notText, (queueName) => Stream.runCollect(Queue.stream({ queueName }))),
      "addedAfter": bad(notTime, (addedAfter) => Queue.list({ addedAfter })),
      "runBefore": bad(notTime, (runBefore) => Queue.count({ runBefore })),
      "limit": bad([Number.NaN, Infinity, 1.5, 1n, "1"], (limit) => Queue.list({ limit })),
      "after": bad(["x", 5], (after) => Queue.list({ after }))
    }
    for (const [field, calls] of Object.entries(cases)) {
      it.effect(`a bad ${field}, naming it`, () =>
        Effect.gen(function*() {
          for (const call of calls) {
            const error = yield* Effect.flip(call) as Effect.Effect<KongTaskError.KongTaskError, unknown, Queue.Queue>
            assert.deepNestedInclude(error, { "reason._tag": "InvalidConfiguration", "reason.field": field })
          }
        }))
    }

    it.effect("a delay that is no number", () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(Queue.debounce(Plain, undefined, { key: "bad delay", delay: Number.NaN }))
        assert.deepInclude(error, { _tag: "InvalidJob", field: "delay" })
        assert.deepStrictEqual(yield* Queue.getByKey("bad delay"), Option.none())
      }))
  })
})
