/** One mechanism for the end of a job, whoever ends it: what it leaves in the tables. */
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as PostgresStore from "../src/internal/postgres/store.ts"
import type * as Job from "../src/Job.ts"
import type { JobSpec } from "../src/JobStore.ts"
import { spec, take } from "./store/harness.ts"
import * as Database from "./support/database.ts"

const hour = 3_600_000

interface HistoryRow {
  readonly id: string
  readonly state: string
  readonly revision: number
  readonly error: string | null
  readonly result: string | null
  readonly is_retained: boolean
  readonly failed_attempts: string | null
}

const scene = Effect.gen(function*() {
  const { config } = yield* Database.freshDatabase()
  const sql = yield* PgClient.make(config).pipe(Effect.provide(Reactivity.layer))
  const store = yield* Effect.provideService(
    PostgresStore.make({ schema: "graphile_worker" }),
    PgClient.PgClient,
    sql
  )
  const pool = "kongtask-pool"
  yield* store.registerPool(pool, Duration.hours(1))
  const add = (options: Partial<JobSpec> = {}) => store.add(spec("task", { details: { retain: hour }, ...options }))
  const claim = (limit = 1) => Effect.map(store.claim({ pool, tasks: ["task"], limit }), ({ jobs }) => jobs)
  const history = sql<HistoryRow>`
    select job_id::text as id, state, revision::int as revision, error, result::text as result, is_retained,
      failed_attempts::text as failed_attempts
    from graphile_worker._private_kongtask_history order by job_id, revision`
  const details = sql<{ id: string; outcome: string | null; has_stopped: boolean }>`
    select job_id::text as id, outcome, stopped_at is not null as has_stopped
    from graphile_worker._private_kongtask_job_details order by job_id`
  const states = Effect.map(history, (rows) => rows.map(({ id, state }) => [id, state]))
  return { sql, store, pool, add, claim, history, details, states }
})

const failure = (id: Job.JobId, retryIn?: number) =>
  ({
    _tag: "Failed",
    id,
    error: "broken",
    retryIn,
    record: { attempt: 1, tag: "Broken", data: "{\"n\":1}" }
  }) as const

describe("a job with details", () => {
  it.live("goes to the history when its worker settles it, by either way of settling", () =>
    Effect.gen(function*() {
      const { add, claim, details, history, pool, store } = yield* scene
      const plain = yield* store.add(spec("task"))
      const jobs = yield* Effect.forEach([1, 2, 3], () => add())
      assert.deepStrictEqual((yield* claim(4)).map((job) => job.details?.retains), [undefined, true, true, true])
      yield* store.settle(pool, [
        { _tag: "Completed", id: plain.id },
        { _tag: "Completed", id: jobs[0]!.id, keep: { result: "{\"a\":\"\\u0000\"}" } },
        { _tag: "Completed", id: jobs[1]!.id },
        { _tag: "Cancelled", id: jobs[2]!.id, reason: "no use" }
      ])
      const batched = yield* Effect.forEach([1, 2, 3, 4], () => add())
      yield* Effect.scoped(Effect.gen(function*() {
        const batch = yield* take(store, { pool, tasks: ["task"], limit: 10 })
        assert.deepStrictEqual(batch.jobs.map((job) => job.details?.retains), [true, true, true, true])
        const { refused } = yield* batch.settle([
          { _tag: "Completed", id: batched[0]!.id, keep: { result: "[1]" } },
          { _tag: "Completed", id: batched[1]!.id },
          { _tag: "Cancelled", id: batched[2]!.id, reason: undefined },
          failure(batched[3]!.id)
        ])
        assert.strictEqual(refused.size, 0)
      }))
      const none = { revision: 0, error: null, result: null, is_retained: true, failed_attempts: null }
      assert.deepStrictEqual(yield* history, [
        { ...none, id: jobs[0]!.id, state: "completed", result: "{\"a\":\"\\u0000\"}" },
        { ...none, id: jobs[1]!.id, state: "completed" },
        { ...none, id: jobs[2]!.id, state: "cancelled", error: "no use" },
        { ...none, id: batched[0]!.id, state: "completed", result: "[1]" },
        { ...none, id: batched[1]!.id, state: "completed" },
        { ...none, id: batched[2]!.id, state: "cancelled" }
      ])
      assert.deepStrictEqual(yield* details, [{ id: batched[3]!.id, outcome: "failed", has_stopped: true }])
    }))

  it.live("whose result the database refuses is claimed instead, and undoes nothing of its batch", () =>
    Effect.gen(function*() {
      const { add, pool, states, store } = yield* scene
      const [bad, good, cancelled] = yield* Effect.forEach([1, 2, 3], () => add())
      yield* Effect.scoped(Effect.gen(function*() {
        const batch = yield* take(store, { pool, tasks: ["task"], limit: 10 })
        const { refused } = yield* batch.settle([
          { _tag: "Completed", id: bad!.id, keep: { result: "no JSON" } },
          { _tag: "Completed", id: good!.id },
          { _tag: "Cancelled", id: cancelled!.id, reason: undefined }
        ])
        assert.deepStrictEqual([...refused], [bad!.id])
      }))
      assert.deepStrictEqual(yield* states, [[good!.id, "completed"], [cancelled!.id, "cancelled"]])
      assert.deepInclude(Option.getOrThrow(yield* store.get(bad!.id)), { state: "running", attempts: 1 })
    }))

  it.live("that a batch completes whole goes there too", () =>
    Effect.gen(function*() {
      const { add, pool, states, store } = yield* scene
      const first = yield* add()
      yield* store.add(spec("task"))
      yield* Effect.scoped(Effect.gen(function*() {
        const batch = yield* take(store, { pool, tasks: ["task"], limit: 10 })
        yield* batch.settle(batch.jobs.map(({ id }) => ({ _tag: "Completed", id }) as const))
      }))
      assert.deepStrictEqual(yield* states, [[first.id, "completed"]])
    }))

  it.live("is cancelled when it is removed, cancelled or replaced, and goes on under its id where it is replaced", () =>
    Effect.gen(function*() {
      const { add, details, history, store } = yield* scene
      const removed = yield* add({ key: "removed" })
      const cancelled = yield* add()
      const replaced = yield* add({ key: "replaced" })
      const bulk = yield* Effect.forEach(["a", "b"], (key) => add({ key }))
      yield* store.remove({ key: "removed" })
      yield* store.cancel(cancelled.id)
      const again = yield* add({ key: "replaced" })
      assert.deepInclude(again, { id: replaced.id, revision: 1 })
      yield* store.addMany([spec("task", { key: "a" }), spec("task", { key: "b" })])
      assert.deepStrictEqual((yield* history).map(({ error, id, state }) => [id, state, error]), [
        [removed.id, "cancelled", "removed"],
        [cancelled.id, "cancelled", null],
        [replaced.id, "cancelled", "replaced by its key"],
        ...bulk.map(({ id }) => [id, "cancelled", "replaced by its key"])
      ])
      assert.deepStrictEqual(yield* details, [{ id: replaced.id, outcome: null, has_stopped: false }])
    }))

  it.live("that runs when it is removed or replaced counts as cancelled in the end", () =>
    Effect.gen(function*() {
      const { add, claim, details, pool, states, store } = yield* scene
      const removed = yield* add({ key: "removed" })
      const replaced = yield* add({ key: "replaced" })
      yield* claim(2)
      yield* store.remove({ key: "removed" })
      const next = yield* add({ key: "replaced" })
      yield* store.settle(pool, [{ _tag: "Completed", id: removed.id, keep: { result: "1" } }, failure(replaced.id, 0)])
      assert.deepStrictEqual(yield* states, [[removed.id, "cancelled"]])
      assert.deepStrictEqual(yield* details, [
        { id: replaced.id, outcome: "cancelled", has_stopped: true },
        { id: next.id, outcome: null, has_stopped: false }
      ])
    }))

  it.live("stays when it fails, lives again by a retry, and takes its failed attempts along when it goes", () =>
    Effect.gen(function*() {
      const { add, claim, details, history, pool, sql, states, store } = yield* scene
      const { id } = yield* add()
      yield* claim()
      yield* store.settle(pool, [failure(id)])
      assert.deepStrictEqual(yield* details, [{ id, outcome: "failed", has_stopped: true }])
      yield* store.retry([id])
      assert.deepStrictEqual(yield* details, [{ id, outcome: null, has_stopped: false }])
      yield* sql`update graphile_worker._private_jobs set attempts = max_attempts`
      assert.deepStrictEqual(yield* details, [{ id, outcome: "failed", has_stopped: true }])
      yield* store.retry([id])
      yield* claim()
      yield* store.settle(pool, [{ _tag: "Completed", id }])
      const [row] = yield* history
      assert.deepInclude(row, { id, state: "completed" })
      const attempts = JSON.parse(row!.failed_attempts!)
      assert.deepInclude(attempts[0], { attempt: 1, tag: "Broken", message: "broken", data: { n: 1 } })
      assert.lengthOf(yield* sql`select from graphile_worker._private_kongtask_failed_attempts`, 0)

      const cleaned = yield* add()
      const completed = yield* add()
      yield* store.fail([cleaned.id, completed.id], "by hand")
      yield* store.complete([completed.id])
      yield* store.cleanup({ tasks: false, queues: false, failedJobs: 0 })
      assert.deepStrictEqual(yield* states, [[id, "completed"], [cleaned.id, "failed"], [completed.id, "completed"]])
    }))

  it.live("is kept for as long as its worker says where nobody else has said", () =>
    Effect.gen(function*() {
      const { add, claim, details, pool, states, store } = yield* scene
      const silent = yield* store.add(spec("task"))
      const refusing = yield* add({ details: { retain: 0 } })
      const failing = yield* store.add(spec("task"))
      yield* claim(3)
      yield* store.settle(pool, [
        { _tag: "Completed", id: silent.id, keep: { retain: hour } },
        { _tag: "Completed", id: refusing.id, keep: { retain: hour } },
        { ...failure(failing.id), retain: hour }
      ])
      assert.deepStrictEqual(yield* states, [[silent.id, "completed"]])
      assert.deepStrictEqual(yield* details, [{ id: failing.id, outcome: "failed", has_stopped: true }])
    }))

  it.live("is told of to those who wait for it, and to nobody else", () =>
    Effect.scoped(Effect.gen(function*() {
      const { add, claim, history, pool, sql, store } = yield* scene
      const heard = yield* sql.listen("kongtask:watched")
      const silent = yield* add()
      const jobs = yield* Effect.forEach([1, 2], () => add({ details: { awaited: true } }))
      yield* claim(3)
      yield* store.settle(pool, [
        { _tag: "Completed", id: silent.id },
        { _tag: "Completed", id: jobs[0]!.id, keep: { result: "1" } },
        failure(jobs[1]!.id)
      ])
      const messages = [yield* Queue.take(heard), yield* Queue.take(heard)]
      assert.sameDeepMembers(
        messages.map(({ payload }) => JSON.parse(payload!)),
        jobs.map(({ id }) => ({ schema: "graphile_worker", jobs: [id] }))
      )
      const rows = yield* history
      assert.deepInclude(rows[1], { id: jobs[0]!.id, state: "completed", result: null, is_retained: false })
    })))
})
