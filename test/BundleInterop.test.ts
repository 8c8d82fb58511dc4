/** Bundles whose jobs are run by KongTask's workers and by the real graphile-worker. */
import { PgClient } from "@effect/sql-pg"
import { describe, expect, it } from "@effect/vitest"
import { Effect, type Scope, Stream } from "effect"
import { Bundle, Queue, Task } from "kongtask"
import { eventually } from "./support/events.ts"
import * as Graphile from "./support/graphile.ts"
import { Both, makeLedger, Ours, schemas, type Services, startOurs, target, Theirs } from "./support/interop.ts"

const Whole = Task.make("whole", { payload: Bundle.payload({ tasks: [Ours, Theirs, Both] }) })
const options = {
  onComplete: Bundle.completion(Whole, undefined, { queueName: "complete" }),
  onSuccess: Bundle.completion(Whole, undefined, { queueName: "success" }),
  onFailure: Bundle.completion(Whole, undefined, { queueName: "failure" })
}

for (const [schema, { layer }] of Object.entries(schemas)) {
  const test = <E>(name: string, effect: () => Effect.Effect<unknown, E, Services | Scope.Scope>) =>
    it.live(name, () => Effect.scoped(effect()).pipe(Effect.provide(layer)), 60_000)

  describe(`on ${schema}, graphile-worker`, () => {
    test("completes and fails jobs of bundles, which are counted and completed once", () =>
      Effect.gen(function*() {
        const ledger = makeLedger(({ by, n }) => {
          if (by === "theirs" && n % 10 === 7) throw new Error("theirs failed")
        })
        const bundles = yield* Effect.forEach(Array.from({ length: 5 }), () =>
          Queue.addBundle([
            ...Array.from({ length: 20 }, (_, n) => Theirs.request({ n }, { maxAttempts: 1 })),
            ...Array.from({ length: 20 }, (_, n) => Both.request({ n: 100 + 10 * n })),
            ...Array.from({ length: 20 }, (_, n) => Ours.request({ n: 1000 + n }))
          ], options))
        const { bundle: small } = yield* Queue.addBundle([Theirs.request({ n: 1 })], options)
        yield* startOurs(ledger.ours)
        yield* Graphile.start(yield* target, ledger.theirs)
        for (const { bundle } of bundles) {
          expect(yield* Queue.awaitBundle(bundle.id)).toMatchObject({
            jobs: 60,
            completed: 58,
            failed: 2,
            cancelled: 0
          })
        }
        expect(yield* Queue.awaitBundle(small.id)).toMatchObject({ completed: 1 })
        const by = (who: string) => ledger.runs.filter((run) => run.by === who).length
        expect(by("ours")).toBeGreaterThanOrEqual(100)
        expect(by("theirs")).toBeGreaterThanOrEqual(100)

        const added = yield* Queue.list({ task: Whole })
        expect(added.map(({ queueName }) => queueName).toSorted()).toEqual([
          ...Array.from({ length: 6 }, () => "complete"),
          ...Array.from({ length: 5 }, () => "failure"),
          "success"
        ])
        const outcomes = yield* Stream.runCollect(Queue.bundleOutcomes(bundles[0]!.bundle.id, [Ours, Theirs, Both]))
        expect(outcomes.filter(({ _tag }) => _tag === "Failed")).toMatchObject([
          { task: "theirs", tag: "Error", message: "theirs failed" },
          { task: "theirs", tag: "Error", message: "theirs failed" }
        ])
      }))

    test("runs the completion job, when the last job was its own", () =>
      Effect.gen(function*() {
        const sql = yield* PgClient.PgClient
        const payloads: Array<unknown> = []
        const { bundle, jobs } = yield* Queue.addBundle([Theirs.request({ n: 1 })], {
          onComplete: Bundle.completion(Whole)
        })
        yield* Graphile.start({ ...yield* target, sql }, {
          theirs: () => {},
          whole: (payload) => void payloads.push(payload)
        })
        yield* eventually(Effect.sync(() => payloads.length), { what: "the completion", until: (count) => count > 0 })
        expect(payloads).toEqual([{
          bundle: { id: bundle.id, name: null, origin: null, jobs: 1, completed: 1, failed: 0, cancelled: 0 },
          data: null,
          outcomes: [{ _tag: "Completed", job: jobs[0]!.id, task: "theirs" }]
        }])
      }))

    test("removes, fails and completes jobs of a bundle by its utilities", () =>
      Effect.gen(function*() {
        const utils = yield* Graphile.utils(yield* target)
        const { bundle, jobs } = yield* Queue.addBundle([
          Theirs.request({ n: 1 }),
          Theirs.request({ n: 2 }),
          Theirs.request({ n: 3 }, { jobKey: "replaced" }),
          Theirs.request({ n: 4 })
        ], options)
        const id = (index: number) => jobs[index]!.id
        yield* Effect.promise(() => utils.completeJobs([id(0)]))
        yield* Effect.promise(() => utils.permanentlyFailJobs([id(1), id(3)], "enough"))
        yield* Effect.promise(() => utils.rescheduleJobs([id(3)], { attempts: 1 }))
        yield* Effect.promise(() => utils.addJob("theirs", { n: 5 }, { jobKey: "replaced" }))
        const open = yield* Queue.bundle(bundle.id)
        expect(open).toMatchObject({ value: { completed: 1, failed: 1, cancelled: 1, state: "open" } })
        yield* Effect.promise(() => utils.completeJobs([id(3)]))
        expect(yield* Queue.awaitBundle(bundle.id)).toMatchObject({ completed: 2, failed: 1, cancelled: 1 })
      }))
  })
}
