import { describe, expect, it } from "@effect/vitest"
import { Effect, type Layer, Schema, type Scope } from "effect"
import { type Job, Queue, Task, Worker } from "kongtask"
import * as Cli from "../support/cli.ts"
import * as Test from "../support/kongtask.ts"

const test = <E>(
  name: string,
  effect: () => Effect.Effect<unknown, E, Layer.Success<ReturnType<typeof Test.layer>> | Scope.Scope>
) => it.live(name, () => Effect.scoped(effect()).pipe(Effect.provide(Test.layer())), 60_000)

const Mail = Task.make("mail", { payload: Schema.Json })
const Report = Task.make("report", { payload: Schema.Json })

const addMails = (count: number, options?: Job.Options) =>
  Queue.addMany(Array.from({ length: count }, (_, i) => Mail.request({ i }, options)))

describe("add", () => {
  test("adds a job with its options and prints it", () =>
    Effect.gen(function*() {
      const { answer, code } = yield* Cli.json([
        "add",
        "mail",
        "{\"to\":\"ada\"}",
        "--queue",
        "serial",
        "--priority=-5",
        "--max-attempts",
        "3",
        "--key",
        "welcome",
        "--flag",
        "slow",
        "--flag",
        "eu",
        "--delay",
        "1h"
      ])
      expect(code).toBe(0)
      expect(answer).toMatchObject({
        task: "mail",
        payload: { to: "ada" },
        queueName: "serial",
        priority: -5,
        maxAttempts: 3,
        key: "welcome",
        flags: ["eu", "slow"],
        state: "scheduled"
      })
      expect(yield* Queue.get(answer.id)).toMatchObject({ value: { key: "welcome" } })
    }))

  test("adds a job without a payload, as add_job does", () =>
    Effect.gen(function*() {
      const { code, stdout } = yield* Cli.onDatabase(["add", "mail"])
      expect(code).toBe(0)
      expect(stdout).toMatch(/^Added job \d+ \(mail, ready\)\.\n$/)
      expect((yield* Queue.list())[0]!.payload).toEqual({})
    }))

  test("adds a job for each line, in more than one statement", () =>
    Effect.gen(function*() {
      const input = Array.from({ length: 2500 }, (_, i) => `{"i":${i}}`).join("\n")
      const { answer, code } = yield* Cli.json(["add", "mail", "-", "--priority", "7"], { input: `\ufeff${input}\n\n` })
      expect({ code, answer }).toEqual({ code: 0, answer: { added: 2500 } })
      expect(yield* Queue.count({ task: Mail, state: "ready" })).toBe(2500)
      const jobs = yield* Queue.list({ limit: 3 })
      expect(jobs.map(({ payload, priority }) => [payload, priority])).toEqual([[{ i: 0 }, 7], [{ i: 1 }, 7], [
        { i: 2 },
        7
      ]])
    }))

  test("keeps what stands before a line that is no JSON, and counts it", () =>
    Effect.gen(function*() {
      const lines = Array.from({ length: 1100 }, (_, i) => i === 1050 ? "{oops" : `{"i":${i}}`)
      const { code, stderr } = yield* Cli.onDatabase(["add", "mail", "-"], { input: lines.join("\n") })
      expect(code).toBe(8)
      expect(stderr).toContain("standard input, line 1051")
      expect(stderr).toContain("1,050 jobs were added before it")
      expect(yield* Queue.count()).toBe(1050)
    }))

  test("keeps what stands before a payload that is too large", () =>
    Effect.gen(function*() {
      const lines = ["{}", "{}", JSON.stringify("x".repeat(1024 * 1024)), "{}"]
      const { code, stderr } = yield* Cli.onDatabase(["add", "mail", "-", "--json"], { input: lines.join("\n") })
      expect(code).toBe(8)
      expect(JSON.parse(stderr).error).toMatchObject({ kind: "input", where: "standard input, line 3" })
      expect(JSON.parse(stderr).error.done).toContain("2 jobs were added")
      expect(yield* Queue.count()).toBe(2)
    }))

  test("adds nothing when the payload is no JSON, or an option is out of range", () =>
    Effect.gen(function*() {
      const bad = yield* Cli.onDatabase(["add", "mail", "{to: ada}"])
      expect(bad).toMatchObject({ code: 8, stdout: "" })
      expect(bad.stderr).toContain("Quote it for the shell")
      const long = yield* Cli.onDatabase(["add", "mail", "--key", "k".repeat(513)])
      expect(long).toMatchObject({ code: 8 })
      expect(long.stderr).toContain("jobKey must have at most 512 characters, not 513")
      expect((yield* Cli.onDatabase(["add", "mail", "--max-attempts", "0"])).code).toBe(2)
      expect((yield* Cli.onDatabase(["add", "mail", "{}", "--file", "x.json"])).code).toBe(2)
      expect((yield* Cli.onDatabase(["add", "mail", "--file", "no-such.json"])).code).toBe(7)
      expect(yield* Queue.count()).toBe(0)
    }))
})

describe("jobs list", () => {
  test("prints an array, also an empty one, and filters", () =>
    Effect.gen(function*() {
      expect((yield* Cli.json(["jobs", "list"])).answer).toEqual([])
      const [first] = yield* addMails(3)
      yield* Queue.add(Report, {}, { queueName: "serial" })
      yield* Queue.fail([first!.id], "no such mailbox")
      const { answer } = yield* Cli.json(["jobs", "list"])
      expect(answer.map(({ task }: any) => task)).toEqual(["mail", "mail", "mail", "report"])
      const failed = yield* Cli.json(["jobs", "list", "--state", "failed", "--task", "mail"])
      expect(failed.answer).toMatchObject([{ id: first!.id, state: "failed", lastError: "no such mailbox" }])
      expect((yield* Cli.json(["jobs", "list", "--queue", "serial"])).answer).toHaveLength(1)
      expect((yield* Cli.json(["jobs", "list", "--limit", "2", "--after", first!.id])).answer).toHaveLength(2)
    }))

  test("prints more jobs than a page as one array", () =>
    Effect.gen(function*() {
      yield* addMails(2300)
      const { answer } = yield* Cli.json(["jobs", "list", "--all"])
      expect(answer).toHaveLength(2300)
      expect((yield* Cli.json(["jobs", "list"])).answer).toHaveLength(100)
    }))

  test("has a table of 80 columns, which no error breaks", () =>
    Effect.gen(function*() {
      const [job] = yield* addMails(1, { queueName: "a-queue-with-a-rather-long-name" })
      yield* Queue.fail([job!.id], `first line\nsecond \u001b[31mline\u001b[0m ${"and so on ".repeat(20)}`)
      const { stdout } = yield* Cli.onDatabase(["jobs", "list"], { env: { COLUMNS: "80" } })
      const lines = stdout.trimEnd().split("\n")
      expect(lines).toHaveLength(2)
      for (const line of lines) expect(line.length).toBeLessThanOrEqual(80)
      expect(stdout).not.toContain("\u001b")
      expect(lines[1]).toContain("failed")
    }))
})

describe("jobs show", () => {
  test("shows a job, its payload and its error", () =>
    Effect.gen(function*() {
      const [job] = yield* addMails(1, { jobKey: "k" })
      yield* Queue.fail([job!.id], "no such mailbox")
      const { code, stdout } = yield* Cli.onDatabase(["jobs", "show", job!.id])
      expect(code).toBe(0)
      expect(stdout).toMatch(/^State +failed$/m)
      expect(stdout).toContain("no such mailbox")
      expect(stdout).toContain("\"i\": 0")
      expect((yield* Cli.json(["jobs", "show", "--key", "k"])).answer).toMatchObject({
        id: job!.id,
        failedAttempts: []
      })
    }))

  test("says when it is not there", () =>
    Effect.gen(function*() {
      expect(yield* Cli.onDatabase(["jobs", "show", "999"])).toMatchObject({
        code: 7,
        stderr: expect.stringContaining("There is no job 999.")
      })
      expect((yield* Cli.onDatabase(["jobs", "show", "abc"])).code).toBe(2)
    }))
})

describe("changing jobs", () => {
  test("needs to be told which", () =>
    Effect.gen(function*() {
      yield* addMails(1)
      for (const verb of ["retry", "cancel", "remove", "complete", "fail"]) {
        expect(yield* Cli.onDatabase(["jobs", verb])).toMatchObject({
          code: 2,
          stderr: expect.stringContaining("Which jobs?")
        })
      }
      expect((yield* Cli.onDatabase(["jobs", "remove", "1", "--all"])).code).toBe(2)
      expect((yield* Cli.onDatabase(["jobs", "reschedule", "1"])).code).toBe(2)
      expect(yield* Queue.count()).toBe(1)
    }))

  test("retries failed ones alone, unless told otherwise", () =>
    Effect.gen(function*() {
      const [a, b] = yield* addMails(3)
      yield* Queue.fail([a!.id, b!.id])
      const dry = yield* Cli.json(["jobs", "retry", "--task", "mail", "--dry-run"])
      expect(dry.answer).toEqual({ dryRun: true, matched: 2 })
      expect(yield* Queue.count({ state: "failed" })).toBe(2)
      const { answer, code } = yield* Cli.json(["jobs", "retry", "--task", "mail"])
      expect({ answer, code }).toEqual({ code: 0, answer: { matched: 2, changed: 2, unchanged: [] } })
      expect(yield* Queue.count({ state: "ready" })).toBe(3)
    }))

  test("changes those that are there, and names those that are not", () =>
    Effect.gen(function*() {
      const [a, b] = yield* addMails(2)
      const { answer, code, stderr } = yield* Cli.json(["jobs", "fail", a!.id, "99999", b!.id, "--message", "by hand"])
      expect(code).toBe(7)
      expect(answer).toEqual({ matched: 3, changed: 2, unchanged: ["99999"] })
      expect(JSON.parse(stderr).error.message).toContain("Job 99999 is not there")
      expect((yield* Queue.list()).map(({ lastError }) => lastError)).toEqual(["by hand", "by hand"])
    }))

  test("removes, cancels and completes in bulk, more than a statement takes", () =>
    Effect.gen(function*() {
      yield* addMails(1200)
      expect((yield* Cli.json(["jobs", "cancel", "--all"])).answer).toMatchObject({ changed: 1200 })
      yield* addMails(20)
      expect((yield* Cli.json(["jobs", "remove", "--task", "mail"])).answer).toMatchObject({ changed: 20 })
      yield* addMails(1200)
      expect((yield* Cli.json(["jobs", "complete", "--state", "ready"])).answer).toMatchObject({ changed: 1200 })
      expect(yield* Queue.count()).toBe(0)
    }))

  test("reschedules, and 0 is 0", () =>
    Effect.gen(function*() {
      const [job] = yield* addMails(1, { priority: 3 })
      const args = ["jobs", "reschedule", job!.id, "--run-at", "2090-01-31T08:00:00Z", "--priority", "0"]
      expect(yield* Cli.onDatabase(args)).toMatchObject({ code: 0, stdout: "1 job rescheduled.\n" })
      const changed = (yield* Queue.list())[0]!
      expect([changed.priority, changed.state, changed.runAt.epochMilliseconds]).toEqual([
        0,
        "scheduled",
        Date.parse("2090-01-31T08:00:00Z")
      ])
    }))
})

describe("jobs that have stopped", () => {
  test("are shown with their results while they are kept", () =>
    Effect.gen(function*() {
      expect((yield* Cli.json(["jobs", "history"])).answer).toEqual([])
      const Sum = Task.make("sum", { payload: Schema.Array(Schema.Finite), success: Schema.Finite })
      const job = yield* Queue.add(Sum, [1, 2, 3], { retain: "1 hour", jobKey: "once" })
      yield* Worker.runOnce({ tasks: [Sum] }).pipe(
        Effect.provide(Sum.toLayer((numbers) => Effect.succeed(numbers.reduce((sum, each) => sum + each, 0))))
      )
      expect((yield* Cli.json(["jobs", "history", "--state", "completed", "--task", "sum"])).answer).toMatchObject([
        { id: job.id, state: "completed", result: 6, failedAttempts: [] }
      ])
      expect((yield* Cli.json(["jobs", "history", "--state", "failed"])).answer).toEqual([])
      expect((yield* Cli.json(["jobs", "show", "--key", "once"])).answer).toMatchObject({ id: job.id, result: 6 })
      expect((yield* Cli.onDatabase(["jobs", "show", job.id])).stdout).toMatch(/^State +completed$/m)
    }))

  test("redrive makes ready those that failed with a text", () =>
    Effect.gen(function*() {
      const [a, b] = yield* addMails(3)
      yield* Queue.fail([a!.id], "RateLimited: later")
      yield* Queue.fail([b!.id], "NoSuchAddress")
      expect((yield* Cli.onDatabase(["jobs", "redrive"])).code).toBe(2)
      const args = ["jobs", "redrive", "--error", "RateLimited"]
      expect((yield* Cli.json([...args, "--dry-run"])).answer).toEqual({ dryRun: true, matched: 1 })
      expect((yield* Cli.json(args)).answer).toEqual({ changed: 1 })
      expect(yield* Queue.count({ state: "failed" })).toBe(1)
    }))
})
