/**
 * Every bad input: what is wrong, where, and what to do, on one screen, with an exit code of its own kind.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, type Layer, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { spawnSync } from "node:child_process"
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Cli from "../support/cli.ts"
import * as Database from "../support/database.ts"
import { makeDirectory } from "../support/directory.ts"

const testEmpty = <E>(
  name: string,
  effect: () => Effect.Effect<unknown, E, Layer.Success<ReturnType<typeof Database.layer>> | Scope.Scope>
) => it.live(name, () => Effect.scoped(effect()).pipe(Effect.provide(Database.layer({ migrated: false }))), 60_000)

/** One screen, and nothing that only a programmer reads. */
const expectReadable = ({ stderr, stdout }: Cli.Ended) => {
  expect(stdout).toBe("")
  expect(stderr).toMatch(/^Error: /)
  expect(stderr.split("\n").length).toBeLessThan(24)
  expect(stderr).not.toMatch(/^\s+at .*:\d+:\d+/m)
}

const fails = Effect.fnUntraced(function*(
  args: ReadonlyArray<string>,
  code: number,
  text: string,
  options?: Cli.Options
) {
  const ended = yield* Cli.run(args, options)
  expect({ args, ...ended }).toMatchObject({ args, code, signal: null })
  expectReadable(ended)
  expect(ended.stderr).toContain(text)
  return ended
})

describe("usage", () => {
  it.live("an unknown command or flag suggests the one that was meant", () =>
    Effect.gen(function*() {
      expect((yield* fails(["job", "list"], 2, "Unknown subcommand \"job\"")).stderr).toContain("jobs")
      expect((yield* fails(["jobs", "list", "--sate", "ready"], 2, "--sate")).stderr).toContain("--state")
      yield* fails(["jobs", "list", "--state", "gone"], 2, "Invalid value for flag --state: \"gone\"")
      yield* fails(["jobs", "list", "--limit", "many"], 2, "--limit")
      yield* fails(["stats", "--interval", "soon"], 2, "a duration such as 30s")
      yield* fails(["jobs", "list", "--added-after", "yesterday"], 2, "a time such as 2026-01-31T08:00:00Z")
      yield* fails(["add"], 2, "task")
    }), 60_000)

  it.live("is told as JSON where that was asked for", () =>
    Effect.gen(function*() {
      const { code, stderr } = yield* Cli.run(["jobs", "list", "--limit", "0", "--json"])
      expect(code).toBe(2)
      expect(JSON.parse(stderr)).toMatchObject({ error: { kind: "usage", exitCode: 2 } })
    }), 60_000)

  it.live("help and version are answers, not errors", () =>
    Effect.gen(function*() {
      expect(yield* Cli.run(["--version"])).toMatchObject({ code: 0, stdout: expect.stringMatching(/^kongtask v\d/) })
      for (const args of [["--help"], [], ["jobs"], ["jobs", "list", "--help"]]) {
        const { code, stderr, stdout } = yield* Cli.run(args)
        expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
        expect(stdout).toContain("USAGE")
      }
      expect((yield* Cli.run(["--completions", "bash"])).stdout).toContain("kongtask")
    }), 60_000)
})

describe("the database", () => {
  it.live("none is configured", () =>
    Effect.gen(function*() {
      const cwd = yield* makeDirectory("programs")
      yield* fails(["jobs", "list"], 3, "DATABASE_URL", { cwd })
    }).pipe(Effect.scoped), 60_000)

  it.live(
    "the server cannot be reached",
    () =>
      fails(["jobs", "list"], 4, "cannot be reached", { env: { DATABASE_URL: "postgres://me:secret@127.0.0.1:1/app" } })
        .pipe(
          Effect.tap(({ stderr }) => Effect.sync(() => expect(stderr).not.toContain("secret")))
        ),
    60_000
  )

  testEmpty("does not exist, refuses the login, or has no schema yet", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.TestDatabase
      const other = new URL(url)
      other.pathname = "/no_such_database"
      yield* fails(["jobs", "list"], 4, "no_such_database", { env: { DATABASE_URL: other.href } })
      const stranger = new URL(url)
      stranger.password = "wrong"
      yield* fails(["jobs", "list"], 5, "refused the login", { env: { DATABASE_URL: stranger.href } })
      for (const args of [["jobs", "list"], ["add", "mail"], ["stats"], ["schedules", "list"], ["schema", "dump"]]) {
        const { stderr } = yield* fails(args, 6, "does not exist yet", { env: { DATABASE_URL: url } })
        expect(stderr).toContain("kongtask migrate")
      }
    }))

  testEmpty("gives no rights", () =>
    Effect.gen(function*() {
      const { name, url } = yield* Database.TestDatabase
      const sql = yield* SqlClient.SqlClient
      const role = `${name}_guest`
      yield* sql.unsafe(`create role "${role}" login password 'guest'`)
      yield* Effect.addFinalizer(() => Effect.orDie(sql.unsafe(`drop role "${role}"`)))
      const guest = new URL(url)
      guest.username = role
      guest.password = "guest"
      const env = { DATABASE_URL: guest.href }
      yield* fails(["migrate"], 5, "privilege", { env })
      expect((yield* Cli.onDatabase(["migrate"])).code).toBe(0)
      yield* fails(["jobs", "list"], 5, "privilege", { env })
      const doctor = yield* Cli.run(["doctor", "--json"], { env })
      expect(doctor.code).toBe(11)
      expect(JSON.parse(doctor.stdout).findings).toContainEqual(
        expect.objectContaining({ check: "privileges", status: "problem" })
      )
    }))
})

describe("tasks from disk", () => {
  const folder = Effect.fnUntraced(function*(files: Readonly<Record<string, string>>) {
    const directory = join(yield* makeDirectory("programs"), "tasks")
    mkdirSync(directory)
    for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text)
    return directory
  })

  it.live("that cannot be loaded", () =>
    Effect.gen(function*() {
      const cases: ReadonlyArray<readonly [Readonly<Record<string, string>>, string]> = [
        [{ "a.mjs": "throw new Error('no such luck')" }, "no such luck"],
        [{ "a.mjs": "export const nothing = 1" }, "a.mjs"],
        [{ "a.mjs": "export default (", "b.mjs": "export default () => {}" }, "a.mjs"],
        [{ "a.mjs": "export default () => {}", "a.js": "export default () => {}" }, "a.js"],
        [{ "a.txt": "hello" }, "a.txt"],
        [{}, "tasks"]
      ]
      for (const [files, text] of cases) {
        const tasks = yield* folder(files)
        const env = { KONGTASK_EMBEDDED: join(yield* makeDirectory("data"), "db") }
        yield* fails(["worker", "--tasks", tasks, "--once"], 9, text, { env })
      }
    }).pipe(Effect.scoped), 120_000)

  it.live("that are not those of a job", () =>
    Effect.gen(function*() {
      const tasks = yield* folder({ "greet.mjs": "export default () => {}" })
      const env = { KONGTASK_EMBEDDED: join(yield* makeDirectory("data"), "db") }
      const { stderr } = yield* fails(["add", "gret", "--tasks", tasks], 7, "There is no task \"gret\"", { env })
      expect(stderr).toContain("Did you mean \"greet\"?")
      expect((yield* Cli.run(["add", "greet", "--tasks", tasks], { env })).code).toBe(0)
    }).pipe(Effect.scoped), 60_000)
})

describe("a configuration file", () => {
  it.live("with a setting that there is not, a wrong type, or of another type itself", () =>
    Effect.gen(function*() {
      const cwd = yield* makeDirectory("programs")
      const write = (name: string, text: string) => writeFileSync(join(cwd, name), text)
      write("kongtask.config.yaml", "schemas: x\njobs: many\n")
      const { stderr } = yield* fails(["config", "show"], 3, "line 1, column 1", { cwd })
      expect(stderr).toContain("line 2, column 7: jobs must be a whole number from 1 to 10000")
      expect(stderr).toContain("kongtask.config.yaml")
      write("settings.ini", "a=b")
      yield* fails(["config", "show", "--config", "settings.ini"], 3, "settings.ini", { cwd })
      yield* fails(["config", "show", "--config", "nowhere.yaml"], 3, "nowhere.yaml", { cwd })
      yield* fails(["jobs", "list"], 3, "KONGTASK_JOBS", {
        env: { KONGTASK_JOBS: "0", DATABASE_URL: "postgres://a@b/c" }
      })
    }).pipe(Effect.scoped), 60_000)

  it.live("is shown with where each value is from, and passwords are not", () =>
    Effect.gen(function*() {
      const cwd = yield* makeDirectory("programs")
      expect((yield* Cli.run(["config", "init", "--format", "toml"], { cwd })).code).toBe(0)
      yield* fails(["config", "init", "--format", "json"], 3, "another configuration file", { cwd })
      yield* fails(["config", "init", "--format", "toml"], 3, "--force", { cwd })
      expect((yield* Cli.run(["config", "init", "--format", "toml", "--force"], { cwd })).code).toBe(0)
      const env = { DATABASE_URL: "postgres://me:secret@h/app", GRAPHILE_WORKER_SCHEMA: "old" }
      const { code, stdout } = yield* Cli.run(["config", "show", "--json", "--embedded=db"], { cwd, env })
      expect(code).toBe(0)
      expect(stdout).not.toContain("secret")
      const { settings } = JSON.parse(stdout) as {
        settings: ReadonlyArray<{ name: string; value: unknown; source: string }>
      }
      const of = (name: string) => settings.find((setting) => setting.name === name)
      expect(of("schema")).toEqual({ name: "schema", value: "old", source: "GRAPHILE_WORKER_SCHEMA" })
      expect(of("databaseUrl")?.source).toBe("DATABASE_URL")
      expect(of("embedded")?.source).toBe("--embedded")
      expect(of("jobs")?.source).toMatch(/kongtask\.config\.toml:\d+$/)
      expect(of("watch")?.source).toBe("default")
    }).pipe(Effect.scoped), 60_000)
})

describe("--debug", () => {
  it.live("shows the whole cause", () =>
    Effect.gen(function*() {
      const { code, stderr } = yield* Cli.run(["jobs", "list", "--debug"], {
        env: { DATABASE_URL: "postgres://me:secret@127.0.0.1:1/app" }
      })
      expect(code).toBe(4)
      expect(stderr).toMatch(/^\s+at /m)
      expect(stderr).not.toContain("secret")
    }), 60_000)
})

describe("a pipe that is closed early", () => {
  it("ends the command without an error", () => {
    const command = `"${process.execPath}" --conditions=kongtask-source "${Cli.script}" crontab next - --count 10000`
    const { status, stderr, stdout } = spawnSync("sh", ["-c", `{ ${command}; echo "rc $?" >&2; } | head -n 1`], {
      input: "* * * * * a\n",
      encoding: "utf8"
    })
    expect({ status, stderr, stdout }).toEqual({ status: 0, stderr: "rc 0\n", stdout: expect.stringMatching(/^TIME/) })
  }, 60_000)
})
