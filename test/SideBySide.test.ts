import { PgClient } from "@effect/sql-pg"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Latch, Layer, Schema, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { KongTask, Queue, Task, Worker } from "kongtask"
import { freshDatabase } from "./support/database.ts"
import { eventually } from "./support/events.ts"
import * as Test from "./support/kongtask.ts"

const First = Task.make("first", { payload: { n: Schema.Int } })
const Second = Task.make("second", { payload: { n: Schema.Int } })

const unpolled = { pollInterval: "1 hour", handleSignals: false } as const

/** Starts a worker in the test's scope. */
const start = <T extends Task.Any, R>(options: Worker.Options<T>, handlers: Layer.Layer<Task.ToHandler<T>, never, R>) =>
  Worker.run({ ...unpolled, ...options }).pipe(Effect.provide(handlers), Effect.forkScoped({ startImmediately: true }))

const requests = (task: typeof First | typeof Second, count: number) =>
  Array.from({ length: count }, (_, n) => task.request({ n }))

const drained = eventually(Queue.count(), { until: (count) => count === 0, what: "an empty queue" })

/** Counts the runs of each job. */
const counting = () => {
  const runs = new Map<number, number>()
  return { runs, ran: (n: number) => Effect.sync(() => void runs.set(n, (runs.get(n) ?? 0) + 1)) }
}

const once = (count: number) => Array.from({ length: count }, () => 1)

const poolsOf = Effect.fnUntraced(function*(schema = "graphile_worker") {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql<{ id: string }>`select id from ${sql(schema)}._private_kongtask_pools order by id`
  return rows.map(({ id }) => id)
})

describe("two workers of one service", () => {
  const test = <E>(
    name: string,
    effect: () => Effect.Effect<unknown, E, Layer.Success<ReturnType<typeof Test.layer>> | Scope.Scope>
  ) => it.live(name, () => Effect.scoped(effect()).pipe(Effect.provide(Test.layer())))

  test("with different tasks run their own jobs only, and one goes on when the other stops", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const [first, second] = [counting(), counting()]
      const stopping = yield* start({ tasks: [First] }, First.toLayer(({ n }) => first.ran(n)))
      yield* start({ tasks: [Second] }, Second.toLayer(({ n }) => second.ran(n)))
      yield* Queue.addMany([...requests(First, 100), ...requests(Second, 100)])
      const completed = yield* events.many("JobCompleted", 200)
      const poolsByTask = new Map(completed.map(({ job, pool }) => [job.task, pool]))
      expect(poolsByTask.get("first")).not.toBe(poolsByTask.get("second"))
      for (const { job, pool } of completed) expect(pool).toBe(poolsByTask.get(job.task))

      yield* Fiber.interrupt(stopping)
      expect((yield* events.next("PoolStopped")).pool).toBe(poolsByTask.get("first"))
      expect(yield* poolsOf()).toEqual([poolsByTask.get("second")])
      yield* Queue.addMany([First.request({ n: 100 }), Second.request({ n: 100 })])
      expect((yield* events.next("JobCompleted")).job.task).toBe("second")
      expect((yield* Queue.stats()).tasks.get("first")).toMatchObject({ ready: 1, running: 0 })
      expect([...first.runs.values()]).toEqual(once(100))
      expect([...second.runs.values()]).toEqual(once(101))
    }))

  test("with the same task share its jobs, and one finishes what the other gives back", () =>
    Effect.gen(function*() {
      const events = yield* Test.watch
      const { ran, runs } = counting()
      const gate = yield* Latch.make(false)
      const handler = First.toLayer(({ n }) => Effect.andThen(gate.await, ran(n)))
      const options = { tasks: [First], concurrency: 2, shutdownTimeout: "1 millis" } as const
      yield* Queue.addMany(requests(First, 300))
      const stopping = yield* start(options, handler)
      yield* events.many("JobStarted", 2)
      yield* start(options, handler)
      const started = yield* events.many("JobStarted", 2)
      const pools = yield* poolsOf()
      expect(pools).toHaveLength(2)

      yield* Fiber.interrupt(stopping)
      yield* events.many("JobReleased", 2)
      yield* events.next("PoolStopped")
      expect(yield* poolsOf()).toEqual([started[0]!.pool])
      expect(yield* Queue.count({ state: "running" })).toBe(2)
      yield* gate.open
      yield* drained
      expect([...runs.values()]).toEqual(once(300))
    }))

  test("with the same task never run a job twice, nor two of one named queue at once", () =>
    Effect.gen(function*() {
      const { ran, runs } = counting()
      const busy = new Set<string>()
      let overlaps = 0
      const handler = First.toLayer(({ n }, { queueName = "" }) =>
        Effect.gen(function*() {
          if (queueName !== "" && busy.has(queueName)) overlaps++
          busy.add(queueName)
          yield* Effect.yieldNow
          yield* ran(n)
          busy.delete(queueName)
        })
      )
      yield* Queue.addMany(Array.from({ length: 1_000 }, (_, n) =>
        First.request({ n }, { queueName: n % 5 === 0 ? `q${n % 20}` : undefined })))
      const workers = yield* Effect.forEach([1, 2, 3], () =>
        start({ tasks: [First] }, handler))
      yield* drained
      yield* Fiber.interruptAll(workers)
      expect([...runs.values()]).toEqual(once(1_000))
      expect(overlaps).toBe(0)
      expect(yield* poolsOf()).toEqual([])
    }))
})

describe("two schemas of one database", () => {
  const test = <E>(
    name: string,
    effect: () => Effect.Effect<unknown, E, PgClient.PgClient | SqlClient.SqlClient | Scope.Scope>
  ) =>
    it.live(name, () =>
      Effect.gen(function*() {
        const { config } = yield* freshDatabase({ migrated: false })
        yield* Effect.provide(effect(), PgClient.layer(config))
      }).pipe(Effect.scoped))

  test("keep their jobs, keys, queues and events apart, and one goes on when the other stops", () =>
    Effect.gen(function*() {
      const build = (schema: string) => Layer.build(KongTask.layer({ schema }))
      const [one, two] = yield* Effect.all([build("one"), build("two")], { concurrency: 2 })
      const scenes = yield* Effect.forEach([one, two], (context) =>
        Effect.gen(function*() {
          const { ran, runs } = counting()
          const gate = yield* Latch.make(false)
          const events = yield* Test.watch
          const added = yield* Queue.add(First, { n: 0 }, { jobKey: "key", queueName: "serial" })
          const worker = yield* start({ tasks: [First] }, First.toLayer(({ n }) => Effect.andThen(gate.await, ran(n))))
          const { pool } = yield* events.next("JobStarted")
          return { added, context, events, gate, pool, runs, worker }
        }).pipe(Effect.provideContext(context)))
      const [a, b] = [scenes[0]!, scenes[1]!]
      // The same queue is busy in both, with the same key and id.
      expect(a.added.id).toBe(b.added.id)
      expect(yield* poolsOf("one")).toEqual([a.pool])
      expect(yield* poolsOf("two")).toEqual([b.pool])

      yield* a.gate.open
      expect((yield* a.events.next("JobCompleted")).pool).toBe(a.pool)
      expect(yield* Effect.provideContext(Queue.count(), one)).toBe(0)
      expect(yield* Effect.provideContext(Queue.count({ state: "running" }), two)).toBe(1)
      yield* Fiber.interrupt(a.worker)
      yield* a.events.next("PoolStopped")

      yield* b.gate.open
      yield* b.events.next("JobCompleted")
      yield* Effect.provideContext(Queue.add(First, { n: 1 }), one)
      yield* Effect.provideContext(Queue.add(First, { n: 2 }), two)
      yield* b.events.next("JobCompleted")
      expect([...a.runs.keys()]).toEqual([0])
      expect([...b.runs.keys()]).toEqual([0, 2])
      expect(yield* Effect.provideContext(Queue.count({ state: "ready" }), one)).toBe(1)
      expect((yield* a.events.rest).filter((event) => event.pool === b.pool)).toEqual([])
      expect((yield* b.events.rest).filter((event) => event.pool === a.pool)).toEqual([])
    }))

  test("have a worker each where one layer is provided inside the other", () =>
    Effect.gen(function*() {
      const { ran, runs } = counting()
      const inner = Effect.gen(function*() {
        yield* Queue.add(First, { n: 2 })
        return yield* Worker.runOnce({ tasks: [First] })
      }).pipe(Effect.provide(KongTask.layer({ schema: "inner" })))
      const left = yield* Effect.gen(function*() {
        yield* Queue.add(First, { n: 1 })
        expect(yield* inner).toMatchObject({ completed: 1, failed: 0 })
        return yield* Queue.count()
      }).pipe(Effect.provide([KongTask.layer({ schema: "outer" }), First.toLayer(({ n }) => ran(n))]))
      expect(left).toBe(1)
      expect([...runs.keys()]).toEqual([2])
    }))
})
