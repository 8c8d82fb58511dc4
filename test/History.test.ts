import { PgClient } from "@effect/sql-pg"
import { describe, expect, it } from "@effect/vitest"
import { Clock, Effect, type Layer, Option, Schema, type Scope } from "effect"
import { type Job, Queue, Retry, Task, Worker } from "kongtask"
import { eventually } from "./support/events.ts"
import * as FastClock from "./support/fastClock.ts"
import * as Test from "./support/kongtask.ts"

const test = <E>(
  name: string,
  effect: () => Effect.Effect<unknown, E, Layer.Success<ReturnType<typeof Test.layer>> | Scope.Scope>
) => it.live(name, () => Effect.scoped(effect()).pipe(Effect.provide(Test.layer())), 60_000)

class Broken extends Schema.TaggedError<Broken>()("Broken", { code: Schema.Int }) {}

const Work = Task.make("work", {
  payload: { n: Schema.Int },
  success: Schema.Struct({ n: Schema.Int }),
  error: Broken,
  retain: "1 hour"
})
const Other = Task.make("other", { payload: { n: Schema.Int }, retain: "1 hour" })

/** Jobs of a negative number fail, twice with another attempt to come. */
const WorkLive = Work.toLayer(
  ({ n }, job) => n < 0 ? Effect.fail(new Broken({ code: job.attempt })) : Effect.succeed({ n }),
  {
    retry: Retry.after(0)
  }
)
const OtherLive = Other.toLayer(() => Effect.void)

const work = Effect.gen(function*() {
  while (true) {
    const { retried } = yield* Worker.runOnce({ tasks: [Work, Other] }).pipe(Effect.provide([WorkLive, OtherLive]))
    if (retried === 0) return
  }
})

const ns = (jobs: ReadonlyArray<Job.Finished>) => jobs.map(({ payload }) => (payload as { n: number }).n)

describe("the history", () => {
  test("has everything of a job that has stopped", () =>
    Effect.gen(function*() {
      const completed = yield* Queue.add(Work, { n: 1 }, { queueName: "line", flags: ["f"], jobKey: "k", priority: 3 })
      const failed = yield* Queue.add(Work, { n: -1 }, { maxAttempts: 2 })
      const cancelled = yield* Queue.add(Other, { n: 2 }, { delay: "1 hour" })
      yield* work
      yield* Queue.cancel(cancelled.id)
      expect(yield* Queue.finished(failed.id)).toEqual(Option.none())
      expect(Option.getOrThrow(yield* Queue.get(failed.id)).state).toBe("failed")
      yield* Queue.remove(failed.id)

      const first = Option.getOrThrow(yield* Queue.finished(completed.id))
      expect(first).toMatchObject({
        ...{ task: "work", state: "completed", payload: { n: 1 }, queueName: "line", flags: ["f"], key: "k" },
        ...{ priority: 3, attempts: 1, maxAttempts: 25, revision: 0, result: { n: 1 }, error: undefined },
        ...{ failedAttempts: [], runAt: completed.runAt, createdAt: completed.createdAt }
      })
      const { expiresAt, startedAt, stoppedAt } = first
      expect(expiresAt.epochMilliseconds - stoppedAt.epochMilliseconds).toBe(3_600_000)
      expect(startedAt!.epochMilliseconds).toBeLessThanOrEqual(stoppedAt.epochMilliseconds)
      expect(startedAt!.epochMilliseconds).toBeGreaterThanOrEqual(completed.createdAt.epochMilliseconds)

      const second = Option.getOrThrow(yield* Queue.finished(failed.id))
      expect(second).toMatchObject({ state: "failed", error: "Broken", result: undefined, attempts: 2 })
      expect(second.failedAttempts).toMatchObject([
        { attempt: 1, tag: "Broken", data: { _tag: "Broken", code: 1 } },
        { attempt: 2, tag: "Broken", data: { _tag: "Broken", code: 2 } }
      ])
      const third = Option.getOrThrow(yield* Queue.finished(cancelled.id))
      expect(third).toMatchObject({ state: "cancelled", startedAt: undefined, attempts: 0 })
      expect(yield* Queue.get(completed.id)).toEqual(Option.none())
    }))

  test("is found by state, task, queue, key and time, newest first, page by page", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      yield* Queue.addMany(Array.from({ length: 10 }, (_, n) => Work.request({ n }, { queueName: `q${n % 2}` })))
      yield* Queue.addMany(Array.from({ length: 10 }, (_, n) => Other.request({ n: 10 + n }, { jobKey: `key ${n}` })))
      yield* work
      const late = yield* Queue.add(Other, { n: 20 }, { delay: "1 hour" })
      yield* Queue.cancel(late.id)
      // A minute apart, but two of them together.
      yield* sql`
        update graphile_worker._private_kongtask_history
        set stopped_at = timestamptz '2026-01-01T00:00:00.123Z'
          + case when (payload ->> 'n')::int = 7 then 6 else (payload ->> 'n')::int end * interval '1 minute'`
      const minute = (n: number) => new Date(Date.UTC(2026, 0, 1, 0, n, 0, 123))
      const down = (from: number, to: number) => Array.from({ length: from - to + 1 }, (_, n) => from - n)

      expect(ns(yield* Queue.history())).toEqual(down(20, 0))
      const pages: Array<number> = []
      let page = yield* Queue.history({ limit: 4 })
      while (page.length > 0) {
        pages.push(...ns(page))
        page = yield* Queue.history({ limit: 4, after: page.at(-1) })
      }
      expect(pages).toEqual(down(20, 0))
      expect(ns(yield* Queue.history({ task: Work, limit: 5 }))).toEqual(down(9, 5))
      expect(ns(yield* Queue.history({ task: [Work, Other], limit: 12 }))).toEqual(down(20, 9))
      const [sixteen] = yield* Queue.history({ stoppedBefore: minute(17), limit: 1 })
      expect(ns(yield* Queue.history({ task: [Work, Other], limit: 10, after: sixteen }))).toEqual(down(15, 6))
      expect(ns(yield* Queue.history({ state: "cancelled" }))).toEqual([20])
      expect(ns(yield* Queue.history({ state: ["completed", "failed"], limit: 2 }))).toEqual([19, 18])
      expect(ns(yield* Queue.history({ queueName: "q1" }))).toEqual([9, 7, 5, 3, 1])
      expect(ns(yield* Queue.history({ key: "key 3" }))).toEqual([13])
      expect(ns(yield* Queue.history({ stoppedAfter: minute(4), stoppedBefore: minute(8) }))).toEqual([7, 6, 5, 4])
      expect(yield* Queue.history({ addedBefore: minute(0) })).toEqual([])
      expect(yield* Queue.countHistory()).toBe(21)
      expect(yield* Queue.countHistory({ task: Other, state: "completed" })).toBe(10)
      expect(yield* Queue.countHistory({ stoppedAfter: minute(18) })).toBe(3)

      expect(yield* Queue.forget({ task: Work, stoppedBefore: minute(5) })).toBe(5)
      expect(yield* Queue.countHistory({ task: Work })).toBe(5)
      expect(yield* Queue.forget({})).toBe(16)
      expect(yield* Queue.history()).toEqual([])
    }))

  test("refuses what is no filter", () =>
    Effect.gen(function*() {
      const refused = (effect: Effect.Effect<unknown, { readonly message: string }, Queue.Queue>) =>
        Effect.map(Effect.flip(effect), ({ message }) => message)
      expect(yield* refused(Queue.history({ limit: 1.5 }))).toMatch(/limit must be a whole number/)
      expect(yield* refused(Queue.history({ queueName: "\u0000" }))).toMatch(/queueName must be a string/)
      expect(yield* refused(Queue.countHistory({ stoppedAfter: new Date(Number.NaN) }))).toMatch(/stoppedAfter is not/)
      expect(yield* refused(Queue.redrive({ error: "" }))).toMatch(/error must have 1 to/)
      expect(yield* refused(Queue.redrive({ dryRun: 1 as never }))).toMatch(/dryRun must be true or false/)
    }))

  test("loses what is over to the workers, thousands at a time, and nothing else", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      yield* Queue.add(Work, { n: 1 })
      yield* work
      yield* sql`
        insert into graphile_worker._private_kongtask_history (
          job_id, revision, task, state, priority, run_at, attempts, max_attempts, created_at, stopped_at, is_retained,
          expires_at
        )
        select 1000 + n, 0, 'work', 'completed', 0, now(), 1, 25, now(), now(), n % 2 = 0, now() - interval '1 second'
        from generate_series(1, 5000) as n`
      expect(yield* Queue.countHistory()).toBe(1)
      // The first look comes within a minute.
      const now = yield* Clock.currentTimeMillis
      yield* Worker.run({ tasks: [Other], handleSignals: false }).pipe(
        Effect.provide([OtherLive, FastClock.layer({ base: now, start: now, rate: 60 })]),
        Effect.forkScoped
      )
      yield* eventually(sql`select from graphile_worker._private_kongtask_history`, {
        until: (rows) => rows.length === 1,
        within: "30 seconds"
      })
    }))
})

describe("redrive", () => {
  test("makes failed jobs ready by filter, many batches of them, and counts first if asked to", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      yield* Queue.addMany(Array.from({ length: 2_500 }, (_, n) => Work.request({ n }, { maxAttempts: 1 })))
      yield* Queue.addMany([Other.request({ n: 1 }), Other.request({ n: 2 }), Work.request({ n: 1 })])
      yield* sql`
        update graphile_worker._private_jobs set attempts = max_attempts, last_error = 'Broken: ' || (payload ->> 'n')
        where max_attempts = 1 or task_id = (select id from graphile_worker._private_tasks where identifier = 'other')`
      expect(yield* Queue.redrive({ dryRun: true })).toBe(2_502)
      expect(yield* Queue.redrive({ task: Other, error: "Broken: 2", dryRun: true })).toBe(1)
      expect(yield* Queue.count({ state: "failed" })).toBe(2_502)
      expect(yield* Queue.redrive({ task: Other, error: "Broken: 2" })).toBe(1)
      expect(yield* Queue.count({ state: "failed" })).toBe(2_501)
      expect(yield* Queue.redrive({ task: Work, queueName: "none" })).toBe(0)
      const events = yield* Test.watch
      yield* Worker.run({ tasks: [Work, Other], handleSignals: false, pollInterval: "1 hour" }).pipe(
        Effect.provide([WorkLive, OtherLive]),
        Effect.forkScoped
      )
      yield* events.many("JobCompleted", 2)
      expect(yield* Queue.redrive()).toBe(2_501)
      yield* events.many("JobCompleted", 2_501)
      expect(yield* Queue.count()).toBe(0)
    }))

  test("takes a job that fails again meanwhile once only, and joins the caller's transaction", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      yield* Queue.addMany(Array.from({ length: 3 }, () => Work.request({ n: -1 }, { maxAttempts: 1 })))
      yield* work
      const undone = sql.withTransaction(Effect.andThen(Queue.redrive(), Effect.fail("undone")))
      expect(yield* Effect.flip(undone)).toBe("undone")
      expect(yield* Queue.redrive({ dryRun: true })).toBe(3)
      expect(yield* Queue.redrive()).toBe(3)
      yield* work
      const jobs = yield* Queue.list()
      expect(jobs.map(({ attempts, state }) => [attempts, state])).toEqual(jobs.map(() => [1, "failed"]))
    }))
})
