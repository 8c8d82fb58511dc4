/** Pools: signs of life, and what is taken from the dead. */
import { assert } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Store } from "../../src/JobStore.ts"
import { eventually, pause } from "../support/events.ts"
import { found, Harness, ids, type It, makePool, running, scene, spec, unique } from "./harness.ts"

/** Long enough to be seen before it runs out on a busy machine, short enough to wait for. */
const shortLease = 1500

/** Waits until `observer` finds the pool dead. */
const untilDead = (store: Store, observer: string, pool: string) =>
  eventually(
    Effect.map(store.heartbeat(observer), ({ deadPools }) => deadPools.includes(pool)),
    { what: `the death of ${pool}` }
  )

/** A pool whose lease has run out, and one that has watched it for longer. */
const deadPool = Effect.gen(function*() {
  const { other, store } = yield* Harness
  const observer = yield* makePool(store)
  const dead = yield* makePool(other, "1 millis")
  return { store, other, observer, dead }
})

export const pools = (it: It) => {
  it.effect("are alive once registered, and see nothing dead about each other", () =>
    Effect.gen(function*() {
      const { other, otherPool, pool, store } = yield* scene
      for (const [beat, them] of [[store.heartbeat(pool), otherPool], [other.heartbeat(otherPool), pool]] as const) {
        const { deadPools, isAlive } = yield* beat
        assert.isTrue(isAlive)
        assert.notInclude(deadPools, them)
      }
    }))

  it.effect("are registered once, however often they say so", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const job = yield* running(store, pool, task)
      yield* store.registerPool(pool, Duration.hours(1))
      assert.isTrue((yield* store.heartbeat(pool)).isAlive)
      assert.deepInclude(yield* found(store, job.id), { state: "running", lockedBy: pool })
    }))

  it.effect("are not alive without being registered, or after they have stopped", () =>
    Effect.gen(function*() {
      const { pool, store } = yield* scene
      assert.deepStrictEqual(yield* store.heartbeat(unique("kongtask-pool")), {
        isAlive: false,
        deadPools: [],
        cancelled: []
      })
      yield* store.deregisterPool(pool)
      assert.deepStrictEqual(yield* store.heartbeat(pool), { isAlive: false, deadPools: [], cancelled: [] })
    }))

  it.effect("are dead after a lease of silence, for a pool that has been alive for as long", () =>
    Effect.gen(function*() {
      const { other, otherPool, store } = yield* scene
      const silent = yield* makePool(store, shortLease)
      assert.notInclude((yield* other.heartbeat(otherPool)).deadPools, silent)
      yield* untilDead(other, otherPool, silent)
      const newcomer = yield* makePool(store)
      assert.notInclude((yield* store.heartbeat(newcomer)).deadPools, silent)
      yield* untilDead(store, newcomer, silent)
    }))

  it.effect("live as long as their heart beats", () =>
    Effect.gen(function*() {
      const { other, otherPool, store } = yield* scene
      const beating = yield* makePool(store, shortLease)
      const witness = yield* makePool(store, shortLease)
      yield* eventually(
        Effect.gen(function*() {
          assert.isTrue((yield* store.heartbeat(beating)).isAlive)
          const { deadPools } = yield* other.heartbeat(otherPool)
          return { beating: deadPools.includes(beating), witness: deadPools.includes(witness) }
        }),
        { until: ({ beating, witness }) => beating || witness, every: "100 millis", what: "a lease" }
      ).pipe(Effect.map((seen) => assert.deepStrictEqual(seen, { beating: false, witness: true })))
    }))

  it.effect("trust nobody's silence who were silent themselves", () =>
    Effect.gen(function*() {
      const { dead, observer, store } = yield* deadPool
      yield* untilDead(store, observer, dead)
      const sleeper = yield* makePool(store, "2 millis")
      yield* pause("10 millis")
      const { deadPools, isAlive } = yield* store.heartbeat(sleeper)
      assert.isTrue(isAlive)
      assert.notInclude(deadPools, dead)
    }))

  it.effect("that are dead lose their jobs, the attempts charged, and their queues", () =>
    Effect.gen(function*() {
      const { dead, observer, other, store } = yield* deadPool
      const task = unique("task")
      const queueName = unique("queue")
      const again = yield* running(other, dead, task)
      const queued = yield* running(other, dead, task, { queueName })
      const spent = yield* running(other, dead, task, { maxAttempts: 1, queueName: unique("queue") })
      const mine = yield* running(store, observer, task)
      const behind = yield* store.add(spec(task, { queueName, priority: -1 }))
      yield* untilDead(store, observer, dead)
      assert.deepStrictEqual(yield* store.releasePools([dead]), { pools: [dead], released: 2, failed: 1 })
      for (const { id } of [again, queued]) {
        assert.deepInclude(yield* found(store, id), { state: "ready", attempts: 1, lockedBy: undefined })
      }
      const failed = yield* found(store, spent.id)
      assert.deepInclude(failed, { state: "failed", attempts: 1, lockedBy: undefined })
      assert.match(failed.lastError!, /died.*last/)
      assert.include(failed.lastError!, dead)
      assert.deepInclude(yield* found(store, mine.id), { state: "running", lockedBy: observer })
      const { jobs } = yield* store.claim({ pool: observer, tasks: [task], limit: 5 })
      assert.deepStrictEqual(ids(jobs), [behind.id, again.id])
      assert.deepInclude(jobs[1], { attempt: 2 })
    }))

  it.effect("that were declared dead are told so and hold nothing any more", () =>
    Effect.gen(function*() {
      const { dead, observer, other, store } = yield* deadPool
      const job = yield* running(other, dead, unique("task"))
      yield* untilDead(store, observer, dead)
      yield* store.releasePools([dead])
      assert.deepStrictEqual(yield* other.heartbeat(dead), { isAlive: false, deadPools: [], cancelled: [] })
      assert.strictEqual((yield* other.settle(dead, [{ _tag: "Completed", id: job.id }])).size, 0)
      assert.deepStrictEqual((yield* other.claim({ pool: dead, tasks: [job.task], limit: 5 })).jobs, [])
      assert.deepInclude(yield* found(store, job.id), { state: "ready", attempts: 1 })
      assert.notInclude((yield* store.heartbeat(observer)).deadPools, dead)
    }))

  it.effect("are declared dead once, and only if they are", () =>
    Effect.gen(function*() {
      const { dead, observer, other, store } = yield* deadPool
      const job = yield* running(store, observer, unique("task"))
      yield* untilDead(store, observer, dead)
      const nothing = { pools: [], released: 0, failed: 0 }
      assert.deepStrictEqual(yield* other.releasePools([observer, unique("kongtask-pool")]), nothing)
      assert.isTrue((yield* store.heartbeat(observer)).isAlive)
      assert.strictEqual((yield* found(store, job.id)).lockedBy, observer)
      yield* running(other, dead, unique("task"))
      const both = yield* Effect.all([store.releasePools([dead]), other.releasePools([dead])], { concurrency: 2 })
      assert.deepStrictEqual(both.flatMap((recovery) => recovery.pools), [dead])
      assert.strictEqual(both.reduce((sum, recovery) => sum + recovery.released, 0), 1)
      assert.deepStrictEqual(yield* store.releasePools([]), nothing)
    }))

  it.effect("do not revive a superseded job by dying", () =>
    Effect.gen(function*() {
      const { dead, observer, other, store } = yield* deadPool
      const key = unique("key")
      const old = yield* running(other, dead, unique("task"), { key })
      yield* store.add(spec(unique("task"), { key }))
      yield* untilDead(store, observer, dead)
      assert.deepInclude(yield* store.releasePools([dead]), { released: 0, failed: 1 })
      assert.deepInclude(yield* found(store, old.id), { state: "failed", attempts: 25 })
    }))

  it.effect("that stop give back uncharged what they still hold", () =>
    Effect.gen(function*() {
      const { otherPool, pool, store, task } = yield* scene
      const held = yield* running(store, pool, task)
      const queued = yield* running(store, pool, task, { queueName: unique("queue"), maxAttempts: 1 })
      const key = unique("key")
      const superseded = yield* running(store, pool, task, { key, maxAttempts: 1 })
      yield* store.remove({ key })
      const foreign = yield* running(store, otherPool, task)
      yield* store.deregisterPool(pool)
      for (const { id } of [held, queued]) {
        assert.deepInclude(yield* found(store, id), { state: "ready", attempts: 0, lockedBy: undefined })
      }
      assert.deepInclude(yield* found(store, superseded.id), { state: "failed", attempts: 1 })
      assert.deepInclude(yield* found(store, foreign.id), { state: "running", lockedBy: otherPool })
      const { jobs } = yield* store.claim({ pool: otherPool, tasks: [task], limit: 5 })
      assert.deepStrictEqual(ids(jobs), [held.id, queued.id])
    }))

  it.effect("are all released where nobody else can be", () =>
    Effect.gen(function*() {
      const { otherPool, pool, store, task } = yield* scene
      yield* store.releasePools("all")
      const [a, b] = [yield* makePool(store), yield* makePool(store)]
      const gone = yield* makePool(store)
      const jobs = [
        yield* running(store, a, task),
        yield* running(store, b, task, { queueName: unique("queue") }),
        yield* running(store, a, task, { maxAttempts: 1 })
      ]
      const recovery = yield* store.releasePools("all")
      assert.deepStrictEqual([...recovery.pools].toSorted(), [a, b, gone].toSorted())
      assert.deepInclude(recovery, { released: 2, failed: 1 })
      for (const id of [a, b, gone, pool, otherPool]) assert.isFalse((yield* store.heartbeat(id)).isAlive)
      const next = yield* makePool(store)
      const claim = yield* store.claim({ pool: next, tasks: [task], limit: 5 })
      assert.deepStrictEqual(ids(claim.jobs), ids(jobs.slice(0, 2)))
    }))

  it.effect("a cancelled job that nobody holds is deleted", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const waiting = yield* store.add(spec(task, { delay: 60_000 }))
      const { id } = yield* running(store, pool, unique("task"))
      yield* store.settle(pool, [{ _tag: "Failed", id, error: "no hope", retryIn: undefined }])
      for (const job of [waiting.id, id]) {
        assert.deepInclude(Option.getOrThrow(yield* store.cancel(job)), { id: job, state: "cancelled" })
        assert.deepStrictEqual(yield* store.get(job), Option.none())
      }
      assert.deepStrictEqual(yield* store.cancel(id), Option.none())
    }))

  it.effect("the heartbeat names the cancelled jobs to the pool that runs them, until they are settled", () =>
    Effect.gen(function*() {
      const { other, otherPool, pool, store, task } = yield* scene
      const job = yield* running(store, pool, task, { queueName: unique("queue") })
      assert.deepInclude(Option.getOrThrow(yield* other.cancel(job.id)), { id: job.id, state: "running" })
      yield* other.cancel(job.id)
      assert.deepStrictEqual((yield* store.heartbeat(pool)).cancelled, [job.id])
      assert.deepStrictEqual((yield* other.heartbeat(otherPool)).cancelled, [])
      const recorded = yield* store.settle(pool, [{ _tag: "Cancelled", id: job.id, reason: undefined }])
      assert.deepStrictEqual([...recorded], [job.id])
      assert.deepStrictEqual((yield* store.heartbeat(pool)).cancelled, [])
      assert.deepStrictEqual(yield* store.get(job.id), Option.none())
    }))

  it.effect("a job that runs where nobody can be told loses its further attempts", () =>
    Effect.gen(function*() {
      const { store, task } = yield* scene
      const gone = yield* makePool(store)
      const job = yield* running(store, gone, task, { key: unique("key") })
      yield* store.deregisterPool(gone, false)
      assert.deepInclude(Option.getOrThrow(yield* store.cancel(job.id)), {
        state: "running",
        attempts: 25,
        key: undefined
      })
    }))
}
