import { describe, expect, it } from "@effect/vitest"
import { Effect, type Layer, Option, Queue as Buffer, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { Queue, Worker } from "kongtask"
import { Act } from "./fixtures/act.ts"
import { TestDatabase } from "./support/database.ts"
import { eventually } from "./support/events.ts"
import * as Test from "./support/kongtask.ts"
import { spawnScript } from "./support/process.ts"

const test = <E>(
  name: string,
  effect: () => Effect.Effect<unknown, E, Layer.Success<ReturnType<typeof Test.layer>> | Scope.Scope>
) => it.live(name, () => Effect.scoped(effect()).pipe(Effect.provide(Test.layer())), 60_000)

const spawnWorker = Effect.fnUntraced(function*(
  mode: "runFork" | "runMain" = "runFork",
  env: Readonly<Record<string, string>> = {}
) {
  const { url } = yield* TestDatabase
  return yield* spawnScript(new URL("fixtures/worker.ts", import.meta.url), {
    env: { DATABASE_URL: url, MODE: mode, ...env }
  })
})

/** A worker of this process, quick to find dead pools. */
const runHere = Worker.run({
  tasks: [Act],
  lease: "1 second",
  heartbeatInterval: "200 millis",
  handleSignals: false
}).pipe(Effect.provide(Act.toLayer(() => Effect.void)), Effect.forkScoped({ startImmediately: true }))

const locks = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  sql<{ count: number }>`
    select ((select count(*) from graphile_worker._private_jobs where locked_by is not null)
      + (select count(*) from graphile_worker._private_job_queues where locked_by is not null)
      + (select count(*) from graphile_worker._private_kongtask_pools))::int as count`).pipe(
    Effect.map(([row]) => row!.count)
  )

describe("a worker that is killed", () => {
  test("has its jobs run by another pool as soon as its lease is over", () =>
    Effect.gen(function*() {
      const child = yield* spawnWorker()
      const job = yield* Queue.add(Act, { act: "hang" }, { queueName: "serial" })
      yield* child.line(`running ${job.id} attempt 1`)
      yield* child.killGroup

      const events = yield* Test.watch
      yield* runHere
      const { recovery } = yield* events.next("PoolsReleased")
      expect(recovery).toMatchObject({ released: 1, failed: 0 })
      expect(recovery.pools).toHaveLength(1)
      const completed = yield* events.next("JobCompleted")
      expect(completed.job).toMatchObject({ id: job.id, attempt: 2 })
    }))

  test("is charged for the jobs that kill it, until they have failed", () =>
    Effect.gen(function*() {
      const job = yield* Queue.add(Act, { act: "kill" }, { maxAttempts: 2 })
      for (const attempt of [1, 2]) {
        const child = yield* spawnWorker()
        yield* child.line(`running ${job.id} attempt ${attempt}`)
        expect((yield* child.exit).signal).toBe("SIGKILL")
      }
      const events = yield* Test.watch
      yield* runHere
      const { recovery } = yield* events.next("PoolsReleased")
      expect(recovery).toMatchObject({ released: 0, failed: 1 })
      const failed = Option.getOrThrow(yield* Queue.get(job.id))
      expect(failed).toMatchObject({ state: "failed", attempts: 2 })
      expect(failed.lastError).toMatch(/^The pool kongtask-[0-9a-f]{18} died while it ran attempt 2, the last one\.$/)
    }))

  test("loses nothing in the middle of many jobs", () =>
    Effect.gen(function*() {
      yield* Queue.addMany(Array.from({ length: 3_000 }, () => Act.request({ act: "return" })))
      const child = yield* spawnWorker()
      for (let lines = 0; lines < 500; lines++) yield* Buffer.take(child.lines)
      yield* child.killGroup
      const left = yield* Queue.count()
      expect(left).toBeGreaterThan(0)
      expect(left).toBeLessThan(3_000)
      yield* runHere
      yield* eventually(Queue.count(), { what: "the end of all jobs", until: (count) => count === 0 })
      expect(yield* Queue.count({ state: "failed" })).toBe(0)
    }))

  test("that was only stopped finds itself dead when it goes on, and changes nothing", () =>
    Effect.gen(function*() {
      const child = yield* spawnWorker()
      const job = yield* Queue.add(Act, { act: "wait" })
      yield* child.line(`running ${job.id} attempt 1`)
      yield* child.kill("SIGSTOP")

      const events = yield* Test.watch
      yield* runHere
      yield* events.next("PoolsReleased")
      yield* events.next("JobCompleted", (event) => event.job.id === job.id)
      yield* child.kill("SIGCONT")
      yield* child.line("event PoolLost")
      yield* child.line(`interrupted ${job.id}`)
      yield* child.line("event PoolStarted")
      expect(yield* Queue.get(job.id)).toEqual(Option.none())
    }))
})

describe("a worker that gets SIGTERM", () => {
  for (const mode of ["runFork", "runMain"] as const) {
    test(`under ${mode} finishes its running job, gives the others back, and ends`, () =>
      Effect.gen(function*() {
        const child = yield* spawnWorker(mode)
        const job = yield* Queue.add(Act, { act: "wait" })
        yield* child.line(`running ${job.id}`)
        yield* child.kill("SIGTERM")
        yield* child.line("event PoolStopping")
        yield* child.kill("SIGUSR2")
        yield* child.line(`ran ${job.id}`)
        yield* child.line("closed")
        const exit = yield* child.exit
        expect(exit).toEqual({ code: mode === "runMain" ? 130 : 0, signal: null })
        expect(yield* Queue.count()).toBe(0)
        expect(yield* locks).toBe(0)
      }))
  }

  test("interrupts a handler that does not end in time, and gives its job back uncharged", () =>
    Effect.gen(function*() {
      const child = yield* spawnWorker()
      const job = yield* Queue.add(Act, { act: "hang" })
      yield* child.line(`running ${job.id}`)
      yield* child.kill("SIGINT")
      yield* child.line(`interrupted ${job.id}`)
      yield* child.exit
      expect(Option.getOrThrow(yield* Queue.get(job.id))).toMatchObject({ state: "ready", attempts: 0 })
      expect(yield* locks).toBe(0)
    }))

  for (const mode of ["runFork", "runMain"] as const) {
    test(`interrupts its handlers at the second signal, and gives their jobs back, under ${mode}`, () =>
      Effect.gen(function*() {
        const child = yield* spawnWorker(mode, { SHUTDOWN_TIMEOUT: "1 hour" })
        const job = yield* Queue.add(Act, { act: "wait" })
        yield* child.line(`running ${job.id}`)
        yield* child.kill("SIGINT")
        yield* child.line("event PoolStopping")
        yield* child.kill("SIGTERM")
        yield* child.line("event PoolInterrupting")
        yield* child.line(`interrupted ${job.id}`)
        yield* child.line("closed")
        expect((yield* child.exit).signal).toBe(null)
        expect(Option.getOrThrow(yield* Queue.get(job.id))).toMatchObject({ state: "ready", attempts: 0 })
        expect(yield* locks).toBe(0)
      }))
  }

  test("ends at once at the third signal", () =>
    Effect.gen(function*() {
      const child = yield* spawnWorker("runFork", { SHUTDOWN_TIMEOUT: "1 hour" })
      const job = yield* Queue.add(Act, { act: "stay" })
      yield* child.line(`running ${job.id}`)
      yield* child.kill("SIGINT")
      yield* child.line("event PoolStopping")
      yield* child.kill("SIGINT")
      yield* child.line("event PoolInterrupting")
      yield* child.kill("SIGINT")
      expect((yield* child.exit).signal).toBe("SIGINT")
    }))
})

describe("a running job that is cancelled", () => {
  test("is interrupted in the other process, and its finalizers run before it is gone", () =>
    Effect.gen(function*() {
      const child = yield* spawnWorker()
      const job = yield* Queue.add(Act, { act: "hang" }, { queueName: "serial" })
      const next = yield* Queue.add(Act, { act: "return" }, { queueName: "serial" })
      yield* child.line(`running ${job.id}`)
      const asked = Option.getOrThrow(yield* Queue.cancel(job.id))
      expect(asked).toMatchObject({ id: job.id, state: "running" })
      yield* child.line(`interrupted ${job.id}`)
      yield* child.line("event JobCancelled")
      yield* child.line(`ran ${next.id}`)
      yield* child.line("event JobCompleted")
      expect(yield* Queue.count()).toBe(0)
    }))
})
