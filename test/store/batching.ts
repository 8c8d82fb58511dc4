/** Batches: jobs that are held by row locks only. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import { eventually } from "../support/events.ts"
import { all, found, ids, type It, scene, spec, specs, take, unique } from "./harness.ts"

export const batching = (it: It) => {
  it.effect("holds jobs that others skip, without a trace in them", () =>
    Effect.gen(function*() {
      const { other, otherPool, pool, store, task } = yield* scene
      const jobs = yield* store.addMany(specs(task, 5, { flags: ["f"] }))
      const batch = yield* take(other, { pool: otherPool, tasks: [task], limit: 3 })
      assert.deepStrictEqual(ids(batch.jobs), ids(jobs.slice(0, 3)))
      assert.deepInclude(batch.jobs[0], { task, payload: 0, attempt: 1, isLastAttempt: false, queueName: undefined })
      assert.deepStrictEqual(yield* all(store, task), jobs)
      const { jobs: claimed } = yield* store.claim({ pool, tasks: [task], limit: 10 })
      assert.deepStrictEqual(ids(claimed), ids(jobs.slice(3)))
      const empty = yield* take(store, { pool, tasks: [task], limit: 10 })
      assert.deepStrictEqual(empty.jobs, [])
    }).pipe(Effect.scoped))

  it.effect("tells an empty claim that jobs were due but held", () =>
    Effect.gen(function*() {
      const { other, otherPool, pool, store, task } = yield* scene
      yield* store.add(spec(task))
      const claim = store.claim({ pool, tasks: [task], limit: 5 })
      yield* Effect.scoped(Effect.gen(function*() {
        yield* take(other, { pool: otherPool, tasks: [task], limit: 1 })
        assert.deepInclude(yield* claim, { jobs: [], contended: true })
      }))
      assert.lengthOf((yield* claim).jobs, 1)
    }))

  it.effect("takes jobs in the order of claims, over tasks and priorities", () =>
    Effect.gen(function*() {
      const { pool, store } = yield* scene
      const tasks = [unique("task"), unique("task"), unique("task")]
      const jobs = yield* store.addMany(
        tasks.flatMap((task, t) => [2, -1, 0].map((priority) => spec(task, { priority, runAt: 1000 - t })))
      )
      yield* store.add(spec(tasks[0]!, { priority: -9, queueName: unique("queue") }))
      yield* store.add(spec(tasks[0]!, { priority: -9, delay: 60_000 }))
      const expected = ids([7, 4, 1, 8, 5, 2, 6, 3, 0].map((place) => jobs[place]!))
      for (const limit of [1, 4, 100]) {
        const got = yield* Effect.scoped(Effect.map(take(store, { pool, tasks, limit }), ({ jobs }) => ids(jobs)))
        assert.deepStrictEqual(got, expected.slice(0, limit))
      }
    }))

  it.effect("holds jobs with large payloads as any others, in the order of claims, and completes them together", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const other = unique("task")
      const jobs = yield* store.addMany(
        Array.from(
          { length: 40 },
          (_, n) => spec(n % 8 === 7 ? other : task, { payload: `"${n} ${"x".repeat(10_000)}"` })
        )
      )
      const lane = jobs.filter((job) => job.task === task)
      const large = { pool, payloadSize: 10_000 }
      const rest = yield* Effect.scoped(Effect.gen(function*() {
        const first = yield* take(store, { ...large, tasks: [task], limit: 15 })
        assert.deepStrictEqual(
          first.jobs.map(({ id, payload }) => [id, payload]),
          lane.slice(0, 15).map(({ id, payload }) => [id, payload])
        )
        const { next } = yield* first.settle(
          first.jobs.map(({ id }) => ({ _tag: "Completed", id })),
          { ...large, tasks: [task], limit: 15, after: first.last! }
        )
        const jobs = yield* next!.start
        yield* next!.settle(jobs.map(({ id }) => ({ _tag: "Completed", id })))
        return jobs
      }))
      assert.deepStrictEqual(ids(rest), ids(lane.slice(15, 30)))
      const mixed = yield* Effect.scoped(take(store, { ...large, tasks: [other, task], limit: 40 }))
      assert.deepStrictEqual(
        new Set(ids(mixed.jobs)),
        new Set(ids([...lane.slice(30), ...jobs.filter((job) => job.task === other)]))
      )
      assert.strictEqual(yield* store.count({ tasks: [task] }), 5)
    }))

  it.effect("completes, fails and leaves jobs, in one commit", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const jobs = yield* store.addMany(specs(task, 6))
      yield* Effect.scoped(Effect.gen(function*() {
        const batch = yield* take(store, { pool, tasks: [task], limit: 6 })
        yield* batch.settle([
          { _tag: "Completed", id: jobs[0]!.id },
          { _tag: "Failed", id: jobs[1]!.id, error: "later", retryIn: 60_000 },
          { _tag: "Failed", id: jobs[2]!.id, error: "never", retryIn: undefined },
          { _tag: "Released", id: jobs[3]!.id, attempt: 1 }
        ])
        assert.strictEqual(yield* store.count({ tasks: [task] }), 5)
      }))
      assert.deepStrictEqual(yield* store.get(jobs[0]!.id), Option.none())
      assert.deepInclude(yield* found(store, jobs[1]!.id), { state: "retrying", attempts: 1, lastError: "later" })
      assert.deepInclude(yield* found(store, jobs[2]!.id), { state: "failed", attempts: 25, lastError: "never" })
      for (const job of jobs.slice(3)) assert.deepStrictEqual(yield* found(store, job.id), job)
    }))

  it.effect("leaves jobs that have failed before or have one attempt to claims, and what is behind them too", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const [first] = yield* store.addMany(specs(task, 1, { runAt: 1000 }))
      const once = yield* store.add(spec(task, { maxAttempts: 1, runAt: 2000 }))
      yield* store.add(spec(task, { runAt: 3000 }))
      const held = yield* Effect.scoped(take(store, { pool, tasks: [task], limit: 3 }))
      assert.deepStrictEqual(ids(held.jobs), [first!.id])
      assert.isUndefined(held.last)
      const alone = yield* Effect.scoped(store.batch({ pool, tasks: [task], limit: 1 }))
      assert.closeTo(held.size, alone.size, 2)

      yield* store.remove({ id: once.id })
      assert.lengthOf((yield* Effect.scoped(take(store, { pool, tasks: [task], limit: 3 }))).jobs, 2)
      const { jobs } = yield* store.claim({ pool, tasks: [task], limit: 1 })
      yield* store.settle(pool, [{ _tag: "Failed", id: jobs[0]!.id, error: "once", retryIn: 0 }])
      yield* store.reschedule([jobs[0]!.id], {
        runAt: 1000,
        delay: undefined,
        priority: undefined,
        attempts: undefined,
        maxAttempts: undefined
      })
      assert.deepStrictEqual((yield* Effect.scoped(take(store, { pool, tasks: [task], limit: 3 }))).jobs, [])
    }))

  it.effect("charges what another pool was running when it ended badly, once, and leaves it to claims", () =>
    Effect.gen(function*() {
      const { other, otherPool, pool, severOther, store, task } = yield* scene
      const [poison, innocent, later] = yield* store.addMany(specs(task, 3))
      yield* Effect.scoped(Effect.gen(function*() {
        yield* take(other, { pool: otherPool, tasks: [task], limit: 2 })
        yield* severOther
      }))
      const batch = yield* Effect.scoped(take(store, { pool, tasks: [task], limit: 3 }))
      assert.deepStrictEqual(ids(batch.jobs), [])
      for (const { id } of [poison!, innocent!]) {
        assert.deepInclude(yield* found(store, id), {
          attempts: 1,
          lastError: "The pool that ran attempt 1 died."
        })
        const [record] = yield* store.failedAttempts(id)
        assert.deepInclude(record, { attempt: 1, tag: "PoolDied" })
      }
      assert.deepInclude(yield* found(store, later!.id), { attempts: 0 })
      const again = yield* Effect.scoped(take(store, { pool, tasks: [task], limit: 3 }))
      assert.deepStrictEqual(again.jobs, [])
      assert.deepInclude(yield* found(store, poison!.id), { attempts: 1 })
    }))

  it.effect("charges what several batches find in one note, none waiting for the end of another", () =>
    Effect.gen(function*() {
      const { other, otherPool, pool, severOther, store, task } = yield* scene
      const tasks = [task, unique("between")]
      const jobs = yield* store.addMany([0, 1, 2, 3].map((priority) => spec(tasks[priority % 2]!, { priority })))
      yield* Effect.scoped(Effect.andThen(take(other, { pool: otherPool, tasks: [task], limit: 4 }), severOther))
      const batches = ["first", "second"].map((stream) => store.batch({ pool, stream, tasks, limit: 2 }))
      for (const { count, start } of yield* Effect.all(batches)) {
        assert.strictEqual(count, 2)
        assert.deepStrictEqual(yield* start, [])
      }
      for (const [place, { id }] of jobs.entries()) {
        assert.deepInclude(yield* found(store, id), { attempts: place % 2 === 0 ? 1 : 0 })
      }
    }).pipe(Effect.scoped))

  it.effect("runs nothing of a lost batch of its own pool, until that one's note is taken back", () =>
    Effect.gen(function*() {
      const { other, pool, severOther, store, task } = yield* scene
      const jobs = yield* store.addMany(specs(task, 3))
      yield* Effect.scoped(Effect.andThen(take(other, { pool, stream: "lost", tasks: [task], limit: 2 }), severOther))
      const again = Effect.scoped(take(store, { pool, stream: "next", tasks: [task], limit: 3 }))
      assert.deepInclude(yield* again, { count: 3, jobs: [] })
      yield* store.forgetBatch("lost")
      assert.deepStrictEqual(ids((yield* again).jobs), ids(jobs))
      for (const job of jobs) assert.deepStrictEqual(yield* found(store, job.id), job)
    }))

  it.effect("charges nobody for standing between the jobs that another pool was running, and each once", () =>
    Effect.gen(function*() {
      const { other, otherPool, pool, severOther, store, task } = yield* scene
      const between = unique("task")
      const jobs = yield* store.addMany([task, task, between, task, between, between, task].map((name) => spec(name)))
      yield* Effect.scoped(
        Effect.andThen(take(other, { pool: otherPool, tasks: [task], limit: 10 }), severOther)
      )
      const suspects = ids(jobs.filter((job) => job.task === task))
      // A look at two of them takes only these from the note, and they are to be claimed before the next look.
      for (const pair of [suspects.slice(0, 2), suspects.slice(2)]) {
        const batch = yield* Effect.scoped(take(store, { pool, tasks: [task], limit: 2 }))
        assert.deepStrictEqual(ids(batch.jobs), [])
        const claim = yield* store.claim({ pool, tasks: [task], limit: 2 })
        assert.deepStrictEqual(
          claim.jobs.map(({ attempt, id }) => ({ attempt, id })),
          pair.map((id) => ({ attempt: 2, id }))
        )
      }
      const batch = yield* Effect.scoped(take(store, { pool, tasks: [task, between], limit: 10 }))
      assert.deepStrictEqual(ids(batch.jobs), ids(jobs.filter((job) => job.task === between)))
      assert.isTrue(batch.jobs.every(({ attempt }) => attempt === 1))
    }))

  it.effect("charges suspects also when it finds nothing else", () =>
    Effect.gen(function*() {
      const { other, otherPool, pool, severOther, store, task } = yield* scene
      const job = yield* store.add(spec(task))
      yield* Effect.scoped(Effect.andThen(take(other, { pool: otherPool, tasks: [task], limit: 2 }), severOther))
      for (const _ of [1, 2]) {
        const batch = yield* Effect.scoped(take(store, { pool, tasks: [task], limit: 2 }))
        assert.deepStrictEqual(batch.jobs, [])
        assert.deepInclude(yield* found(store, job.id), { state: "ready", attempts: 1 })
      }
    }))

  it.effect("claims what has an outcome that is refused for its content, and writes the others", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const [done, bad, later, left] = yield* store.addMany(specs(task, 4))
      const { refused } = yield* Effect.scoped(
        Effect.flatMap(take(store, { pool, tasks: [task], limit: 4 }), ({ settle }) =>
          settle([
            { _tag: "Completed", id: done!.id },
            { _tag: "Failed", id: bad!.id, error: "\u0000", retryIn: 0 },
            { _tag: "Snoozed", id: later!.id, attempt: 1, delay: 60_000 }
          ]))
      )
      assert.deepStrictEqual([...refused].toSorted(), [bad!.id, later!.id])
      assert.deepStrictEqual(yield* store.get(done!.id), Option.none())
      for (const { id } of [bad!, later!]) {
        assert.deepInclude(yield* found(store, id), { state: "running", attempts: 1, lockedBy: pool })
      }
      assert.deepStrictEqual(yield* found(store, left!.id), left)
    }))

  it.effect("promotes nothing for a pool that is not registered any more", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const [job] = yield* store.addMany(specs(task, 1))
      const promoted = yield* Effect.scoped(Effect.gen(function*() {
        const batch = yield* take(store, { pool, tasks: [task], limit: 1 })
        yield* store.deregisterPool(pool)
        const promoted = yield* batch.promote([job!.id])
        yield* batch.settle([])
        return promoted
      }))
      assert.deepStrictEqual(promoted, new Set())
      assert.deepStrictEqual(yield* found(store, job!.id), job)
    }))

  it.effect("tells by its note whether a settle without an answer was committed", () =>
    Effect.gen(function*() {
      const { other, otherPool, severOther, store, task } = yield* scene
      yield* store.addMany(specs(task, 2))
      const taking = take(other, { pool: otherPool, tasks: [task], limit: 1, stream: "told" })
      yield* Effect.scoped(Effect.flatMap(taking, ({ settle }) => settle([])))
      assert.isFalse(yield* other.forgetBatch("told"))
      yield* Effect.scoped(Effect.andThen(taking, severOther))
      assert.isTrue(yield* eventually(other.forgetBatch("told"), { until: () => true }))
      assert.isFalse(yield* other.forgetBatch("told"))
    }))

  it.effect("charges nothing after a batch that ended well, was given up, or whose note was taken back", () =>
    Effect.gen(function*() {
      const { other, otherPool, pool, severOther, store, task } = yield* scene
      yield* store.addMany(specs(task, 3))
      const taking = take(other, { pool: otherPool, tasks: [task], limit: 2, stream: "s" })
      const look = Effect.scoped(Effect.map(take(store, { pool, tasks: [task], limit: 3 }), ({ jobs }) => jobs.length))
      yield* Effect.scoped(Effect.flatMap(taking, (batch) => batch.settle([])))
      assert.strictEqual(yield* look, 3)
      yield* Effect.scoped(taking)
      assert.strictEqual(yield* look, 3)
      yield* Effect.scoped(Effect.andThen(taking, severOther))
      yield* eventually(Effect.exit(other.forgetBatch("s")), { until: Exit.isSuccess })
      assert.strictEqual(yield* look, 3)
    }))

  it.effect("records outcomes after its transaction was lost, of jobs that nobody has touched since", () =>
    Effect.gen(function*() {
      const { other, otherPool, pool, severOther, store, task } = yield* scene
      const added = yield* store.addMany(specs(task, 6, { key: undefined }))
      const batch = yield* Effect.scoped(Effect.gen(function*() {
        const batch = yield* take(other, { pool: otherPool, tasks: [task], limit: 6 })
        yield* severOther
        return batch
      }))
      const [done, failed, claimed, changed, gone, cancelled] = batch.jobs
      yield* store.reschedule([changed!.id], {
        runAt: undefined,
        delay: undefined,
        priority: undefined,
        attempts: 3,
        maxAttempts: undefined
      })
      yield* store.remove({ id: gone!.id })
      yield* store.reschedule([claimed!.id], {
        runAt: undefined,
        delay: undefined,
        priority: -5,
        attempts: undefined,
        maxAttempts: undefined
      })
      const claim = yield* store.claim({ pool, tasks: [task], limit: 1 })
      assert.deepStrictEqual(ids(claim.jobs), [claimed!.id])
      const settled = yield* eventually(
        Effect.exit(other.settleLate(otherPool, [
          { job: done!, settlement: { _tag: "Completed", id: done!.id } },
          { job: failed!, settlement: { _tag: "Failed", id: failed!.id, error: "later", retryIn: 60_000 } },
          { job: claimed!, settlement: { _tag: "Completed", id: claimed!.id } },
          { job: changed!, settlement: { _tag: "Completed", id: changed!.id } },
          { job: gone!, settlement: { _tag: "Completed", id: gone!.id } },
          { job: cancelled!, settlement: { _tag: "Cancelled", id: cancelled!.id, reason: undefined } }
        ])),
        { until: Exit.isSuccess }
      )
      assert.deepStrictEqual(
        Exit.isSuccess(settled) ? [...settled.value].toSorted() : [],
        [done!.id, failed!.id, cancelled!.id].toSorted()
      )
      assert.lengthOf(added, 6)
      assert.deepInclude(yield* found(store, failed!.id), { state: "retrying", attempts: 1, lastError: "later" })
      assert.deepInclude(yield* found(store, claimed!.id), { state: "running", lockedBy: pool })
      assert.deepInclude(yield* found(store, changed!.id), { attempts: 3, lockedBy: undefined })
      assert.deepStrictEqual(yield* store.get(cancelled!.id), Option.none())
    }))

  it.effect("writes the claim of promoted jobs when it settles", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const [slow, fast] = yield* store.addMany(specs(task, 2))
      yield* Effect.scoped(Effect.gen(function*() {
        const batch = yield* take(store, { pool, tasks: [task], limit: 2 })
        assert.deepStrictEqual(yield* batch.promote([slow!.id]), new Set([slow!.id]))
        assert.deepInclude(yield* found(store, slow!.id), { state: "ready", attempts: 0 })
        yield* batch.settle([{ _tag: "Completed", id: fast!.id }])
      }))
      assert.deepInclude(yield* found(store, slow!.id), { state: "running", attempts: 1, lockedBy: pool })
      assert.deepStrictEqual(yield* store.settle(pool, [{ _tag: "Completed", id: slow!.id }]), new Set([slow!.id]))
    }))

  it.effect("leaves everything as it was when its scope closes without a settle", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const jobs = yield* store.addMany(specs(task, 3))
      const scope = yield* Scope.make()
      const batch = yield* Scope.provide(take(store, { pool, tasks: [task], limit: 3 }), scope)
      yield* batch.promote([jobs[0]!.id])
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* all(store, task), jobs)
      assert.lengthOf((yield* store.claim({ pool, tasks: [task], limit: 3 })).jobs, 3)
    }))

  it.effect("leaves everything as it was when its process dies", () =>
    Effect.gen(function*() {
      const { other, otherPool, pool, severOther, store, task } = yield* scene
      const jobs = yield* store.addMany(specs(task, 3))
      yield* Effect.scoped(Effect.gen(function*() {
        const batch = yield* take(other, { pool: otherPool, tasks: [task], limit: 3 })
        yield* batch.promote([jobs[0]!.id])
        yield* severOther
        assert.strictEqual(
          (yield* Effect.flip(batch.settle([{ _tag: "Completed", id: jobs[1]!.id }])))._tag,
          "KongTaskError"
        )
      }))
      assert.deepStrictEqual(yield* all(store, task), jobs)
      assert.lengthOf((yield* store.claim({ pool, tasks: [task], limit: 3 })).jobs, 3)
      assert.lengthOf(yield* eventually(all(other, task)), 3)
    }))

  it.effect("is not seen by what the caller does beside it", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      yield* store.addMany(specs(task, 2))
      yield* Effect.scoped(Effect.gen(function*() {
        yield* take(store, { pool, tasks: [task], limit: 2 })
        yield* store.add(spec(task))
      }))
      assert.strictEqual(yield* store.count({ tasks: [task] }), 3)
    }))

  it.effect("makes whoever takes a job back wait, then sees what became of it", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const [promoted, left] = yield* store.addMany([spec(task, { key: unique("key") }), spec(task)])
      const [first, second] = yield* Effect.scoped(Effect.gen(function*() {
        const batch = yield* take(store, { pool, tasks: [task], limit: 2 })
        const removals = [
          yield* Effect.forkDetach(store.remove({ key: promoted!.key! }), { startImmediately: true }),
          yield* Effect.forkDetach(store.remove({ id: left!.id }), { startImmediately: true })
        ] as const
        yield* batch.promote([promoted!.id])
        yield* batch.settle([])
        return removals
      }))
      assert.deepInclude(Option.getOrThrow(yield* Fiber.join(first)), {
        id: promoted!.id,
        state: "running",
        attempts: 25
      })
      assert.deepStrictEqual(yield* Fiber.join(second), Option.some(left!))
      assert.deepInclude(yield* found(store, promoted!.id), { state: "running", lockedBy: pool, key: undefined })
    }))

  it.effect("never hands a job out twice, several at once, beside claims", () =>
    Effect.gen(function*() {
      const { other, otherPool, pool, store, task } = yield* scene
      const jobs = yield* store.addMany(specs(task, 400))
      const got: Array<string> = []
      const batches = Effect.gen(function*() {
        let seen = 1
        while (seen > 0 || (yield* store.count({ tasks: [task], states: ["ready"] })) > 0) {
          seen = yield* Effect.scoped(Effect.gen(function*() {
            const batch = yield* take(other, { pool: otherPool, tasks: [task], limit: 9 })
            got.push(...ids(batch.jobs))
            yield* batch.settle(batch.jobs.map(({ id }) => ({ _tag: "Completed", id })))
            return batch.jobs.length
          }))
        }
      })
      const claims = Effect.gen(function*() {
        while (true) {
          const claim = yield* store.claim({ pool, tasks: [task], limit: 5 })
          got.push(...ids(claim.jobs))
          if (claim.jobs.length === 0 && !claim.contended) return
        }
      })
      yield* Effect.all([batches, batches, batches, claims], { concurrency: "unbounded" })
      assert.strictEqual(got.length, jobs.length)
      assert.deepStrictEqual(got.toSorted(), ids(jobs).toSorted())
    }))
}

/** What stands in for all of the above where a job cannot be held by a row lock. */
export const noBatching = (it: It) => {
  it.effect("is refused where a job cannot be held by a row lock", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const exit = yield* Effect.exit(Effect.scoped(store.batch({ pool, tasks: [task], limit: 1 })))
      assert.isTrue(Exit.hasDies(exit))
    }))
}
