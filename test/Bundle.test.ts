import { PgClient } from "@effect/sql-pg"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Latch, type Layer, Option, Schema, type Scope, Stream } from "effect"
import { Bundle, Job, Queue, Retry, Task, Worker } from "kongtask"
import { eventually } from "./support/events.ts"
import * as Test from "./support/kongtask.ts"

type Services = Layer.Success<ReturnType<typeof Test.layer>> | Scope.Scope

const test = <E>(name: string, effect: () => Effect.Effect<unknown, E, Services>) =>
  it.live(name, () => Effect.scoped(effect()).pipe(Effect.provide(Test.layer())), 60_000)

class Unreadable extends Schema.TaggedError<Unreadable>()("Unreadable", { at: Schema.Date }) {}

const Import = Task.make("import", {
  payload: { act: Schema.Literals(["ok", "refuse", "die", "cancel"]) },
  success: Schema.Struct({ at: Schema.Date, rows: Schema.Int }),
  error: Unreadable
})
const Clean = Task.make("clean", { payload: Schema.Int })
const Report = Task.make("report", {
  payload: Bundle.payload({ tasks: [Import, Clean], data: { to: Schema.String, since: Schema.Date } })
})
const Tell = Task.make("tell", { payload: Bundle.payload() })

const at = new Date("2026-01-02T03:04:05Z")

const ImportLive = Import.toLayer(({ act }) => {
  switch (act) {
    case "ok":
      return Effect.succeed({ at, rows: 3 })
    case "refuse":
      return Effect.fail(new Unreadable({ at }))
    case "die":
      return Effect.die(new Error("no way"))
    case "cancel":
      return Job.cancel("enough")
  }
}, { retry: Retry.never })
const CleanLive = Clean.toLayer(() => Effect.void)

type Told = Parameters<
  Parameters<typeof Report.toLayer>[0] extends infer F ? Extract<F, (...args: any) => any> : never
>[0]

/** Handlers of the completion tasks, and what these were given. */
const makeCompletions = () => {
  const reports: Array<Told> = []
  const tells: Array<string> = []
  return {
    reports,
    tells,
    live: [
      Report.toLayer((payload) => Effect.sync(() => void reports.push(payload))),
      Tell.toLayer(({ bundle }) => Effect.sync(() => void tells.push(bundle.id)))
    ] as const
  }
}

const data = { to: "ada@example.org", since: at }

/** How many completion jobs there are. */
const completions = Queue.count({ task: [Report, Tell] })

const settle = (ids: Iterable<Job.JobId>) => Queue.complete(ids)

const statusOf = (id: Bundle.BundleId) => Effect.map(Queue.bundle(id), Option.getOrThrow)

const counts = ({ cancelled, completed, failed, jobs, state }: Bundle.Bundle) => ({
  jobs,
  completed,
  failed,
  cancelled,
  state
})

const addClean = (count: number, options?: Bundle.Options<typeof Clean>) =>
  Queue.addBundle(Array.from({ length: count }, (_, n) => Clean.request(n)), options)

describe("a bundle", () => {
  test("gives its completion what became of its jobs, in their tasks' own types", () =>
    Effect.gen(function*() {
      const { live, reports, tells } = makeCompletions()
      const { bundle, jobs } = yield* Queue.addBundle([
        Import.request({ act: "ok" }),
        Import.request({ act: "refuse" }),
        Import.request({ act: "die" }),
        Import.request({ act: "cancel" }),
        Clean.request(1)
      ], {
        onComplete: Bundle.completion(Report, data),
        onFailure: Bundle.completion(Tell),
        onSuccess: Bundle.completion(Tell, undefined, { priority: 5 }),
        name: "nightly",
        origin: "cli"
      })
      expect(bundle).toMatchObject({ jobs: 5, completed: 0, state: "open", name: "nightly", origin: "cli" })
      expect(jobs.map(({ bundle, origin }) => [bundle, origin])).toEqual(
        Array.from({ length: 5 }, () => [bundle.id, "cli"])
      )
      yield* Worker.run({ tasks: [Import, Clean, Report, Tell], handleSignals: false }).pipe(
        Effect.provide([ImportLive, CleanLive, ...live]),
        Effect.forkScoped
      )
      const done = yield* Queue.awaitBundle(bundle.id)
      expect(counts(done)).toEqual({ jobs: 5, completed: 2, failed: 2, cancelled: 1, state: "done" })
      yield* eventually(Effect.sync(() => reports.length + tells.length), {
        what: "the completion jobs",
        until: (count) => count === 2
      })
      const id = (index: number) => jobs[index]!.id
      expect(reports[0]).toEqual({
        bundle: { id: bundle.id, name: "nightly", origin: "cli", jobs: 5, completed: 2, failed: 2, cancelled: 1 },
        data,
        outcomes: [
          { _tag: "Completed", job: id(0), task: "import", result: { at, rows: 3 } },
          {
            _tag: "Failed",
            job: id(1),
            task: "import",
            tag: "Unreadable",
            message: expect.stringContaining("Unreadable"),
            error: new Unreadable({ at })
          },
          {
            _tag: "Failed",
            job: id(2),
            task: "import",
            tag: "Defect",
            message: expect.stringContaining("no way")
          },
          { _tag: "Cancelled", job: id(3), task: "import" },
          { _tag: "Completed", job: id(4), task: "clean" }
        ]
      })
      expect(tells).toEqual([bundle.id])
      const outcomes = yield* Stream.runCollect(Queue.bundleOutcomes(bundle.id, [Import, Clean]))
      expect(outcomes).toEqual(reports[0]!.outcomes)
    }))

  test("adds one completion of each kind that fits, and nothing before its last job has stopped", () =>
    Effect.gen(function*() {
      const options = {
        onComplete: Bundle.completion(Tell, undefined, { queueName: "complete" }),
        onSuccess: Bundle.completion(Tell, undefined, { queueName: "success" }),
        onFailure: Bundle.completion(Tell, undefined, { queueName: "failure" })
      }
      const good = yield* addClean(2, options)
      const bad = yield* addClean(2, options)
      const kinds = Effect.map(Queue.list({ task: Tell }), (jobs) => jobs.map(({ queueName }) => queueName))
      yield* settle([good.jobs[0]!.id, bad.jobs[0]!.id])
      expect(yield* kinds).toEqual([])
      expect(counts(yield* statusOf(good.bundle.id))).toMatchObject({ completed: 1, state: "open" })
      yield* settle([good.jobs[1]!.id])
      expect(yield* kinds).toEqual(["complete", "success"])
      yield* Queue.fail([bad.jobs[1]!.id])
      expect(yield* kinds).toEqual(["complete", "success", "complete", "failure"])
    }))

  test("is counted and completed in the transaction of the last job's end, or not at all", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const { bundle, jobs } = yield* addClean(1, { onComplete: Bundle.completion(Tell) })
      yield* Effect.exit(sql.withTransaction(Effect.andThen(settle([jobs[0]!.id]), Effect.fail("no"))))
      expect(counts(yield* statusOf(bundle.id))).toMatchObject({ completed: 0, state: "open" })
      expect(yield* completions).toBe(0)
      yield* sql.withTransaction(settle([jobs[0]!.id]))
      expect(counts(yield* statusOf(bundle.id))).toMatchObject({ completed: 1, state: "done" })
      expect(yield* completions).toBe(1)
    }))

  test("counts right whatever becomes of its jobs, each once", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const { bundle, jobs } = yield* Queue.addBundle([
        ...Array.from({ length: 9 }, (_, n) => Clean.request(n)),
        Clean.request(9, { jobKey: "waits" }),
        Clean.request(10, { jobKey: "runs" })
      ], { onComplete: Bundle.completion(Tell) })
      const id = (index: number) => jobs[index]!.id
      const now = Effect.map(statusOf(bundle.id), ({ cancelled, completed, failed }) => [completed, failed, cancelled])

      yield* Queue.remove(id(0))
      expect(yield* now).toEqual([0, 0, 1])
      yield* Queue.cancel(id(1))
      expect(yield* now).toEqual([0, 0, 2])
      // A failed job that is retried does not count any more, and once again when it stops; its deletion does not.
      yield* Queue.fail([id(2)])
      expect(yield* now).toEqual([0, 1, 2])
      yield* Queue.retry([id(2)])
      expect(yield* now).toEqual([0, 0, 2])
      yield* Queue.reschedule([id(2)], { attempts: 25 })
      expect(yield* now).toEqual([0, 1, 2])
      yield* Queue.remove(id(2))
      expect(yield* now).toEqual([0, 1, 2])
      // By hand, as graphile-worker and people do it.
      yield* sql`delete from graphile_worker._private_jobs where id = ${id(3)}::int8`
      expect(yield* now).toEqual([1, 1, 2])
      yield* sql`
        update graphile_worker._private_jobs set attempts = max_attempts, last_error = 'by hand' where id = ${
        id(4)
      }::int8`
      expect(yield* now).toEqual([1, 2, 2])
      yield* sql`
        update graphile_worker._private_jobs set attempts = 0 where id = ${id(4)}::int8`
      expect(yield* now).toEqual([1, 1, 2])
      // Fails, lives and completes in one transaction.
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* Queue.fail([id(4)])
        yield* Queue.retry([id(4)])
        yield* Queue.fail([id(4)])
        yield* Queue.retry([id(4)])
        yield* Queue.complete([id(4)])
      }))
      expect(yield* now).toEqual([2, 1, 2])
      // A failed one that is completed by hand.
      yield* Queue.fail([id(5)])
      yield* Queue.complete([id(5)])
      expect(yield* now).toEqual([3, 1, 2])
      // The last attempt of a pool that is unlocked by force; its late completion counts no more.
      yield* sql`
        update graphile_worker._private_jobs set attempts = max_attempts, locked_at = now(), locked_by = 'gone'
        where id = ${id(6)}::int8`
      yield* Queue.forceUnlock(["gone"])
      expect(yield* now).toEqual([3, 2, 2])
      yield* sql`delete from graphile_worker._private_jobs where id = ${id(6)}::int8`
      expect(yield* now).toEqual([3, 2, 2])
      // Replaced by its key: waiting, it is another job from then on; running, it ends as cancelled, whatever it does.
      const replaced = yield* Queue.add(Clean, 99, { jobKey: "waits" })
      expect(replaced.id).toBe(id(9))
      expect(yield* now).toEqual([3, 2, 3])
      yield* Queue.complete([replaced.id])
      expect(yield* now).toEqual([3, 2, 3])
      yield* sql`
        update graphile_worker._private_jobs set attempts = 1, locked_at = now(), locked_by = 'busy'
        where id = ${id(10)}::int8`
      yield* Queue.add(Clean, 99, { jobKey: "runs" })
      expect(yield* now).toEqual([3, 2, 3])
      yield* sql`delete from graphile_worker._private_jobs where id = ${id(10)}::int8`
      expect(yield* now).toEqual([3, 2, 4])
      expect(yield* completions).toBe(0)
      yield* Queue.complete([id(7), id(8)])
      expect(yield* now).toEqual([5, 2, 4])
      expect(counts(yield* statusOf(bundle.id))).toMatchObject({ jobs: 11, state: "done" })
      expect(yield* completions).toBe(1)
    }))

  test("that is done stays so when a failed job of it is made ready again", () =>
    Effect.gen(function*() {
      const { bundle, jobs } = yield* addClean(2, { onComplete: Bundle.completion(Tell) })
      yield* Queue.complete([jobs[0]!.id])
      yield* Queue.fail([jobs[1]!.id], "enough")
      const outcomes = Stream.runCollect(Queue.bundleOutcomes(bundle.id, [Clean]))
      const before = yield* outcomes
      expect(before.map(({ _tag }) => _tag)).toEqual(["Completed", "Failed"])
      yield* Queue.retry([jobs[1]!.id])
      yield* Queue.complete([jobs[1]!.id])
      expect(counts(yield* statusOf(bundle.id))).toEqual({
        jobs: 2,
        completed: 1,
        failed: 1,
        cancelled: 0,
        state: "done"
      })
      expect(yield* outcomes).toEqual(before)
      expect(yield* completions).toBe(1)
    }))

  test("is not completed twice by settles of its last jobs at the same time, of many bundles at once", () =>
    Effect.gen(function*() {
      const bundles = yield* Effect.forEach(
        Array.from({ length: 10 }),
        () => addClean(40, { onComplete: Bundle.completion(Tell) }),
        { concurrency: 4 }
      )
      // Each call ends one job of every bundle, in an order of its own: half of them by deleting, half by failing.
      const calls = Array.from({ length: 40 }, (_, n) => {
        const ids = bundles.map(({ jobs }) => jobs[n]!.id)
        for (let i = ids.length - 1; i > 0; i--) {
          const j = (n * 7 + i * 13) % (i + 1)
          const swapped = ids[i]!
          ids[i] = ids[j]!
          ids[j] = swapped
        }
        return n % 2 === 0 ? Queue.complete(ids) : Queue.fail(ids)
      })
      const exits = yield* Effect.forEach(calls, Effect.exit, { concurrency: 10 })
      expect(exits.filter(Exit.isFailure)).toEqual([])
      for (const { bundle } of bundles) {
        expect(counts(yield* statusOf(bundle.id))).toEqual({
          jobs: 40,
          completed: 20,
          failed: 20,
          cancelled: 0,
          state: "done"
        })
      }
      expect(yield* completions).toBe(10)
    }))

  test("is waited for across processes, and does not notice those who wait in vain", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const { bundle, jobs } = yield* addClean(1)
      const waiting = yield* Effect.forkChild(Queue.awaitBundle(bundle.id), { startImmediately: true })
      yield* settle([jobs[0]!.id])
      expect((yield* Fiber.join(waiting)).state).toBe("done")
      expect((yield* Queue.awaitBundle(bundle.id)).state).toBe("done")
      expect(yield* Effect.flip(Queue.awaitBundle("999" as Bundle.BundleId))).toMatchObject({ _tag: "BundleNotFound" })
      expect(yield* Effect.flip(sql.withTransaction(Queue.awaitBundle(bundle.id)))).toMatchObject({
        _tag: "AwaitedInTransaction"
      })
    }))
})

describe("adding to a bundle", () => {
  test("makes it wait for more, from one of its own handlers", () =>
    Effect.gen(function*() {
      const { live, tells } = makeCompletions()
      const CleanMore = Clean.toLayer(Effect.fn(function*(left, job) {
        if (left > 0) yield* Effect.orDie(Queue.addToBundle(job.bundle!, [Clean.request(left - 1)]))
      }))
      const { bundle } = yield* Queue.addBundle([Clean.request(5)], { onSuccess: Bundle.completion(Tell) })
      yield* Worker.run({ tasks: [Clean, Report, Tell], handleSignals: false }).pipe(
        Effect.provide([CleanMore, ...live]),
        Effect.forkScoped
      )
      expect(counts(yield* Queue.awaitBundle(bundle.id))).toMatchObject({ jobs: 6, completed: 6 })
      yield* eventually(Effect.sync(() => tells), { what: "the completion", until: (all) => all.length > 0 })
      expect(tells).toEqual([bundle.id])
    }))

  test("is refused when it is done or not there, and leaves the caller's transaction as it was", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const { bundle, jobs } = yield* addClean(1)
      yield* settle([jobs[0]!.id])
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* Queue.add(Clean, 1)
        expect(yield* Effect.flip(Queue.addToBundle(bundle.id, [Clean.request(2)]))).toMatchObject({
          _tag: "BundleDone",
          bundle: bundle.id
        })
        expect(yield* Effect.flip(Queue.addToBundle("999" as Bundle.BundleId, [Clean.request(2)]))).toMatchObject({
          _tag: "BundleNotFound"
        })
      }))
      expect(yield* Queue.count()).toBe(1)
    }))

  test("holds up nobody while its transaction is open, which fails if the bundle is done by then", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const { bundle, jobs } = yield* addClean(1, { onComplete: Bundle.completion(Tell) })
      const added = yield* Latch.make(false)
      const goOn = yield* Latch.make(false)
      const late = yield* Effect.forkChild(Effect.flip(Effect.catchDefect(
        sql.withTransaction(Effect.gen(function*() {
          yield* Queue.addToBundle(bundle.id, [Clean.request(1)])
          yield* added.open
          yield* goOn.await
        })),
        Effect.fail
      )))
      yield* added.await
      yield* settle([jobs[0]!.id])
      expect((yield* statusOf(bundle.id)).state).toBe("done")
      yield* goOn.open
      expect(yield* Fiber.join(late)).toMatchObject({ _tag: "SqlError", reason: { cause: { code: "KTBDN" } } })
      expect(yield* Queue.count({ task: Clean })).toBe(0)
      expect(yield* completions).toBe(1)
    }))
})

describe("deleting a bundle", () => {
  test("takes its jobs and outcomes with it, and completes nothing", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const { bundle, jobs } = yield* addClean(3, { onComplete: Bundle.completion(Tell) })
      const other = yield* addClean(1)
      yield* Queue.fail([jobs[0]!.id])
      yield* settle([jobs[1]!.id])
      const deleted = Option.getOrThrow(yield* Queue.deleteBundle(bundle.id))
      expect(deleted.id).toBe(bundle.id)
      expect(yield* Queue.bundle(bundle.id)).toEqual(Option.none())
      expect(yield* Queue.deleteBundle(bundle.id)).toEqual(Option.none())
      expect((yield* Queue.list()).map(({ id }) => id)).toEqual([other.jobs[0]!.id])
      const left = yield* sql`select from graphile_worker._private_kongtask_bundle_outcomes`
      expect(left).toHaveLength(0)
      expect(yield* completions).toBe(0)
      expect(yield* Effect.flip(Queue.awaitBundle(bundle.id))).toMatchObject({ _tag: "BundleNotFound" })
    }))

  test("of a name or an origin deletes all of these", () =>
    Effect.gen(function*() {
      yield* addClean(2, { name: "a", origin: "x" })
      yield* addClean(2, { name: "a", origin: "y" })
      yield* addClean(2, { name: "b", origin: "y" })
      expect((yield* Queue.bundles({ name: "a" })).map(({ origin }) => origin)).toEqual(["x", "y"])
      expect(yield* Queue.deleteBundles({ name: "a", origin: "y" })).toBe(1)
      expect(yield* Queue.deleteBundles({ origin: "y" })).toBe(1)
      expect((yield* Queue.bundles()).map(({ name }) => name)).toEqual(["a"])
      expect(yield* Queue.count()).toBe(2)
      expect(yield* Queue.deleteBundles({})).toBe(1)
      expect(yield* Queue.count()).toBe(0)
    }))

  test("happens by itself when it has been done for as long as it is retained", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const gone = yield* addClean(1, { retain: 0 })
      const kept = yield* addClean(1)
      const forever = yield* addClean(1, { retain: "Infinity" })
      yield* settle([...gone.jobs, ...kept.jobs, ...forever.jobs].map(({ id }) => id))
      yield* sql`select graphile_worker._private_kongtask_expire_bundles()`
      expect((yield* Queue.bundles()).map(({ id }) => id)).toEqual([kept.bundle.id, forever.bundle.id])
      const left = yield* sql`select from graphile_worker._private_kongtask_bundle_outcomes`
      expect(left).toHaveLength(2)
    }))
})

describe("a bundle that cannot be", () => {
  const nothing = Effect.gen(function*() {
    const sql = yield* PgClient.PgClient
    expect(yield* Queue.count()).toBe(0)
    expect(yield* Queue.bundles()).toEqual([])
    expect(yield* sql`select from graphile_worker._private_kongtask_bundles`).toHaveLength(0)
  })

  test("is refused with what is wrong, and nothing of it is there", () =>
    Effect.gen(function*() {
      const refused = <E>(adding: Effect.Effect<unknown, E, Queue.Queue>) => Effect.flip(adding)
      expect(yield* refused(Queue.addBundle([]))).toMatchObject({ _tag: "InvalidBundle", field: "jobs" })
      expect(yield* refused(addClean(1, { name: "" }))).toMatchObject({ _tag: "InvalidBundle", field: "name" })
      expect(yield* refused(addClean(1, { origin: "x".repeat(129) }))).toMatchObject({ field: "origin" })
      expect(yield* refused(addClean(1, { retain: -1 }))).toMatchObject({ field: "retain" })
      const Other = Task.make("other")
      const stranger = Queue.addBundle([Other.request()], { onComplete: Bundle.completion(Report, data) as never })
      expect(yield* refused(stranger)).toMatchObject({ _tag: "InvalidBundle", field: "onComplete" })
      expect((yield* refused(stranger)).message).toMatch(/takes no outcomes of task "other": name it in the payload/)
      const noCompletion = addClean(1, { onSuccess: { task: Clean } as never })
      expect(yield* refused(noCompletion)).toMatchObject({ _tag: "InvalidBundle", field: "onSuccess" })
      expect(yield* refused(addClean(1, { onSuccess: Bundle.completion(Report, { to: 1 } as never) }))).toMatchObject({
        _tag: "InvalidJob",
        task: "report",
        field: "payload"
      })
      const key = (jobKeyMode: Job.KeyMode) => Clean.request(1, { jobKey: "k", jobKeyMode })
      expect(yield* refused(Queue.addBundle([key("dedupe")]))).toMatchObject({ field: "jobKeyMode", index: 0 })
      expect(yield* refused(Queue.addBundle([key("replace"), key("replace")]))).toMatchObject({
        field: "jobKey",
        index: 1
      })
      expect(yield* refused(Queue.bundle("no" as never))).toMatchObject({ _tag: "KongTaskError" })
      yield* nothing
    }))

  test("because a key is taken is not there, and the caller's transaction goes on", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const existing = yield* Queue.add(Clean, 1, { jobKey: "taken" })
      const bundle = Queue.addBundle([
        Clean.request(2),
        Clean.request(3, { jobKey: "taken", jobKeyMode: "reject" })
      ])
      yield* sql.withTransaction(Effect.gen(function*() {
        expect(yield* Effect.flip(bundle)).toMatchObject({ _tag: "DuplicateJobKey", existing: existing.id, index: 1 })
        yield* Queue.remove(existing.id)
      }))
      yield* nothing
    }))

  test("take jobs of a task that its completion does not know", () =>
    Effect.gen(function*() {
      const Other = Task.make("other")
      const { bundle } = yield* addClean(1, { onComplete: Bundle.completion(Report, data) })
      const error = yield* Effect.flip(Queue.addToBundle(bundle.id, [Other.request()]))
      expect(error).toMatchObject({ _tag: "InvalidBundle", field: "jobs" })
      expect(error.message).toMatch(/of task "other", of which the completion task "report" takes no outcomes/)
      expect(yield* Queue.count()).toBe(1)
    }))
})
