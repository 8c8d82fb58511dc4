import { assert, describe, it } from "@effect/vitest"
import { Effect, Option, Schema, type Scope } from "effect"
import { parseCronItems } from "graphile-worker"
import { type Job, Queue, Task, Worker } from "kongtask"
import { eventually } from "./support/events.ts"
import * as Graphile from "./support/graphile.ts"
import {
  Both,
  makeGate,
  makeLedger,
  Ours,
  range,
  schemas,
  type Services,
  startOurs,
  target,
  Theirs
} from "./support/interop.ts"
import * as Test from "./support/kongtask.ts"

const find = (id: string) => Queue.get(id as Job.JobId)
const jobOf = (id: string) => Effect.map(find(id), Option.getOrThrow)
const inState = (id: string, state: Job.State) =>
  eventually(jobOf(id), { what: `a ${state} job`, until: (job) => job.state === state })
const ids = (jobs: ReadonlyArray<{ readonly id: string }>) => jobs.map(({ id }) => id)
const later = new Date("2040-01-01T00:00:00.000Z")

for (const [schema, { layer }] of Object.entries(schemas)) {
  const test = <E>(name: string, effect: () => Effect.Effect<unknown, E, Services | Scope.Scope>) =>
    it.live(name, () => Effect.scoped(effect()).pipe(Effect.provide(layer)), 60_000)

  describe(`on ${schema}, graphile-worker's utilities`, () => {
    test("complete, fail and reschedule our jobs, but for the running ones", () =>
      Effect.gen(function*() {
        const utils = yield* Graphile.utils(yield* target)
        const gate = makeGate()
        yield* startOurs(makeLedger(() => gate.opened).ours)
        const running = yield* Queue.add(Both, { n: 0 }, { queueName: "queue" })
        yield* inState(running.id, "running")
        const all = yield* Queue.addMany(range(1, 5).map((payload) => Theirs.request(payload)))
        const [completed, failed, rescheduled, reprioritised] = ids(all) as [string, string, string, string]

        const changed = (admin: () => Promise<ReadonlyArray<{ readonly id: string }>>) =>
          Effect.map(Effect.promise(admin), ids)
        assert.deepStrictEqual(yield* changed(() => utils.completeJobs([completed, running.id, "999"])), [completed])
        assert.deepStrictEqual(
          yield* changed(() => utils.permanentlyFailJobs([failed, running.id], "enough")),
          [failed]
        )
        const changes = { runAt: later, attempts: 2, maxAttempts: 3 }
        assert.deepStrictEqual(
          yield* changed(() => utils.rescheduleJobs([rescheduled, running.id], changes)),
          [rescheduled]
        )
        yield* Effect.promise(() => utils.rescheduleJobs([reprioritised], { priority: -9 }))

        assert.isTrue(Option.isNone(yield* find(completed)))
        assert.deepInclude(yield* jobOf(failed), { state: "failed", attempts: 25, lastError: "enough" })
        const moved = yield* jobOf(rescheduled)
        assert.deepInclude(moved, { state: "retrying", attempts: 2, maxAttempts: 3 })
        assert.strictEqual(moved.runAt.epochMilliseconds, later.getTime())
        assert.deepInclude(yield* jobOf(reprioritised), { state: "ready", priority: -9, attempts: 0 })
        assert.deepInclude(yield* jobOf(running.id), { state: "running", attempts: 1, maxAttempts: 25, priority: 0 })
        gate.open()
        yield* eventually(find(running.id), { until: Option.isNone })
      }))

    test("take a job and its queue from our worker, which does not record its outcome then", () =>
      Effect.gen(function*() {
        const at = yield* target
        const utils = yield* Graphile.utils(at)
        const events = yield* Test.watch
        const gate = makeGate()
        const { ours, runs, theirs } = makeLedger(({ by }) => by === "ours" ? gate.opened : undefined)
        yield* startOurs(ours, { concurrency: 1 })
        const { id } = yield* Queue.add(Both, { n: 1 }, { queueName: "queue" })
        const { lockedBy } = yield* inState(id, "running")
        yield* Effect.promise(() => utils.forceUnlockWorkers([lockedBy!]))
        assert.deepInclude(yield* jobOf(id), { state: "ready", attempts: 1, lockedBy: undefined })
        yield* Graphile.start(at, theirs)
        yield* eventually(find(id), { until: Option.isNone })
        gate.open()
        assert.strictEqual((yield* events.next("JobLost")).job.id, id)
        assert.deepStrictEqual(runs.map(({ attempt, by }) => [by, attempt]), [["ours", 1], ["theirs", 2]])
      }))

    test("add jobs with the keys of ours, in each mode", () =>
      Effect.gen(function*() {
        const utils = yield* Graphile.utils(yield* target)
        const gate = makeGate()
        const { ours, runs } = makeLedger(() => gate.opened)
        const add = (jobKeyMode: "replace" | "preserve_run_at" | "unsafe_dedupe", jobKey: string, identifier: string) =>
          Effect.promise(() => utils.addJob(identifier, { n: 2 }, { jobKey, jobKeyMode, maxAttempts: 5 }))

        for (
          const [mode, isChanged, isMoved] of [
            ["replace", true, true],
            ["preserve_run_at", true, false],
            ["unsafe_dedupe", false, false]
          ] as const
        ) {
          const old = yield* Queue.add(Theirs, { n: 1 }, { jobKey: `waiting ${mode}`, runAt: later })
          assert.strictEqual((yield* add(mode, `waiting ${mode}`, "theirs")).id, old.id)
          const job = yield* jobOf(old.id)
          assert.deepInclude(job, { revision: 1, maxAttempts: isChanged ? 5 : 25, payload: { n: isChanged ? 2 : 1 } })
          assert.strictEqual(job.runAt.epochMilliseconds === later.getTime(), !isMoved)
        }

        yield* startOurs(ours, { concurrency: 2 })
        const replaced = yield* Queue.add(Ours, { n: 1 }, { jobKey: "running" })
        const deduped = yield* Queue.add(Ours, { n: 1 }, { jobKey: "deduped" })
        yield* inState(replaced.id, "running")
        yield* inState(deduped.id, "running")
        const successor = yield* add("replace", "running", "ours")
        assert.notStrictEqual(successor.id, replaced.id)
        assert.strictEqual((yield* add("unsafe_dedupe", "deduped", "ours")).id, deduped.id)
        assert.deepInclude(yield* jobOf(replaced.id), { state: "running", key: undefined, attempts: 25 })
        gate.open()
        yield* eventually(Queue.count({ task: Ours }), { until: (left) => left === 0 })
        assert.deepStrictEqual(runs.map(({ id, n }) => [id, n]), [[replaced.id, 1], [deduped.id, 1], [successor.id, 2]])
      }))

    test("clean up beside our running worker, which finds a task again that is made anew", () =>
      Effect.gen(function*() {
        const at = yield* target
        const utils = yield* Graphile.utils(at)
        const { ours, runs } = makeLedger(({ n }) => {
          if (n === 1) throw new Error("no")
        })
        yield* startOurs(ours)
        yield* Queue.add(Ours, { n: 1 }, { maxAttempts: 1, queueName: "gone" })
        yield* eventually(Queue.count({ state: "failed" }), { until: (failed) => failed === 1 })
        const kept = yield* Queue.add(Theirs, { n: 2 }, { queueName: "kept", runAt: later })
        yield* Effect.promise(() =>
          utils.cleanup({ tasks: ["DELETE_PERMAFAILED_JOBS", "GC_TASK_IDENTIFIERS", "GC_JOB_QUEUES"] })
        )
        assert.deepStrictEqual(ids(yield* Queue.list()), [kept.id])
        assert.deepStrictEqual(
          yield* at.sql`
            select (select array_agg(identifier) from graphile_worker._private_tasks) as tasks,
              (select array_agg(queue_name) from graphile_worker._private_job_queues) as queues`,
          [{ tasks: ["theirs"], queues: ["kept"] }]
        )
        yield* Queue.add(Ours, { n: 3 }, { queueName: "gone" })
        yield* eventually(Queue.count({ task: Ours }), { until: (left) => left === 0 })
        assert.deepStrictEqual(runs.map(({ n }) => n), [1, 3])
      }))
  })

  describe(`on ${schema}, graphile-worker's crontab`, () => {
    const Tick = Task.make("tick", {
      payload: { n: Schema.Int, _cron: Schema.Struct({ ts: Schema.DateTimeUtcFromString, backfilled: Schema.Boolean }) }
    })

    test("adds jobs for our worker, each of them once however many schedule it", () =>
      Effect.gen(function*() {
        const at = yield* target
        // Half an hour away, so that no minute of this test is one of the crontab's.
        const minute = (new Date().getUTCMinutes() + 30) % 60
        const backfillPeriod = 4 * 3600 * 1000
        const parsedCronItems = parseCronItems([
          {
            task: "tick",
            match: `${minute} * * * *`,
            identifier: "each",
            options: { backfillPeriod },
            payload: { n: 1 }
          },
          {
            task: "theirs",
            match: `${minute} * * * *`,
            identifier: "one",
            options: { backfillPeriod, jobKey: "one", jobKeyMode: "preserve_run_at", priority: 4 },
            payload: { n: 2 }
          }
        ])
        const known = at.sql<{ identifier: string; at: Date | null }>`
          select identifier, last_execution as at from graphile_worker._private_known_crontabs order by identifier`
        const schedule = Graphile.start(at, { other: () => {} }, { parsedCronItems })

        yield* Effect.scoped(Effect.andThen(schedule, eventually(known, { until: (rows) => rows.length === 2 })))
        assert.deepStrictEqual(yield* known, [{ identifier: "each", at: null }, { identifier: "one", at: null }])
        yield* at.sql`update graphile_worker._private_known_crontabs set known_since = now() - interval '3 hours'`
        yield* Effect.scoped(Effect.andThen(
          Effect.all([schedule, schedule, schedule], { concurrency: 3 }),
          eventually(Queue.count({ task: Tick }), { until: (added) => added === 3 })
        ))

        const ticks: Array<number> = []
        yield* Worker.runOnce({ tasks: [Tick] }).pipe(
          Effect.provide(Tick.toLayer(({ _cron, n }) =>
            Effect.sync(() => {
              assert.deepStrictEqual([n, _cron.backfilled], [1, true])
              ticks.push(_cron.ts.epochMilliseconds)
            })
          ))
        )
        const hour = 3600 * 1000
        const [last] = yield* known
        const end = last!.at!.getTime()
        assert.deepStrictEqual(ticks.toSorted((a, b) => a - b), [end - 2 * hour, end - hour, end])
        assert.strictEqual(last!.at!.getUTCMinutes(), minute)
        const [one, ...others] = yield* Queue.list()
        assert.deepStrictEqual(others, [])
        assert.deepInclude(one, { task: "theirs", key: "one", revision: 2, priority: 4 })
        assert.strictEqual(one!.runAt.epochMilliseconds, end - 2 * hour)
      }))
  })

  describe(`on ${schema}, Queue`, () => {
    test("finds, lists and counts graphile-worker's jobs in every state", () =>
      Effect.gen(function*() {
        const at = yield* target
        const utils = yield* Graphile.utils(at)
        const gate = makeGate()
        const { theirs } = makeLedger(({ n }) => {
          if (n === 1) throw new Error("no")
          return n === 2 ? gate.opened : undefined
        })
        yield* Graphile.start(at, theirs)
        yield* Effect.addFinalizer(() => Effect.sync(gate.open))
        const add = (n: number, spec: Parameters<typeof utils.addJob>[2] = {}, task = "theirs") =>
          Effect.map(Effect.promise(() => utils.addJob(task, { n }, spec)), ({ id }) => id)
        const failed = yield* add(1, { maxAttempts: 1 })
        const retrying = yield* add(1, { flags: ["slow"] })
        const running = yield* add(2, { queueName: "queue" })
        const ready = yield* add(3, {}, "ours")
        const scheduled = yield* add(4, { runAt: later, jobKey: "key", queueName: "queue", priority: 3 })

        assert.match((yield* inState(running, "running")).lockedBy ?? "", /^pool-/)
        assert.deepInclude(yield* inState(failed, "failed"), { attempts: 1, maxAttempts: 1, lastError: "no" })
        assert.deepInclude(yield* inState(retrying, "retrying"), { attempts: 1, lastError: "no", flags: ["slow"] })
        assert.deepInclude(yield* jobOf(ready), { state: "ready", task: "ours", payload: { n: 3 } })
        assert.deepInclude(yield* jobOf(scheduled), { state: "scheduled", key: "key", queueName: "queue", priority: 3 })
        assert.deepStrictEqual(ids(yield* Queue.list()), [failed, retrying, running, ready, scheduled])
        assert.deepStrictEqual(ids(yield* Queue.list({ queueName: "queue" })), [running, scheduled])
        assert.deepStrictEqual(ids(yield* Queue.list({ state: ["failed", "ready"] })), [failed, ready])
        assert.strictEqual(yield* Queue.count({ task: Theirs }), 4)
        assert.strictEqual(yield* Queue.count({ key: "key" }), 1)
        assert.deepInclude((yield* Queue.stats()).all, { failed: 1, retrying: 1, running: 1, ready: 1, scheduled: 1 })
      }))

    test("changes graphile-worker's waiting jobs", () =>
      Effect.gen(function*() {
        const utils = yield* Graphile.utils(yield* target)
        const added = yield* Effect.promise(() =>
          utils.addJobs(range(0, 7).map((payload) => ({ identifier: "theirs", payload, jobKey: `key ${payload.n}` })))
        )
        const [completed, failed, retried, moved, removed, dropped, cancelled] = ids(added) as [
          ...[Job.JobId, Job.JobId, Job.JobId, Job.JobId, Job.JobId, Job.JobId, Job.JobId]
        ]
        assert.deepStrictEqual(ids(yield* Queue.complete([completed])), [completed])
        assert.deepStrictEqual(ids(yield* Queue.fail([failed, retried], "enough")), [failed, retried])
        assert.deepStrictEqual(ids(yield* Queue.retry([retried])), [retried])
        assert.deepStrictEqual(ids(yield* Queue.reschedule([moved], { priority: 7, runAt: later })), [moved])
        assert.isTrue(Option.isSome(yield* Queue.remove(removed)))
        assert.isTrue(Option.isSome(yield* Queue.remove({ key: "key 5" })))
        assert.isTrue(Option.isSome(yield* Queue.cancel(cancelled)))

        assert.deepStrictEqual(ids(yield* Queue.list()), [failed, retried, moved])
        assert.isTrue(Option.isNone(yield* find(dropped)))
        assert.deepInclude(yield* jobOf(failed), { state: "failed", lastError: "enough" })
        assert.deepInclude(yield* jobOf(retried), { state: "ready", attempts: 0 })
        assert.deepInclude(yield* jobOf(moved), { state: "scheduled", priority: 7 })
      }))

    test("keeps graphile-worker's running jobs from being retried, and takes them from its pool", () =>
      Effect.gen(function*() {
        const at = yield* target
        const utils = yield* Graphile.utils(at)
        const gates = [makeGate(), makeGate()] as const
        const { ours, runs, theirs } = makeLedger(async ({ by, n }) => {
          if (by === "ours") return
          await gates[n === 2 ? 1 : 0].opened
          throw new Error("too late")
        })
        yield* Graphile.start(at, { theirs: theirs.theirs }, { concurrency: 2 })
        yield* Graphile.start(at, { both: theirs.both }, { concurrency: 1 })
        yield* Effect.addFinalizer(() => Effect.sync(() => gates.forEach(({ open }) => open())))
        const added = yield* Effect.promise(() =>
          utils.addJobs(["theirs", "theirs", "both"].map((identifier, n) => ({
            identifier,
            payload: { n },
            queueName: `queue ${n}`
          })))
        )
        const [removed, cancelled, taken] = ids(added) as [Job.JobId, Job.JobId, Job.JobId]
        yield* Effect.forEach([removed, cancelled, taken], (id) => inState(id, "running"))

        assert.deepStrictEqual(yield* Queue.complete([removed, cancelled, taken]), [])
        assert.strictEqual(Option.getOrThrow(yield* Queue.remove(removed)).state, "running")
        assert.strictEqual(Option.getOrThrow(yield* Queue.cancel(cancelled)).state, "running")
        gates[0].open()
        assert.deepInclude(yield* inState(removed, "failed"), { lastError: "too late" })
        yield* inState(cancelled, "failed")

        const { lockedBy } = yield* jobOf(taken)
        assert.deepStrictEqual(ids(yield* Queue.forceUnlock([lockedBy!])), [taken])
        assert.deepInclude(yield* jobOf(taken), { state: "ready", attempts: 1, lockedBy: undefined })
        yield* startOurs(ours)
        yield* eventually(find(taken), { until: Option.isNone })
        assert.deepInclude(runs.at(-1), { by: "ours", id: taken, attempt: 2 })
      }))
  })
}
