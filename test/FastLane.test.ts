import type { PgClient } from "@effect/sql-pg"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Latch, Layer, Option, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { Job, type JobStore, KongTask, KongTaskError, Queue, type Task, Worker } from "kongtask"
import { Step } from "./fixtures/step.ts"
import { layer as databaseLayer, TestDatabase } from "./support/database.ts"
import { eventually, pause, within } from "./support/events.ts"
import * as Test from "./support/kongtask.ts"
import * as Lane from "./support/lane.ts"
import { spawnScript } from "./support/process.ts"

type Services = Queue.Queue | Worker.Worker | PgClient.PgClient | SqlClient.SqlClient | TestDatabase | Scope.Scope

const run = <E>(body: (lane: Lane.Lane) => Effect.Effect<unknown, E, Services>) =>
  Effect.suspend(() => {
    const lane = Lane.make()
    return Effect.scoped(body(lane)).pipe(Effect.provide(Layer.provideMerge(lane.layer, databaseLayer())))
  })

const test = <E>(name: string, body: (lane: Lane.Lane) => Effect.Effect<unknown, E, Services>) =>
  it.live(name, () => run(body), 60_000)

const options = { tasks: [Step], concurrency: 4, handleSignals: false } as const

type Handler = (job: Job.Running) => Effect.Effect<void, Job.Control, Scope.Scope>

const handler = (handle: Handler, handlerOptions?: Task.HandlerOptions<never>) =>
  Step.toLayer((_, job) => handle(job), handlerOptions)

/** So many jobs, enough for a worker to learn that they are short and to run most of them in batches. */
const add = (count = 600, jobOptions?: (place: number) => Job.Options) =>
  Queue.addMany(Array.from({ length: count }, (_, place) => Step.request({ act: "return" }, jobOptions?.(place))))

const runOnce = (handle: Handler, workerOptions: Partial<Worker.Options<typeof Step>> = {}) =>
  Worker.runOnce({ ...options, ...workerOptions }).pipe(Effect.provide(handler(handle)))

const start = (handle: Handler, workerOptions: Partial<Worker.Options<typeof Step>> = {}) =>
  Worker.run({ ...options, ...workerOptions }).pipe(
    Effect.provide(handler(handle)),
    Effect.forkScoped({ startImmediately: true })
  )

/** Does it in the first job that finds itself in a batch, and nothing in the others. */
const once = (lane: Lane.Lane, handle: Handler): Handler => {
  let isDone = false
  return (job) => {
    if (isDone || !lane.holds(job.id)) return Effect.void
    isDone = true
    return handle(job)
  }
}

const drained = eventually(Queue.count(), { what: "the end of all jobs", until: (count) => count === 0 })

/** Whatever names a pool: held jobs and queues, pools, open notes. */
const traces = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  sql<{ count: number }>`
    select ((select count(*) from graphile_worker._private_jobs where locked_by is not null)
      + (select count(*) from graphile_worker._private_job_queues where locked_by is not null)
      + (select count(*) from graphile_worker._private_kongtask_pools)
      + (select count(*) from graphile_worker._private_kongtask_batches where id_ranges is not null))::int as count`)
  .pipe(Effect.map(([row]) => row!.count))

const severed = new KongTaskError.KongTaskError({
  reason: new KongTaskError.ConnectionFailed({ detail: "cut", cause: new Error("cut") })
})

const spawnWorker = Effect.flatMap(
  TestDatabase,
  ({ url }) => spawnScript(new URL("fixtures/lane.ts", import.meta.url), { env: { DATABASE_URL: url } })
)

/** Keeps a worker process busy. */
const feed = Effect.forkScoped(Effect.forever(Effect.gen(function*() {
  if ((yield* Queue.count()) < 500) yield* add(500)
  yield* pause("20 millis")
})))

/** What a process has told: the jobs of its batches, open at its end or closed, and which attempts it began. */
const told = (output: string) => {
  const open = new Map<string, ReadonlyArray<string>>()
  const closed: Array<ReadonlyArray<string>> = []
  const attempts: Array<{ readonly id: string; readonly attempt: number }> = []
  for (const line of output.split("\n")) {
    const [what, id, third, fourth] = line.split(" ")
    if (what === "opened") open.set(id!, third!.split(","))
    else if (what === "closed") {
      closed.push(open.get(id!) ?? [])
      open.delete(id!)
    } else if (what === "running") attempts.push({ id: id!, attempt: Number(fourth) })
  }
  return { open: [...open.values()], closed, attempts }
}

describe("the fast lane", () => {
  test("(a) charges a job that kills its process each time, and the others of its batch at most once", () =>
    Effect.gen(function*() {
      yield* add(500)
      const poison = yield* Queue.add(Step, { act: "kill" }, { maxAttempts: 3 })
      const feeding = yield* feed
      const outputs: Array<ReturnType<typeof told>> = []
      for (const attempt of [1, 2, 3]) {
        const child = yield* spawnWorker
        yield* child.line(`running ${poison.id} attempt ${attempt}`)
        expect((yield* child.exit).signal).toBe("SIGKILL")
        outputs.push(told(yield* child.stdout))
      }
      yield* Fiber.interrupt(feeding)
      const [first, second] = outputs
      expect(first!.open.flat()).toContain(poison.id)
      // What was in no batch was claimed, and may have been unsettled.
      const closed = new Set(first!.closed.flat())
      const claimed = first!.attempts.map(({ id }) => id).filter((id) => !closed.has(id))
      const mayBeCharged = new Set([...first!.open.flat(), ...claimed])
      const charged = second!.attempts.filter(({ attempt }) => attempt > 1)
      expect(charged).not.toEqual([])
      expect(charged.filter(({ attempt, id }) => attempt > 2 || !mayBeCharged.has(id))).toEqual([])

      const events = yield* Test.watch
      yield* start(() => Effect.void, { lease: "1 second", heartbeatInterval: "200 millis" })
      yield* events.next("PoolsReleased")
      yield* eventually(Queue.count(), { what: "the end of the innocent ones", until: (count) => count === 1 })
      expect(Option.getOrThrow(yield* Queue.get(poison.id))).toMatchObject({ state: "failed", attempts: 3 })
    }))

  test("(b) keeps whoever adds or removes with a job's key waiting for its budget, not for its handler", (lane) =>
    Effect.gen(function*() {
      yield* add(600, (place) => ({ jobKey: `key ${place}` }))
      const found = yield* Deferred.make<Job.Running>()
      const gate = yield* Latch.make(false)
      yield* start(once(lane, (job) => Effect.andThen(Deferred.succeed(found, job), gate.await)))
      const { id, key } = yield* Deferred.await(found)
      const again = yield* Queue.add(Step, { act: "return" }, { jobKey: key! })
      expect(again.id).not.toBe(id)
      const removed = yield* Queue.remove(id)
      expect(Option.getOrThrow(removed)).toMatchObject({ id, state: "running" })
      yield* gate.open
      yield* drained
    }))

  test("(c) runs again after a crash at most the jobs of the batches that were open", () =>
    Effect.gen(function*() {
      yield* add(3_000)
      const child = yield* spawnWorker
      yield* child.line("opened 3")
      yield* child.killGroup
      const { attempts, open } = told(yield* child.stdout)
      expect(open.length).toBeLessThanOrEqual(2)
      const ran = new Set<string>(attempts.map(({ id }) => id))
      const again: Array<Job.JobId> = []
      yield* start((job) => Effect.sync(() => void (ran.has(job.id) && again.push(job.id))), {
        lease: "1 second",
        heartbeatInterval: "200 millis"
      })
      yield* drained
      // Those that it had claimed, and those of its open batches.
      const held = new Set(open.flat())
      expect(again.filter((id) => !held.has(id)).length).toBeLessThanOrEqual(4)
    }))

  test("(c) is turned off by `delivery: \"durable\"` on a task or a worker", (lane) =>
    Effect.gen(function*() {
      yield* add()
      yield* runOnce(() => Effect.void, { delivery: "durable" })
      yield* add()
      yield* Worker.runOnce(options).pipe(Effect.provide(handler(() => Effect.void, { delivery: "durable" })))
      expect(lane.requests).toEqual([])
    }))

  test("(d) has to be earned by measured attempts, and is not by long ones", (lane) =>
    Effect.gen(function*() {
      const wasHeld: Array<boolean> = []
      yield* add()
      yield* runOnce((job) => Effect.sync(() => void wasHeld.push(lane.holds(job.id))))
      expect(wasHeld.slice(0, 20)).toEqual(Array.from({ length: 20 }, () => false))
      expect(wasHeld).toContain(true)
      const before = lane.requests.length
      yield* add(60)
      yield* runOnce(() => pause("10 millis"))
      expect(lane.requests.length).toBe(before)
    }))

  test("(e) is not touched by what a handler does in the database", (lane) =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const queue = yield* Queue.Queue
      const act = once(lane, () =>
        Effect.gen(function*() {
          yield* Effect.ignore(sql`select 1 / 0`)
          yield* Effect.ignore(
            sql.withTransaction(Effect.andThen(queue.add(Step, { act: "return" }), Effect.fail("undone")))
          )
          yield* sql.withTransaction(queue.add(Step, { act: "return" }))
        }).pipe(Effect.orDie))
      yield* add()
      expect(yield* runOnce(act)).toMatchObject({ completed: 601, retried: 0, lost: 0 })
    }))

  test("(f) holds no job for longer than seconds when its process is stopped", () =>
    Effect.gen(function*() {
      yield* add(500)
      const stop = yield* Queue.add(Step, { act: "stop" })
      const feeding = yield* feed
      const child = yield* spawnWorker
      yield* child.line(`running ${stop.id} attempt 1`)
      yield* Fiber.interrupt(feeding)
      yield* start(() => Effect.void, { lease: "2 seconds", heartbeatInterval: "200 millis" })
      yield* drained
      yield* child.kill("SIGCONT")
    }))

  test("(g) interrupts the running handlers of a lost batch, and settles late what has ended", (lane) =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const runs = new Map<Job.JobId, number>()
      let hanging: Job.JobId | undefined
      const interrupted = yield* Latch.make(false)
      const hang = once(lane, (job) =>
        Effect.suspend(() => {
          hanging = job.id
          return Effect.onInterrupt(Effect.never, () => interrupted.open)
        }))
      let isLost = false
      lane.opened = (batch) => {
        let jobs: ReadonlyArray<Job.Running> = []
        return {
          ...batch,
          start: Effect.tap(batch.start, (started) =>
            Effect.sync(() => {
              jobs = started
            })),
          settle: (settlements) =>
            Effect.suspend(() => {
              // Of the batch that the hanging job is in: its promotion is written, and not committed.
              if (isLost || !jobs.some(({ id }) => id === hanging)) return batch.settle(settlements)
              isLost = true
              return Effect.andThen(
                Effect.orDie(sql`
                  select pg_terminate_backend(pid, 5000) from pg_stat_activity
                  where datname = current_database() and state = 'idle in transaction'`),
                batch.settle(settlements)
              )
            })
        }
      }
      yield* add()
      const summary = yield* runOnce((job) => {
        runs.set(job.id, (runs.get(job.id) ?? 0) + 1)
        return hang(job)
      })
      yield* interrupted.await
      expect(summary).toMatchObject({ completed: 600, lost: 0 })
      const again = [...runs].filter(([, times]) => times > 1)
      expect(again).toEqual([[hanging, 2]])
      expect(isLost).toBe(true)
      expect(yield* Queue.count()).toBe(0)
    }))

  test("(h) holds a named queue by a written lease only", (lane) =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const seen: Array<unknown> = []
      yield* add(600, (place) => place % 20 === 0 ? { queueName: "serial" } : {})
      const summary = yield* runOnce((job) => {
        if (job.queueName === undefined) return Effect.void
        expect(lane.holds(job.id)).toBe(false)
        return sql`select locked_by is not null as held from graphile_worker._private_job_queues`.pipe(
          Effect.map(([row]) => void seen.push(row)),
          Effect.orDie
        )
      })
      expect(summary).toMatchObject({ completed: 600, lost: 0 })
      expect(seen).toEqual(Array.from({ length: 30 }, () => ({ held: true })))
      expect(lane.requests).not.toEqual([])
    }))

  test("(i) takes no more jobs than its budget can run", (lane) =>
    Effect.gen(function*() {
      yield* add(400)
      yield* runOnce(() =>
        Effect.sync(() => {
          const until = performance.now() + 0.5
          while (performance.now() < until);
        })
      )
      expect(lane.requests).not.toEqual([])
      expect(Math.max(...lane.requests.map(({ limit }) => limit))).toBeLessThanOrEqual(4 * 15 / 0.5)
    }))

  test("(i) leaves jobs to claims while the batches of others hold enough", (lane) =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      let crowded = 0
      lane.opened = (batch) => {
        if (batch.isCrowded) crowded++
        return batch
      }
      yield* add(3_000)
      yield* sql.withTransaction(Effect.gen(function*() {
        // As three others: a turn that a transaction has is no obstacle to itself.
        yield* sql`
          select pg_advisory_xact_lock('graphile_worker._private_jobs'::regclass::oid::int8::bit(32)::int, turn)
          from generate_series(1, 3) as turn`
        expect(yield* runOnce(() => Effect.void)).toMatchObject({ completed: 3_000, lost: 0 })
      }))
      expect(crowded).toBeGreaterThan(0)
      expect(crowded).toBeLessThan(30)
    }))

  it.live("(j) is not there on the embedded database", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* add(300)
      expect(yield* runOnce(() => Effect.void)).toMatchObject({ completed: 300 })
      expect(yield* sql`select from graphile_worker._private_kongtask_batches`).toEqual([])
    }).pipe(Effect.provide(KongTask.layerEmbedded())))

  test("(j) is left alone for a while when there is no connection to spare", (lane) =>
    Effect.gen(function*() {
      lane.open = () => Effect.fail(severed)
      yield* add(2_000)
      expect(yield* runOnce(() => Effect.void)).toMatchObject({ completed: 2_000, lost: 0 })
      expect(lane.requests.length).toBeGreaterThan(0)
      expect(lane.requests.length).toBeLessThan(20)
    }))

  test("shows a job in a batch as ready, and makes its cancellation wait for the batch", (lane) =>
    Effect.gen(function*() {
      const queue = yield* Queue.Queue
      const found = yield* Deferred.make<readonly [Job.JobId, Job.State]>()
      const interrupted = yield* Latch.make(false)
      yield* add()
      yield* start(once(lane, ({ id }) =>
        Effect.gen(function*() {
          const { state } = Option.getOrThrow(yield* Effect.orDie(queue.get(id)))
          yield* Deferred.succeed(found, [id, state] as const)
          return yield* Effect.onInterrupt(Effect.never, () => interrupted.open)
        })))
      const [id, state] = yield* Deferred.await(found)
      expect(state).toBe("ready")
      const cancelled = Option.getOrThrow(yield* Queue.cancel(id))
      expect(cancelled.state).toBe("running")
      yield* within(interrupted.await, "10 seconds", "the interruption")
      yield* drained
    }))

  test("splits a settle that fails for its content until the bad outcome is alone", (lane) =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const spoil = (settlement: JobStore.Settlement): JobStore.Settlement =>
        settlement._tag === "Failed" && settlement.error.includes("spoilt")
          ? { ...settlement, error: "\u0000" }
          : settlement
      lane.opened = (batch) => ({ ...batch, settle: (settlements) => batch.settle(settlements.map(spoil)) })
      lane.settle = (settle) => (pool, settlements) => settle(pool, settlements.map(spoil))
      const added = yield* add()
      const runs: Array<Job.JobId> = []
      const acts = [Effect.die("spoilt"), Job.snooze("1 hour"), Effect.die("spoilt"), Job.snooze("1 hour")]
      const summary = yield* runOnce((job) => {
        runs.push(job.id)
        return (lane.holds(job.id) ? acts.pop() : undefined) ?? Effect.void
      })
      expect(summary).toMatchObject({ completed: 596, failed: 2, snoozed: 2, lost: 0 })
      expect(runs.length).toBe(added.length)
      const [failed] = yield* Queue.list({ state: "failed" })
      expect(failed!.lastError).toBe("The attempt failed with an error that the database refused to record.")
      expect((yield* events.rest).filter(({ _tag }) => _tag === "DatabaseUnavailable")).toEqual([])
    }))
})

describe("beside the durable lane", () => {
  test("settles failures, snoozes and cancellations in a batch as in a claim", (lane) =>
    Effect.gen(function*() {
      const acts: ReadonlyArray<Handler> = [
        () => Effect.die(new Error("broken")),
        () => Job.snooze("1 hour"),
        () => Job.cancel("no need")
      ]
      const done: Array<Job.JobId> = []
      yield* add()
      const summary = yield* runOnce((job) => {
        if (done.length === acts.length || !lane.holds(job.id)) return Effect.void
        done.push(job.id)
        return acts[done.length - 1]!(job)
      })
      expect(summary).toMatchObject({ completed: 597, retried: 1, snoozed: 1, cancelled: 1, lost: 0 })
      const [failed, snoozed, cancelled] = yield* Effect.forEach(done, (id) => Queue.get(id))
      expect(Option.getOrThrow(failed!)).toMatchObject({ state: "retrying", attempts: 1 })
      expect(Option.getOrThrow(snoozed!)).toMatchObject({ state: "scheduled", attempts: 0 })
      expect(cancelled).toEqual(Option.none())
    }))

  test("gives the running handlers of a batch their time at the shutdown", (lane) =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const found = yield* Deferred.make<Job.JobId>()
      const gate = yield* Latch.make(false)
      yield* add(5_000)
      const worker = yield* start(once(lane, ({ id }) => Effect.andThen(Deferred.succeed(found, id), gate.await)))
      const id = yield* Deferred.await(found)
      const stopping = yield* Effect.forkScoped(Fiber.interrupt(worker), { startImmediately: true })
      yield* events.next("PoolStopping")
      yield* gate.open
      yield* Fiber.join(stopping)
      expect(yield* Queue.get(id)).toEqual(Option.none())
      expect(yield* traces).toBe(0)
    }))

  test("gives back uncharged what is still running when that time is over", (lane) =>
    Effect.gen(function*() {
      const found = yield* Deferred.make<Job.JobId>()
      yield* add(5_000)
      const worker = yield* start(
        once(lane, ({ id }) => Effect.andThen(Deferred.succeed(found, id), Effect.never)),
        { shutdownTimeout: "100 millis" }
      )
      const id = yield* Deferred.await(found)
      yield* Fiber.interrupt(worker)
      expect(Option.getOrThrow(yield* Queue.get(id))).toMatchObject({ state: "ready", attempts: 0 })
      expect(yield* traces).toBe(0)
    }))

  test("keeps the order at concurrency 1 when a batch leaves jobs", (lane) =>
    Effect.gen(function*() {
      const ran: Array<number> = []
      yield* add(1_500)
      let slow = 0
      yield* runOnce((job) => {
        ran.push(Number(job.id))
        return lane.holds(job.id) && ran.length % 100 === 0 && ++slow <= 8 ? pause("45 millis") : Effect.void
      }, { concurrency: 1 })
      expect(ran).toEqual(ran.toSorted((a, b) => a - b))
      expect(ran.length).toBe(1_500)
      expect(slow).toBeGreaterThan(2)
    }))

  test("loses no job and no outcome whichever of a batch's statements fails, before or after it is done", (lane) =>
    Effect.gen(function*() {
      let statements = 0
      const sometimes = <A>(batch: JobStore.Batch, statement: Effect.Effect<A, KongTaskError.KongTaskError>) =>
        Effect.suspend(() => {
          const turn = ++statements % 6
          return turn === 2
            ? Effect.andThen(batch.promote([]), Effect.fail(severed))
            : turn === 5
            ? Effect.andThen(statement, Effect.fail(severed))
            : statement
        })
      lane.opened = (batch) => ({
        ...batch,
        promote: (ids) => sometimes(batch, batch.promote(ids)),
        settle: (settlements) => sometimes(batch, batch.settle(settlements))
      })
      let n = 0
      for (let round = 0; round < 6; round++) {
        yield* add(800)
        const ran = new Set<Job.JobId>()
        const summary = yield* runOnce((job) => {
          ran.add(job.id)
          return n++ % 150 === 0 && lane.holds(job.id) ? pause("50 millis") : Effect.void
        })
        expect(ran.size).toBe(800)
        expect(summary).toMatchObject({ completed: 800, lost: 0 })
      }
      expect(statements).toBeGreaterThan(12)
      expect(yield* traces).toBe(0)
    }))

  it.effect("runs on in real time under a test clock that stands still", () =>
    run((lane) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const isRunning = (id: Job.JobId) =>
          eventually(
            sql`select from graphile_worker._private_jobs where id = ${id}::text::int8 and locked_by is not null`,
            { what: "the claim", until: (rows) => rows.length === 1 }
          )
        yield* add()
        const summary = yield* runOnce(once(lane, ({ id }) => Effect.orDie(isRunning(id))))
        expect(summary).toMatchObject({ completed: 600, lost: 0 })
        yield* TestClock.adjust("1 second")
      })
    ), 60_000)
})
