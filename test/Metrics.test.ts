/**
 * Metrics and endpoints of real workers on a real server, each test with a
 * registry of its own.
 */
import { NodeHttpServer } from "@effect/platform-node"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Fiber, Layer, Metric, Option, Schema } from "effect"
import { HttpClient, HttpRouter } from "effect/http"
import { PrometheusMetrics } from "effect/observability"
import { SqlClient } from "effect/sql"
import { Job, KongTaskMetrics, Queue, Retry, Task, Worker } from "kongtask"
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import { eventually } from "./support/events.ts"
import * as Test from "./support/kongtask.ts"

class Busy extends Schema.TaggedError<Busy>()("Busy", {}) {}

const Plain = Task.make("plain", { payload: { text: Schema.String } })
const Failing = Task.make("failing", { error: Busy })
const Ending = Task.make("ending", { payload: { how: Schema.Literals(["snooze", "cancel"]) } })
const tasks = [Plain, Failing, Ending]

const handlers = Layer.mergeAll(
  Plain.toLayer(() => Effect.void),
  Failing.toLayer(() => Effect.fail(new Busy()), { retry: Retry.fixed("1 hour") }),
  Ending.toLayer(({ how }) => how === "snooze" ? Job.snooze("1 hour") : Job.cancel("not needed"))
)

const registry = Layer.sync(Metric.MetricRegistry)(() => new Map())

const layer = Layer.provideMerge(Layer.merge(Test.layer(), handlers), registry)

/** The samples of the Prometheus text, without their timestamps. */
const samples = Effect.map(
  PrometheusMetrics.format(),
  (text) =>
    new Map(
      text.split("\n").filter((line) => line !== "" && !line.startsWith("#")).map((line) => {
        const at = line.lastIndexOf(" ")
        return [line.slice(0, at), Number(line.slice(at + 1))]
      })
    )
)

const runOnce = Worker.runOnce({ tasks })

describe("metrics of workers", () => {
  it.live("count attempts by task and outcome, and add up to what the summary says", () =>
    Effect.gen(function*() {
      yield* Queue.addMany([
        ...Array.from({ length: 20 }, () => Plain.request({ text: "a" })),
        Failing.request(undefined),
        Failing.request(undefined, { maxAttempts: 1 }),
        Ending.request({ how: "snooze" }),
        Ending.request({ how: "cancel" })
      ])
      yield* Queue.add(Plain, { text: "b".repeat(2_000) })
      const sql = yield* SqlClient.SqlClient
      yield* sql`select id::text from graphile_worker.add_job('plain', '{"text": 1}')`
      const summary = yield* runOnce
      expect(summary).toEqual({ completed: 21, failed: 1, retried: 2, snoozed: 1, cancelled: 1, lost: 0 })

      const now = yield* samples
      const processed = (task: string, status: string) =>
        now.get(`kongtask_processed_tasks_total{task_type="${task}",status="${status}"}`)
      expect(processed("plain", "completed")).toBe(21)
      expect(processed("plain", "retried")).toBe(1)
      expect(processed("failing", "retried")).toBe(1)
      expect(processed("failing", "failed")).toBe(1)
      expect(processed("ending", "snoozed")).toBe(1)
      expect(processed("ending", "cancelled")).toBe(1)
      expect(now.get("kongtask_payload_decode_errors_total{task_type=\"plain\"}")).toBe(1)
      expect(now.get("kongtask_task_retry_attempts_bucket{task_type=\"failing\",le=\"1\"}")).toBe(1)
      expect(now.get("kongtask_task_processing_duration_seconds_count{task_type=\"plain\",operation=\"processing\"}"))
        .toBe(22)
      expect(now.get("kongtask_task_payload_size_bytes_bucket{task_type=\"plain\",le=\"100\"}")).toBe(20)
      expect(now.get("kongtask_task_payload_size_bytes_count{task_type=\"plain\"}")).toBe(21)
      const claimed = [...now].filter(([name]) => name.startsWith("kongtask_claim_size_sum")).map(([, value]) => value)
      expect(claimed.reduce((a, b) => a + b, 0)).toBe(26)
      expect(now.get("kongtask_operations_total{operation=\"settle\",status=\"success\"}")).toBeGreaterThan(0)
      expect(now.get("kongtask_operation_duration_seconds_count{operation=\"claim\"}")).toBeGreaterThan(0)
      // It has stopped.
      expect(now.get("kongtask_pools{state=\"running\"}")).toBe(0)
      expect([...now.keys()].filter((name) => name.startsWith("kongtask_last_heartbeat"))).toEqual([])
    }).pipe(Effect.provide(layer)))

  it.live("tell of running pools and of their leases", () =>
    Effect.gen(function*() {
      const watch = yield* Test.watch
      const worker = yield* Effect.forkChild(
        Worker.run({ tasks, concurrency: 7, lease: "3 seconds", heartbeatInterval: "100 millis" })
      )
      const { pool } = yield* watch.next("PoolListening")
      const heartbeat = `kongtask_last_heartbeat_timestamp_seconds{pool="${pool}"}`
      const first = yield* samples
      expect(first.get("kongtask_pools{state=\"running\"}")).toBe(1)
      expect(first.get("kongtask_pools{state=\"listening\"}")).toBe(1)
      expect(first.get(`kongtask_lease_seconds{pool="${pool}"}`)).toBe(3)
      expect(first.get("kongtask_processors_workers_count{task_type=\"plain\"}")).toBe(7)
      yield* eventually(samples, { until: (now) => now.get(heartbeat)! > first.get(heartbeat)! })
      const [status] = yield* (yield* Worker.Worker).pools
      expect(status).toMatchObject({
        id: pool,
        state: "running",
        isListening: true,
        tasks: tasks.map(({ name }) => name)
      })
      yield* Fiber.interrupt(worker)
      const after = yield* samples
      expect(after.get("kongtask_processors_workers_count{task_type=\"plain\"}")).toBe(0)
      expect(after.has(heartbeat)).toBe(false)
      expect(yield* (yield* Worker.Worker).pools).toEqual([])
    }).pipe(Effect.scoped, Effect.provide(layer)))
})

describe("the depth of queues", () => {
  it.live("is measured by one of several, and says how long the oldest job has waited", () =>
    Effect.gen(function*() {
      yield* Queue.addMany([
        Plain.request({ text: "a" }),
        Plain.request({ text: "a" }, { delay: "1 hour" }),
        Failing.request(undefined)
      ])
      const sql = yield* SqlClient.SqlClient
      yield* sql`update graphile_worker._private_jobs set run_at = now() - interval '90 seconds'
        where run_at <= now() and task_id = (select id from graphile_worker._private_tasks where identifier = 'plain')`
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Layer.build(KongTaskMetrics.layer())
        const now = yield* eventually(samples, { until: (now) => now.has("kongtask_queue_depth_is_partial") })
        expect(now.get("kongtask_queue_depth{task_type=\"plain\",state=\"ready\"}")).toBe(1)
        expect(now.get("kongtask_queue_depth{task_type=\"plain\",state=\"scheduled\"}")).toBe(1)
        expect(now.get("kongtask_queue_depth{task_type=\"failing\",state=\"ready\"}")).toBe(1)
        expect(now.get("kongtask_queue_depth_is_partial")).toBe(0)
        expect(now.get("kongtask_oldest_ready_job_age_seconds{task_type=\"plain\"}")).toBeGreaterThanOrEqual(90)
        // Nobody else measures for a while.
        const worker = yield* Worker.Worker
        expect(yield* worker.measure(Duration.seconds(15))).toEqual(Option.none())
        const again = Option.getOrThrow(yield* worker.measure(Duration.zero))
        expect(again.jobs.reduce((sum, { count }) => sum + count, 0)).toBe(3)
      }))
    }).pipe(Effect.provide(layer)))

  it.live("refuses to measure more often than every 15 seconds", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(
        Effect.scoped(Layer.build(KongTaskMetrics.layer({ measureEvery: "14 seconds" })))
      )
      expect(error.reason).toMatchObject({ _tag: "InvalidConfiguration", field: "measureEvery" })
    }).pipe(Effect.provide(layer)))
})

describe("endpoints", () => {
  const server = HttpRouter.serve(KongTaskMetrics.routes(), { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provideMerge(NodeHttpServer.layerTest)
  )

  const get = Effect.fnUntraced(function*(path: string) {
    const response = yield* HttpClient.get(path)
    return { status: response.status, type: response.headers["content-type"], body: yield* response.text }
  })

  it.live("say that the worker lives, is ready, and what it does; and no more of it than that", () =>
    Effect.gen(function*() {
      expect(yield* get("/health")).toMatchObject({ status: 200 })
      expect(yield* get("/ready")).toMatchObject({ status: 503, body: "{\"status\":\"unavailable\",\"pools\":[]}" })
      const watch = yield* Test.watch
      const worker = yield* Effect.forkChild(Worker.run({ tasks }))
      const { pool } = yield* watch.next("PoolListening")
      const ready = yield* get("/ready")
      expect(ready.status).toBe(200)
      expect(JSON.parse(ready.body)).toEqual({
        status: "ok",
        pools: [{
          id: pool,
          tasks: tasks.map(({ name }) => name),
          state: "running",
          isListening: true,
          lease: 60,
          silent: expect.any(Number)
        }]
      })
      yield* Queue.add(Plain, { text: "a secret" })
      yield* watch.next("JobCompleted")
      const metrics = yield* get("/metrics")
      expect(metrics.type).toBe("text/plain; version=0.0.4; charset=utf-8")
      expect(metrics.body).toContain(
        "kongtask_processed_tasks_total{task_type=\"plain\",status=\"completed\"} 1"
      )
      expect(metrics.body).not.toContain("a secret")
      yield* Fiber.interrupt(worker)
      expect(yield* get("/health")).toMatchObject({ status: 503 })
      expect(yield* get("/ready")).toMatchObject({ status: 503 })
    }).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(server, layer))))

  it.live("are ready until the worker is asked to stop, and healthy until it has", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const Slow = Task.make("slow")
      const watch = yield* Test.watch
      const worker = yield* Effect.forkChild(Effect.provide(
        Worker.run({ tasks: [Slow] }),
        Slow.toLayer(() => Deferred.await(gate))
      ))
      yield* Queue.add(Slow, undefined)
      yield* watch.next("JobStarted")
      expect(yield* get("/ready")).toMatchObject({ status: 200 })
      const ending = yield* Effect.forkChild(Fiber.interrupt(worker))
      yield* watch.next("PoolStopping")
      expect(yield* get("/ready")).toMatchObject({ status: 503 })
      expect(yield* get("/health")).toMatchObject({ status: 200 })
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(ending)
      expect(yield* get("/health")).toMatchObject({ status: 503 })
    }).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(server, layer))))
})

describe("the package", () => {
  it("loads where there is no main module, as in a REPL, and no HTTP server with it", () => {
    const program = "const { KongTaskMetrics } = await import('kongtask'); console.log(KongTaskMetrics.names.length)"
    const args = ["--conditions=kongtask-source", "--input-type=module", "-e", program]
    const printed = execFileSync(process.execPath, args, { cwd: new URL("..", import.meta.url), encoding: "utf8" })
    expect(printed).toBe(`${KongTaskMetrics.names.length}\n`)
  })
})

describe("docs/operations.md", () => {
  it("has every metric", () => {
    const text = Fs.readFileSync(new URL("../docs/operations.md", import.meta.url), "utf8")
    const section = text.split(/^## /m).find((section) => section.startsWith("Metrics"))!
    const named = [...section.matchAll(/^\| `(kongtask_\w+)` /gm)].map((match) => match[1])
    expect(named.toSorted()).toEqual(KongTaskMetrics.names.toSorted())
  })
})
