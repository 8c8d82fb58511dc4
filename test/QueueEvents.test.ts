import { PgClient } from "@effect/sql-pg"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, type Layer, Queue as Buffer, Schema, type Scope, Stream, Tracer } from "effect"
import { Bundle, Job, JobMetadata, Queue, type QueueEvent, Task, Worker } from "kongtask"
import { eventually } from "./support/events.ts"
import * as Test from "./support/kongtask.ts"

type Services = Layer.Success<ReturnType<typeof Test.layer>> | Scope.Scope

const test = <E>(name: string, effect: () => Effect.Effect<unknown, E, Services>) =>
  it.live(name, () => Effect.scoped(effect()).pipe(Effect.provide(Test.layer())), 60_000)

const Work = Task.make("work", { payload: Schema.Int })
const Other = Task.make("other", { payload: Schema.Int })

const listeners = Effect.flatMap(
  PgClient.PgClient,
  (sql) => sql<{ count: number }>`select count(*)::int as count from graphile_worker._private_kongtask_listeners`
).pipe(
  Effect.map(([row]) => row!.count)
)

/** Listens from when this returns on, and answers what is told. */
const listen = Effect.fnUntraced(function*(options?: Queue.EventsOptions) {
  const before = yield* listeners
  const told = yield* Buffer.unbounded<QueueEvent.QueueEvent>()
  yield* Queue.events(options).pipe(
    Stream.runForEach((event) => Buffer.offer(told, event)),
    Effect.forkScoped({ startImmediately: true })
  )
  yield* eventually(listeners, { what: "a listener", until: (count) => count > before })
  return told
})

const brief = (event: QueueEvent.QueueEvent) =>
  event._tag === "JobStopped" ? `${event.job} ${event.state}` : `bundle ${event.bundle.id}`

const take = (told: Buffer.Dequeue<QueueEvent.QueueEvent>, count: number) =>
  Effect.map(Effect.forEach(Array.from({ length: count }), () => Buffer.take(told)), (events) => events.map(brief))

describe("events", () => {
  test("tell of every job that stops, however it does, to those who ask for them", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const all = yield* listen()
      const ofOther = yield* listen({ task: Other })
      const ofOrigin = yield* listen({ origin: "cli" })
      const completed = yield* Queue.add(Work, 1)
      const removed = yield* Queue.add(Work, 2)
      const cancelled = yield* Queue.add(Other, 3)
      const failed = yield* Queue.add(Work, 4, { origin: "cli" })
      const byHand = yield* Queue.add(Work, 5)
      const { bundle, jobs } = yield* Queue.addBundle([Work.request(6), Other.request(7)], { origin: "cli" })
      const ofBundle = yield* listen({ bundle: bundle.id })

      yield* Queue.complete([completed.id])
      yield* Queue.remove(removed.id)
      yield* Queue.cancel(cancelled.id)
      yield* Queue.fail([failed.id])
      // It has stopped already.
      yield* Queue.remove(failed.id)
      yield* sql`delete from graphile_worker._private_jobs where id = ${byHand.id}::int8`
      yield* Queue.complete([jobs[0]!.id])
      yield* Queue.complete([jobs[1]!.id])

      expect(yield* take(all, 8)).toEqual([
        `${completed.id} completed`,
        `${removed.id} cancelled`,
        `${cancelled.id} cancelled`,
        `${failed.id} failed`,
        `${byHand.id} completed`,
        `${jobs[0]!.id} completed`,
        `${jobs[1]!.id} completed`,
        `bundle ${bundle.id}`
      ])
      expect(yield* take(ofOther, 2)).toEqual([`${cancelled.id} cancelled`, `${jobs[1]!.id} completed`])
      expect(yield* take(ofOrigin, 4)).toEqual([
        `${failed.id} failed`,
        `${jobs[0]!.id} completed`,
        `${jobs[1]!.id} completed`,
        `bundle ${bundle.id}`
      ])
      expect(yield* take(ofBundle, 3)).toEqual([
        `${jobs[0]!.id} completed`,
        `${jobs[1]!.id} completed`,
        `bundle ${bundle.id}`
      ])
      for (const told of [all, ofOther, ofOrigin, ofBundle]) expect(yield* Buffer.size(told)).toBe(0)
    }))

  test("tell of thousands at once, of what workers run, and of what they cancel", () =>
    Effect.gen(function*() {
      const told = yield* listen({ task: Work })
      yield* Worker.run({ tasks: [Work], handleSignals: false }).pipe(
        Effect.provide(Work.toLayer((n) => n === 0 ? Job.cancel() : Effect.void)),
        Effect.forkScoped
      )
      const jobs = yield* Queue.addMany(Array.from({ length: 3_000 }, (_, n) => Work.request(n)))
      const events = yield* Effect.forEach(jobs, () => Buffer.take(told))
      expect(new Set(events.map(brief))).toEqual(
        new Set(jobs.map(({ id }, n) => `${id} ${n === 0 ? "cancelled" : "completed"}`))
      )
    }))

  test("are kept under the name of a subscription until each has been dealt with", () =>
    Effect.gen(function*() {
      const add = Effect.flatMap(Queue.add(Work, 1), ({ id }) => Effect.as(Queue.complete([id]), id))
      const subscribed = Queue.events({ subscription: "billing", task: Work })
      // Known from its first use on.
      const first = yield* Effect.forkChild(Stream.runHead(subscribed), { startImmediately: true })
      yield* eventually(Queue.subscriptions, { what: "a subscription", until: (all) => all.length === 1 })
      const ids = [yield* add, yield* add, yield* add]
      yield* Fiber.join(first)
      expect(yield* Queue.subscriptions).toEqual([{ name: "billing", waiting: 3 }])

      // Two are dealt with, the third one is not: it is there again.
      const seen: Array<string> = []
      const failing = subscribed.pipe(
        Stream.runForEach((event) => {
          if (event._tag === "JobStopped") seen.push(event.job)
          return seen.length === 3 ? Effect.fail("no") : Effect.void
        }),
        Effect.flip
      )
      expect(yield* failing).toBe("no")
      expect(seen).toEqual(ids)
      expect(yield* Queue.subscriptions).toEqual([{ name: "billing", waiting: 1 }])
      const again = yield* subscribed.pipe(Stream.take(1), Stream.runCollect)
      expect(again.map(brief)).toEqual([`${ids[2]} completed`])

      expect(yield* Queue.unsubscribe("billing")).toBe(true)
      expect(yield* Queue.unsubscribe("billing")).toBe(false)
      yield* add
      expect(yield* Queue.subscriptions).toEqual([])
    }))

  test("of a subscription are shared by those who use its name", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const seen: Array<string> = []
      const consume = Queue.events({ subscription: "shared" }).pipe(
        Stream.runForEach((event) => Effect.andThen(Effect.sync(() => void seen.push(brief(event))), Effect.yieldNow)),
        Effect.forkScoped({ startImmediately: true })
      )
      yield* consume
      yield* consume
      yield* eventually(Queue.subscriptions, { what: "a subscription", until: (all) => all.length === 1 })
      const jobs = yield* Queue.addMany(Array.from({ length: 500 }, (_, n) => Work.request(n)))
      yield* Effect.forEach(jobs, ({ id }) => Queue.complete([id]), { concurrency: 5, discard: true })
      yield* eventually(sql`select from graphile_worker._private_kongtask_events`, {
        what: "the last event",
        until: (rows) => rows.length === 0
      })
      expect(seen.toSorted()).toEqual(jobs.map(({ id }) => `${id} completed`).toSorted())
    }))

  test("cost nothing while nobody listens, and are forgotten with the listener", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      yield* Effect.scoped(listen())
      yield* eventually(listeners, { what: "no listener", until: (count) => count === 0 })
      const job = yield* Queue.add(Work, 1)
      yield* Queue.complete([job.id])
      for (const table of ["job_details", "events", "bundle_steps", "bundle_outcomes"]) {
        expect(yield* sql.unsafe(`select from graphile_worker._private_kongtask_${table}`)).toHaveLength(0)
      }
    }))

  test("of a bad name or filter are refused", () =>
    Effect.gen(function*() {
      const refused = (options: Queue.EventsOptions) => Effect.flip(Stream.runDrain(Queue.events(options)))
      expect((yield* refused({ subscription: "" })).message).toMatch(/subscription must have 1 to 128 characters/)
      expect((yield* refused({ bundle: "x" as never })).message).toMatch(/bundle must be the id of a bundle/)
      expect((yield* refused({ origin: "\u0000" })).message).toMatch(/origin must be a string without NUL/)
    }))
})

describe("what a job takes along", () => {
  const workOnce = <R>(handler: (n: number, job: Job.Running) => Effect.Effect<void, never, R>) =>
    Effect.provide(Worker.runOnce({ tasks: [Work] }), Work.toLayer(handler))

  test("is there again in its handler, and in jobs that this one adds", () =>
    Effect.gen(function*() {
      const seen: Array<readonly [number, JobMetadata.Values, string | undefined]> = []
      yield* Queue.add(Work, 1, { origin: "web" }).pipe(JobMetadata.annotate({ tenant: "acme", user: { id: 7 } }))
      yield* Queue.addMany([Work.request(10), Work.request(11, { jobKey: "k" })]).pipe(
        JobMetadata.annotate({ tenant: "many" })
      )
      yield* Queue.add(Work, 20)
      const work = workOnce(Effect.fn(function*(n: number, job: Job.Running) {
        seen.push([n, yield* JobMetadata.JobMetadata, job.origin])
        if (n === 1) yield* Effect.orDie(Queue.add(Work, 2).pipe(JobMetadata.annotate({ step: 2 })))
      }))
      yield* work.pipe(JobMetadata.annotate({ of: "the worker" }))
      yield* work
      expect(seen.toSorted(([a], [b]) => a - b)).toEqual([
        [1, { tenant: "acme", user: { id: 7 } }, "web"],
        [2, { tenant: "acme", user: { id: 7 }, step: 2 }, undefined],
        [10, { tenant: "many" }, undefined],
        [11, { tenant: "many" }, undefined],
        [20, {}, undefined]
      ])
    }))

  test("is refused when it is no JSON, or too large", () =>
    Effect.gen(function*() {
      const adding = (values: unknown) => Effect.flip(JobMetadata.annotate(Queue.add(Work, 1), values as never))
      expect(yield* adding({ at: new Date() })).toMatchObject({ _tag: "InvalidJob", field: "metadata" })
      expect(yield* adding({ n: Number.NaN })).toMatchObject({ field: "metadata" })
      expect(yield* adding({ text: "x".repeat(16 * 1024) })).toMatchObject({ field: "metadata", limit: 16 * 1024 })
      expect(yield* Queue.count()).toBe(0)
    }))

  test("is its adder's span, where a tracer samples it, and nothing otherwise", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const spans: Array<Tracer.NativeSpan> = []
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          spans.push(span)
          return span
        }
      })
      const details = sql`select from graphile_worker._private_kongtask_job_details`
      yield* Queue.add(Work, 1).pipe(Effect.withSpan("untraced"))
      expect(yield* details).toHaveLength(0)
      yield* Queue.add(Work, 2).pipe(
        Effect.withSpan("unsampled", { sampled: false }),
        Effect.provideService(Tracer.Tracer, tracer)
      )
      expect(yield* details).toHaveLength(0)
      yield* Queue.add(Work, 3).pipe(Effect.withSpan("request"), Effect.provideService(Tracer.Tracer, tracer))
      expect(yield* details).toHaveLength(1)
      yield* Effect.provideService(workOnce(() => Effect.void), Tracer.Tracer, tracer)
      const adding = spans.findLast(({ name }) => name === "Queue.add")!
      const handled = spans.filter(({ name }) => name === "kongtask work")
      expect(handled).toHaveLength(3)
      expect(handled.map(({ links }) => links.map(({ span }) => [span.traceId, span.spanId]))).toEqual([
        [],
        [],
        [[adding.traceId, adding.spanId]]
      ])
      expect(spans.find(({ name }) => name === "request")!.traceId).toBe(adding.traceId)
    }))
})

describe("jobs of an origin, and of a task", () => {
  test("are found and taken back together", () =>
    Effect.gen(function*() {
      yield* Queue.addMany([
        ...Array.from({ length: 2_500 }, (_, n) => Work.request(n, { origin: "import" })),
        Other.request(1, { origin: "import" }),
        Other.request(2),
        Other.request(3, { origin: "web" })
      ])
      const ids = Effect.map(Queue.list({ origin: "import", task: Other }), (jobs) => jobs.map(({ origin }) => origin))
      expect(yield* ids).toEqual(["import"])
      expect(yield* Queue.count({ origin: "import" })).toBe(2_501)
      expect(yield* Queue.removeMany({ origin: "import" })).toBe(2_501)
      expect(yield* Queue.count()).toBe(2)
      expect(yield* Queue.removeMany({ task: Other })).toBe(2)
      expect(yield* Queue.removeMany({})).toBe(0)
    }))

  test("that are taken back count as cancelled in their bundle", () =>
    Effect.gen(function*() {
      const { bundle } = yield* Queue.addBundle([Work.request(1), Work.request(2)], { origin: "x" })
      expect(yield* Queue.removeMany({ bundle: bundle.id })).toBe(2)
      expect(yield* Queue.awaitBundle(bundle.id)).toMatchObject({ cancelled: 2, state: "done" })
      expect(bundle).toBeInstanceOf(Bundle.Bundle)
    }))

  test("that run go on, without their key and their further attempts", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const job = yield* Queue.add(Work, 1, { origin: "x", jobKey: "k" })
      yield* sql`
        update graphile_worker._private_jobs set attempts = 1, locked_at = now(), locked_by = 'busy'
        where id = ${job.id}::int8`
      expect(yield* Queue.removeMany({ origin: "x" })).toBe(1)
      const [left] = yield* Queue.list()
      expect(left).toMatchObject({ id: job.id, state: "running", key: undefined, attempts: 25 })
    }))
})
