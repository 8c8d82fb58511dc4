/** What becomes of jobs that have details: waiting for them, what they report, the history, failed ones made ready. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type * as Job from "../../src/Job.ts"
import { failed, found, ids, type It, millis, running, scene, spec, specs, unique } from "./harness.ts"

const hour = 3_600_000
const unknown = "9223372036854775807" as Job.JobId
const retained = { details: { retain: hour } }

export const outcomes = (it: It) => {
  it.effect("hands a job's details to whoever claims it, and to nobody else's", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const details = { retain: 0, origin: "shop", metadata: "{\"user\":[1,null]}", trace: "00-a-b-01" }
      const jobs = yield* store.addMany([
        spec(task),
        spec(task, { details }),
        spec(task, { key: unique("key"), details })
      ])
      const claim = yield* store.claim({ pool, tasks: [task], limit: 3 })
      assert.deepStrictEqual(ids(claim.jobs), ids(jobs))
      const handed = {
        retains: false,
        origin: "shop",
        metadata: { user: [1, null] },
        trace: "00-a-b-01",
        bundle: undefined
      }
      assert.deepStrictEqual(claim.jobs.map(({ details }) => details), [undefined, handed, handed])
      yield* store.settle(pool, jobs.map(({ id }) => ({ _tag: "Completed", id }) as const))
      assert.deepStrictEqual(yield* store.history({ tasks: [task] }, { limit: 5 }), [])
    }))

  it.effect("writes no details of a job that only finds another one", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const key = unique("key")
      const job = yield* store.add(spec(task, { key }))
      for (const keyMode of ["dedupe", "unsafe_dedupe"] as const) {
        assert.strictEqual((yield* store.add(spec(task, { key, keyMode, ...retained }))).id, job.id)
      }
      const reject = { key, keyMode: "reject", ...retained } as const
      assert.strictEqual((yield* Effect.flip(store.add(spec(task, reject))))._tag, "DuplicateJobKey")
      assert.strictEqual((yield* store.claim({ pool, tasks: [task], limit: 1 })).jobs[0]?.details, undefined)
    }))

  it.effect("shows a job as it stands, until it has stopped and after", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const { id } = yield* running(store, pool, task, retained)
      const live = { _tag: "Live", task, revision: 0, progress: undefined } as const
      assert.deepStrictEqual(yield* store.observe(id, 0, false), live)
      assert.isTrue(yield* store.report(pool, id, "[1,\"\\u0000\"]"))
      const observed = yield* store.observe(id, undefined, true)
      assert.deepStrictEqual(observed._tag === "Live" && observed.progress?.value, [1, "\u0000"])
      yield* store.settle(pool, [{ _tag: "Completed", id, keep: { result: "{\"n\":1}" } }])
      const stopped = {
        _tag: "Stopped",
        task,
        state: "completed",
        error: undefined,
        attempts: [],
        result: { n: 1 },
        isRetained: true
      } as const
      assert.deepStrictEqual(yield* store.observe(id, 0, true), stopped)
      assert.deepStrictEqual(yield* store.observe(id, undefined, false), stopped)
      assert.deepStrictEqual(yield* store.observe(id, 1, false), { _tag: "Unknown", existed: true })
      assert.deepStrictEqual(yield* store.observe(unknown, undefined, true), { _tag: "Unknown", existed: false })
      assert.isFalse(yield* store.report(pool, id, "2"))
    }))

  it.effect("shows a failed job with its attempts, and one that is replaced as cancelled", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const { id } = yield* running(store, pool, task)
      const record = { attempt: 1, tag: "Broken", data: "{\"n\":1}" }
      yield* store.settle(pool, [{ _tag: "Failed", id, error: "broken", retryIn: undefined, record }])
      const observed = yield* store.observe(id, 0, false)
      assert.deepInclude(observed, { _tag: "Stopped", state: "failed", error: "broken", result: undefined })
      assert.deepInclude(observed._tag === "Stopped" && observed.attempts[0], {
        attempt: 1,
        tag: "Broken",
        message: "broken",
        data: { n: 1 }
      })
      yield* store.retry([id])
      assert.deepInclude(yield* store.observe(id, 0, false), { _tag: "Live" })

      const key = unique("key")
      const waiting = yield* store.add(spec(task, { key, delay: hour, details: { awaited: true } }))
      const again = yield* store.add(spec(task, { key, delay: hour }))
      assert.deepInclude(again, { id: waiting.id, revision: 1 })
      assert.deepInclude(yield* store.observe(waiting.id, 0, false), { state: "cancelled", isRetained: false })
      assert.deepInclude(yield* store.observe(again.id, 1, false), { _tag: "Live", revision: 1 })
    }))

  it.effect("lets the holder alone report", () =>
    Effect.gen(function*() {
      const { otherPool, pool, store, task } = yield* scene
      const { id } = yield* running(store, pool, task)
      const waiting = yield* store.add(spec(task))
      assert.isFalse(yield* store.report(otherPool, id, "1"))
      assert.isFalse(yield* store.report(pool, waiting.id, "1"))
      assert.deepInclude(yield* store.observe(id, 0, false), { progress: undefined })
    }))

  it.effect("tells of the jobs that are observed so, when they report, stop or fail, and of no others", () =>
    Effect.gen(function*() {
      const { other, pool, store, task } = yield* scene
      const [told, silent, failing] = yield* Effect.forEach([1, 2, 3], () => store.add(spec(task)))
      yield* store.claim({ pool, tasks: [task], limit: 3 })
      yield* store.observe(told!.id, 0, true)
      yield* store.observe(silent!.id, 0, false)
      yield* store.observe(failing!.id, 0, true)
      const news: Array<Job.JobId> = []
      const listens = yield* Effect.forkChild(
        other.watched.pipe(
          Stream.tap((jobs) =>
            jobs.length > 0 ? Effect.void : Effect.gen(function*() {
              for (const { id } of [silent!, told!]) yield* store.report(pool, id, "1")
              yield* store.settle(pool, [
                { _tag: "Completed", id: silent!.id },
                { _tag: "Failed", id: failing!.id, error: "broken", retryIn: undefined }
              ])
              yield* store.settle(pool, [{ _tag: "Completed", id: told!.id }])
            })
          ),
          Stream.takeUntil((jobs) => {
            news.push(...jobs)
            return news.filter((id) => id === told!.id).length === 2
          }),
          Stream.runDrain
        )
      )
      yield* Fiber.join(listens)
      assert.deepStrictEqual(news, [told!.id, failing!.id, told!.id])
      assert.deepInclude(yield* store.observe(told!.id, 0, false), { state: "completed", isRetained: false })
    }))

  it.effect("keeps what is retained, newest first, until it is over or forgotten", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const jobs = yield* store.addMany(specs(task, 5, retained))
      yield* store.claim({ pool, tasks: [task], limit: 5 })
      for (const { id } of jobs) yield* store.settle(pool, [{ _tag: "Completed", id, keep: { result: "1" } }])
      const all = yield* store.history({ tasks: [task] }, { limit: 10 })
      assert.deepStrictEqual(all.map(({ payload }) => payload), [4, 3, 2, 1, 0])
      const last = all[1]!
      const page = { limit: 2, after: { stoppedAt: millis(last.stoppedAt), id: last.id } }
      assert.deepStrictEqual(yield* store.history({ tasks: [task] }, page), all.slice(2, 4))
      assert.deepStrictEqual(yield* store.finished(last.id), Option.some(last))
      assert.strictEqual(millis(last.expiresAt) - millis(last.stoppedAt), hour)
      assert.strictEqual(yield* store.countHistory({ tasks: [task], states: ["completed"] }), 5)
      assert.strictEqual(yield* store.countHistory({ tasks: [task], states: ["failed"] }), 0)
      assert.strictEqual(yield* store.forget({ tasks: [task] }, 3), 3)
      assert.strictEqual(yield* store.forget({ tasks: [task] }, 3), 2)

      const brief = yield* store.addMany(specs(task, 3, { details: { retain: 1 } }))
      yield* store.complete(ids(brief))
      let expired = 0
      while (expired < 3) expired += yield* store.expire(2)
      assert.deepStrictEqual(yield* store.finished(brief[0]!.id), Option.none())
    }))

  it.effect("makes failed jobs ready, so many at once, or counts them", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const jobs = yield* Effect.forEach([1, 2, 3], () => failed(store, pool, task))
      const waiting = yield* store.add(spec(task, { delay: hour }))
      const filter = { tasks: [task] }
      const all = { isDryRun: true, limit: 10 }
      assert.deepStrictEqual(yield* store.redrive(filter, all), { count: 3, last: undefined })
      assert.deepStrictEqual(yield* store.redrive(filter, { ...all, error: "no such" }), { count: 0, last: undefined })
      assert.deepStrictEqual(yield* store.redrive(filter, { ...all, error: "no hope" }), { count: 3, last: undefined })
      const first = yield* store.redrive(filter, { isDryRun: false, limit: 2 })
      assert.deepStrictEqual(first, { count: 2, last: jobs[1]!.id })
      assert.deepInclude(yield* found(store, jobs[0]!.id), { state: "ready", attempts: 0, lastError: "no hope" })
      const second = yield* store.redrive(filter, { isDryRun: false, limit: 2, after: first.last })
      assert.deepStrictEqual(second, { count: 1, last: undefined })
      assert.deepInclude(yield* found(store, waiting.id), { state: "scheduled" })
    }))
}
