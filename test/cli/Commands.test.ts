import { describe, expect, it } from "@effect/vitest"
import { Effect, type Layer, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { Queue, Scheduler, Task } from "kongtask"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Cli from "../support/cli.ts"
import * as Database from "../support/database.ts"
import { makeDirectory } from "../support/directory.ts"
import * as Test from "../support/kongtask.ts"

const test = <E>(
  name: string,
  effect: () => Effect.Effect<unknown, E, Layer.Success<ReturnType<typeof Test.layer>> | Scope.Scope>
) => it.live(name, () => Effect.scoped(effect()).pipe(Effect.provide(Test.layer())), 60_000)

/** On a database that has nothing of ours. */
const testEmpty = <E>(
  name: string,
  effect: () => Effect.Effect<unknown, E, Layer.Success<ReturnType<typeof Database.layer>> | Scope.Scope>
) =>
  it.live(
    name,
    () => Effect.scoped(effect()).pipe(Effect.provide(Database.layer({ migrated: false }))),
    60_000
  )

const Mail = Task.make("mail")

describe("migrate", () => {
  testEmpty("says what it would do, does it, and says that it is done", () =>
    Effect.gen(function*() {
      const before = yield* Cli.json(["migrate", "--status"])
      expect(before).toMatchObject({ code: 6, answer: { schema: "graphile_worker", applied: [], damaged: [] } })
      const dry = yield* Cli.json(["migrate", "--dry-run"])
      expect(dry.code).toBe(0)
      expect(dry.answer.pending).toEqual(before.answer.pending.map(({ name }: any) => name))
      const done = yield* Cli.json(["migrate"])
      expect(done).toMatchObject({ code: 0, answer: { applied: dry.answer.pending, adoptedFrom: null } })
      const after = yield* Cli.onDatabase(["migrate", "--status"])
      expect(after).toMatchObject({ code: 0, stderr: "Up to date.\n" })
      expect(after.stdout).toMatch(/^0001_contract +applied 20/m)
      expect((yield* Cli.onDatabase(["migrate"])).stdout).toBe("The schema \"graphile_worker\" is up to date.\n")
    }))

  testEmpty("makes schemas of other names", () =>
    Effect.gen(function*() {
      expect((yield* Cli.onDatabase(["migrate", "--schema", "jobs 2"])).code).toBe(0)
      expect((yield* Cli.onDatabase(["add", "mail", "-s", "jobs 2"])).code).toBe(0)
      expect((yield* Cli.onDatabase(["add", "mail"])).code).toBe(6)
      const sql = yield* SqlClient.SqlClient
      expect(yield* sql`select count(*)::int as count from "jobs 2".jobs`).toEqual([{ count: 1 }])
    }))

  test("repairs what something else has changed", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`drop index graphile_worker.jobs_claim_index`
      expect(yield* Cli.json(["migrate", "--status"])).toMatchObject({
        code: 6,
        answer: { damaged: ["jobs_claim_index"] }
      })
      expect(yield* Cli.onDatabase(["jobs", "list"])).toMatchObject({
        code: 6,
        stderr: expect.stringContaining("kongtask migrate")
      })
      expect((yield* Cli.json(["migrate"])).answer.repaired).toEqual(["jobs_claim_index"])
      expect((yield* Cli.onDatabase(["jobs", "list"])).code).toBe(0)
    }))
})

describe("schema dump", () => {
  test("prints the SQL that makes the schema", () =>
    Effect.gen(function*() {
      const { code, stdout } = yield* Cli.onDatabase(["schema", "dump"])
      expect(code).toBe(0)
      expect(stdout).toContain("_private_jobs")
      const directory = yield* makeDirectory("programs")
      const file = Path.join(directory, "schema.sql")
      expect((yield* Cli.onDatabase(["schema", "dump", "-o", file])).code).toBe(0)
      expect(Fs.readFileSync(file, "utf8")).toBe(stdout)
    }))
})

describe("queues, stats and workers", () => {
  test("count jobs", () =>
    Effect.gen(function*() {
      yield* Queue.add(Mail, undefined, { queueName: "b" })
      yield* Queue.add(Mail, undefined, { queueName: "a", delay: "1 hour" })
      yield* Queue.add(Mail, undefined)
      expect((yield* Cli.json(["queues"])).answer).toMatchObject([
        { queue: "a", scheduled: 1, ready: 0 },
        { queue: "b", scheduled: 0, ready: 1 }
      ])
      expect((yield* Cli.json(["stats"])).answer).toMatchObject({
        all: { ready: 2, scheduled: 1 },
        tasks: { mail: { ready: 2 } },
        queues: { a: { scheduled: 1 } },
        workers: { alive: 0, dead: 0 }
      })
      expect((yield* Cli.onDatabase(["stats"])).stdout).toMatch(/^mail +1 +2 +3$/m)
    }))

  test("watch prints again and again until it is stopped", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.TestDatabase
      const child = yield* Cli.start(["stats", "--watch", "--json", "--interval", "100ms"], {
        env: { DATABASE_URL: url }
      })
      expect(JSON.parse(yield* child.line("\"ready\":0")).all.ready).toBe(0)
      yield* Queue.add(Mail, undefined)
      yield* child.line("\"ready\":1")
      yield* child.kill("SIGINT")
      expect(yield* child.exit).toEqual({ code: 130, signal: null })
    }))

  test("shows pools, and takes from dead ones what they hold", () =>
    Effect.gen(function*() {
      expect((yield* Cli.json(["workers"])).answer).toEqual([])
      const sql = yield* SqlClient.SqlClient
      const job = yield* Queue.add(Mail, undefined)
      yield* sql`insert into graphile_worker._private_kongtask_pools (id, heartbeat_at, lease)
        values ('kongtask-dead', now() - interval '1 hour', '60 seconds')`
      yield* sql`update graphile_worker._private_jobs set locked_by = 'kongtask-dead', locked_at = now(), attempts = 1`
      expect((yield* Cli.json(["workers"])).answer).toMatchObject([{
        id: "kongtask-dead",
        isAlive: false,
        jobs: 1,
        lease: 60_000
      }])
      expect((yield* Cli.onDatabase(["workers"])).stdout).toMatch(/^kongtask-dead +dead/m)
      const unlocked = yield* Cli.json(["workers", "unlock", "kongtask-dead", "nobody"])
      expect(unlocked).toMatchObject({ code: 7, answer: { released: [job.id] } })
      expect((yield* Queue.list())[0]!.lockedBy).toBeUndefined()
    }))

  test("cleanup deletes what is not used", () =>
    Effect.gen(function*() {
      const job = yield* Queue.add(Mail, undefined, { queueName: "q" })
      yield* Queue.fail([job.id])
      expect((yield* Cli.onDatabase(["cleanup"])).code).toBe(2)
      expect((yield* Cli.json(["cleanup", "--failed-jobs", "0s", "--queues", "--tasks"])).answer).toEqual({
        failedJobs: 1,
        queues: 1,
        tasks: 1
      })
    }))
})

describe("schedules", () => {
  test("are listed, paused, resumed, run and removed", () =>
    Effect.gen(function*() {
      expect((yield* Cli.json(["schedules", "list"])).answer).toEqual([])
      yield* Scheduler.put(Scheduler.cron(Mail, "0 4 * * *", { id: "nightly", timeZone: "Europe/Berlin" }))
      expect((yield* Cli.json(["schedules", "list"])).answer).toMatchObject([
        {
          id: "nightly",
          task: "mail",
          expression: "0 4 * * *",
          timeZone: "Europe/Berlin",
          isPaused: false,
          problem: null
        }
      ])
      expect((yield* Cli.json(["schedules", "pause", "nightly"])).answer).toEqual({ id: "nightly", paused: true })
      expect((yield* Cli.onDatabase(["schedules", "list"])).stdout).toMatch(/^nightly .* paused/m)
      const { answer } = yield* Cli.json(["schedules", "run", "nightly"])
      expect(yield* Queue.get(answer.job)).toMatchObject({ value: { task: "mail" } })
      expect((yield* Cli.onDatabase(["schedules", "resume", "nightly"])).stdout).toBe(
        "The schedule \"nightly\" is resumed.\n"
      )
      expect((yield* Cli.onDatabase(["schedules", "remove", "nightly"])).code).toBe(0)
      for (const verb of ["pause", "resume", "run", "remove"]) {
        expect(yield* Cli.onDatabase(["schedules", verb, "nightly"])).toMatchObject({
          code: 7,
          stderr: expect.stringContaining("There is no schedule \"nightly\"")
        })
      }
    }))
})

describe("crontab", () => {
  const files = Effect.gen(function*() {
    const directory = yield* makeDirectory("programs")
    const write = (name: string, text: string) => {
      Fs.writeFileSync(Path.join(directory, name), text)
      return Path.join(directory, name)
    }
    return {
      good: write("good", "# mails\n0 4 * * * mail ?id=nightly&max=3&fill=1d {\"to\":\"all\"}\n*/15 * * * mon ping\n"),
      bad: write("bad", "* * * * * fine\n61 * * * * late\n")
    }
  })

  it.live("check says where it is wrong, without a database", () =>
    Effect.gen(function*() {
      const { bad, good } = yield* files
      expect(yield* Cli.run(["crontab", "check", good])).toMatchObject({
        code: 0,
        stdout: `${good}: 2 schedules, nothing wrong.\n`
      })
      const wrong = yield* Cli.run(["crontab", "check", bad, "--json"])
      expect(wrong.code).toBe(8)
      expect(JSON.parse(wrong.stdout)).toMatchObject({ isValid: false, issues: [{ line: 2, column: 1 }] })
      const said = yield* Cli.run(["crontab", "check", bad])
      expect(said.stderr).toContain("line 2, column 1: expected a minute from 0 to 59")
      expect(said.stderr).toContain(bad)
    }).pipe(Effect.scoped), 60_000)

  it.live("next merges what is due, from a time on", () =>
    Effect.gen(function*() {
      const { good } = yield* files
      const { stdout } = yield* Cli.run([
        "crontab",
        "next",
        good,
        "--from",
        "2026-02-02T03:30Z",
        "--count",
        "3",
        "--json"
      ])
      expect(JSON.parse(stdout)).toEqual([
        { time: "2026-02-02T03:45:00Z", id: "ping", task: "ping" },
        { time: "2026-02-02T04:00:00Z", id: "nightly", task: "mail" },
        { time: "2026-02-02T04:00:00Z", id: "ping", task: "ping" }
      ])
      expect((yield* Cli.run(["crontab", "next", good, "--id", "none"])).code).toBe(7)
      const input = Fs.readFileSync(good, "utf8")
      expect((yield* Cli.run(["crontab", "next", "-", "-n", "1"], { input })).stdout.split("\n")).toHaveLength(3)
    }).pipe(Effect.scoped), 60_000)

  it.live("explain says it in words", () =>
    Effect.gen(function*() {
      const { good } = yield* files
      const { code, stdout } = yield* Cli.run(["crontab", "explain", good])
      expect(code).toBe(0)
      expect(stdout).toContain("At 04:00")
      expect(stdout).toContain("missed runs of the last 1d are made up for")
      expect(stdout).toContain("payload {\"to\":\"all\"}")
    }).pipe(Effect.scoped), 60_000)
})
