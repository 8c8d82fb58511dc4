import { PgClient } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Option, type Scope } from "effect"
import { type Job, Migrator, Queue } from "kongtask"
import { setTimeout } from "node:timers/promises"
import { eventually } from "./support/events.ts"
import * as Graphile from "./support/graphile.ts"
import {
  Both,
  makeGate,
  makeLedger,
  Ours,
  range,
  type Run,
  schemas,
  type Services,
  startOurs,
  target,
  Theirs
} from "./support/interop.ts"
import * as Test from "./support/kongtask.ts"

const numbers = (runs: ReadonlyArray<{ readonly n: number }>) => runs.map(({ n }) => n).toSorted((a, b) => a - b)
const jobOf = (id: string) => Effect.map(Queue.get(id as Job.JobId), Option.getOrThrow)
const seconds = (from: number, to: number) => (to - from) / 1000

/** Waits until no job is left, and nothing that could keep one from running. */
const drained = Effect.gen(function*() {
  const sql = yield* PgClient.PgClient
  yield* eventually(Queue.count(), { what: "an empty table", until: (left) => left === 0, within: "50 seconds" })
  yield* eventually(sql`select from graphile_worker._private_job_queues where not is_available or locked_by <> ''`, {
    what: "free queues",
    until: (locked) => locked.length === 0
  })
})

const awaitRun = (runs: ReadonlyArray<Run>, ...awaited: ReadonlyArray<number>) =>
  eventually(Effect.sync(() => awaited.every((n) => runs.some((run) => run.n === n))), { what: `runs of ${awaited}` })

for (const [schema, { adoptedFrom, layer }] of Object.entries(schemas)) {
  const test = <E>(name: string, effect: () => Effect.Effect<unknown, E, Services | Scope.Scope>) =>
    it.live(name, () => Effect.scoped(effect()).pipe(Effect.provide(layer)), 60_000)

  describe(`graphile-worker and KongTask on ${schema}`, () => {
    test("feed each other, with every option of a job", () =>
      Effect.gen(function*() {
        const at = yield* target
        const { adopted, interop } = yield* Migrator.status
        assert.deepStrictEqual([interop, adopted?.from], [true, adoptedFrom])
        const utils = yield* Graphile.utils(at)
        const runAt = new Date("2020-02-02T02:02:02.222Z")
        const options = { queueName: "queue", maxAttempts: 7, priority: -3, flags: ["a", "b"], runAt }
        const identifier = "ours"

        const forOurs = yield* Effect.promise(() => utils.addJob("ours", { n: -1 }, { ...options, jobKey: "for ours" }))
        yield* Effect.promise(() => utils.addJobs(range(0, 50).map((payload) => ({ identifier, payload }))))
        yield* Effect.promise(() => utils.addJobs([{ ...options, identifier, payload: { n: -2 }, jobKey: "of many" }]))
        const forTheirs = yield* Queue.add(Theirs, { n: -1 }, { ...options, jobKey: "for theirs" })
        yield* Queue.addMany(range(0, 50).map((payload) => Theirs.request(payload)))
        yield* Queue.addMany([Theirs.request({ n: -2 }, { ...options, jobKey: "one of many" })])
        const queues = yield* at.sql`select distinct queue_name from graphile_worker.jobs where priority = -3`
        assert.deepStrictEqual(queues, [{ queue_name: "queue" }])

        const { ours, runs, theirs } = makeLedger()
        yield* startOurs(ours)
        yield* Graphile.start(at, theirs)
        yield* drained
        const run = { attempt: 1, maxAttempts: 7, priority: -3, flags: ["a", "b"], runAt: runAt.getTime() }
        const toOurs = runs.filter(({ by, task }) => by === "ours" && task === "ours")
        const toTheirs = runs.filter(({ by, task }) => by === "theirs" && task === "theirs")
        assert.strictEqual(runs.length, toOurs.length + toTheirs.length)
        assert.deepStrictEqual(numbers(toOurs), numbers(range(-2, 50)))
        assert.deepStrictEqual(numbers(toTheirs), numbers(range(-2, 50)))
        assert.deepInclude(toOurs.find(({ n }) => n === -1), { ...run, id: forOurs.id, key: "for ours" })
        assert.deepInclude(toTheirs.find(({ n }) => n === -1), { ...run, id: forTheirs.id, key: "for theirs" })
        assert.deepInclude(toOurs.find(({ n }) => n === -2), { ...run, key: "of many" })
        assert.deepInclude(toTheirs.find(({ n }) => n === -2), { ...run, key: "one of many" })
      }))

    test("run each of 20,000 jobs once, those of their own tasks and those of both", () =>
      Effect.gen(function*() {
        const at = yield* target
        const utils = yield* Graphile.utils(at)
        const ids = new Set<string>()
        const addTheirWay = (identifier: string, from: number) =>
          Effect.map(
            Effect.promise(() => utils.addJobs(range(from, from + 500).map((payload) => ({ identifier, payload })))),
            (jobs) => jobs.forEach(({ id }) => ids.add(id))
          )
        const addOurWay = (task: typeof Both | typeof Theirs, from: number) =>
          Effect.map(
            Queue.addMany(range(from, from + 500).map((payload) => task.request(payload))),
            (jobs) => jobs.forEach(({ id }) => ids.add(id))
          )
        const addSome = (from: number) =>
          Effect.all([
            addTheirWay("ours", from),
            addOurWay(Theirs, from),
            addTheirWay("both", from),
            addOurWay(Both, from)
          ], { concurrency: 2 })

        yield* Effect.forEach(range(0, 5), ({ n }) => addSome(n * 500))
        // The first of each kind to have a shared job waits for the other, so that they do share them.
        const both = makeGate()
        const sharing = new Set<string>()
        const { ours, runs, theirs } = makeLedger((run) => {
          if (run.task !== "both" || sharing.size === 2) return
          if (sharing.add(run.by).size === 2) both.open()
          return both.opened
        })
        const started = performance.now()
        yield* Effect.scoped(Effect.gen(function*() {
          yield* startOurs(ours)
          yield* Graphile.start(at, theirs, { concurrency: 10 })
          yield* startOurs(ours)
          yield* Graphile.start(at, theirs, { concurrency: 10, ...Graphile.batched })
          yield* Effect.forEach(range(5, 10), ({ n }) => addSome(n * 500))
          yield* drained
        }))
        const of = (task: string, by: Run["by"]) => runs.filter((run) => run.task === task && run.by === by).length
        const oursOfBoth = of("both", "ours")
        const theirsOfBoth = of("both", "theirs")
        if (process.env["KONGTASK_TEST_TIMINGS"]) {
          const took = seconds(started, performance.now()).toFixed(1)
          console.log(`${schema}: 20,000 jobs in ${took} s; shared: ${oursOfBoth} by us, ${theirsOfBoth} by it`)
        }
        assert.deepStrictEqual([ids.size, runs.length], [20_000, 20_000])
        assert.deepStrictEqual(new Set(runs.map(({ id }) => id)), ids)
        assert.isTrue(runs.every(({ attempt }) => attempt === 1))
        assert.deepStrictEqual([of("ours", "ours"), of("theirs", "theirs")], [5000, 5000])
        assert.strictEqual(oursOfBoth + theirsOfBoth, 10_000)
        assert.isAbove(oursOfBoth * theirsOfBoth, 0)
      }))

    test("keep out of a named queue that the other has a job of, and go on with others", () =>
      Effect.gen(function*() {
        const at = yield* target
        const gates = { ours: makeGate(), theirs: makeGate() }
        const { ours, runs, theirs } = makeLedger((run) =>
          run.n === 1 ? gates.ours.opened : run.n === 11 ? gates.theirs.opened : undefined
        )
        yield* startOurs(ours)
        yield* Graphile.start(at, theirs, { concurrency: 2 })
        yield* Effect.addFinalizer(() => Effect.sync(() => [gates.ours, gates.theirs].forEach(({ open }) => open())))
        yield* Queue.add(Ours, { n: 1 }, { queueName: "held by us" })
        yield* Queue.add(Theirs, { n: 11 }, { queueName: "held by it" })
        yield* awaitRun(runs, 1, 11)
        yield* Queue.addMany([
          Theirs.request({ n: 2 }, { queueName: "held by us", priority: -1 }),
          Theirs.request({ n: 3 }, { queueName: "free" }),
          Theirs.request({ n: 4 }),
          Ours.request({ n: 12 }, { queueName: "held by it", priority: -1 }),
          Ours.request({ n: 13 }, { queueName: "also free" }),
          Ours.request({ n: 14 })
        ])
        yield* awaitRun(runs, 3, 4, 13, 14)
        assert.notIncludeMembers(numbers(runs), [2])
        assert.notIncludeMembers(numbers(runs), [12])
        gates.ours.open()
        yield* awaitRun(runs, 2)
        assert.notIncludeMembers(numbers(runs), [12])
        gates.theirs.open()
        yield* awaitRun(runs, 12)
        yield* drained
      }))

    test("never run two jobs of one named queue at a time", () =>
      Effect.gen(function*() {
        const at = yield* target
        const utils = yield* Graphile.utils(at)
        const busy = new Map<number, Run>()
        const overlaps: Array<readonly [Run, Run]> = []
        const { ours, runs, theirs } = makeLedger(async (run) => {
          const queue = run.n % 3
          const other = busy.get(queue)
          if (other !== undefined) overlaps.push([other, run])
          busy.set(queue, run)
          await setTimeout(2)
          busy.delete(queue)
        })
        const queueName = (n: number) => `queue ${n % 3}`
        for (const { n } of range(0, 12)) {
          yield* Queue.add(Both, { n }, { queueName: queueName(n) })
          yield* Queue.add(Theirs, { n: n + 12 }, { queueName: queueName(n + 12) })
          yield* Effect.promise(() => utils.addJob("ours", { n: n + 24 }, { queueName: queueName(n + 24) }))
          yield* Effect.promise(() => utils.addJob("both", { n: n + 36 }, { queueName: queueName(n + 36) }))
        }
        yield* startOurs(ours)
        yield* Graphile.start(at, theirs, { concurrency: 4 })
        yield* startOurs(ours)
        yield* Graphile.start(at, theirs, { concurrency: 4, ...Graphile.batched })
        yield* drained
        assert.deepStrictEqual(overlaps, [])
        assert.deepStrictEqual(numbers(runs), numbers(range(0, 48)))
        assert.strictEqual(new Set(runs.map(({ by }) => by)).size, 2)
      }))

    test("retry what failed at the other", () =>
      Effect.gen(function*() {
        const at = yield* target
        const utils = yield* Graphile.utils(at)
        const { ours, runs, theirs } = makeLedger(({ attempt, by, n }) => {
          if (attempt === 1 || n === 3) throw new Error(`no luck with ${by}`)
        })
        const settled = (id: string, state: Job.State) =>
          eventually(jobOf(id), { what: `a ${state} job`, until: (job) => job.state === state })
        const failed = Effect.fnUntraced(function*(id: string, by: Run["by"]) {
          const job = yield* settled(id, "retrying")
          assert.deepInclude(job, { attempts: 1, lockedBy: undefined })
          assert.include(job.lastError, `no luck with ${by}`)
          assert.closeTo(seconds(Date.now(), job.runAt.epochMilliseconds), Math.E, 1.5)
        })
        const now = (...ids: ReadonlyArray<string>) =>
          Effect.promise(() => utils.rescheduleJobs([...ids], { runAt: new Date() }))

        const first = yield* Effect.scoped(Effect.gen(function*() {
          yield* startOurs(ours)
          const hopeless = yield* Effect.promise(() => utils.addJob("ours", { n: 3 }, { maxAttempts: 1 }))
          assert.include((yield* settled(hopeless.id, "failed")).lastError, "no luck with ours")
          const { id } = yield* Queue.add(Both, { n: 1 })
          yield* failed(id, "ours")
          return id
        }))
        const second = yield* Effect.scoped(Effect.gen(function*() {
          yield* Graphile.start(at, theirs)
          yield* now(first)
          yield* eventually(Queue.get(first), { until: Option.isNone })
          const hopeless = yield* Queue.add(Theirs, { n: 3 }, { maxAttempts: 1 })
          assert.include((yield* settled(hopeless.id, "failed")).lastError, "no luck with theirs")
          const { id } = yield* Effect.promise(() => utils.addJob("both", { n: 2 }))
          yield* failed(id, "theirs")
          return id
        }))
        yield* startOurs(ours)
        yield* now(second)
        yield* eventually(Queue.count(), { until: (left) => left === 2 })
        assert.strictEqual(yield* Queue.count({ state: "failed" }), 2)
        const history = (id: string) =>
          runs.filter((run) => run.id === id).map((
            { attempt, by, lastError }
          ) => [by, attempt, lastError === undefined])
        assert.deepStrictEqual(history(first), [["ours", 1, true], ["theirs", 2, false]])
        assert.deepStrictEqual(history(second), [["theirs", 1, true], ["ours", 2, false]])
      }))

    test("recover each other's jobs by an update of the view", () =>
      Effect.gen(function*() {
        const at = yield* target
        const gates = { ours: makeGate(), theirs: makeGate() }
        const { ours, runs, theirs } = makeLedger(({ attempt, by }) => attempt === 1 ? gates[by].opened : undefined)
        const stuck = Effect.fnUntraced(function*(n: number) {
          const { id } = yield* Queue.add(Both, { n })
          yield* awaitRun(runs, n)
          return yield* eventually(jobOf(id), { until: ({ state }) => state === "running" })
        })
        const recover = at
          .sql`update graphile_worker.jobs set locked_at = null, locked_by = null where locked_at is not null`
        const recovered = Effect.fnUntraced(function*(id: string) {
          yield* recover
          yield* eventually(Queue.get(id as Job.JobId), { until: Option.isNone })
        })

        const theirJob = yield* Effect.scoped(Effect.gen(function*() {
          yield* Graphile.start(at, theirs, { concurrency: 1 })
          yield* Effect.addFinalizer(() => Effect.sync(gates.theirs.open))
          const job = yield* stuck(1)
          assert.match(job.lockedBy ?? "", /^pool-/)
          yield* Effect.scoped(Effect.andThen(startOurs(ours), recovered(job.id)))
          return job.id
        }))
        const events = yield* Test.watch
        yield* startOurs(ours, { concurrency: 1 })
        const ourJob = yield* stuck(2)
        assert.match(ourJob.lockedBy ?? "", /^kongtask-/)
        yield* Effect.scoped(Effect.andThen(Graphile.start(at, theirs), recovered(ourJob.id)))
        gates.ours.open()
        assert.strictEqual((yield* events.next("JobLost")).job.id, ourJob.id)
        assert.deepStrictEqual(runs.map(({ attempt, by, id }) => [id, by, attempt]), [
          [theirJob, "theirs", 1],
          [theirJob, "ours", 2],
          [ourJob.id, "ours", 1],
          [ourJob.id, "theirs", 2]
        ])
      }))
  })
}
