/** Notifications: who adds jobs is heard by every process. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import type { Announcement, Store } from "../../src/JobStore.ts"
import { within } from "../support/events.ts"
import { type It, makePool, running, scene, spec, specs, unique } from "./harness.ts"

/** Listens until the scope closes. `heard` waits until so many jobs in all were announced, then starts from zero. */
const listen = Effect.fnUntraced(function*(store: Store) {
  const queue = yield* Queue.unbounded<Announcement>()
  yield* store.notifications.pipe(
    Stream.runForEach((announcement) => Queue.offer(queue, announcement)),
    Effect.forkScoped
  )
  const take = within(Queue.take(queue), "10 seconds", "an announcement")
  assert.deepStrictEqual(yield* take, { _tag: "Listening" })
  const heard = Effect.fnUntraced(function*(jobs: number) {
    let sum = 0
    while (sum < jobs) {
      const announcement = yield* take
      if (announcement._tag !== "JobsAdded") return yield* Effect.die(announcement)
      assert.isAbove(announcement.count, 0)
      sum += announcement.count
    }
    return sum
  })
  return { heard, take, pending: Queue.size(queue) }
})

export const notifications = (it: It) => {
  it.effect("announce every job that is added, to this process and to others", () =>
    Effect.gen(function*() {
      const { other, store, task } = yield* scene
      const [here, there] = [yield* listen(store), yield* listen(other)]
      yield* store.add(spec(task))
      yield* store.addMany(specs(task, 100))
      for (const { heard } of [here, there]) assert.strictEqual(yield* heard(101), 101)
    }))

  it.effect("announce a job that replaces another, and nothing that is only deduplicated or removed", () =>
    Effect.gen(function*() {
      const { store, task } = yield* scene
      const key = unique("key")
      yield* store.add(spec(task, { key }))
      const { heard, pending } = yield* listen(store)
      yield* store.add(spec(task, { key, keyMode: "unsafe_dedupe" }))
      yield* store.remove({ key })
      yield* store.add(spec(task, { key }))
      assert.strictEqual(yield* heard(1), 1)
      yield* store.add(spec(task, { key }))
      assert.strictEqual(yield* heard(1), 1)
      assert.strictEqual(yield* pending, 0)
    }))

  it.effect("announce jobs that are given back", () =>
    Effect.gen(function*() {
      const { other, pool, store, task } = yield* scene
      const { heard } = yield* listen(other)
      const job = yield* running(store, pool, task)
      assert.strictEqual(yield* heard(1), 1)
      yield* store.settle(pool, [{ _tag: "Released", id: job.id, attempt: 1 }])
      assert.strictEqual(yield* heard(1), 1)
      yield* store.claim({ pool, tasks: [task], limit: 1 })
      yield* store.releaseUnknown(pool, [])
      assert.strictEqual(yield* heard(1), 1)
      yield* store.claim({ pool, tasks: [task], limit: 1 })
      yield* store.deregisterPool(pool)
      assert.strictEqual(yield* heard(1), 1)
    }))

  it.effect("tell a pool that one of its jobs is to be cancelled", () =>
    Effect.gen(function*() {
      const { other, pool, store, task } = yield* scene
      const job = yield* running(store, pool, task)
      const { take } = yield* listen(store)
      yield* other.cancel(job.id)
      assert.deepStrictEqual(yield* take, { _tag: "CancellationRequested", pool })
    }))

  it.effect("announce the jobs of dead pools", () =>
    Effect.gen(function*() {
      const { store, task } = yield* scene
      const dead = yield* makePool(store, "1 millis")
      yield* store.addMany(specs(task, 3))
      yield* store.add(spec(task, { maxAttempts: 1 }))
      yield* store.claim({ pool: dead, tasks: [task], limit: 4 })
      const { heard } = yield* listen(store)
      let released = 0
      while (released === 0) released = (yield* store.releasePools([dead])).released
      assert.strictEqual(yield* heard(3), 3)
    }))

  it.effect("end with their scope and can be had again", () =>
    Effect.gen(function*() {
      const { store, task } = yield* scene
      for (let round = 0; round < 3; round++) {
        yield* Effect.scoped(Effect.gen(function*() {
          const { heard } = yield* listen(store)
          yield* store.add(spec(task))
          assert.strictEqual(yield* heard(1), 1)
        }))
      }
    }))
}
