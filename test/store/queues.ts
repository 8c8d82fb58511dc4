/** Named queues: one job at a time, whoever claims. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Job from "../../src/Job.ts"
import type { Store } from "../../src/JobStore.ts"
import { failed, ids, type It, makePool, running, scene, spec, specs, unique } from "./harness.ts"

export const queues = (it: It) => {
  it.effect("run one job at a time, whichever process asks", () =>
    Effect.gen(function*() {
      const { other, otherPool, pool, store, task } = yield* scene
      const queueName = unique("queue")
      const jobs = yield* store.addMany(specs(task, 3, { queueName }))
      const first = yield* store.claim({ pool, tasks: [task], limit: 10 })
      assert.deepStrictEqual(ids(first.jobs), [jobs[0]!.id])
      for (
        const claim of [
          store.claim({ pool, tasks: [task], limit: 10 }),
          other.claim({ pool: otherPool, tasks: [task], limit: 10 })
        ]
      ) {
        assert.deepStrictEqual(yield* claim, { jobs: [], contended: false, nextDueIn: undefined })
      }
      yield* store.settle(pool, [{ _tag: "Completed", id: jobs[0]!.id }])
      const second = yield* other.claim({ pool: otherPool, tasks: [task], limit: 10 })
      assert.deepStrictEqual(ids(second.jobs), [jobs[1]!.id])
      assert.deepStrictEqual((yield* store.claim({ pool, tasks: [task], limit: 10 })).jobs, [])
    }))

  it.effect("go on after a failure, a retry and a release", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const queueName = unique("queue")
      const [a, b, c] = yield* store.addMany(specs(task, 3, { queueName }))
      const next = Effect.map(store.claim({ pool, tasks: [task], limit: 5 }), ({ jobs }) => ids(jobs))
      assert.deepStrictEqual(yield* next, [a!.id])
      yield* store.settle(pool, [{ _tag: "Released", id: a!.id, attempt: 1 }])
      assert.deepStrictEqual(yield* next, [a!.id])
      yield* store.settle(pool, [{ _tag: "Failed", id: a!.id, error: "no", retryIn: undefined }])
      assert.deepStrictEqual(yield* next, [b!.id])
      yield* store.settle(pool, [{ _tag: "Failed", id: b!.id, error: "later", retryIn: 60_000 }])
      assert.deepStrictEqual(yield* next, [c!.id])
    }))

  it.effect("keep to priority and time, and are not held up by jobs that are not due", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const queueName = unique("queue")
      const jobs = yield* store.addMany([
        spec(task, { queueName, priority: 5, runAt: 1000 }),
        spec(task, { queueName, priority: 5, runAt: 500 }),
        spec(task, { queueName, priority: -5, delay: 60_000 }),
        spec(unique("task"), { queueName, priority: -9 }),
        spec(task, { queueName, priority: 1 }),
        spec(task, { queueName, priority: 9 })
      ])
      yield* failed(store, pool, unique("task"), { queueName, priority: -7 })
      const order: Array<string> = []
      while (true) {
        const { jobs } = yield* store.claim({ pool, tasks: [task], limit: 3 })
        if (jobs.length === 0) break
        order.push(...ids(jobs))
        yield* store.settle(pool, jobs.map(({ id }) => ({ _tag: "Completed", id })))
      }
      assert.deepStrictEqual(order, [4, 1, 0, 5].map((place) => jobs[place]!.id))
    }))

  it.effect("are claimed with a run of jobs, in their order, as long as is asked for", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const slow = unique("task")
      const queueName = unique("queue")
      const jobs = yield* store.addMany([
        ...specs(task, 3, { queueName }),
        spec(slow, { queueName }),
        ...specs(task, 3, { queueName }),
        spec(task, { queueName, priority: -1 }),
        spec(task, { queueName, delay: 60_000, priority: -2 })
      ])
      const claim = (runs: ReadonlyArray<number>) =>
        Effect.map(store.claim({ pool, tasks: [task, slow], limit: 1, runs }), ({ jobs }) => ids(jobs))
      const settle = (settled: ReadonlyArray<Job.JobId>) =>
        store.settle(pool, settled.map((id) => ({ _tag: "Completed", id })))
      const expected = [7, 0, 1, 2, 3, 4, 5, 6].map((place) => jobs[place]!.id)
      const first = yield* claim([4, 1])
      assert.deepStrictEqual(first, expected.slice(0, 4))
      assert.deepStrictEqual(yield* claim([4, 1]), [])
      yield* settle(first)
      // The slow job is a whole run.
      const second = yield* claim([4, 1])
      assert.deepStrictEqual(second, expected.slice(4, 5))
      yield* settle(second)
      assert.deepStrictEqual(yield* claim([100, 1]), expected.slice(5))
    }))

  it.effect("give a run to the place of one job, beside jobs without a queue", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const names = [unique("queue"), unique("queue")]
      yield* store.addMany([...names.flatMap((queueName) => specs(task, 10, { queueName })), ...specs(task, 5)])
      const { jobs } = yield* store.claim({ pool, tasks: [task], limit: 4, runs: [5] })
      assert.deepStrictEqual(
        jobs.map(({ queueName }) => queueName),
        [...names.flatMap((name) => Array.from({ length: 5 }, () => name)), undefined, undefined]
      )
    }))

  it.effect("put no job on its last attempt behind another", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const queueName = unique("queue")
      const jobs = yield* store.addMany([
        spec(task, { queueName, maxAttempts: 1 }),
        ...specs(task, 2, { queueName }),
        spec(task, { queueName, maxAttempts: 1 }),
        spec(task, { queueName })
      ])
      const claim = (start: number) => store.claim({ pool, tasks: [task], limit: 5, start, runs: [10] })
      assert.deepStrictEqual((yield* claim(0)).jobs, [])
      const first = ids((yield* claim(1)).jobs)
      assert.deepStrictEqual(first, ids(jobs.slice(0, 3)))
      yield* store.settle(pool, first.map((id) => ({ _tag: "Completed", id })))
      assert.deepStrictEqual(ids((yield* claim(5)).jobs), ids(jobs.slice(3)))
    }))

  it.effect("are kept for the jobs that their holder names, and freed with the last", () =>
    Effect.gen(function*() {
      const { other, otherPool, pool, store, task } = yield* scene
      const queueName = unique("queue")
      yield* store.addMany(specs(task, 4, { queueName }))
      const { jobs: [a, b, c] } = yield* store.claim({ pool, tasks: [task], limit: 1, runs: [3] })
      const next = Effect.map(other.claim({ pool: otherPool, tasks: [task], limit: 5, runs: [5] }), ({ jobs }) =>
        ids(jobs))
      yield* store.settle(pool, [{ _tag: "Failed", id: a!.id, error: "later", retryIn: 0 }], [b!.id, c!.id])
      assert.deepStrictEqual(yield* next, [])
      yield* store.settle(pool, [{ _tag: "Released", id: c!.id, attempt: 1 }], [b!.id])
      assert.deepStrictEqual(yield* next, [])
      // Another pool's job and one that is not held keep nothing.
      const foreign = yield* running(other, otherPool, unique("task"))
      yield* store.settle(pool, [{ _tag: "Completed", id: b!.id }], [a!.id, c!.id, foreign.id])
      assert.lengthOf(yield* next, 3)
    }))

  it.effect("are released with their whole run when their pool dies, or does not know the jobs", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const queueName = unique("queue")
      const jobs = yield* store.addMany(specs(task, 4, { queueName }))
      const claim = (from: string) =>
        Effect.map(store.claim({ pool: from, tasks: [task], limit: 5, runs: [3] }), ({ jobs }) => ids(jobs))
      assert.lengthOf(yield* claim(pool), 3)
      yield* store.releaseUnknown(pool, [jobs[1]!.id])
      assert.deepStrictEqual(yield* claim(pool), [])
      yield* store.settle(pool, [{ _tag: "Completed", id: jobs[1]!.id }])
      assert.deepStrictEqual(yield* claim(pool), ids([jobs[0]!, jobs[2]!, jobs[3]!]))
      yield* store.forceUnlock([pool])
      assert.deepStrictEqual(yield* claim(yield* makePool(store)), ids([jobs[0]!, jobs[2]!, jobs[3]!]))
    }))

  it.effect("run beside each other", () =>
    Effect.gen(function*() {
      const { other, otherPool, pool, store, task } = yield* scene
      const names = Array.from({ length: 6 }, () => unique("queue"))
      yield* store.addMany([...specs(task, 2), ...names, ...names].map((given) =>
        typeof given === "string" ? spec(task, { queueName: given }) : given
      ))
      const first = yield* store.claim({ pool, tasks: [task], limit: 4 })
      const rest = yield* other.claim({ pool: otherPool, tasks: [task], limit: 100 })
      const queues = [...first.jobs, ...rest.jobs].flatMap((job) =>
        job.queueName ?? []
      )
      assert.lengthOf(first.jobs, 4)
      assert.lengthOf(rest.jobs, 4)
      assert.deepStrictEqual(queues.toSorted(), names.toSorted())
    }))

  it.effect("do not hold up others by their backlog while they are busy", () =>
    Effect.gen(function*() {
      const { other, otherPool, pool, store, task } = yield* scene
      const queueName = unique("queue")
      yield* store.addMany(specs(task, 500, { queueName, priority: -10 }))
      assert.lengthOf((yield* store.claim({ pool, tasks: [task], limit: 1 })).jobs, 1)
      const [free, queued] = yield* store.addMany([spec(task), spec(task, { queueName: unique("queue"), priority: 1 })])
      const { jobs } = yield* other.claim({ pool: otherPool, tasks: [task], limit: 10 })
      assert.deepStrictEqual(ids(jobs), [free!.id, queued!.id])
    }))

  it.effect("stay with their holder when another job of theirs is removed or superseded", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const [queueName, key] = [unique("queue"), unique("key")]
      const job = yield* running(store, pool, task, { queueName, key })
      yield* store.add(spec(task, { queueName, key }))
      const waiting = yield* store.add(spec(task, { queueName }))
      yield* store.remove({ id: waiting.id })
      assert.deepStrictEqual((yield* store.claim({ pool, tasks: [task], limit: 5 })).jobs, [])
      yield* store.settle(pool, [{ _tag: "Completed", id: job.id }])
      assert.lengthOf((yield* store.claim({ pool, tasks: [task], limit: 5 })).jobs, 1)
    }))

  it.effect("are freed by their holder only", () =>
    Effect.gen(function*() {
      const { other, otherPool, pool, store, task } = yield* scene
      const queueName = unique("queue")
      const job = yield* running(store, pool, task, { queueName })
      yield* store.add(spec(task, { queueName }))
      yield* other.settle(otherPool, [{ _tag: "Completed", id: job.id }])
      yield* other.releaseUnknown(otherPool, [])
      assert.deepStrictEqual((yield* other.claim({ pool: otherPool, tasks: [task], limit: 5 })).jobs, [])
    }))

  it.effect("are freed with a job that their holder did not know, whichever jobs of theirs wait", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const queueName = unique("queue")
      const waiting = yield* store.add(spec(task, { queueName }))
      const unknown = yield* running(store, pool, task, { queueName, priority: -1 })
      yield* store.releaseUnknown(pool, [waiting.id])
      assert.deepStrictEqual(ids((yield* store.claim({ pool, tasks: [task], limit: 5 })).jobs), [unknown.id])
    }))

  it.effect("never run two jobs at once, and lose none, with several claiming and settling", () =>
    Effect.gen(function*() {
      const { other, store, task } = yield* scene
      const names = Array.from({ length: 8 }, () => unique("queue"))
      const jobs = yield* store.addMany(names.flatMap((queueName) => specs(task, 20, { queueName })))
      const busy = new Set<string>()
      const order = new Map<string, Array<unknown>>(names.map((name) => [name, []]))
      let overlaps = 0
      let left = jobs.length
      const work = Effect.fnUntraced(function*(store: Store) {
        const pool = yield* makePool(store)
        while (left > 0) {
          const { jobs } = yield* store.claim({ pool, tasks: [task], limit: 3, runs: [4] })
          for (const queueName of new Set(jobs.map((job) => job.queueName!))) {
            if (busy.has(queueName)) overlaps++
            busy.add(queueName)
          }
          for (const { payload, queueName } of jobs) order.get(queueName!)?.push(payload)
          left -= jobs.length
          for (const job of jobs) busy.delete(job.queueName!)
          const settled = yield* store.settle(pool, jobs.map(({ id }) => ({ _tag: "Completed", id })))
          assert.strictEqual(settled.size, jobs.length)
        }
      })
      yield* Effect.forEach([store, other, store, other], work, { concurrency: "unbounded", discard: true })
      assert.strictEqual(overlaps, 0)
      for (const places of order.values()) assert.deepStrictEqual(places, Array.from({ length: 20 }, (_, n) => n))
      assert.strictEqual(yield* store.count({ tasks: [task] }), 0)
    }))

  it.effect("wait for a job's retry time, however often others look", () =>
    Effect.gen(function*() {
      const { other, otherPool, pool, store, task } = yield* scene
      for (let round = 0; round < 20; round++) {
        const job = yield* running(store, pool, task, { queueName: unique("queue") })
        const [, claim] = yield* Effect.all([
          store.settle(pool, [{ _tag: "Failed", id: job.id, error: "later", retryIn: 60_000 }]),
          other.claim({ pool: otherPool, tasks: [task], limit: 5 })
        ], { concurrency: 2 })
        assert.deepStrictEqual(claim.jobs, [])
      }
    }))
}
