import { assert, describe, it } from "@effect/vitest"
import { Effect, Option, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { KongTask, Scheduler, Task, Worker } from "kongtask"
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { pause } from "./support/events.ts"
import * as Test from "./support/scheduler.ts"

const Tick = Task.make("tick")
const Mail = Task.make("mail", { payload: { to: Schema.String } })

const test = <E>(name: string, start: string, effect: () => Effect.Effect<unknown, E, any>) =>
  it.live(name, () => Test.on(start)(effect() as Effect.Effect<unknown, E>), 60_000)

const everyMinute = (options?: Scheduler.StaticOptions) => Scheduler.cron(Tick, "* * * * *", options)

describe("a schedule in the database", () => {
  test(
    "is run by every scheduler from the moment on that it is put, until it is removed",
    "2026-05-01T04:00:30Z",
    () =>
      Effect.gen(function*() {
        for (let n = 0; n < 3; n++) yield* Test.start({})
        yield* Test.setTime("2026-05-01T04:10:30Z")
        assert.isTrue(yield* Scheduler.put(Scheduler.cron(Mail, "* * * * *", { id: "m", payload: { to: "a" } })))
        yield* Test.looks
        yield* Test.setTime("2026-05-01T04:12:00Z")
        yield* Test.added(2)
        yield* Test.looks
        assert.deepStrictEqual(Test.times(yield* Test.jobs), ["04:11", "04:12"])
        assert.isTrue(yield* Scheduler.remove("m"))
        assert.isFalse(yield* Scheduler.remove("m"))
        yield* Test.setTime("2026-05-01T04:15:00Z")
        yield* Test.looks
        assert.strictEqual((yield* Test.jobs).length, 2)
      })
  )

  test("is told as it is, with its last and its next run", "2026-05-01T04:00:30Z", () =>
    Effect.gen(function*() {
      yield* Scheduler.put(Scheduler.cron(Tick, "0 6 * * *", { id: "b", timeZone: "Europe/Berlin" }))
      yield* Scheduler.put(everyMinute({ id: "a" }))
      yield* Test.start({})
      yield* Test.setTime("2026-05-01T04:01:10Z")
      yield* Test.added(1)
      const [a, b] = yield* Scheduler.list
      assert.deepInclude(a, { id: "a", task: "tick", isPaused: false, problem: undefined })
      assert.strictEqual(a!.lastInstant!.epochMilliseconds, Date.parse("2026-05-01T04:01:00Z"))
      assert.strictEqual(a!.lastRun!.instant.epochMilliseconds, Date.parse("2026-05-01T04:01:00Z"))
      assert.strictEqual(a!.nextRun!.epochMilliseconds, Date.parse("2026-05-01T04:02:00Z"))
      assert.deepInclude(b, { id: "b", expression: "0 6 * * *", timeZone: "Europe/Berlin", lastRun: undefined })
      assert.strictEqual(b!.nextRun!.epochMilliseconds, Date.parse("2026-05-02T04:00:00Z"))
    }))

  test("is not due for what it missed while it was paused", "2026-05-01T04:00:30Z", () =>
    Effect.gen(function*() {
      yield* Scheduler.put(everyMinute({ backfill: "1 day" }))
      yield* Test.start({})
      yield* Test.setTime("2026-05-01T04:01:00Z")
      yield* Test.added(1)
      assert.isTrue(yield* Scheduler.pause("tick"))
      assert.isTrue(yield* Scheduler.pause("tick"))
      assert.isFalse(yield* Scheduler.pause("other"))
      yield* Test.setTime("2026-05-01T04:05:30Z")
      yield* Test.looks
      assert.strictEqual((yield* Scheduler.list)[0]!.nextRun, undefined)
      assert.isTrue(yield* Scheduler.resume("tick"))
      yield* Test.looks
      yield* Test.setTime("2026-05-01T04:06:00Z")
      yield* Test.added(2)
      yield* Test.looks
      assert.deepStrictEqual(Test.times(yield* Test.jobs), ["04:01", "04:06"])
    }))

  test(
    "stays as it is when the same is put again, and begins anew when another is",
    "2026-05-01T04:00:30Z",
    () =>
      Effect.gen(function*() {
        assert.isTrue(yield* Scheduler.put(everyMinute({ backfill: "1 day" })))
        yield* Test.setTime("2026-05-01T04:02:30Z")
        assert.isFalse(yield* Scheduler.put(everyMinute({ backfill: "1 day" })))
        yield* Test.start({})
        yield* Test.added(2)
        yield* Scheduler.put(Scheduler.cron(Tick, "*/2 * * * *", { backfill: "1 day" }))
        yield* Test.looks
        yield* Test.setTime("2026-05-01T04:06:00Z")
        yield* Test.added(4)
        yield* Test.looks
        assert.deepStrictEqual(Test.times(yield* Test.jobs), ["+04:01", "+04:02", "04:04", "04:06"])
      })
  )

  test(
    "joins the caller's transaction, and holds nobody up meanwhile",
    "2026-05-01T04:00:30Z",
    () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* Scheduler.put(everyMinute({ id: "a" }))
        yield* Test.start({ items: [everyMinute({ id: "b", queueName: "b" })] })
        yield* Effect.gen(function*() {
          yield* Scheduler.put(Scheduler.cron(Tick, "0 * * * *", { id: "a" }))
          yield* Test.setTime("2026-05-01T04:01:00Z")
          yield* pause("500 millis")
          return yield* Effect.fail("rolled back")
        }).pipe(sql.withTransaction, Effect.ignore)
        yield* Effect.andThen(Test.looks, Test.added(2))
        yield* Test.setTime("2026-05-01T04:02:00Z")
        yield* Test.added(4)
        yield* Test.looks
        assert.deepStrictEqual(Test.times(yield* Test.jobs).toSorted(), ["04:01", "04:01", "04:02", "04:02"])
      })
  )

  test("runs now when asked, whatever it is due for", "2026-05-01T04:00:30Z", () =>
    Effect.gen(function*() {
      yield* Scheduler.put(everyMinute({ overlap: "skip" }))
      yield* Scheduler.pause("tick")
      assert.isTrue(Option.isSome(yield* Scheduler.runNow("tick")))
      assert.isTrue(Option.isSome(yield* Scheduler.runNow("tick")))
      assert.isTrue(Option.isNone(yield* Scheduler.runNow("other")))
      assert.deepStrictEqual(Test.times(yield* Test.jobs), ["04:00", "04:00"])
    }))

  test(
    "is reported when it cannot be run, or its task is not known",
    "2026-05-01T04:00:30Z",
    () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`insert into graphile_worker._private_kongtask_schedules (id, definition, since, revision)
        values ('broken', '{"task": 1}', now(), 1)`
        const Loose = Task.make("mail", { payload: { to: Schema.Int } })
        yield* Scheduler.put(Scheduler.cron(Loose, "* * * * *", { id: "refused", payload: { to: 1 } }))
        yield* Scheduler.put(everyMinute({ id: "unknown" }))
        yield* Scheduler.put(everyMinute({ id: "program" }))
        const events = yield* Test.watch
        const options = {
          tasks: [Mail],
          items: [Scheduler.cron(Mail, "@daily", { id: "program", payload: { to: "a" } })]
        }
        yield* Effect.forkScoped(Scheduler.run(options))
        const refused = [yield* events.next("ScheduleRefused"), yield* events.next("ScheduleRefused")]
        assert.deepStrictEqual(refused.map(({ id }) => id), ["broken", "program"])
        assert.include((yield* events.next("ScheduleRefused")).problem, "is refused by the schema of task \"mail\"")
        assert.deepInclude(yield* events.next("TaskUnknown"), { id: "unknown", task: "tick" })
        yield* Test.setTime("2026-05-01T04:01:00Z")
        assert.deepStrictEqual((yield* Test.added(1)).map(({ task }) => task), ["tick"])
        assert.include((yield* Scheduler.list)[0]!.problem, "is not understood")
      })
  )

  test("cannot run on start", "2026-05-01T04:00:30Z", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Scheduler.put(everyMinute({ runOnStart: true })))
      assert.include(error.message, "runOnStart")
    }))
})

describe("a schedule that is due while its last job has not ended", () => {
  const run = Effect.flatMap(
    Worker.Worker,
    (worker) => worker.runOnce({ tasks: [Tick] }).pipe(Effect.provide(Tick.toLayer(() => Effect.void)))
  )

  test("adds none with `skip`, and says so", "2026-05-01T04:00:30Z", () =>
    Effect.gen(function*() {
      const { events } = yield* Test.start({ items: [everyMinute({ overlap: "skip" })] })
      yield* Test.setTime("2026-05-01T04:01:00Z")
      yield* Test.added(1)
      yield* Test.setTime("2026-05-01T04:03:00Z")
      yield* Test.looks
      assert.strictEqual((yield* Test.jobs).length, 1)
      const skipped = yield* events.next("RunsSkipped")
      assert.deepInclude(skipped, { id: "tick", reason: "overlap", count: 1 })
      yield* run
      yield* Test.setTime("2026-05-01T04:04:00Z")
      assert.deepStrictEqual(Test.times(yield* Test.added(1)), ["04:04"])
    }))

  test("adds one behind it with `queue`", "2026-05-01T04:00:30Z", () =>
    Effect.gen(function*() {
      yield* Test.start({ items: [everyMinute({ overlap: "queue" })] })
      yield* Test.setTime("2026-05-01T04:02:00Z")
      yield* Test.added(2)
      const sql = yield* SqlClient.SqlClient
      assert.deepStrictEqual(yield* sql`select distinct queue_name from graphile_worker.jobs`, [
        { queue_name: "cron:tick" }
      ])
    }))
})

describe("a crontab file", () => {
  const withFile = <A, E, R>(use: (path: string, write: (text: string) => void) => Effect.Effect<A, E, R>) =>
    Effect.acquireUseRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "kongtask-crontab-"))),
      (directory) => {
        const path = join(directory, "crontab")
        return use(path, (text) => {
          writeFileSync(`${path}.new`, text)
          renameSync(`${path}.new`, path)
        })
      },
      (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
    )

  test(
    "is read again when it changes; a broken one leaves the last good one",
    "2026-05-01T04:00:30Z",
    () =>
      withFile((path, write) =>
        Effect.gen(function*() {
          write("* * * * * tick ?id=a\n* * * * * tick ?id=b")
          const { events } = yield* Test.start({ crontabFile: path })
          yield* Test.setTime("2026-05-01T04:01:00Z")
          yield* Test.added(2)

          write("* * * * * tick ?id=a\n* * * * tick")
          yield* Test.looks
          const { error } = yield* events.next("CrontabRejected")
          assert.include(error.message, "line 2, column")
          yield* Test.setTime("2026-05-01T04:02:00Z")
          yield* Test.added(4)

          rmSync(path)
          yield* Test.looks
          assert.include((yield* events.next("CrontabRejected")).error.message, "cannot be read")

          write("* * * * * tick ?id=a\n*/2 * * * * tick ?id=c")
          yield* Test.looks
          assert.deepStrictEqual((yield* events.next("CrontabLoaded")).ids, ["a", "c"])
          yield* Test.setTime("2026-05-01T04:03:00Z")
          yield* Test.added(5)
          yield* Test.setTime("2026-05-01T04:04:00Z")
          yield* Test.added(7)
          yield* Test.looks
          const sql = yield* SqlClient.SqlClient
          assert.deepStrictEqual(
            yield* sql`
            select run.identifier, to_char(run.instant at time zone 'UTC', 'HH24:MI') as last
            from graphile_worker._private_kongtask_schedule_runs as run order by 1`,
            [{ identifier: "a", last: "04:04" }, { identifier: "b", last: "04:02" }, { identifier: "c", last: "04:04" }]
          )
          assert.strictEqual((yield* Test.jobs).length, 7)
        })
      )
  )
})

describe("the embedded database", () => {
  it.live("has schedules too", () =>
    Effect.gen(function*() {
      yield* Test.setTime("2026-05-01T04:00:30Z")
      yield* Scheduler.put(everyMinute({ id: "stored" }))
      yield* Test.start({ items: [everyMinute()] })
      yield* Test.setTime("2026-05-01T04:02:00Z")
      assert.deepStrictEqual(Test.times(yield* Test.added(4)), ["04:01", "04:01", "04:02", "04:02"])
    }).pipe(
      Effect.provide(TestClock.layer({ warningDelay: "10 minutes" })),
      Effect.scoped,
      Effect.provide(KongTask.layerEmbedded())
    ), 60_000)
})
