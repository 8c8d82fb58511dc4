import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Fiber, Metric, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { type Crontab, Scheduler, Task, Worker } from "kongtask"
import { eventually, pause } from "./support/events.ts"
import * as Test from "./support/scheduler.ts"

const Tick = Task.make("tick")

const test = <E>(name: string, start: string, effect: () => Effect.Effect<unknown, E, any>) =>
  it.live(name, () => Test.on(start)(effect() as Effect.Effect<unknown, E>), 60_000)

/** What the database is told to know of a schedule. */
const known = (id: string, since: string, last: string | null) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) =>
      sql`insert into graphile_worker._private_known_crontabs (identifier, known_since, last_execution)
      values (${id}, ${since}, ${last})`
  )

const everyMinute = (options?: Scheduler.StaticOptions & Crontab.CronOptions) =>
  Scheduler.cron(Tick, "* * * * *", options)

describe("a scheduler", () => {
  test(
    "adds one job at each instant, with the instant in its payload",
    "2026-05-01T03:59:30Z",
    () =>
      Effect.gen(function*() {
        const Report = Task.make("report", { payload: { to: Schema.String } })
        yield* Test.start({
          items: [
            Scheduler.cron(Report, "0 4 * * *", {
              payload: { to: "all" },
              id: "nightly",
              queueName: "reports",
              priority: 3,
              maxAttempts: 4,
              jobKey: "k",
              flags: ["f"]
            })
          ]
        })
        yield* Test.looks
        assert.deepStrictEqual(yield* Test.jobs, [])
        yield* Test.setTime("2026-05-01T04:00:00.001Z")
        yield* Test.added(1)
        yield* Test.looks
        const sql = yield* SqlClient.SqlClient
        assert.deepStrictEqual(
          yield* sql`
          select task_identifier as task, queue_name, priority::int, max_attempts::int, key, flags, run_at,
            (select payload from graphile_worker._private_jobs as p where p.id = jobs.id) as payload
          from graphile_worker.jobs`,
          [{
            task: "report",
            queue_name: "reports",
            priority: 3,
            max_attempts: 4,
            key: "k",
            flags: { f: true },
            run_at: new Date("2026-05-01T04:00:00Z"),
            payload: { to: "all", _cron: { ts: "2026-05-01T04:00:00.000Z", backfilled: false } }
          }] as never
        )
        assert.deepStrictEqual(yield* sql`select * from graphile_worker._private_known_crontabs`, [{
          identifier: "nightly",
          known_since: new Date("2026-05-01T03:59:30Z"),
          last_execution: new Date("2026-05-01T04:00:00Z")
        }] as never)
      })
  )

  test(
    "adds nothing for a new schedule's past, even with a backfill",
    "2026-05-01T04:00:30Z",
    () =>
      Effect.gen(function*() {
        yield* Test.start({ items: [everyMinute({ backfill: "1 day" })] })
        yield* Test.looks
        assert.deepStrictEqual(yield* Test.jobs, [])
      })
  )

  test(
    "makes up for a known schedule from its last run on, within the backfill",
    "2026-05-01T13:30:00Z",
    () =>
      Effect.gen(function*() {
        yield* known("a", "2026-01-01T00:00:00Z", "2026-05-01T08:30:00Z")
        yield* known("b", "2026-01-01T00:00:00Z", "2026-04-30T12:30:00Z")
        yield* known("c", "2026-05-01T04:00:00Z", null)
        yield* known("d", "2026-01-01T00:00:00Z", "2026-04-30T08:30:00Z")
        const every4h = (id: string, backfill?: "1 day" | "25 hours") =>
          Scheduler.cron(Tick, "0 */4 * * *", { id, backfill })
        const { events } = yield* Test.start({
          crontab: "0 */4 * * * tick ?id=a&fill=1d",
          items: [every4h("b", "25 hours"), every4h("c", "1 day"), every4h("d")]
        })
        yield* Test.added(10)
        yield* Test.looks
        const sql = yield* SqlClient.SqlClient
        assert.deepStrictEqual(Test.times(yield* Test.jobs).toSorted(), [
          "+00:00",
          "+04:00",
          "+04:00",
          "+08:00",
          "+08:00",
          "+12:00",
          "+12:00",
          "+12:00",
          "+16:00",
          "+20:00"
        ])
        assert.deepStrictEqual(
          (yield* sql<{ identifier: string; last: string }>`
          select identifier, to_char(last_execution at time zone 'UTC', 'DD HH24:MI') as last
          from graphile_worker._private_known_crontabs order by 1`).map(({ identifier, last }) =>
            `${identifier} ${last}`
          ),
          ["a 01 12:00", "b 01 12:00", "c 01 12:00", "d 30 08:30"]
        )
        const told = (yield* events.rest).find(({ _tag }) => _tag === "BackfillStarted")
        assert.isDefined(told)
      })
  )

  test("runs nothing twice when the clock is set back", "2026-05-01T04:00:30Z", () =>
    Effect.gen(function*() {
      const { events } = yield* Test.start({ items: [everyMinute()] })
      yield* Test.jump("2026-05-01T04:02:00Z")
      yield* Test.added(2)
      yield* Test.looks
      yield* Test.setTime("2026-05-01T04:00:30Z")
      yield* TestClock.adjust("1 minute")
      yield* Test.looks
      assert.deepStrictEqual(Test.times(yield* Test.jobs), ["04:01", "04:02"])
      yield* Test.setTime("2026-05-01T04:03:00Z")
      assert.deepStrictEqual(Test.times(yield* Test.added(3)), ["04:01", "04:02", "04:03"])
      assert.strictEqual((yield* events.next("JobsScheduled")).runs.length, 2)
    }))

  test(
    "runs nothing twice when it starts again after the clock was set back",
    "2026-05-01T04:00:30Z",
    () =>
      Effect.gen(function*() {
        yield* known("tick", "2026-01-01T00:00:00Z", "2026-05-01T04:02:00Z")
        yield* Test.start({ items: [everyMinute({ backfill: "1 day" })] })
        yield* Test.setTime("2026-05-01T04:03:00Z")
        yield* Test.added(1)
        yield* Test.looks
        assert.deepStrictEqual(Test.times(yield* Test.jobs), ["04:03"])
      })
  )

  test(
    "makes up for the time that the machine slept, or that the clock was set forward by",
    "2026-05-01T04:00:30Z",
    () =>
      Effect.gen(function*() {
        const { events } = yield* Test.start({
          items: [
            everyMinute({ id: "all" }),
            everyMinute({ id: "latest", missed: "latest", queueName: "latest" }),
            everyMinute({ id: "skip", missed: "skip", queueName: "skip" })
          ]
        })
        yield* Test.jump("2026-05-01T08:00:20Z")
        yield* Test.added(242)
        yield* Test.looks
        const sql = yield* SqlClient.SqlClient
        const counts = yield* sql<{ queue_name: string | null; count: number; last: string }>`
        select queue_name, count(*)::int as count, to_char(max(run_at) at time zone 'UTC', 'HH24:MI') as last
        from graphile_worker.jobs group by 1 order by 1 nulls first`
        assert.deepStrictEqual(counts, [
          { queue_name: null, count: 240, last: "08:00" },
          { queue_name: "latest", count: 1, last: "08:00" },
          { queue_name: "skip", count: 1, last: "08:00" }
        ])
        const told = yield* events.rest
        assert.isTrue(told.some((event) => event._tag === "TimerOverdue"))
        assert.deepStrictEqual(
          told.flatMap((event) => event._tag === "RunsSkipped" ? [[event.id, event.reason, event.count]] : []),
          [["latest", "missed", 239], ["skip", "missed", 239]]
        )
      })
  )

  test(
    "bounds what it makes up for in a running process by a day",
    "2026-05-01T04:00:30Z",
    () =>
      Effect.gen(function*() {
        yield* Test.start({
          items: [
            Scheduler.cron(Tick, "0 * * * *"),
            Scheduler.cron(Tick, "0 * * * *", { id: "far", backfill: "3 days" })
          ]
        })
        yield* Test.jump("2026-05-05T04:00:30Z")
        yield* Test.added(24 + 72)
        yield* Test.looks
        assert.strictEqual((yield* Test.jobs).length, 24 + 72)
      })
  )

  test(
    "loses nothing and doubles nothing while the database is slow, or its connection is cut",
    "2026-05-01T04:00:30Z",
    () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const { events } = yield* Test.start({ items: [everyMinute()] })
        yield* Effect.gen(function*() {
          yield* sql`lock table graphile_worker._private_known_crontabs in access exclusive mode`
          yield* Test.setTime("2026-05-01T04:01:00Z")
          yield* pause("200 millis")
          yield* Test.setTime("2026-05-01T04:03:00Z")
          yield* pause("200 millis")
        }).pipe(sql.withTransaction)
        yield* Test.added(3)
        yield* Effect.gen(function*() {
          yield* sql`lock table graphile_worker._private_known_crontabs in access exclusive mode`
          yield* Test.setTime("2026-05-01T04:04:00Z")
          yield* pause("200 millis")
          yield* sql`
            select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and pid <> pg_backend_pid() and wait_event_type = 'Lock'`
        }).pipe(sql.withTransaction)
        yield* eventually(Effect.andThen(TestClock.adjust("1 second"), Test.jobs), {
          until: (rows) => rows.length >= 4,
          every: "50 millis"
        })
        yield* Test.setTime("2026-05-01T04:06:00Z")
        yield* eventually(Effect.andThen(TestClock.adjust("1 second"), Test.jobs), {
          until: (rows) => rows.length >= 6,
          every: "50 millis"
        })
        yield* Test.looks
        assert.deepStrictEqual(Test.times(yield* Test.jobs), ["04:01", "04:02", "04:03", "04:04", "04:05", "04:06"])
        assert.isTrue((yield* events.rest).some(({ _tag }) => _tag === "SchedulerUnavailable"))
      })
  )

  test("shares its schedules with others: one job an instant", "2026-05-01T04:00:30Z", () =>
    Effect.gen(function*() {
      for (let n = 0; n < 4; n++) yield* Test.start({ items: [everyMinute(), everyMinute({ id: "b" })] })
      for (let minute = 1; minute <= 5; minute++) {
        yield* Test.setTime(`2026-05-01T04:0${minute}:00Z`)
        yield* Test.added(2 * minute)
      }
      yield* Test.looks
      assert.strictEqual((yield* Test.jobs).length, 10)
    }))

  test("does what a living one is late with when it starts", "2026-05-01T04:00:30Z", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`insert into graphile_worker._private_kongtask_schedulers (id, started_at, identifiers)
        values ('other', '2026-05-01T04:00:20Z', '{tick}')`
      yield* known("tick", "2026-01-01T00:00:00Z", "2026-05-01T03:57:00Z")
      yield* Test.setTime("2026-05-01T04:02:30Z")
      yield* Test.start({ items: [everyMinute()] })
      yield* Test.added(2)
      yield* Test.looks
      assert.deepStrictEqual(Test.times(yield* Test.jobs), ["04:01", "04:02"])
    }))

  test("goes on with the others when the database refuses one", "2026-05-01T04:00:30Z", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql.unsafe(`
        create function refuse() returns trigger language plpgsql as $$
        begin raise exception 'not this one'; end $$`)
      yield* sql`create trigger refuse before insert on graphile_worker._private_jobs for each row
        when (new.priority = 7) execute function refuse()`
      const { events } = yield* Test.start({ items: [everyMinute({ id: "bad", priority: 7 }), everyMinute()] })
      yield* Test.setTime("2026-05-01T04:01:00Z")
      yield* Test.added(1)
      yield* Test.setTime("2026-05-01T04:02:00Z")
      assert.deepStrictEqual(Test.times(yield* Test.added(2)), ["04:01", "04:02"])
      const failed = yield* events.next("ScheduleFailed")
      assert.strictEqual(failed.id, "bad")
      assert.include(failed.problem, "not this one")
    }))

  test("tells what it does, and counts it", "2026-05-01T04:00:30Z", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const fiber = yield* Effect.forkScoped(Scheduler.run({ items: [everyMinute()] }))
      yield* events.next("SchedulerStarted")
      yield* Test.setTime("2026-05-01T04:01:00Z")
      const { runs } = yield* events.next("JobsScheduled")
      const [job] = yield* (yield* SqlClient.SqlClient)<{ id: string }>`
        select id::text from graphile_worker._private_jobs`
      assert.deepStrictEqual(runs, [
        { id: "tick", task: "tick", instant: DateTime.makeUnsafe("2026-05-01T04:01:00Z"), jobId: job!.id as never }
      ])
      yield* Fiber.interrupt(fiber)
      yield* events.next("SchedulerStopped")
      const sql = yield* SqlClient.SqlClient
      assert.deepStrictEqual(yield* sql`select id from graphile_worker._private_kongtask_schedulers`, [])
      const snapshot = yield* Metric.snapshot
      assert.isTrue(snapshot.some(({ id }) => id === "kongtask_schedule_runs"))
    }))
})

describe("runOnStart", () => {
  test(
    "adds one job for all schedulers that run at the same time",
    "2026-05-01T04:00:30Z",
    () =>
      Effect.gen(function*() {
        const options = { items: [Scheduler.cron(Tick, "0 5 * * *", { runOnStart: true })] }
        const fibers = yield* Effect.forEach([1, 2, 3], () => Effect.map(Test.start(options), ({ fiber }) => fiber))
        assert.deepStrictEqual(Test.times(yield* Test.added(1)), ["04:00"])
        yield* Effect.forEach(fibers.slice(1), Fiber.interrupt)
        yield* Test.start(options)
        yield* Test.looks
        assert.strictEqual((yield* Test.jobs).length, 1)
      })
  )

  test("adds one each time that all of them have stopped", "2026-05-01T04:00:30Z", () =>
    Effect.gen(function*() {
      const options = { items: [Scheduler.cron(Tick, "0 5 * * *", { runOnStart: true })] }
      yield* Effect.flatMap(Test.start(options), ({ fiber }) => Fiber.interrupt(fiber))
      yield* Test.setTime("2026-05-01T04:01:00Z")
      yield* Test.start(options)
      assert.deepStrictEqual(Test.times(yield* Test.added(2)), ["04:00", "04:01"])
    }))
})

describe("a custom schedule", () => {
  const every90 = (after: DateTime.Utc) => DateTime.add(after, { seconds: 90 })

  test("has the same instants in all processes", "2026-05-01T04:00:00Z", () =>
    Effect.gen(function*() {
      yield* Test.start({ items: [Scheduler.custom(Tick, every90)] })
      yield* Test.setTime("2026-05-01T04:01:00Z")
      yield* Test.start({ items: [Scheduler.custom(Tick, every90)] })
      yield* Test.setTime("2026-05-01T04:03:10Z")
      yield* Test.added(2)
      yield* Test.start({ items: [Scheduler.custom(Tick, every90)] })
      yield* Test.setTime("2026-05-01T04:06:00Z")
      yield* Test.added(4)
      yield* Test.looks
      assert.deepStrictEqual(Test.times(yield* Test.jobs), ["04:01", "04:03", "04:04", "04:06"])
    }))

  test("ends, or fails, alone", "2026-05-01T04:00:00Z", () =>
    Effect.gen(function*() {
      const once = DateTime.makeUnsafe("2026-05-01T04:01:00Z")
      const { events } = yield* Test.start({
        items: [
          Scheduler.custom(Tick, (after) => DateTime.isLessThan(after, once) ? once : undefined),
          Scheduler.custom(Tick, (after) => DateTime.subtract(after, { seconds: 1 }), { id: "back" }),
          Scheduler.custom(Tick, () => {
            throw new Error("broken")
          }, { id: "broken" })
        ]
      })
      assert.include((yield* events.next("ScheduleFailed")).problem, "is not after")
      assert.include((yield* events.next("ScheduleFailed")).problem, "broken")
      yield* Test.setTime("2026-05-01T04:05:00Z")
      yield* Test.added(1)
      yield* Test.looks
      assert.deepStrictEqual(Test.times(yield* Test.jobs), ["04:01"])
    }))
})

describe("a schedule that a function matches", () => {
  test("is due in the minutes of its zone that it says", "2026-05-01T03:00:00Z", () =>
    Effect.gen(function*() {
      const matches = ({ hour, minute, weekday }: Scheduler.Minute) => weekday === 5 && hour === 6 && minute % 20 === 0
      yield* Test.start({ items: [Scheduler.matching(Tick, matches, { timeZone: "Europe/Berlin" })] })
      yield* Test.setTime("2026-05-01T05:00:00Z")
      yield* Test.added(3)
      yield* Test.looks
      assert.deepStrictEqual(Test.times(yield* Test.jobs), ["04:00", "04:20", "04:40"])
    }))
})

describe("bad input", () => {
  const refused = (effect: Effect.Effect<unknown, Scheduler.InvalidSchedule>) =>
    Effect.map(Effect.flip(effect), ({ field, id }) => `${id} ${field}`)

  it.effect("is refused when a schedule is made", () =>
    Effect.gen(function*() {
      const Mail = Task.make("mail", { payload: { to: Schema.String } })
      const everyHour = (options: object) => Scheduler.cron(Tick, "@hourly", options)
      assert.deepStrictEqual(
        yield* Effect.forEach([
          Scheduler.cron(Tick, "0 0 31 2 *"),
          Scheduler.cron(Tick, "nonsense"),
          everyHour({ timeZone: "Mars/Base" }),
          everyHour({ maxAttempts: 0 }),
          everyHour({ jobKey: "" }),
          everyHour({ queueName: "" }),
          everyHour({ backfill: "-1 day" }),
          everyHour({ backfill: "never" }),
          everyHour({ missed: "some" }),
          everyHour({ missed: "skip", backfill: "1 day" }),
          everyHour({ overlap: "maybe" }),
          everyHour({ id: "" }),
          everyHour({ every: 1 }),
          Scheduler.cron(Mail, "@daily", { payload: { to: 1 as never } }),
          Scheduler.matching(Tick, () => true, { timeZone: "Mars/Base" })
        ], refused),
        [
          "tick expression",
          "tick expression",
          "tick timeZone",
          "tick maxAttempts",
          "tick jobKey",
          "tick queueName",
          "tick backfill",
          "tick backfill",
          "tick missed",
          "tick backfill",
          "tick overlap",
          " id",
          "tick every",
          "mail payload",
          "tick timeZone"
        ]
      )
    }))

  test("is refused when a scheduler starts", "2026-05-01T03:00:00Z", () =>
    Effect.gen(function*() {
      const Mail = Task.make("mail", { payload: { to: Schema.String } })
      const failure = (options: Scheduler.Options<typeof Mail>) =>
        Effect.map(Effect.flip(Scheduler.run(options)), (error) => error.message)
      assert.include(
        yield* failure({ items: [everyMinute()], crontab: "* * * * * tick" }),
        "id is that of another schedule"
      )
      assert.include(yield* failure({ crontab: "* * * * tick" }), "line 1, column")
      assert.include(yield* failure({ crontab: "* * * * * mail {to: 1}", tasks: [Mail] }), "is refused by the schema")
      assert.include(yield* failure({ crontabFile: "/nowhere/crontab" }), "crontabFile cannot be read")
      assert.include(yield* failure({ pollInterval: 1 }), "pollInterval")
    }))
})

describe("Scheduler.layer", () => {
  test("runs beside a worker", "2026-05-01T04:00:30Z", () =>
    Effect.gen(function*() {
      const worker = yield* Worker.Worker
      yield* Effect.forkScoped(
        Effect.never.pipe(Effect.provide(Scheduler.layer({ items: [everyMinute()] })))
      )
      yield* pause("300 millis")
      yield* Test.setTime("2026-05-01T04:01:00Z")
      yield* Test.added(1)
      const summary = yield* worker.runOnce({ tasks: [Tick] }).pipe(Effect.provide(Tick.toLayer(() => Effect.void)))
      assert.strictEqual(summary.completed, 1)
    }))
})
