/** Looking at jobs and taking them back. */
import { assert } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Job from "../../src/Job.ts"
import { failed, found, ids, type It, millis, retrying, running, scene, spec, specs, unique } from "./harness.ts"

export const reading = (it: It) => {
  it.effect("has no job of an unknown id", () =>
    Effect.gen(function*() {
      const { store } = yield* scene
      assert.deepStrictEqual(yield* store.get("9223372036854775807" as Job.JobId), Option.none())
    }))

  it.effect("tells where each job stands, and finds jobs by that", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const jobs = {
        running: yield* running(store, pool, task),
        retrying: yield* retrying(store, pool, task),
        failed: yield* failed(store, pool, task),
        ready: yield* store.add(spec(task)),
        scheduled: yield* store.add(spec(task, { delay: 60_000 }))
      }
      for (const [state, { id }] of Object.entries(jobs)) {
        const filter = { tasks: [task], states: [state as Job.State] }
        assert.strictEqual((yield* found(store, id)).state, state)
        assert.deepStrictEqual(ids(yield* store.list(filter, { limit: 10 })), [id])
        assert.strictEqual(yield* store.count(filter), 1)
      }
      const some = { tasks: [task], states: ["failed", "ready", "completed"] as const }
      assert.deepStrictEqual(ids(yield* store.list(some, { limit: 10 })), [jobs.failed.id, jobs.ready.id])
      assert.strictEqual(yield* store.count(some), 2)
    }))

  it.effect("measures by task and state, and for how long the oldest has been due, once in a while", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      yield* running(store, pool, task)
      yield* failed(store, pool, task)
      yield* store.addMany(specs(task, 2, { runAt: Date.now() - 60_000 }))
      yield* store.add(spec(task, { delay: 60_000 }))
      const depths = Option.getOrThrow(yield* store.measure(Duration.zero))
      const counts = depths.jobs.filter((depth) => depth.task === task).map(({ count, state }) => [state, count])
      assert.deepStrictEqual(Object.fromEntries(counts), { running: 1, failed: 1, ready: 2, scheduled: 1 })
      assert.isAtLeast(Duration.toMillis(depths.oldestReady.get(task)!), 50_000)
      assert.isFalse(depths.isPartial)
      assert.deepStrictEqual(yield* store.measure(Duration.hours(1)), Option.none())
    }))

  it.effect("tells who holds a running job, since when, and for which attempt", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const before = yield* store.add(spec(task))
      yield* store.claim({ pool, tasks: [task], limit: 1 })
      const job = yield* found(store, before.id)
      assert.deepInclude(job, { state: "running", lockedBy: pool, attempts: 1 })
      assert.isAtLeast(job.lockedAt!.epochMilliseconds, before.createdAt.epochMilliseconds)
    }))

  it.effect("finds jobs by task, queue and key, all conditions together", () =>
    Effect.gen(function*() {
      const { store } = yield* scene
      const [a, b] = [unique("task"), unique("task")]
      const [queueName, key] = [unique("queue"), unique("key")]
      const [plain, queued, keyed, foreign] = yield* store.addMany([
        spec(a),
        spec(a, { queueName }),
        spec(a, { queueName, key }),
        spec(b, { queueName })
      ])
      const finds = Effect.fnUntraced(
        function*(filter: Parameters<typeof store.count>[0], jobs: ReadonlyArray<Job.Job>) {
          assert.deepStrictEqual(ids(yield* store.list(filter, { limit: 10 })), ids(jobs))
          assert.strictEqual(yield* store.count(filter), jobs.length)
        }
      )
      yield* finds({ tasks: [a] }, [plain!, queued!, keyed!])
      yield* finds({ tasks: [a, b] }, [plain!, queued!, keyed!, foreign!])
      yield* finds({ queueName }, [queued!, keyed!, foreign!])
      yield* finds({ key }, [keyed!])
      yield* finds({ tasks: [a], queueName }, [queued!, keyed!])
      yield* finds({ tasks: [b], key }, [])
      yield* finds({ tasks: [b], queueName, states: ["ready"] }, [foreign!])
      yield* finds({ tasks: [] }, [])
      yield* finds({ tasks: [a], states: [] }, [])
      yield* finds({ tasks: [unique("task")] }, [])
      assert.isAtLeast(yield* store.count({}), 4)
    }))

  it.effect("finds jobs by flag and by age", () =>
    Effect.gen(function*() {
      const { store, task } = yield* scene
      const runAt = Date.UTC(2032, 0, 1)
      const [flagged, due, later] = yield* store.addMany([
        spec(task, { flags: ["a ✓", "b"] }),
        spec(task),
        spec(task, { runAt })
      ])
      const finds = Effect.fnUntraced(
        function*(filter: Parameters<typeof store.count>[0], jobs: ReadonlyArray<Job.Job | undefined>) {
          const mine = { ...filter, tasks: [task] }
          assert.deepStrictEqual(ids(yield* store.list(mine, { limit: 10 })), jobs.map((job) => job!.id))
          assert.strictEqual(yield* store.count(mine), jobs.length)
        }
      )
      yield* finds({ flag: "a ✓" }, [flagged])
      yield* finds({ flag: "c" }, [])
      yield* finds({ runAfter: runAt }, [later])
      yield* finds({ runBefore: runAt }, [flagged, due])
      yield* finds({ runAfter: runAt + 1 }, [])
      const now = millis(due!.createdAt)
      yield* finds({ addedAfter: now - 60_000, addedBefore: now + 60_000 }, [flagged, due, later])
      yield* finds({ addedAfter: now + 60_000 }, [])
      yield* finds({ addedBefore: now - 60_000 }, [])
    }))

  it.effect("counts jobs by state, task and queue in one go", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const [other, queueName] = [unique("task"), unique("queue")]
      yield* failed(store, pool, task)
      yield* running(store, pool, task, { queueName })
      yield* store.addMany([...specs(task, 3), spec(other, { queueName, delay: 60_000 })])
      const none = { scheduled: 0, ready: 0, running: 0, retrying: 0, completed: 0, failed: 0, cancelled: 0 }
      const stats = yield* store.stats({ tasks: [task, other] })
      assert.deepStrictEqual(stats.all, { ...none, failed: 1, running: 1, ready: 3, scheduled: 1 })
      assert.deepStrictEqual(
        stats.tasks,
        new Map([[task, { ...none, failed: 1, running: 1, ready: 3 }], [other, { ...none, scheduled: 1 }]])
      )
      assert.deepStrictEqual(stats.queues, new Map([[queueName, { ...none, running: 1, scheduled: 1 }]]))
      const empty = yield* store.stats({ tasks: [] })
      assert.deepStrictEqual(empty, { all: none, tasks: new Map(), queues: new Map() })
    }))

  it.effect("lists page by page in the order of ids", () =>
    Effect.gen(function*() {
      const { store, task } = yield* scene
      const jobs = yield* store.addMany(specs(task, 25))
      const pages: Array<ReadonlyArray<Job.Job>> = []
      let after: Job.JobId | undefined
      while (true) {
        const page = yield* store.list({ tasks: [task] }, { limit: 10, after })
        if (page.length === 0) break
        pages.push(page)
        after = page.at(-1)?.id
      }
      assert.deepStrictEqual(pages.map((page) => page.length), [10, 10, 5])
      assert.deepStrictEqual(ids(pages.flat()), ids(jobs))
    }))

  it.effect("removes a waiting job by its id or its key", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const key = unique("key")
      const byId = yield* store.add(spec(task, { queueName: unique("queue") }))
      const byKey = yield* store.add(spec(task, { key, delay: 60_000 }))
      const { id } = yield* retrying(store, pool, unique("task"))
      const tried = yield* found(store, id)
      assert.deepStrictEqual(yield* store.remove({ id: byId.id }), Option.some(byId))
      assert.deepStrictEqual(yield* store.remove({ key }), Option.some(byKey))
      assert.deepStrictEqual(yield* store.remove({ id }), Option.some(tried))
      for (const { id } of [byId, byKey, tried]) assert.deepStrictEqual(yield* store.get(id), Option.none())
    }))

  it.effect("removes a job that has failed", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const key = unique("key")
      const { id } = yield* failed(store, pool, task, { key })
      assert.deepInclude(Option.getOrThrow(yield* store.remove({ key })), { id, state: "failed", key })
      assert.deepStrictEqual(yield* store.get(id), Option.none())
    }))

  it.effect("takes a running job's key and remaining attempts instead", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const key = unique("key")
      const byKey = yield* running(store, pool, task, { key })
      const removed = Option.getOrThrow(yield* store.remove({ key }))
      assert.deepInclude(removed, { id: byKey.id, state: "running", key: undefined, attempts: 25, lockedBy: pool })
      assert.deepStrictEqual(yield* found(store, byKey.id), removed)
      assert.deepStrictEqual(yield* store.remove({ key }), Option.none())
      const byId = yield* running(store, pool, task)
      assert.deepInclude(Option.getOrThrow(yield* store.remove({ id: byId.id })), { state: "running", attempts: 25 })
      assert.strictEqual((yield* store.settle(pool, [{ _tag: "Completed", id: byId.id }])).size, 1)
    }))

  it.effect("has nothing to remove where there is no such job", () =>
    Effect.gen(function*() {
      const { store } = yield* scene
      assert.deepStrictEqual(yield* store.remove({ key: unique("key") }), Option.none())
      assert.deepStrictEqual(yield* store.remove({ id: "9223372036854775807" as Job.JobId }), Option.none())
    }))

  it.effect("removes or marks a job that is being claimed, whichever comes first", () =>
    Effect.gen(function*() {
      const { other, otherPool, store, task } = yield* scene
      for (let round = 0; round < 40; round++) {
        const key = unique("key")
        const { id } = yield* store.add(spec(task, { key }))
        const [claim, removed] = yield* Effect.all([
          other.claim({ pool: otherPool, tasks: [task], limit: 1 }),
          store.remove(round % 2 === 0 ? { id } : { key })
        ], { concurrency: 2 })
        const job = Option.getOrThrow(removed)
        assert.strictEqual(job.id, id)
        if (claim.jobs.length === 0) {
          assert.deepInclude(job, { state: "ready", key })
          assert.deepStrictEqual(yield* store.get(id), Option.none())
        } else {
          assert.deepInclude(job, { state: "running", key: undefined, attempts: 25, lockedBy: otherPool })
        }
      }
    }))
}
