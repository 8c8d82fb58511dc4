/** Changing jobs from outside, and clearing up. */
import { assert } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Job from "../../src/Job.ts"
import type { Changes } from "../../src/JobStore.ts"
import { failed, found, ids, type It, millis, retrying, running, scene, spec, specs, unique } from "./harness.ts"

const unknown = "9223372036854775807" as Job.JobId

const changes = (given: Partial<Changes>): Changes => ({
  runAt: undefined,
  delay: undefined,
  priority: undefined,
  attempts: undefined,
  maxAttempts: undefined,
  ...given
})

export const administration = (it: It) => {
  it.effect("completes jobs that nobody runs, and answers them", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const waiting = yield* store.add(spec(task, { queueName: unique("queue"), key: unique("key"), delay: 60_000 }))
      const dead = yield* failed(store, pool, task)
      const held = yield* running(store, pool, task)
      const completed = yield* store.complete([held.id, dead.id, unknown, waiting.id])
      assert.deepStrictEqual({ ...completed[0] }, { ...waiting, state: "completed" })
      assert.deepStrictEqual(ids(completed), [waiting.id, dead.id])
      assert.deepStrictEqual(ids(yield* store.list({ tasks: [task] }, { limit: 5 })), [held.id])
    }))

  it.effect("fails jobs that nobody runs for good", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const [a, b] = yield* store.addMany(specs(task, 2))
      const held = yield* running(store, pool, unique("task"))
      assert.deepStrictEqual(ids(yield* store.fail([b!.id, a!.id, held.id, unknown], "no \"more\"")), [a!.id, b!.id])
      assert.deepInclude(yield* found(store, a!.id), { state: "failed", attempts: 25, lastError: "no \"more\"" })
      assert.deepInclude(yield* found(store, held.id), { state: "running", attempts: 1 })
      const [again] = yield* store.fail([a!.id], undefined)
      assert.deepInclude(again, { state: "failed", lastError: "Manually marked as failed" })
    }))

  it.effect("answers the pools, with what they hold, and holders that are not registered", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const queued = yield* store.add(spec(task, { queueName: unique("queue") }))
      yield* store.claim({ pool, tasks: [task], limit: 1 })
      const held = yield* running(store, pool, unique("task"))
      const of = (id: string) => Effect.map(store.pools, (pools) => pools.find((pool) => pool.id === id))
      const found = yield* of(pool)
      assert.deepInclude(found, { isAlive: true, jobs: 2, queues: 1 })
      assert.isTrue(Duration.isDuration(found?.lease))
      assert.isAtLeast(millis(found!.heartbeatAt!), millis(found!.startedAt!))
      assert.isAtLeast(millis(found!.oldestClaim!), millis(queued.createdAt))
      yield* store.settle(pool, [{ _tag: "Completed", id: queued.id }, { _tag: "Completed", id: held.id }])
      assert.deepInclude(yield* of(pool), { isAlive: true, jobs: 0, queues: 0, oldestClaim: undefined })
      yield* store.deregisterPool(pool)
      assert.isUndefined(yield* of(pool))
    }))

  it.effect("changes of jobs what it is told, and 0 is 0", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const job = yield* store.add(spec(task, { priority: 5, maxAttempts: 9, delay: 60_000 }))
      const tried = yield* retrying(store, pool, task)
      const held = yield* running(store, pool, task)
      const runAt = Date.UTC(2032, 0, 1)
      const [changed] = yield* store.reschedule([job.id], changes({ runAt, priority: 0, attempts: 3, maxAttempts: 4 }))
      assert.deepInclude(changed, { id: job.id, priority: 0, attempts: 3, maxAttempts: 4, state: "retrying" })
      assert.strictEqual(millis(changed?.runAt), runAt)
      assert.deepStrictEqual(yield* found(store, job.id), changed)
      const [reset] = yield* store.reschedule([tried.id, held.id, unknown], changes({ attempts: 0 }))
      assert.deepInclude(reset, { id: tried.id, attempts: 0, state: "scheduled", lastError: "not yet" })
      const [delayed] = yield* store.reschedule([job.id], changes({ delay: 90_000 }))
      assert.approximately(millis(delayed?.runAt) - millis(delayed?.updatedAt), 90_000, 1)
      assert.deepInclude(delayed, { priority: 0, attempts: 3, maxAttempts: 4 })
      assert.deepInclude(yield* found(store, held.id), { state: "running", attempts: 1 })
    }))

  it.effect("makes jobs ready again, whatever became of them, and keeps what they failed with", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const dead = yield* failed(store, pool, task)
      const tried = yield* retrying(store, pool, task)
      const later = yield* store.add(spec(task, { delay: 60_000 }))
      const held = yield* running(store, pool, unique("task"))
      const retried = yield* store.retry([tried.id, dead.id, later.id, held.id, unknown])
      assert.deepStrictEqual(ids(retried), [dead.id, tried.id, later.id])
      assert.deepStrictEqual(retried.map((job) => [job.state, job.attempts, job.lastError]), [
        ["ready", 0, "no hope"],
        ["ready", 0, "not yet"],
        ["ready", 0, undefined]
      ])
      const claim = yield* store.claim({ pool, tasks: [task], limit: 5 })
      assert.deepStrictEqual(claim.jobs.map((job) => job.attempt), [1, 1, 1])
    }))

  it.effect("changes nothing for an empty list", () =>
    Effect.gen(function*() {
      const { store } = yield* scene
      assert.deepStrictEqual(yield* store.complete([]), [])
      assert.deepStrictEqual(yield* store.fail([], undefined), [])
      assert.deepStrictEqual(yield* store.reschedule([], changes({ priority: 1 })), [])
      assert.deepStrictEqual(yield* store.retry([]), [])
      assert.deepStrictEqual(yield* store.forceUnlock([]), [])
    }))

  it.effect("takes from a pool what it holds, and the pool is lost", () =>
    Effect.gen(function*() {
      const { other, otherPool, pool, store, task } = yield* scene
      const queueName = unique("queue")
      const queued = yield* running(store, pool, task, { queueName })
      const last = yield* running(store, pool, task, { maxAttempts: 1 })
      const foreign = yield* running(other, otherPool, task)
      const unlocked = yield* other.forceUnlock([pool, unique("nobody")])
      assert.deepStrictEqual(unlocked.map((job) => [job.id, job.state, job.attempts]), [
        [queued.id, "ready", 1],
        [last.id, "failed", 1]
      ])
      assert.strictEqual(
        unlocked[1]?.lastError,
        `The pool ${pool} was unlocked while it ran attempt 1, the last one.`
      )
      assert.isFalse((yield* store.heartbeat(pool)).isAlive)
      assert.strictEqual((yield* store.settle(pool, [{ _tag: "Completed", id: queued.id }])).size, 0)
      assert.deepInclude(yield* found(store, foreign.id), { state: "running", lockedBy: otherPool })
      assert.deepStrictEqual(ids((yield* other.claim({ pool: otherPool, tasks: [task], limit: 5 })).jobs), [queued.id])
    }))

  it.effect("clears up failed jobs of an age, and no others", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const dead = yield* failed(store, pool, task)
      const tried = yield* retrying(store, pool, task)
      yield* running(store, pool, task, { maxAttempts: 1 })
      const none = { tasks: false, queues: false }
      const old = yield* store.cleanup({ ...none, failedJobs: 60_000 })
      assert.deepStrictEqual(old, { tasks: 0, queues: 0, failedJobs: 0 })
      const cleanup = yield* store.cleanup({ ...none, failedJobs: 0 })
      assert.isAtLeast(cleanup.failedJobs, 1)
      assert.deepInclude(cleanup, { tasks: 0, queues: 0 })
      assert.deepStrictEqual(yield* store.get(dead.id), Option.none())
      assert.isTrue(Option.isSome(yield* store.get(tried.id)))
      assert.strictEqual(yield* store.count({ tasks: [task] }), 2)
    }))

  it.effect("clears up tasks and queues without jobs, which come back when they are wanted", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const [queueName, usedQueue, used] = [unique("queue"), unique("queue"), unique("task")]
      const { id } = yield* store.add(spec(task, { queueName }))
      const kept = yield* store.add(spec(used, { queueName: usedQueue, delay: 60_000 }))
      yield* store.complete([id])
      const cleanup = yield* store.cleanup({ tasks: true, queues: true, failedJobs: undefined })
      assert.isAtLeast(cleanup.tasks, 1)
      assert.isAtLeast(cleanup.queues, 1)
      const nothing = yield* store.cleanup({ tasks: true, queues: true, failedJobs: undefined })
      assert.deepStrictEqual(nothing, { tasks: 0, queues: 0, failedJobs: 0 })
      assert.deepStrictEqual(yield* found(store, kept.id), kept)
      const again = yield* running(store, pool, task, { queueName })
      assert.deepInclude(again, { task, queueName })
    }))

  it.effect(
    "clears up beside adds, claims and settlements without losing a job, its task or its queue",
    () =>
      Effect.gen(function*() {
        const { other, otherPool, store } = yield* scene
        const rounds = 60
        const tasks = Array.from({ length: 3 }, () => unique("task"))
        const names = Array.from({ length: 3 }, () => unique("queue"))
        const added: Array<Job.Job> = []
        let done = 0
        let isOver = false
        const adding = Effect.gen(function*() {
          for (let round = 0; round < rounds; round++) {
            const task = tasks[round % 3]!
            const key = unique("key")
            added.push(yield* store.add(spec(task, { queueName: names[round % 3] })))
            added.push(...yield* store.addMany([spec(task, { key }), spec(tasks[(round + 1) % 3]!)]))
            added.push(yield* store.add(spec(task, { key: unique("key"), keyMode: "dedupe", queueName: names[0] })))
            yield* Effect.yieldNow
          }
        })
        const working = Effect.gen(function*() {
          while (done < rounds * 4) {
            const { jobs } = yield* other.claim({ pool: otherPool, tasks, limit: 10 })
            done += (yield* other.settle(otherPool, jobs.map(({ id }) => ({ _tag: "Completed", id })))).size
            if (jobs.length === 0) yield* Effect.sleep("2 millis")
          }
          isOver = true
        })
        let deleted = 0
        const clearing = Effect.gen(function*() {
          while (!isOver) {
            const cleanup = yield* store.cleanup({ tasks: true, queues: true, failedJobs: undefined })
            deleted += cleanup.tasks + cleanup.queues
            yield* Effect.sleep("1 millis")
          }
        })
        yield* Effect.all([adding, working, clearing], { concurrency: 3 }).pipe(Effect.timeout("30 seconds"))
        assert.strictEqual(done, rounds * 4)
        assert.isAbove(deleted, 0)
        assert.isTrue(added.every((job) => tasks.includes(job.task)))
        assert.strictEqual(added.filter((job) => job.queueName !== undefined).length, rounds * 2)
      }),
    60_000
  )
}
