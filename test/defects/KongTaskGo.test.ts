/**
 * Defects of KongTask for Go (0.13.0), by their numbers in docs/lineage.md: each
 * test fails where the defect is.
 */
import { PgClient } from "@effect/sql-pg"
import { describe, expect, it } from "@effect/vitest"
import { ConfigProvider, Context, Deferred, Effect, Fiber, Latch, Layer, Logger, Option, Schema, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { KongTask, Queue, Retry, Task, Worker } from "kongtask"
import { Act } from "../fixtures/act.ts"
import * as Database from "../support/database.ts"
import { eventually, within } from "../support/events.ts"
import * as Test from "../support/kongtask.ts"
import { connect, migratorOf } from "../support/migrator.ts"
import {
  alone,
  collectLogs,
  countStatements,
  held,
  jobOf,
  Other,
  pagesOfClaim,
  spawnWorker,
  start,
  Step,
  test,
  unpolled,
  waiting,
  whileJobsAreLocked
} from "./scene.ts"

const done = Step.toLayer(() => Effect.void)

const steps = (count: number) => Array.from({ length: count }, (_, n) => Step.request({ n }))

/** A part of a program, with a queue of its own: adds a job, and says which ones its worker ran. */
interface Part {
  readonly add: (n: number) => Effect.Effect<unknown, unknown>
  readonly run: Effect.Effect<ReadonlyArray<number>, unknown>
}
class One extends Context.Service<One, Part>()("test/One") {}
class Two extends Context.Service<Two, Part>()("test/Two") {}

const part = <I>(key: Context.Service<I, Part>, schema: string) =>
  Layer.effect(
    key,
    Effect.gen(function*() {
      const queue = yield* Queue.Queue
      const worker = yield* Worker.Worker
      const ran: Array<number> = []
      const handler = Step.toLayer(({ n }) => Effect.sync(() => void ran.push(n)))
      const run = Effect.provide(worker.runOnce({ ...unpolled, tasks: [Step] }), handler)
      return { add: (n: number) => queue.add(Step, { n }), run: Effect.as(run, ran) }
    })
  ).pipe(Layer.provide(KongTask.layer({ schema })))

/** What would listen to a signal of the process beside what listened before. */
const listenersSince = (before: ReadonlyArray<Function>) =>
  process.listeners("SIGTERM").filter((listener) => !before.includes(listener))

describe("pools and their signals", () => {
  test("KongTask 1: a notified worker starts at once, not at the next poll", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      yield* start({ ...unpolled, tasks: [Step], concurrency: 3 }, done)
      yield* events.next("PoolListening")
      yield* events.next("PoolIdle")
      yield* Queue.addMany(steps(10))
      yield* events.many("JobCompleted", 10)
    }))

  test("KongTask 1: jobs that wait for a worker are run at its start, not after the first interval", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      yield* Queue.add(Step, { n: 1 })
      yield* start({ ...alone, tasks: [Step] }, done)
      yield* events.next("JobCompleted")
    }))

  test("KongTask 2: a graceful shutdown lets running handlers end and records their outcomes", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const finish = yield* Latch.make(false)
      const failing = yield* Queue.add(Step, { n: 1 })
      yield* Queue.add(Step, { n: 2 })
      const worker = yield* start(
        { tasks: [Step] },
        Step.toLayer(({ n }) => Effect.andThen(finish.await, n === 1 ? Effect.die("failed") : Effect.void))
      )
      yield* events.many("JobStarted", 2)
      yield* Effect.forkScoped(Fiber.interrupt(worker), { startImmediately: true })
      yield* events.next("PoolStopping", (event) => event.running === 2)
      yield* finish.open
      yield* Fiber.await(worker)
      expect(yield* Queue.count()).toBe(1)
      expect(yield* jobOf(failing.id)).toMatchObject({ state: "retrying", attempts: 1 })
      expect((yield* jobOf(failing.id)).lastError).toContain("failed")
      expect(yield* held).toBe(0)
    }))

  test("KongTask 3: the jobs of a killed worker run again within its lease, not after four hours or never", () =>
    Effect.gen(function*() {
      const child = yield* spawnWorker
      const job = yield* Queue.add(Act, { act: "hang" }, { queueName: "serial" })
      yield* child.line(`running ${job.id}`)
      yield* child.killGroup
      const events = yield* Test.watch
      yield* start(
        { ...alone, tasks: [Act], lease: "1 second", heartbeatInterval: "200 millis" },
        Act.toLayer(() => Effect.void)
      )
      yield* events.next("PoolsReleased")
      expect((yield* events.next("JobCompleted")).job).toMatchObject({ id: job.id, attempt: 2 })
    }))

  test("KongTask 4: the last pool that handles signals stops like any other, and leaves no handler behind", () =>
    Effect.gen(function*() {
      const before = process.listeners("SIGTERM")
      const events = yield* Test.watch
      const run = () => start({ tasks: [Step], handleSignals: true }, done)
      const workers = [yield* run(), yield* run()]
      yield* events.many("PoolIdle", 2)
      expect(listenersSince(before)).toHaveLength(2)
      for (const worker of workers) yield* within(Fiber.interrupt(worker), "5 seconds", "the end of a worker")
      expect(listenersSince(before)).toHaveLength(0)

      const again = yield* run()
      yield* events.next("PoolIdle")
      for (const listener of listenersSince(before)) listener("SIGTERM")
      yield* within(Fiber.await(again), "5 seconds", "the end of a worker that got a signal")
      expect(listenersSince(before)).toHaveLength(0)
      expect(yield* held).toBe(0)
    }))

  test("KongTask 5: a worker that gets a signal needs no logger", () =>
    Effect.gen(function*() {
      const before = process.listeners("SIGTERM")
      const events = yield* Test.watch
      yield* Queue.add(Step, { n: 1 })
      const worker = yield* start({ tasks: [Step], handleSignals: true }, done)
      yield* events.next("JobCompleted")
      for (const listener of listenersSince(before)) listener("SIGTERM")
      yield* within(Fiber.await(worker), "5 seconds", "the end of the worker")
      yield* events.next("PoolStopped")
    }).pipe(Effect.provide(Logger.layer([]))))
})

describe("the loop of a worker", () => {
  test("KongTask 6: a worker does not sleep between jobs, and runs as many at once as it is told", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const full = yield* Latch.make(false)
      let running = 0
      yield* Queue.addMany(steps(100))
      yield* start(
        { ...alone, tasks: [Step], concurrency: 4 },
        Step.toLayer(() =>
          Effect.suspend(() => ++running === 4 ? full.open : full.await).pipe(
            Effect.ensuring(Effect.sync(() => running--))
          )
        )
      )
      yield* events.many("JobCompleted", 100)
    }))

  test("KongTask 7: failing jobs are no errors of the worker, however many there are in a row", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      yield* Queue.addMany(steps(40))
      const last = yield* Queue.add(Step, { n: -1 })
      yield* start(
        { ...alone, tasks: [Step], concurrency: 1 },
        Step.toLayer(({ n }) => n < 0 ? Effect.void : Effect.die("no"), { retry: Retry.never })
      )
      expect((yield* events.next("JobCompleted")).job.id).toBe(last.id)
      // Outcomes of different statements are recorded in any order.
      yield* eventually(Queue.count({ state: "failed" }), { what: "the failures", until: (count) => count === 40 })
    }))

  test("KongTask 7: a job that is claimed while the worker is told to stop is given back", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const job = yield* Queue.add(Step, { n: 1 })
      const worker = yield* whileJobsAreLocked(Effect.gen(function*() {
        const worker = yield* start(
          { ...alone, tasks: [Step], shutdownTimeout: 0 },
          Step.toLayer(() => Effect.never)
        )
        yield* eventually(waiting, { what: "the claim that waits", until: (pids) => pids.length === 1 })
        yield* Effect.forkScoped(Fiber.interrupt(worker), { startImmediately: true })
        return worker
      }))
      yield* within(Fiber.await(worker), "10 seconds", "the end of the worker")
      yield* events.next("PoolStopped")
      expect(yield* jobOf(job.id)).toMatchObject({ state: "ready", attempts: 0 })
      expect(yield* held).toBe(0)
    }))

  it.live(
    "KongTask 8: a pool goes on at its full concurrency after a restart of the server",
    () =>
      Effect.gen(function*() {
        const server = yield* Database.dedicatedServer
        yield* Effect.gen(function*() {
          const events = yield* Test.watch
          const full = yield* Latch.make(false)
          let running = 0
          yield* start(
            { tasks: [Step], concurrency: 4, pollInterval: "20 millis" },
            Step.toLayer(() => Effect.suspend(() => ++running === 4 ? full.open : full.await))
          )
          yield* events.next("PoolIdle")
          yield* server.stop("immediate")
          yield* events.many("DatabaseUnavailable", 3)
          yield* server.start
          const jobs = Queue.addMany([0, 1, 2, 3].map((n) => Step.request({ n }, { jobKey: `key ${n}` })))
          yield* eventually(Queue.count(), { what: "a connection that works" })
          yield* eventually(jobs)
          yield* events.many("JobCompleted", 4)
        }).pipe(Effect.provide(Test.layerOn(server.config)))
      }).pipe(Effect.scoped),
    60_000
  )

  test("KongTask 9: a handler that dies leaves neither a locked job nor a worker with a hand less", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const jobs = yield* Queue.addMany(steps(6))
      const full = yield* Latch.make(false)
      let running = 0
      yield* start(
        { tasks: [Step], concurrency: 3 },
        Step.toLayer(({ n }) => {
          if (n % 2 === 0) throw new Error("boom")
          return Effect.die("boom")
        })
      )
      yield* events.many("JobFailed", 6)
      for (const { id } of jobs) {
        expect(yield* jobOf(id)).toMatchObject({ state: "retrying", attempts: 1, lockedBy: undefined })
      }
      yield* start(
        { tasks: [Other], concurrency: 3 },
        Other.toLayer(({ n }) =>
          n < 3 ? Effect.die("boom") : Effect.suspend(() => ++running === 3 ? full.open : full.await)
        )
      )
      yield* Queue.addMany([0, 1, 2, 3, 4, 5].map((n) => Other.request({ n })))
      yield* events.many("JobCompleted", 3)
    }))
})

describe("options", () => {
  test("KongTask 10: forbidden flags and the poll interval reach the pool", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      yield* start(
        { ...alone, pollInterval: "20 millis", tasks: [Step], concurrency: 3, forbiddenFlags: ["slow"] },
        done
      )
      yield* events.next("PoolIdle")
      const [slow, quick] = yield* Queue.addMany([
        Step.request({ n: 1 }, { flags: ["slow"] }),
        Step.request({ n: 2 }, { flags: ["quick"] })
      ])
      expect((yield* events.next("JobCompleted")).job.id).toBe(quick!.id)
      yield* events.many("PoolIdle", 2)
      expect(yield* jobOf(slow!.id)).toMatchObject({ state: "ready", attempts: 0 })
    }))

  test("KongTask 10: the program's logger reaches the pool and its handlers", () =>
    Effect.gen(function*() {
      const { layer, lines } = collectLogs()
      yield* Queue.add(Step, { n: 1 })
      yield* Worker.runOnce({ tasks: [Step] }).pipe(
        Effect.provide([
          layer,
          Step.toLayer(() => Effect.andThen(Effect.log("from the handler"), Effect.die("no")), {
            retry: () => Effect.die("no policy")
          })
        ])
      )
      expect(lines.find((line) => line.includes("from the handler"))).toMatch(/pool=kongtask-.*task=step.*attempt=1/)
      expect(lines.find((line) => line.includes("retry policy"))).toMatch(/pool=kongtask-/)
    }))

  it.live("KongTask 11: two queues of one process share neither events nor loggers", () =>
    Effect.gen(function*() {
      const build = Effect.fnUntraced(function*(schema: string) {
        const context = yield* Layer.build(KongTask.layer({ schema }))
        const { layer, lines } = collectLogs()
        const events = yield* Effect.provideContext(Test.watch, context)
        yield* start({ tasks: [Step] }, Step.toLayer(({ n }) => Effect.log(`${schema} ${n}`))).pipe(
          Effect.provideContext(context),
          Effect.provide(layer)
        )
        yield* events.next("PoolListening")
        yield* events.rest
        return { add: (n: number) => Effect.provideContext(Queue.add(Step, { n }), context), events, lines }
      })
      const one = yield* build("one")
      const two = yield* build("two")
      yield* one.add(1)
      yield* one.events.next("JobCompleted")
      yield* two.add(2)
      expect((yield* two.events.next("JobStarted")).job.id).toBe("1")
      yield* two.events.next("JobCompleted")
      const jobsOfOne = (yield* one.events.rest).filter(({ _tag }) => _tag.startsWith("Job"))
      expect(jobsOfOne).toEqual([])
      expect(one.lines.filter((line) => /one 1|two 2/.test(line))).toHaveLength(1)
      expect(two.lines.filter((line) => /one 1|two 2/.test(line))).toHaveLength(1)
      expect(one.lines.join()).toContain("one 1")
    }).pipe(Effect.scoped, Effect.provide(Database.layer({ migrated: false }))))

  it.live("KongTask 11: two queues that one program builds together have a worker each, of their own schema", () =>
    Effect.gen(function*() {
      const one = yield* One
      const two = yield* Two
      yield* one.add(1)
      yield* two.add(2)
      expect(yield* two.run).toEqual([2])
      expect(yield* one.run).toEqual([1])
    }).pipe(
      Effect.provide([part(One, "one"), part(Two, "two")]),
      Effect.provide(Database.layer({ migrated: false }))
    ))

  it.live("KongTask 12: a client that is made from the environment stays open for as long as it is used", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.freshDatabase()
      const environment = ConfigProvider.layer(ConfigProvider.fromEnvRecord({ DATABASE_URL: url }))
      const summary = yield* Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql.withTransaction(Queue.add(Step, { n: 1 }))
        yield* Queue.add(Step, { n: 2 })
        const summary = yield* Worker.runOnce({ tasks: [Step] }).pipe(Effect.provide(done))
        expect(yield* sql<{ one: number }>`select 1 as one`).toEqual([{ one: 1 }])
        return summary
      }).pipe(Effect.provide(Layer.provide(KongTask.layerConfig, environment)))
      expect(summary).toMatchObject({ completed: 2, failed: 0 })
    }).pipe(Effect.scoped))

  test("KongTask 13: a handler has read all rows of its query before the connection serves anybody else", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* Queue.addMany(steps(12))
      const summary = yield* Worker.runOnce({ tasks: [Step], concurrency: 6 }).pipe(
        Effect.provide(
          Step.toLayer(({ n }) =>
            sql<{ i: number }>`select ${n}::int * 10000 + i as i from generate_series(0, 2999) as i order by i`.stream
              .pipe(
                Stream.runFold(() => n * 10_000, (expected, { i }) => {
                  if (i !== expected) throw new Error(`${i} is not ${expected}`)
                  return i + 1
                }),
                Effect.tap((end) => Effect.sync(() => expect(end).toBe(n * 10_000 + 3_000))),
                Effect.orDie,
                Effect.asVoid
              )
          )
        )
      )
      expect(summary).toMatchObject({ completed: 12, failed: 0 })
    }))

  it.live("KongTask 14: no name, key, flag or payload can be SQL, the schema's name included", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`create table precious (n int)`
      const evil = (what: string) => `${what}'); drop table precious; --" $1 \\`
      const Evil = Task.make(evil("task"), { payload: { text: Schema.String } })
      const options = (n: number) => ({
        queueName: evil("queue"),
        jobKey: evil(`key ${n}`),
        flags: [evil("flag")]
      })
      const one = yield* Queue.add(Evil, { text: evil("payload") }, options(1))
      const [two] = yield* Queue.addMany([Evil.request({ text: evil("payload") }, options(2))])
      const three = yield* Queue.dedupe(Evil, { text: evil("payload") }, {
        key: options(3).jobKey,
        queueName: options(3).queueName,
        flags: options(3).flags
      })
      for (const [n, { id }] of [one, two!, three].entries()) {
        expect(yield* jobOf(id)).toMatchObject({
          task: Evil.name,
          payload: { text: evil("payload") },
          queueName: evil("queue"),
          key: evil(`key ${n + 1}`),
          flags: [evil("flag")]
        })
      }
      expect(yield* Queue.count({ task: Evil, queueName: evil("queue"), flag: evil("flag") })).toBe(3)
      yield* Queue.fail([three.id], evil("message"))
      expect((yield* jobOf(three.id)).lastError).toBe(evil("message"))
      expect(Option.isSome(yield* Queue.remove({ key: evil("key 2") }))).toBe(true)
      const summary = yield* Worker.runOnce({ ...unpolled, tasks: [Evil], forbiddenFlags: [evil("other")] }).pipe(
        Effect.provide(Evil.toLayer(() => Effect.void))
      )
      expect(summary).toMatchObject({ completed: 1, failed: 0 })
      expect(yield* sql`select * from precious`).toEqual([])
    }).pipe(
      Effect.scoped,
      Effect.provide(Test.layer({ schema: "s\"; drop table precious; --' $1" }))
    ))

  test("KongTask 15: flags and key modes are kept however jobs are added, and no payload is an empty object", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const Tick = Task.make("tick")
      const options = { flags: ["a", "b"], jobKey: "key", jobKeyMode: "unsafe_dedupe" } as const
      const [one] = yield* Queue.addMany([Tick.request(undefined, options)])
      const again = yield* Queue.add(Tick, undefined, { ...options, flags: ["c"] })
      expect(again).toMatchObject({ id: one!.id, payload: {}, revision: 1 })
      expect(again.flags.toSorted()).toEqual(["a", "b"])
      const [row] = yield* sql<{ payload: string }>`
        select payload::text as payload from graphile_worker.add_job('tick', null)`
      expect(row).toEqual({ payload: "{}" })
    }))
})

describe("events", () => {
  test("KongTask 16: a reader that has gone disturbs nobody, and each reader has every event in order", () =>
    Effect.gen(function*() {
      const count = 500
      const { events } = yield* Worker.Worker
      const gone = yield* events.pipe(Stream.take(1), Stream.runDrain, Effect.forkScoped({ startImmediately: true }))
      const interrupted = yield* Effect.forkScoped(Stream.runDrain(events), { startImmediately: true })
      yield* Fiber.interrupt(interrupted)
      const readers = [yield* Test.watch, yield* Test.watch]
      yield* Queue.addMany(steps(count))
      yield* Worker.runOnce({ ...unpolled, tasks: [Step], concurrency: 8 }).pipe(Effect.provide(done))
      yield* Fiber.join(gone)
      for (const reader of readers) {
        const seen: Array<string> = []
        yield* reader.until((event) => {
          if (event._tag === "JobStarted" || event._tag === "JobCompleted") seen.push(`${event._tag} ${event.job.id}`)
          return event._tag === "PoolStopped"
        })
        expect(seen).toHaveLength(2 * count)
        for (let id = 1; id <= count; id++) {
          const started = seen.indexOf(`JobStarted ${id}`)
          expect(started).toBeGreaterThan(-1)
          expect(seen.indexOf(`JobCompleted ${id}`)).toBeGreaterThan(started)
        }
      }
    }))
})

describe("the database", () => {
  it.live("KongTask 19: migrators that start together do not race", () =>
    Effect.gen(function*() {
      const { config } = yield* Database.freshDatabase({ migrated: false })
      const reports = yield* Effect.forEach(
        Array.from({ length: 6 }),
        () =>
          Effect.flatMap(connect({ ...config, maxConnections: 2 }), migratorOf).pipe(
            Effect.flatMap((migrator) => migrator.migrate)
          ),
        { concurrency: "unbounded" }
      )
      const applied = reports.flatMap((report) => report.applied.map(({ id }) => id))
      expect(applied.length).toBeGreaterThan(0)
      expect(new Set(applied).size).toBe(applied.length)
    }).pipe(Effect.scoped))

  test("KongTask 20: whoever has lost a job cannot delete it any more", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const events = yield* Test.watch
      const finish = yield* Latch.make(false)
      const job = yield* Queue.add(Step, { n: 1 })
      yield* start({ tasks: [Step] }, Step.toLayer(() => finish.await))
      yield* events.next("JobStarted")
      yield* sql`update graphile_worker._private_jobs set locked_by = 'kongtask-another', locked_at = now()`
      yield* finish.open
      yield* events.next("JobLost")
      expect(yield* jobOf(job.id)).toMatchObject({ state: "running", lockedBy: "kongtask-another" })
    }))

  test("KongTask 21: a claim costs the same behind 20,000 jobs of a busy queue", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* Queue.add(Step, { n: 0 }, { queueName: "busy", priority: -1 })
      yield* sql`update graphile_worker._private_job_queues set locked_by = 'kongtask-another', locked_at = now()`
      yield* Queue.addMany(steps(100))
      const before = yield* pagesOfClaim("step")
      yield* sql`
        insert into graphile_worker._private_jobs (task_id, job_queue_id, priority)
        select task_id, job_queue_id, priority from graphile_worker._private_jobs, generate_series(1, 20000)
        where job_queue_id is not null`
      const after = yield* pagesOfClaim("step")
      expect(before).toBeGreaterThan(20)
      expect(after).toBeLessThan(before * 1.5 + 20)
    }))

  test("KongTask 22: jobs are added, claimed and settled many at a time", () =>
    Effect.gen(function*() {
      const adding = countStatements()
      yield* adding.traced(Queue.addMany(steps(1_000)))
      expect(adding.count()).toBe(1)
      const working = countStatements()
      const summary = yield* Worker.runOnce({ ...unpolled, tasks: [Step], concurrency: 20 }).pipe(
        Effect.provide(Step.toLayer(() => Effect.yieldNow)),
        working.traced
      )
      expect(summary).toMatchObject({ completed: 1_000, failed: 0 })
      expect(working.count("_private_kongtask_claim(")).toBeGreaterThan(0)
      expect(working.count("_private_kongtask_settle(")).toBeGreaterThan(0)
      expect(working.count()).toBeLessThan(300)
    }))

  test("KongTask 23: a running job can be cancelled, and ends at its timeout", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const finalized = yield* Deferred.make<void>()
      const cancelled = yield* Queue.add(Step, { n: 1 })
      const timed = yield* Queue.add(Other, { n: 1 }, { maxAttempts: 1 })
      yield* start(
        { tasks: [Step, Other] },
        Layer.merge(
          Step.toLayer(() => Effect.onInterrupt(Effect.never, () => Deferred.succeed(finalized, undefined))),
          Other.toLayer(() => Effect.never, { timeout: "20 millis" })
        )
      )
      yield* events.next("JobStarted", ({ job }) => job.id === cancelled.id)
      yield* Queue.cancel(cancelled.id)
      yield* events.until((event) => event._tag === "JobCancelled" && event.job.id === cancelled.id)
      yield* Deferred.await(finalized)
      yield* eventually(jobOf(timed.id), { until: (job) => job.state === "failed" })
      expect((yield* jobOf(timed.id)).lastError).toMatch(/^TimedOut/)
    }))

  test("KongTask 23: failed jobs are counted by task and queue, and cleared up by age", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const [old, fresh] = yield* Queue.addMany([1, 2].map((n) => Step.request({ n }, { queueName: "q" })))
      yield* Queue.fail([old!.id, fresh!.id])
      const { queues, tasks } = yield* Queue.stats()
      expect(tasks.get("step")).toMatchObject({ failed: 2 })
      expect(queues.get("q")).toMatchObject({ failed: 2 })
      yield* sql`
        update graphile_worker._private_jobs
        set updated_at = now() - interval '2 days', run_at = now() - interval '2 days' where id = ${
        old!.id
      }::text::int8`
      expect(yield* Queue.cleanup({ failedJobs: "1 day" })).toMatchObject({ failedJobs: 1 })
      expect((yield* Queue.list()).map(({ id }) => id)).toEqual([fresh!.id])
    }))

  test("KongTask 24: a worker touches no job that it has no handler for, and is none without tasks", () =>
    Effect.gen(function*() {
      const foreign = yield* Queue.add(Other, { n: 1 }, { priority: -1 })
      yield* Queue.add(Step, { n: 1 })
      const none = yield* Effect.flip(Worker.runOnce({ ...unpolled, tasks: [] }))
      expect(none.reason).toMatchObject({ _tag: "InvalidConfiguration", field: "tasks" })
      const summary = yield* Worker.runOnce({ ...unpolled, tasks: [Step] }).pipe(Effect.provide(done))
      expect(summary).toMatchObject({ completed: 1, failed: 0 })
      expect(yield* jobOf(foreign.id)).toMatchObject({ state: "ready", attempts: 0, lockedBy: undefined })
    }))

  test("KongTask 25: a handler can use the database while the worker shuts down", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const finish = yield* Latch.make(false)
      const context = yield* Effect.context<SqlClient.SqlClient | Queue.Queue>()
      const sql = Context.get(context, SqlClient.SqlClient)
      const queue = Context.get(context, Queue.Queue)
      yield* Queue.add(Step, { n: 1 })
      const worker = yield* start(
        { tasks: [Step] },
        Step.toLayer(() =>
          finish.await.pipe(
            Effect.andThen(sql.withTransaction(queue.add(Other, { n: 2 }))),
            Effect.orDie,
            Effect.asVoid
          )
        )
      )
      yield* events.next("JobStarted")
      yield* Effect.forkScoped(Fiber.interrupt(worker), { startImmediately: true })
      yield* events.next("PoolStopping")
      yield* finish.open
      yield* Fiber.await(worker)
      expect((yield* Queue.list()).map(({ attempts, task }) => ({ attempts, task }))).toEqual([
        { attempts: 0, task: "other" }
      ])
    }))

  test("KongTask 26: a worker wakes up by itself when the next job is due", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      yield* Queue.add(Step, { n: 1 }, { delay: "300 millis" })
      yield* start({ ...alone, tasks: [Step] }, done)
      yield* events.next("PoolIdle")
      yield* events.next("JobCompleted")
    }))

  it.live("KongTask 26: a notification of another schema of the database gives a worker nothing to run", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const one = yield* Layer.build(KongTask.layer({ schema: "one" }))
      const two = yield* Layer.build(KongTask.layer({ schema: "two" }))
      const events = yield* Effect.provideContext(Test.watch, one)
      yield* Effect.provideContext(start({ tasks: [Step] }, done), one)
      yield* events.next("PoolListening")
      yield* events.next("PoolIdle")
      const foreign = yield* Effect.provideContext(Queue.add(Step, { n: 2 }), two)
      yield* events.next("PoolIdle")
      yield* Effect.provideContext(Queue.add(Step, { n: 1 }), one)
      yield* events.next("JobCompleted")
      expect(Option.getOrThrow(yield* Effect.provideContext(Queue.get(foreign.id), two))).toMatchObject({
        state: "ready",
        attempts: 0
      })
      expect(yield* sql`select 1 from two._private_jobs where locked_by is not null`).toEqual([])
    }).pipe(Effect.scoped, Effect.provide(Database.layer({ migrated: false }))))
})
