/** Claims: which jobs, in which order, and what an empty one says. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { Store } from "../../src/JobStore.ts"
import { all, failed, found, ids, type It, makePool, millis, running, scene, spec, specs, unique } from "./harness.ts"

const past = Date.UTC(2020, 0, 1)

/** Claims until nothing is left, as one of several workers. */
const drain = Effect.fnUntraced(function*(store: Store, pool: string, tasks: ReadonlyArray<string>, limit: number) {
  const got: Array<string> = []
  while (true) {
    const claim = yield* store.claim({ pool, tasks, limit })
    got.push(...ids(claim.jobs))
    if (claim.jobs.length === 0 && !claim.contended) return got
  }
})

export const claiming = (it: It) => {
  it.effect("goes by the time that it is told", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const [hour, tasks] = [3_600_000, [task]]
      for (const queueName of [undefined, unique("queue")]) {
        const job = yield* store.add(spec(task, { queueName, delay: hour }))
        const runAt = millis(job.runAt)
        assert.deepStrictEqual((yield* store.claim({ pool, tasks, limit: 5 })).jobs, [])
        const early = yield* store.claim({ pool, tasks, limit: 5, dueAt: runAt - hour * 2 })
        assert.deepStrictEqual(early.jobs, [])
        assert.approximately(early.nextDueIn!, hour * 2, 1)
        const beating = yield* store.claim({ pool, tasks, limit: 5, dueAt: runAt - 1000, beat: true })
        assert.deepStrictEqual([beating.jobs, beating.heartbeat?.isAlive], [[], true])
        assert.deepStrictEqual(ids((yield* store.claim({ pool, tasks, limit: 5, dueAt: runAt + 1 })).jobs), [job.id])
        yield* store.settle(pool, [{ _tag: "Completed", id: job.id }])
      }
    }))

  it.effect("tells the handler everything about its job", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const [queueName, key] = [unique("queue"), unique("key")]
      const added = yield* store.add(
        spec(task, { payload: "{\"a\":1}", queueName, key, priority: 2, maxAttempts: 2, flags: ["f"] })
      )
      const { contended, jobs, nextDueIn } = yield* store.claim({ pool, tasks: [task], limit: 5 })
      assert.deepStrictEqual({ contended, nextDueIn }, { contended: false, nextDueIn: undefined })
      const [job] = jobs
      const { createdAt, flags, isLastAttempt, runAt } = job!
      assert.deepStrictEqual([{ ...job, createdAt, flags, isLastAttempt, runAt }], [{
        id: added.id,
        task,
        payload: { a: 1 },
        attempt: 1,
        maxAttempts: 2,
        isLastAttempt: false,
        key,
        queueName,
        priority: 2,
        runAt: added.runAt,
        createdAt: added.createdAt,
        revision: 0,
        flags: ["f"],
        lastError: undefined
      }])
    }))

  it.effect("counts the attempt, and tells the last one and the previous error", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const first = yield* running(store, pool, task, { maxAttempts: 2 })
      assert.deepInclude(first, { attempt: 1, isLastAttempt: false, lastError: undefined })
      yield* store.settle(pool, [{ _tag: "Failed", id: first.id, error: "broken", retryIn: 0 }])
      const { jobs: [second] } = yield* store.claim({ pool, tasks: [task], limit: 1 })
      assert.deepInclude(second, { id: first.id, attempt: 2, isLastAttempt: true, lastError: "broken" })
      assert.strictEqual((yield* found(store, first.id)).attempts, 2)
    }))

  it.effect("takes no job on its last attempt for its task's place, when others of another task are to start first", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const other = unique("task")
      yield* store.addMany([
        spec(task, { runAt: 1000 }),
        spec(task, { runAt: 9000, maxAttempts: 1 }),
        ...[2000, 3000, 4000].map((runAt) => spec(other, { runAt }))
      ])
      const { jobs } = yield* store.claim({ pool, tasks: [task, other], limit: 4, start: 2 })
      assert.deepStrictEqual(jobs.map(({ runAt }) => runAt.epochMilliseconds), [1000, 2000, 3000])
    }))

  it.effect("takes jobs on their last attempt only among those that start at once", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const added = yield* store.addMany([
        spec(task, { maxAttempts: 1 }),
        spec(task),
        spec(task, { maxAttempts: 1, queueName: unique("queue") }),
        spec(task, { maxAttempts: 2 })
      ])
      const first = yield* store.claim({ pool, tasks: [task], limit: 4, start: 1 })
      assert.deepStrictEqual(ids(first.jobs), [added[0]!.id, added[1]!.id, added[3]!.id])
      const second = yield* store.claim({ pool, tasks: [task], limit: 4, start: 0 })
      assert.deepStrictEqual(second.jobs, [])
      const third = yield* store.claim({ pool, tasks: [task], limit: 4, start: 1 })
      assert.deepStrictEqual(ids(third.jobs), [added[2]!.id])
    }))

  it.effect("takes smaller priorities first, then earlier times, then smaller ids", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const order = [[-3, 2], [-3, 2], [-3, 9], [0, 1], [0, 1], [0, 1], [0, 4], [7, 0], [7, 5]]
      const shuffled = [5, 0, 8, 3, 7, 1, 6, 2, 4].map((place) => order[place]!)
      const jobs = yield* store.addMany(
        shuffled.map(([priority, minutes]) => spec(task, { priority, runAt: past + minutes! * 60_000 }))
      )
      const expected = ids(
        jobs.toSorted((a, b) =>
          a.priority - b.priority || millis(a.runAt) - millis(b.runAt) || Number(a.id) - Number(b.id)
        )
      )
      const claimed: Array<string> = []
      for (const limit of [1, 3, 2, 10]) {
        claimed.push(...ids((yield* store.claim({ pool, tasks: [task], limit })).jobs))
      }
      assert.deepStrictEqual(claimed, [...expected])
    }))

  it.effect("keeps to times that differ by less than a millisecond", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const jobs = yield* Effect.forEach(specs(task, 200), (spec) => store.add(spec))
      const { jobs: claimed } = yield* store.claim({ pool, tasks: [task], limit: 200 })
      assert.deepStrictEqual(ids(claimed), ids(jobs))
    }))

  it.effect("prefers, among tasks of one priority, the one with the oldest job", () =>
    Effect.gen(function*() {
      const { pool, store } = yield* scene
      const tasks = Array.from({ length: 4 }, () => unique("task"))
      const minutes = [3, 1, 4, 2]
      yield* store.addMany(tasks.map((task, n) => spec(task, { runAt: past + minutes[n]! * 60_000 })))
      const claimed: Array<string> = []
      for (let n = 0; n < 4; n++) {
        claimed.push(...(yield* store.claim({ pool, tasks, limit: 1 })).jobs.map((job) => job.task))
      }
      assert.deepStrictEqual(claimed, [tasks[1], tasks[3], tasks[0], tasks[2]])
    }))

  it.effect("prefers a smaller priority of any task, with a queue or without", () =>
    Effect.gen(function*() {
      const { pool, store } = yield* scene
      const tasks = [unique("task"), unique("task")]
      const jobs = yield* store.addMany([
        spec(tasks[0]!, { priority: 1, runAt: past }),
        spec(tasks[1]!, { priority: 0 }),
        spec(tasks[0]!, { priority: -1, queueName: unique("queue") }),
        spec(tasks[1]!, { priority: -2 })
      ])
      const { jobs: claimed } = yield* store.claim({ pool, tasks, limit: 4 })
      assert.deepStrictEqual(ids(claimed), [jobs[3]!.id, jobs[2]!.id, jobs[1]!.id, jobs[0]!.id])
      yield* store.settle(pool, claimed.map(({ attempt, id }) => ({ _tag: "Released", id, attempt })))
      for (const expected of [3, 2, 1, 0]) {
        assert.deepStrictEqual(ids((yield* store.claim({ pool, tasks, limit: 1 })).jobs), [jobs[expected]!.id])
      }
    }))

  it.effect("takes no more than it was asked for", () =>
    Effect.gen(function*() {
      const { pool, store } = yield* scene
      const tasks = [unique("task"), unique("task")]
      yield* store.addMany([
        ...specs(tasks[0]!, 10),
        ...specs(tasks[1]!, 10, { priority: 1 }),
        ...Array.from({ length: 5 }, () => spec(tasks[0]!, { queueName: unique("queue") }))
      ])
      for (const limit of [1, 7, 12]) {
        assert.lengthOf((yield* store.claim({ pool, tasks, limit })).jobs, limit)
      }
      assert.lengthOf((yield* store.claim({ pool, tasks, limit: 100 })).jobs, 5)
      assert.strictEqual(yield* store.count({ tasks, states: ["ready"] }), 0)
    }))

  it.effect("takes only jobs of its own tasks, due, with attempts left, and held by nobody", () =>
    Effect.gen(function*() {
      const { otherPool, pool, store, task } = yield* scene
      yield* failed(store, pool, task)
      yield* running(store, otherPool, task)
      yield* store.add(spec(task, { delay: 60_000 }))
      const foreign = yield* store.add(spec(unique("task"), { priority: -1 }))
      assert.deepStrictEqual((yield* store.claim({ pool, tasks: [task, unique("unknown")], limit: 10 })).jobs, [])
      const { id } = yield* store.add(spec(task))
      assert.deepStrictEqual(ids((yield* store.claim({ pool, tasks: [task], limit: 10 })).jobs), [id])
      assert.strictEqual((yield* found(store, foreign.id)).state, "ready")
      assert.deepStrictEqual((yield* store.claim({ pool, tasks: [], limit: 10 })).jobs, [])
    }))

  it.effect("claims across many tasks and priorities at once", () =>
    Effect.gen(function*() {
      const { pool, store } = yield* scene
      const tasks = Array.from({ length: 20 }, () => unique("task"))
      const jobs = yield* store.addMany(
        tasks.flatMap((task) => Array.from({ length: 20 }, (_, n) => spec(task, { priority: n - 10, runAt: past })))
      )
      const { jobs: claimed } = yield* store.claim({ pool, tasks, limit: 150 })
      assert.deepStrictEqual(
        claimed.map((job) => job.priority),
        Array.from({ length: 150 }, (_, place) => Math.floor(place / 20) - 10)
      )
      const rest = yield* store.claim({ pool, tasks, limit: 1000 })
      assert.strictEqual(new Set([...ids(claimed), ...ids(rest.jobs)]).size, jobs.length)
    }))

  it.effect("never hands a job out twice, and leaves none, with several claiming at once", () =>
    Effect.gen(function*() {
      const { other, store, task } = yield* scene
      const tasks = [task, unique("task")]
      const jobs = yield* store.addMany([...specs(tasks[0]!, 250, { priority: 1 }), ...specs(tasks[1]!, 250)])
      const got = yield* Effect.forEach(
        [store, other, store, other, store, other, store, other],
        (store, place) =>
          Effect.flatMap(
            makePool(store),
            (pool) => drain(store, pool, place % 3 === 0 ? tasks.toReversed() : tasks, 7)
          ),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(got.flat().length, 500)
      assert.deepStrictEqual(got.flat().toSorted(), ids(jobs).toSorted())
      assert.isTrue((yield* all(store, task)).every((job) => job.attempts === 1))
    }))

  it.effect("says when the next job is due", () =>
    Effect.gen(function*() {
      const { otherPool, pool, store } = yield* scene
      const [a, b, foreign] = [unique("task"), unique("task"), unique("task")]
      const claim = store.claim({ pool, tasks: [a, b], limit: 5 })
      const isDueIn = Effect.fnUntraced(function*(delay: number) {
        const { contended, jobs, nextDueIn } = yield* claim
        assert.deepStrictEqual({ jobs, contended }, { jobs: [], contended: false })
        assert.isAtMost(nextDueIn!, delay)
        assert.isAbove(nextDueIn!, delay - 15_000)
      })
      assert.deepStrictEqual(yield* claim, { jobs: [], contended: false, nextDueIn: undefined })
      yield* store.add(spec(foreign, { delay: 1000 }))
      yield* failed(store, pool, a)
      assert.strictEqual((yield* claim).nextDueIn, undefined)
      yield* store.addMany([spec(a, { delay: 900_000 }), spec(b, { delay: 950_000, priority: -5 })])
      yield* isDueIn(900_000)
      yield* store.add(spec(b, { delay: 800_000, priority: 5 }))
      yield* isDueIn(800_000)
      const queueName = unique("queue")
      yield* store.addMany([
        spec(a, { delay: 790_000, queueName, priority: -1 }),
        spec(a, { delay: 700_000, queueName, priority: 1 }),
        spec(foreign, { delay: 1000, queueName, priority: -2 })
      ])
      yield* isDueIn(700_000)
      yield* running(store, otherPool, b, { queueName })
      yield* isDueIn(800_000)
    }))

  it.effect("does not wait for a job whose attempts are used up", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const job = yield* running(store, pool, task, { maxAttempts: 1 })
      yield* store.settle(pool, [{ _tag: "Failed", id: job.id, error: "last", retryIn: 60_000 }])
      assert.deepStrictEqual(yield* store.claim({ pool, tasks: [task], limit: 1 }), {
        jobs: [],
        contended: false,
        nextDueIn: undefined
      })
    }))

  it.effect("passes jobs with a forbidden flag over, in queues too", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const queueName = unique("queue")
      const [no, queuedNo, yes, queued, plain] = yield* store.addMany([
        spec(task, { flags: ["a", "b"] }),
        spec(task, { flags: ["b"], queueName }),
        spec(task, { flags: ["c"] }),
        spec(task, { queueName, flags: ["c"] }),
        spec(task)
      ])
      const forbidding = { pool, tasks: [task], limit: 10, forbiddenFlags: ["b", "d"] }
      const first = yield* store.claim(forbidding)
      assert.deepStrictEqual(ids(first.jobs), ids([yes!, queued!, plain!]))
      const none = yield* store.claim(forbidding)
      assert.deepStrictEqual(none, { jobs: [], contended: false, nextDueIn: undefined })
      yield* store.settle(pool, first.jobs.map(({ id }) => ({ _tag: "Completed", id })))
      assert.deepStrictEqual(yield* store.claim(forbidding), none)
      const all = yield* store.claim({ ...forbidding, forbiddenFlags: [] })
      assert.deepStrictEqual(ids(all.jobs), ids([no!, queuedNo!]))
    }))

  it.effect("finds jobs behind very many forbidden ones, in a few claims", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      yield* store.addMany(specs(task, 3000, { flags: ["no"] }))
      const behind = yield* store.addMany(specs(task, 20))
      yield* store.addMany(specs(task, 3000, { flags: ["no"] }))
      const got = new Set<string>()
      let claims = 0
      while (got.size < 20 && claims < 300) {
        claims++
        const { contended, jobs } = yield* store.claim({ pool, tasks: [task], limit: 20, forbiddenFlags: ["no"] })
        assert.isFalse(contended)
        for (const { id } of jobs) got.add(id)
      }
      assert.deepStrictEqual(got, new Set<string>(ids(behind)))
    }))

  it.effect("gives each job without a forbidden flag to one of several workers", () =>
    Effect.gen(function*() {
      const { other, otherPool, pool, store, task } = yield* scene
      const jobs = yield* store.addMany(
        Array.from({ length: 200 }, (_, n) => spec(task, { flags: n % 2 === 0 ? ["no"] : undefined }))
      )
      const got: Array<string> = []
      const claiming = Effect.fnUntraced(function*(from: Store, holder: string) {
        while (true) {
          const claim = yield* from.claim({ pool: holder, tasks: [task], limit: 7, forbiddenFlags: ["no"] })
          got.push(...ids(claim.jobs))
          if (claim.jobs.length === 0 && !claim.contended) return
        }
      })
      yield* Effect.all([claiming(store, pool), claiming(other, otherPool)], { concurrency: 2 })
      assert.deepStrictEqual(got.toSorted(), ids(jobs.filter((_, n) => n % 2 === 1)).toSorted())
    }))
}
