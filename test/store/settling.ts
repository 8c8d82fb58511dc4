/** Settling: what becomes of a claimed job, and who may say so. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Job from "../../src/Job.ts"
import type { Settlement } from "../../src/JobStore.ts"
import { all, found, ids, type It, millis, running, scene, spec, specs, unique } from "./harness.ts"

const completed = (id: Job.JobId): Settlement => ({ _tag: "Completed", id })
const failure = (id: Job.JobId, retryIn?: number): Settlement => ({ _tag: "Failed", id, error: "broken", retryIn })
const release = (id: Job.JobId, attempt = 1): Settlement => ({ _tag: "Released", id, attempt })

export const settling = (it: It) => {
  it.effect("deletes a job that has completed", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const key = unique("key")
      const { id } = yield* running(store, pool, task, { key })
      assert.deepStrictEqual(yield* store.settle(pool, [completed(id)]), new Set([id]))
      assert.deepStrictEqual(yield* store.get(id), Option.none())
      assert.strictEqual((yield* store.add(spec(task, { key }))).revision, 0)
    }))

  it.effect("puts a failed job off, with its error and its attempt", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const { id } = yield* running(store, pool, task)
      const error = "said: \"ünï\" 🦍 'quoted' \\ {braces}\nand more"
      const settled = yield* store.settle(pool, [{ _tag: "Failed", id, error, retryIn: 60_000 }])
      assert.deepStrictEqual(settled, new Set([id]))
      const job = yield* found(store, id)
      assert.deepInclude(job, { state: "retrying", attempts: 1, lastError: error, lockedBy: undefined })
      assert.strictEqual(job.lockedAt, undefined)
      assert.approximately(millis(job.runAt) - millis(job.updatedAt), 60_000, 1)
    }))

  it.effect("puts jobs off from the time that it is told", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const failed = yield* running(store, pool, task)
      const snoozed = yield* running(store, pool, task)
      const since = millis(failed.runAt) + 3_600_000
      yield* store.settle(pool, [
        { _tag: "Failed", id: failed.id, error: "no", retryIn: 60_000, since },
        { _tag: "Snoozed", id: snoozed.id, attempt: 1, delay: 60_000, since }
      ])
      for (const { id } of [failed, snoozed]) {
        assert.approximately(millis((yield* found(store, id)).runAt), since + 60_000, 1)
      }
    }))

  it.effect("makes a job that is to be retried at once ready again", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const { id } = yield* running(store, pool, task)
      yield* store.settle(pool, [failure(id, 0)])
      assert.deepInclude(yield* found(store, id), { state: "ready", attempts: 1 })
      assert.deepStrictEqual(ids((yield* store.claim({ pool, tasks: [task], limit: 1 })).jobs), [id])
    }))

  it.effect("fails a job for good when it is not to be retried, or has no attempt left", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const never = yield* running(store, pool, task)
      const last = yield* running(store, pool, task, { maxAttempts: 1 })
      assert.strictEqual((yield* store.settle(pool, [failure(never.id), failure(last.id, 0)])).size, 2)
      assert.deepInclude(yield* found(store, never.id), { state: "failed", attempts: 25, lastError: "broken" })
      assert.deepInclude(yield* found(store, last.id), { state: "failed", attempts: 1, lastError: "broken" })
      assert.deepStrictEqual((yield* store.claim({ pool, tasks: [task], limit: 5 })).jobs, [])
    }))

  it.effect("gives a released job its attempt back and changes nothing else", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const added = yield* store.add(spec(task, { key: unique("key"), maxAttempts: 1, priority: 3 }))
      yield* store.claim({ pool, tasks: [task], limit: 1 })
      assert.deepStrictEqual(yield* store.settle(pool, [release(added.id)]), new Set([added.id]))
      assert.deepStrictEqual(yield* found(store, added.id), added)
      const { jobs: [again] } = yield* store.claim({ pool, tasks: [task], limit: 1 })
      assert.deepInclude(again, { id: added.id, attempt: 1, isLastAttempt: true })
    }))

  it.effect("gives back no attempt that is not the one being released", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const { id } = yield* running(store, pool, task)
      yield* store.settle(pool, [release(id, 7)])
      assert.deepInclude(yield* found(store, id), { state: "ready", attempts: 1 })
    }))

  it.effect("settles jobs of every kind in one call", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      yield* store.addMany(specs(task, 400))
      const { jobs } = yield* store.claim({ pool, tasks: [task], limit: 400 })
      const settlements = jobs.map(({ id }, n) =>
        [completed(id), failure(id, 60_000), failure(id), release(id)][n % 4]!
      )
      const unknown = "9223372036854775807" as Job.JobId
      const settled = yield* store.settle(pool, [
        ...settlements,
        completed(unknown),
        failure(unknown),
        release(unknown)
      ])
      assert.deepStrictEqual([...settled].toSorted(), ids(jobs).toSorted())
      for (const [state, count] of [["retrying", 100], ["failed", 100], ["ready", 100], ["running", 0]] as const) {
        assert.strictEqual(yield* store.count({ tasks: [task], states: [state] }), count)
      }
      assert.strictEqual(yield* store.count({ tasks: [task] }), 300)
    }))

  it.effect("settles nothing for an empty list", () =>
    Effect.gen(function*() {
      const { pool, store } = yield* scene
      assert.strictEqual((yield* store.settle(pool, [])).size, 0)
    }))

  it.effect("obeys nobody but the pool that holds the job", () =>
    Effect.gen(function*() {
      const { other, otherPool, pool, store, task } = yield* scene
      const { id } = yield* running(store, pool, task)
      const waiting = yield* store.add(spec(task, { delay: 60_000 }))
      const before = yield* all(store, task)
      for (const settle of [completed, failure, release]) {
        assert.strictEqual((yield* other.settle(otherPool, [settle(id)])).size, 0)
        assert.strictEqual((yield* other.settle(otherPool, [settle(waiting.id)])).size, 0)
        assert.strictEqual((yield* store.settle(pool, [settle(waiting.id)])).size, 0)
      }
      assert.deepStrictEqual(yield* all(store, task), before)
      assert.strictEqual((yield* store.settle(pool, [completed(id)])).size, 1)
      assert.strictEqual((yield* store.settle(pool, [completed(id)])).size, 0)
    }))

  it.effect("does not know a job again that it released and another pool claimed", () =>
    Effect.gen(function*() {
      const { other, otherPool, pool, store, task } = yield* scene
      const { id } = yield* running(store, pool, task)
      yield* store.settle(pool, [release(id)])
      yield* other.claim({ pool: otherPool, tasks: [task], limit: 1 })
      assert.strictEqual((yield* store.settle(pool, [completed(id), failure(id)])).size, 0)
      assert.deepInclude(yield* found(store, id), { state: "running", lockedBy: otherPool, attempts: 1 })
    }))

  it.effect("records no failure twice, when the pool holds the job again", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const { id } = yield* running(store, pool, task)
      const record = { attempt: 1, tag: "Error", data: undefined }
      const failed: Settlement = { _tag: "Failed", id, error: "broken", retryIn: 0, record }
      assert.strictEqual((yield* store.settle(pool, [failed])).size, 1)
      assert.deepStrictEqual(ids((yield* store.claim({ pool, tasks: [task], limit: 1 })).jobs), [id])
      assert.strictEqual((yield* store.settle(pool, [failed])).size, 0)
      assert.deepInclude(yield* found(store, id), { state: "running", lockedBy: pool, attempts: 2 })
      assert.strictEqual((yield* store.settle(pool, [{ ...failed, record: { ...record, attempt: 2 } }])).size, 1)
      assert.deepInclude(yield* found(store, id), { state: "ready", attempts: 2 })
    }))

  for (const maxAttempts of [25, 1]) {
    const which = maxAttempts === 1 ? "on its last attempt" : "with attempts left"
    for (const supersede of ["replace", "remove"] as const) {
      it.effect(`never revives a superseded job ${which} (${supersede})`, () =>
        Effect.gen(function*() {
          const { pool, store, task } = yield* scene
          const endings: ReadonlyArray<(id: Job.JobId) => Effect.Effect<unknown, unknown>> = [
            (id) => store.settle(pool, [release(id)]),
            (id) => store.settle(pool, [failure(id, 0)]),
            (id) =>
              store.settle(pool, [{
                _tag: "Failed",
                id,
                error: "broken",
                retryIn: 0,
                record: { attempt: 1, tag: "Error", data: undefined }
              }]),
            () => store.releaseUnknown(pool, [])
          ]
          for (const end of endings) {
            const key = unique("key")
            const old = yield* running(store, pool, task, { key, maxAttempts })
            yield* supersede === "replace"
              ? store.add(spec(task, { key, delay: 60_000 }))
              : store.remove({ key })
            yield* end(old.id)
            assert.deepInclude(yield* found(store, old.id), { state: "failed", attempts: maxAttempts })
            assert.deepStrictEqual((yield* store.claim({ pool, tasks: [task], limit: 5 })).jobs, [])
          }
        }))
    }
  }

  it.effect("gives a released job its attempt back though its key was deduplicated meanwhile", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const key = unique("key")
      const { id } = yield* running(store, pool, task, { key, maxAttempts: 1 })
      yield* store.add(spec(task, { key, keyMode: "unsafe_dedupe" }))
      yield* store.settle(pool, [release(id)])
      assert.deepInclude(yield* found(store, id), { state: "ready", attempts: 0 })
    }))

  it.effect("takes back whatever a pool holds without knowing", () =>
    Effect.gen(function*() {
      const { other, otherPool, pool, store, task } = yield* scene
      const queueName = unique("queue")
      const known = yield* running(store, pool, task, { queueName: unique("queue") })
      const lost = yield* running(store, pool, task)
      const queued = yield* running(store, pool, task, { queueName, maxAttempts: 1 })
      const foreign = yield* running(other, otherPool, task)
      yield* store.releaseUnknown(pool, [known.id])
      assert.deepInclude(yield* found(store, known.id), { state: "running", lockedBy: pool, attempts: 1 })
      assert.deepInclude(yield* found(store, foreign.id), { state: "running", lockedBy: otherPool, attempts: 1 })
      for (const { id } of [lost, queued]) {
        assert.deepInclude(yield* found(store, id), { state: "ready", attempts: 0, lockedBy: undefined })
      }
      const { jobs } = yield* store.claim({ pool, tasks: [task], limit: 5 })
      assert.deepStrictEqual(ids(jobs), [lost.id, queued.id])
    }))
}
