/**
 * The worker of the command line, as a process.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, type Layer, Schema, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { Queue, Scheduler, Task, Worker } from "kongtask"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import * as Cli from "../support/cli.ts"
import * as Database from "../support/database.ts"
import { makeDirectory } from "../support/directory.ts"
import { eventually } from "../support/events.ts"
import * as Test from "../support/kongtask.ts"

const test = <E>(
  name: string,
  effect: () => Effect.Effect<unknown, E, Layer.Success<ReturnType<typeof Test.layer>> | Scope.Scope>
) => it.live(name, () => Effect.scoped(effect()).pipe(Effect.provide(Test.layer())), 60_000)

const tasks = fileURLToPath(new URL("../fixtures/tasks.ts", import.meta.url))

const Greet = Task.make("greet", { payload: { name: Schema.String } })
const Wait = Task.make("wait")
const Hang = Task.make("hang")

const once = (...more: ReadonlyArray<string>) => Cli.json(["worker", "--tasks", tasks, "--once", ...more])

const startWorker = Effect.fnUntraced(function*(...more: ReadonlyArray<string>) {
  const { url } = yield* Database.TestDatabase
  return yield* Cli.start(["worker", "--tasks", tasks, ...more], { env: { DATABASE_URL: url } })
})

const locks = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  sql<{ count: number }>`
    select ((select count(*) from graphile_worker._private_jobs where locked_by is not null)
      + (select count(*) from graphile_worker._private_kongtask_pools))::int as count`).pipe(
    Effect.map(([row]) => row!.count)
  )

describe("worker --once", () => {
  test("runs what is due, and tells how it went", () =>
    Effect.gen(function*() {
      yield* Queue.add(Greet, { name: "Ada" })
      yield* Queue.add(Greet, { name: "later" }, { delay: "1 hour" })
      const done = yield* Cli.onDatabase(["worker", "--tasks", tasks, "--once"])
      expect(done).toMatchObject({ code: 0, stdout: "Hello, Ada!\n1 job completed.\n" })
      expect(done.stderr).toMatch(/INFO +Job \d+ \(greet\) completed in/)
      expect(yield* Queue.count()).toBe(1)
    }))

  test("ends with 10 when an attempt failed, for good or not", () =>
    Effect.gen(function*() {
      yield* Queue.add(Greet, { name: "" }, { maxAttempts: 2 })
      expect(yield* once()).toMatchObject({ code: 10, answer: { retried: 1, failed: 0 } })
      const [job] = yield* Queue.list()
      yield* Queue.reschedule([job!.id], { delay: 0 })
      const { code, stderr } = yield* Cli.onDatabase(["worker", "--tasks", tasks, "--once"])
      expect(code).toBe(10)
      expect(stderr).toMatch(/ERROR +Attempt 2 of 2 failed, and the job for good/)
      expect(yield* once()).toMatchObject({ code: 0, answer: { completed: 0 } })
    }))

  test("logs JSON where that was asked for, without what payloads say", () =>
    Effect.gen(function*() {
      yield* Queue.add(Greet, { name: "" })
      const { stderr } = yield* once()
      const lines = stderr.trim().split("\n").map((line) => JSON.parse(line))
      expect(lines.map(({ level }) => level)).toContain("INFO")
      expect(stderr).not.toContain("nobody to greet")
      yield* Queue.retry([(yield* Queue.list())[0]!.id])
      expect((yield* Cli.onDatabase(["worker", "--tasks", tasks, "--once", "--debug"])).stderr).toContain(
        "nobody to greet"
      )
    }))

  test("goes by this machine's clock with --use-node-time", () =>
    Effect.gen(function*() {
      const ahead = Path.join(yield* makeDirectory("programs"), "ahead.mjs")
      Fs.writeFileSync(ahead, "const { now } = Date\nDate.now = () => now() + 3_600_000\n")
      const onceAhead = (...more: ReadonlyArray<string>) =>
        Cli.json(["worker", "--tasks", tasks, "--once", ...more], { env: { NODE_OPTIONS: `--import=${ahead}` } })
      yield* Queue.addMany([
        Greet.request({ name: "Ada" }, { delay: "30 minutes" }),
        Greet.request({ name: "Eve" }, { delay: "2 hours" })
      ])
      expect(yield* onceAhead()).toMatchObject({ code: 0, answer: { completed: 0 } })
      expect(yield* onceAhead("--use-node-time")).toMatchObject({ code: 0, answer: { completed: 1 } })
      expect(yield* Queue.list()).toMatchObject([{ payload: { name: "Eve" } }])
    }))

  it.live("makes the schema first, unless it is told not to", () =>
    Effect.gen(function*() {
      const refused = yield* Cli.onDatabase(["worker", "--tasks", tasks, "--once", "--no-migrate"])
      expect(refused).toMatchObject({ code: 6, stderr: expect.stringContaining("kongtask migrate") })
      expect((yield* Cli.onDatabase(["worker", "--tasks", tasks, "--once"])).code).toBe(0)
    }).pipe(Effect.scoped, Effect.provide(Database.layer({ migrated: false }))), 60_000)

  it.live("is refused without tasks, and beside --watch", () =>
    Effect.gen(function*() {
      expect(yield* Cli.run(["worker", "--once"])).toMatchObject({
        code: 3,
        stderr: expect.stringContaining("--tasks")
      })
      expect((yield* Cli.run(["worker", "--once", "--watch", "--tasks", tasks])).code).toBe(2)
      expect((yield* Cli.run(["worker", "--jobs", "0", "--tasks", tasks])).code).toBe(2)
    }), 60_000)
})

describe("signals", () => {
  test("SIGTERM lets running jobs end, and the worker in order", () =>
    Effect.gen(function*() {
      yield* Queue.add(Wait, undefined)
      const child = yield* startWorker()
      yield* child.line("waiting")
      yield* child.kill("SIGTERM")
      yield* eventually(child.stderr, {
        what: "the answer to SIGTERM",
        until: (text) => text.includes("Received SIGTERM")
      })
      yield* child.kill("SIGUSR2")
      expect(yield* child.exit).toEqual({ code: 0, signal: null })
      expect(yield* child.stdout).toContain("waited")
      expect(yield* Queue.count()).toBe(0)
      expect(yield* locks).toBe(0)
    }))

  test("a second one interrupts them, and their jobs go back uncharged", () =>
    Effect.gen(function*() {
      const { id } = yield* Queue.add(Hang, undefined)
      const child = yield* startWorker()
      yield* child.line("hanging")
      yield* child.kill("SIGINT")
      yield* eventually(child.stderr, {
        what: "the answer to SIGINT",
        until: (text) => text.includes("Received SIGINT")
      })
      yield* child.kill("SIGINT")
      expect(yield* child.exit).toEqual({ code: 0, signal: null })
      expect(yield* Queue.get(id)).toMatchObject({ value: { state: "ready", attempts: 0 } })
      expect(yield* locks).toBe(0)
    }))

  test("with --no-handle-signals it ends at once, as any process", () =>
    Effect.gen(function*() {
      yield* Queue.add(Hang, undefined)
      const child = yield* startWorker("--no-handle-signals")
      yield* child.line("hanging")
      yield* child.kill("SIGTERM")
      expect(yield* child.exit).toEqual({ code: null, signal: "SIGTERM" })
      expect((yield* Cli.json(["workers"])).answer).toMatchObject([{ isAlive: true, jobs: 1 }])
    }))
})

describe("add --wait", () => {
  test("prints the result of the job, whoever runs it, or why there is none", () =>
    Effect.gen(function*() {
      const Sum = Task.make("sum", { payload: Schema.Array(Schema.Finite), success: Schema.Finite })
      yield* Worker.run({ tasks: [Greet, Sum], handleSignals: false }).pipe(
        Effect.provide([
          Greet.toLayer(({ name }) => name === "" ? Effect.die(new Error("nobody")) : Effect.void),
          Sum.toLayer((numbers) => Effect.succeed(numbers.reduce((sum, each) => sum + each, 0)))
        ]),
        Effect.forkScoped
      )
      expect(yield* Cli.onDatabase(["add", "sum", "[1,2,3]", "--wait"])).toMatchObject({ code: 0, stdout: "6\n" })
      expect((yield* Cli.onDatabase(["add", "greet", "{\"name\":\"Ada\"}", "--wait"])).stdout).toBe("null\n")
      const failed = yield* Cli.onDatabase(["add", "greet", "{\"name\":\"\"}", "--wait", "--max-attempts", "1"])
      expect(failed).toMatchObject({ code: 10, stdout: "", stderr: expect.stringContaining("has failed for good") })
      expect((yield* Cli.onDatabase(["add", "sum", "-", "--wait"], { input: "[1]" })).code).toBe(2)
    }))
})

describe("worker --watch", () => {
  test("runs new jobs with what the files have become, and goes on with the old where they are wrong", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.TestDatabase
      const folder = Path.join(yield* makeDirectory("programs"), "tasks")
      Fs.mkdirSync(folder)
      const write = (text: string) => Fs.writeFileSync(Path.join(folder, "greet.mjs"), text)
      const say = (word: string) => write(`export default ({ name }) => console.log("${word}, " + name)\n`)
      say("Hello")
      const child = yield* Cli.start(["worker", "--tasks", folder, "--watch"], { env: { DATABASE_URL: url } })
      yield* Queue.add(Greet, { name: "Ada" })
      yield* child.line("Hello, Ada")
      say("Goodbye")
      yield* eventually(child.stderr, {
        what: "the new version",
        until: (text) => text.split("Loaded 1 task").length === 3
      })
      yield* Queue.add(Greet, { name: "Bob" })
      yield* child.line("Goodbye, Bob")
      write("throw new Error('not yet')\n")
      yield* eventually(child.stderr, { what: "the mistake", until: (text) => text.includes("not yet") })
      yield* Queue.add(Greet, { name: "Eve" })
      yield* child.line("Goodbye, Eve")
      yield* child.kill("SIGTERM")
      expect(yield* child.exit).toEqual({ code: 0, signal: null })
    }))
})

describe("schedules", () => {
  test("are run beside the jobs: those of a crontab, and those in the database", () =>
    Effect.gen(function*() {
      const crontab = Path.join(yield* makeDirectory("programs"), "crontab")
      Fs.writeFileSync(crontab, "* * * * * greet ?id=often&fill=1h {\"name\":\"cron\"}\n")
      const sql = yield* SqlClient.SqlClient
      // Known for two minutes, so that it has been missed.
      yield* sql`insert into graphile_worker._private_known_crontabs (identifier, known_since)
        values ('often', now() - interval '2 minutes')`
      yield* Scheduler.put(Scheduler.cron(Greet, "0 0 1 1 *", { id: "stored", payload: { name: "stored" } }))
      const child = yield* startWorker("--crontab", crontab, "--jobs", "2")
      yield* child.line("Hello, cron!")
      yield* Scheduler.runNow("stored")
      yield* child.line("Hello, stored!")
      yield* child.kill("SIGTERM")
      expect(yield* child.exit).toEqual({ code: 0, signal: null })
    }))

  test("a crontab that cannot be read stops it at the start", () =>
    Effect.gen(function*() {
      const crontab = Path.join(yield* makeDirectory("programs"), "crontab")
      Fs.writeFileSync(crontab, "61 * * * * greet\n")
      const { code, stderr } = yield* Cli.onDatabase(["worker", "--tasks", tasks, "--crontab", crontab])
      expect(code).toBe(8)
      expect(stderr).toContain("line 1, column 1")
    }))
})
