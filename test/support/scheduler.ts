/**
 * Schedulers on a clock that stands still until a test moves it, and the jobs
 * that they add.
 */
import { Effect, type Layer, Queue as Buffer, type Scope, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { Scheduler, type SchedulerEvent } from "kongtask"
import { eventually, pause, within } from "./events.ts"
import * as Test from "./kongtask.ts"

type Services = Layer.Success<ReturnType<typeof Test.layer>>

/** On a database of its own; the clock stands at the given time. */
export const on = (start: string) => <A, E>(effect: Effect.Effect<A, E, Services | Scope.Scope>) =>
  Effect.andThen(setTime(start), effect).pipe(
    Effect.provide(TestClock.layer({ warningDelay: "10 minutes" })),
    Effect.scoped,
    Effect.provide(Test.layer())
  )

export const setTime = (iso: string) => TestClock.setTime(Date.parse(iso))

/** How many sessions wait for a lock, as seen from within a transaction too. */
const waiting = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(
    sql<{ readonly count: number }>`
      select count(*)::int as count from pg_locks
      where not granted and database = (select oid from pg_database where datname = current_database())`,
    ([row]) => row!.count
  ))

/**
 * Sets the clock while a scheduler that looks for changes every second waits for the database, so that it sees no time in
 * between: from one sleep to the next, the test clock would lead it through.
 */
export const jump = (iso: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    sql.withTransaction(Effect.gen(function*() {
      yield* sql`lock table graphile_worker._private_kongtask_schedulers in access exclusive mode`
      yield* TestClock.adjust("1 second")
      yield* eventually(waiting, { what: "a scheduler that waits", until: (count) => count > 0, within: "8 seconds" })
      yield* setTime(iso)
    })))

/** A job of a schedule. */
export interface Added {
  readonly task: string
  readonly ts: string | null
  readonly backfilled: boolean | null
}

/** All jobs in the order in which they were added. */
export const jobs = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  sql<Added>`
    select task.identifier as task, job.payload -> '_cron' ->> 'ts' as ts,
      (job.payload -> '_cron' ->> 'backfilled')::bool as backfilled
    from graphile_worker._private_jobs as job
    join graphile_worker._private_tasks as task on task.id = job.task_id
    order by job.id`)

/** Waits for so many jobs. */
export const added = (count: number) =>
  eventually(jobs, { what: `${count} jobs`, until: (rows) => rows.length >= count, within: "8 seconds" })

/** Their instants, `HH:MM` of the day, `+` for those made up for. */
export const times = (rows: ReadonlyArray<Added>): ReadonlyArray<string> =>
  rows.map(({ backfilled, ts }) => `${backfilled === true ? "+" : ""}${ts?.slice(11, 16) ?? "?"}`)

/** Lets every scheduler look at the clock, and at its schedules, a few times. */
export const looks = Effect.gen(function*() {
  for (let n = 0; n < 4; n++) {
    yield* pause("60 millis")
    yield* TestClock.adjust("1 second")
  }
  yield* pause("60 millis")
})

type Event = SchedulerEvent.SchedulerEvent

/** A scheduler's events from now on. */
export const watch = Effect.gen(function*() {
  const { events } = yield* Scheduler.Scheduler
  const buffer = yield* Buffer.unbounded<Event>()
  yield* events.pipe(
    Stream.runForEach((event) => Buffer.offer(buffer, event)),
    Effect.forkScoped({ startImmediately: true })
  )
  const next = <T extends Event["_tag"]>(tag: T): Effect.Effect<Extract<Event, { readonly _tag: T }>> =>
    Effect.gen(function*() {
      while (true) {
        const event = yield* Buffer.take(buffer)
        if (event._tag === tag) return event as never
      }
    }).pipe((taking) => within(taking, "8 seconds", `the event ${tag}`), Effect.orDie)
  return {
    next,
    /** What has happened and was not taken yet. */
    rest: Effect.suspend(() => Buffer.clear(buffer))
  }
})

/** Runs a scheduler in the scope, and waits until it has started. */
export const start = <R = never>(options: Scheduler.Options<never, R>) =>
  Effect.gen(function*() {
    const events = yield* watch
    const fiber = yield* Effect.forkScoped(Scheduler.run(options))
    yield* events.next("SchedulerStarted")
    return { fiber, events }
  })
