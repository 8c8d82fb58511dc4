/** Job keys: what becomes of the job that has the key already. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { DuplicateJobKey } from "../../src/Job.ts"
import { failed, found, ids, type It, millis, retrying, running, scene, spec, unique } from "./harness.ts"

const soon = Date.UTC(2032, 0, 1)
const later = Date.UTC(2033, 0, 1)

export const keys = (it: It) => {
  it.effect("replaces a waiting job: the same id, everything else new", () =>
    Effect.gen(function*() {
      const { store, task } = yield* scene
      const [key, queueName, newTask] = [unique("key"), unique("queue"), unique("task")]
      const old = yield* store.add(
        spec(task, { key, payload: "1", runAt: soon, priority: 3, maxAttempts: 7, flags: ["old"], queueName })
      )
      const job = yield* store.add(spec(newTask, { key, payload: "2", runAt: later, flags: ["new"] }))
      assert.deepInclude(job, { id: old.id, task: newTask, key, payload: 2, priority: 0, maxAttempts: 25, revision: 1 })
      assert.deepInclude(job, { queueName: undefined, attempts: 0, state: "scheduled" })
      assert.strictEqual(millis(job.runAt), later)
      assert.deepStrictEqual(job.flags, ["new"])
      assert.deepStrictEqual(yield* found(store, job.id), job)
    }))

  it.effect("starts a retrying job over when it is replaced", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const key = unique("key")
      const old = yield* retrying(store, pool, task, { key })
      const job = yield* store.add(spec(task, { key }))
      assert.deepInclude(job, { id: old.id, attempts: 0, lastError: undefined, state: "ready", revision: 1 })
    }))

  for (const keyMode of [undefined, "replace", "preserve_run_at"] as const) {
    it.effect(`adds a new job beside a running one and ends the old one's attempts (${keyMode ?? "by default"})`, () =>
      Effect.gen(function*() {
        const { pool, store, task } = yield* scene
        const key = unique("key")
        const old = yield* running(store, pool, task, { key })
        const job = yield* store.add(spec(task, { key, keyMode, runAt: later, payload: "2" }))
        assert.notStrictEqual(job.id, old.id)
        assert.deepInclude(job, { key, payload: 2, attempts: 0, revision: 0, state: "scheduled", lockedBy: undefined })
        assert.strictEqual(millis(job.runAt), later)
        assert.deepInclude(yield* found(store, old.id), {
          key: undefined,
          attempts: 25,
          maxAttempts: 25,
          state: "running",
          lockedBy: pool
        })
      }))

    it.effect(`adds a new job beside one that has failed (${keyMode ?? "by default"})`, () =>
      Effect.gen(function*() {
        const { pool, store, task } = yield* scene
        const key = unique("key")
        const old = yield* failed(store, pool, task, { key })
        const job = yield* store.add(spec(task, { key, keyMode }))
        assert.notStrictEqual(job.id, old.id)
        assert.deepInclude(job, { key, attempts: 0, state: "ready" })
        assert.deepInclude(yield* found(store, old.id), { key: undefined, state: "failed", lastError: "no hope" })
      }))
  }

  it.effect("keeps the time of a waiting job that was never tried, if asked to", () =>
    Effect.gen(function*() {
      const { store, task } = yield* scene
      const key = unique("key")
      const old = yield* store.add(spec(task, { key, runAt: soon }))
      const job = yield* store.add(spec(task, { key, keyMode: "preserve_run_at", runAt: later, payload: "2" }))
      assert.deepInclude(job, { id: old.id, payload: 2, revision: 1 })
      assert.strictEqual(millis(job.runAt), soon)
    }))

  it.effect("gives a job that was tried its new time even so", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const key = unique("key")
      const old = yield* retrying(store, pool, task, { key })
      const job = yield* store.add(spec(task, { key, keyMode: "preserve_run_at", runAt: later }))
      assert.deepInclude(job, { id: old.id, attempts: 0, revision: 1 })
      assert.strictEqual(millis(job.runAt), later)
    }))

  for (const [state, make] of Object.entries({ waiting: undefined, running, retrying, failed })) {
    it.effect(`leaves a ${state} job as it is in the mode unsafe_dedupe`, () =>
      Effect.gen(function*() {
        const { pool, store, task } = yield* scene
        const key = unique("key")
        const options = { key, payload: "1", queueName: unique("queue"), flags: ["a"], priority: 1 }
        const { id } = make === undefined
          ? yield* store.add(spec(task, options))
          : yield* make(store, pool, task, options)
        const before = yield* found(store, id)
        const job = yield* store.add(
          spec(unique("task"), { key, keyMode: "unsafe_dedupe", runAt: later, payload: "2" })
        )
        assert.deepStrictEqual({ ...job }, { ...before, revision: before.revision + 1, updatedAt: job.updatedAt })
      }))
  }

  it.effect("adds a job in any mode when the key is free", () =>
    Effect.gen(function*() {
      const { store, task } = yield* scene
      for (const keyMode of ["replace", "preserve_run_at", "unsafe_dedupe", "dedupe", "reject"] as const) {
        const key = unique("key")
        assert.deepInclude(yield* store.add(spec(task, { key, keyMode, runAt: later })), { key, revision: 0 })
      }
    }))

  it.effect("applies the keys of one call in its order, each in its mode", () =>
    Effect.gen(function*() {
      const { store } = yield* scene
      const [key, other, a, b, c] = [unique("key"), unique("key"), unique("task"), unique("task"), unique("task")]
      const queueName = unique("queue")
      const jobs = yield* store.addMany([
        spec(a, { key, payload: "0", runAt: soon }),
        spec(b, { key: other, payload: "1" }),
        spec(b, { key, payload: "2", runAt: later, keyMode: "preserve_run_at", queueName }),
        spec(c, { key, payload: "3", keyMode: "unsafe_dedupe" }),
        spec(c, { key: other, payload: "4" })
      ])
      assert.strictEqual(jobs[2]?.id, jobs[0]?.id)
      assert.strictEqual(jobs[3]?.id, jobs[0]?.id)
      assert.strictEqual(jobs[4]?.id, jobs[1]?.id)
      assert.deepInclude(jobs[3], { task: b, payload: 2, queueName, revision: 2 })
      assert.strictEqual(millis(jobs[3]?.runAt), soon)
      assert.deepInclude(jobs[4], { task: c, payload: 4, revision: 1 })
      assert.deepStrictEqual(yield* found(store, jobs[3]!.id), jobs[3]!)
      assert.strictEqual(yield* store.count({ tasks: [a, b, c] }), 2)
    }))

  for (const [state, make] of Object.entries({ ready: undefined, running, retrying, failed })) {
    it.effect(`refuses a job whose key is that of a ${state} one in the mode reject`, () =>
      Effect.gen(function*() {
        const { pool, store, task } = yield* scene
        const key = unique("key")
        const { id } = make === undefined
          ? yield* store.add(spec(task, { key }))
          : yield* make(store, pool, task, { key })
        const before = yield* found(store, id)
        const newTask = unique("task")
        const refused = spec(newTask, { key, keyMode: "reject" })
        const error = yield* Effect.flip(store.add(refused))
        assert.strictEqual(before.state, state)
        assert.instanceOf(error, DuplicateJobKey)
        assert.deepInclude(error, { task: newTask, key, existing: id, state: before.state })
        assert.strictEqual((error as DuplicateJobKey).index, undefined)
        const many = yield* Effect.flip(store.addMany([spec(newTask), spec(newTask, { key: unique("key") }), refused]))
        assert.deepInclude(many, {
          _tag: "DuplicateJobKey",
          task: newTask,
          key,
          existing: id,
          state: before.state,
          index: 2
        })
        assert.deepStrictEqual(yield* found(store, id), before)
        assert.strictEqual(yield* store.count({ tasks: [newTask] }), 0)
      }))
  }

  for (const [state, make] of Object.entries({ waiting: undefined, running, retrying })) {
    it.effect(`answers a ${state} job as it is in the mode dedupe`, () =>
      Effect.gen(function*() {
        const { pool, store, task } = yield* scene
        const key = unique("key")
        const options = { key, maxAttempts: state === "running" ? 1 : 5 }
        const { id } = make === undefined
          ? yield* store.add(spec(task, options))
          : yield* make(store, pool, task, options)
        const before = yield* found(store, id)
        const again = spec(unique("task"), { key, keyMode: "dedupe", payload: "2", runAt: later })
        assert.deepStrictEqual(yield* store.add(again), before)
        assert.deepStrictEqual(yield* store.addMany([again]), [before])
        assert.deepStrictEqual(yield* found(store, id), before)
      }))
  }

  it.effect("adds a job beside one that has failed in the mode dedupe", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const key = unique("key")
      const old = yield* failed(store, pool, task, { key })
      const job = yield* store.add(spec(task, { key, keyMode: "dedupe", payload: "2" }))
      assert.notStrictEqual(job.id, old.id)
      assert.deepInclude(job, { key, payload: 2, state: "ready", revision: 0 })
      assert.deepInclude(yield* found(store, old.id), { key: undefined, state: "failed", lastError: "no hope" })
    }))

  it.effect("refuses, adds or answers one job, however many ask for it at once", () =>
    Effect.gen(function*() {
      const { other, store, task } = yield* scene
      for (let round = 0; round < 20; round++) {
        const key = unique("key")
        const beside = unique("task")
        const ask = (n: number) => {
          const from = n % 2 === 0 ? store : other
          return n % 3 === 2
            ? Effect.map(from.add(spec(task, { key, keyMode: "dedupe" })), (job) => job.id)
            : Effect.match(from.addMany([spec(beside), spec(task, { key, keyMode: "reject" })]), {
              onSuccess: (jobs) => jobs[1]!.id,
              onFailure: (error) => error._tag === "DuplicateJobKey" ? error.existing : error._tag
            })
        }
        const answers = yield* Effect.forEach(Array.from({ length: 8 }, (_, n) => n), ask, { concurrency: 8 })
        const jobs = yield* store.list({ key }, { limit: 5 })
        assert.deepStrictEqual(new Set(answers), new Set(ids(jobs)))
        assert.isAtMost(yield* store.count({ tasks: [beside] }), 1)
      }
    }))
}
