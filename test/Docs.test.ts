/**
 * What the documents show and name: programs compile and run, statements run,
 * errors and files are those that there are.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Option, Queue as Buffer } from "effect"
import { SqlClient } from "effect/sql"
import { type Job, KongTaskError, Queue, Task, WorkerEvent } from "kongtask"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { TestDatabase } from "./support/database.ts"
import {
  anchorsOf,
  type Block,
  blocks,
  compile,
  fixtureOf,
  inlineProblemsOf,
  isProgram,
  makeProject,
  pages,
  placeOf,
  problemsOf,
  root,
  statementsOf,
  write
} from "./support/documents.ts"
import { eventually } from "./support/events.ts"
import * as Test from "./support/kongtask.ts"
import { spawnScript } from "./support/process.ts"

const programs = blocks.filter(({ language }) => language === "ts")

/** What the pattern's group catches, at every match. */
const caught = (text: string, pattern: RegExp): ReadonlyArray<string> =>
  [...text.matchAll(pattern)].map((match) => match[1]!)

const readme = blocks.filter(({ page }) => page === "README.md")
const first = readme.find(({ language }) => language === "ts")!.code
const variant = readme.find(({ code }) => code.includes("KongTask.layerEmbedded"))!.code

/** The environment variables that a program reads a connection from. */
const connectionsOf = (code: string): ReadonlyArray<string> => [
  "DATABASE_URL",
  ...caught(code, /Config\.\w+\("(\w*URL)"\)/g)
]

describe("programs in the documents", () => {
  it.live("compile, each for itself", () =>
    Effect.gen(function*() {
      expect(programs.length).toBeGreaterThan(5)
      expect(yield* compile(programs)).toBe("")
    }).pipe(Effect.scoped), 120_000)

  /** Runs it until the mail is sent, then asks it to stop. */
  const sendsMail = Effect.fnUntraced(function*(code: string, env: Record<string, string | undefined>) {
    const directory = yield* makeProject
    const child = yield* spawnScript(write(directory, "main.ts", code), { cwd: directory, env })
    yield* child.line("Sent \"Welcome\" to ada@example.org", { within: "60 seconds" })
    yield* child.line("attempt: 2")
    yield* child.kill("SIGTERM")
    expect(yield* child.exit).toEqual({ code: 130, signal: null })
    expect(yield* child.stderr).toBe("")
  })

  it.live("the first one of the README sends its mail and stops when asked to", () =>
    Effect.gen(function*() {
      const { url } = yield* TestDatabase
      yield* sendsMail(first, { DATABASE_URL: url })
      expect(yield* Queue.count()).toBe(0)
    }).pipe(Effect.scoped, Effect.provide(Test.layer())), 120_000)

  it.live("so it does without a server, changed as the README says", () =>
    Effect.gen(function*() {
      const changed = variant + first.replace(/^const QueueLive = .*?^\)\n/ms, "")
      expect(changed.match(/^const QueueLive/gm)).toHaveLength(1)
      yield* sendsMail(changed, { DATABASE_URL: undefined })
    }).pipe(Effect.scoped), 120_000)

  /** Runs it until it ends, its worker or scheduler has registered, or it has said something; then asks it to stop. */
  const runs = Effect.fnUntraced(function*({ code }: Block) {
    const sql = yield* SqlClient.SqlClient
    const { url } = yield* TestDatabase
    const directory = yield* makeProject
    const child = yield* spawnScript(write(directory, "main.ts", code), {
      cwd: directory,
      env: Object.fromEntries(connectionsOf(code).map((name) => [name, url]))
    })
    const isUp = eventually(
      sql`select id from graphile_worker._private_kongtask_pools
        union all select id from graphile_worker._private_kongtask_schedulers`,
      { what: "its worker or scheduler", until: (rows) => rows.length > 0, within: "60 seconds" }
    )
    const speaks = Effect.ignore(Buffer.take(child.lines))
    const isEmbedded = code.includes("layerEmbedded")
    const ended = yield* Effect.raceFirst(
      Effect.map(child.exit, Option.some),
      Effect.as(isEmbedded ? speaks : isUp, Option.none())
    )
    if (Option.isNone(ended)) yield* child.kill("SIGTERM")
    const exit = yield* child.exit
    expect({ ...exit, stderr: yield* child.stderr }).toEqual({
      code: Option.isNone(ended) ? expect.toBeOneOf([0, 130]) : 0,
      signal: null,
      stderr: ""
    })
  })

  for (const block of blocks.filter((block) => isProgram(block) && block.code !== first)) {
    it.live(`runs: ${placeOf(block)}`, () => runs(block).pipe(Effect.scoped, Effect.provide(Test.layer())), 120_000)
  }
})

describe("SQL in the documents", () => {
  for (const block of blocks.filter(({ language }) => language === "sql")) {
    it.live(`runs: ${placeOf(block)}`, () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* Queue.add(Task.make("example"), undefined)
        for (const statement of statementsOf(fixtureOf(block.page))) yield* sql.unsafe(statement).unprepared
        for (const statement of statementsOf(block.code)) {
          const outcome = yield* Effect.result(sql.unsafe(statement).unprepared)
          expect(outcome, `${placeOf(block)}: ${statement}`).toHaveProperty("_tag", "Success")
        }
      }).pipe(Effect.provide(Test.layer())))
  }
})

describe("every other block", () => {
  it("is in a language that is checked, its commands are there, and its syntax is right", () => {
    expect(blocks.flatMap(problemsOf)).toEqual([])
  })

  it("and the commands in the text are there too", () => {
    expect(pages.flatMap(inlineProblemsOf)).toEqual([])
    const page = { name: "docs/x.md", text: "Say `npm run x`,\n`kongtask nothing` or `kongtask migrate status`." }
    expect(inlineProblemsOf(page)).toEqual([
      "docs/x.md:2: kongtask nothing: `kongtask` has no command or argument \"nothing\"",
      "docs/x.md:2: kongtask migrate status: `kongtask migrate` has no command or argument \"status\""
    ])
  })

  const wrong = (language: string, code: string): Block => ({ page: "docs/x.md", line: 7, language, code })

  it("is told with its place when it is not", () => {
    const problems = [
      wrong("sh", "$ npm run nothing\n"),
      wrong("sh", "npm ci && kubectl get pods\nnpm install left-pad\n"),
      wrong("sh", "node examples/nothing.ts\nworkctl start\n"),
      wrong("json", "{]"),
      wrong("yaml", "a: b: c"),
      wrong("crontab", "* * * * 9 task"),
      wrong("", "")
    ].flatMap(problemsOf)
    expect(problems.map((problem) => problem.split("\n")[0])).toEqual([
      "docs/x.md:7: npm run nothing: there is no script \"nothing\" in package.json",
      "docs/x.md:7: npm install left-pad: \"left-pad\" is neither this package nor one that it knows",
      "docs/x.md:7: node examples/nothing.ts: there is no file examples/nothing.ts",
      "docs/x.md:7: workctl start: \"workctl\" is no program of this package or that we know",
      expect.stringMatching(/^docs\/x\.md:7: SyntaxError: /),
      expect.stringMatching(/^docs\/x\.md:7: Nested mappings/),
      expect.stringMatching(/^docs\/x\.md:7: .*InvalidCrontab/),
      expect.stringMatching(/^docs\/x\.md:7: the language "" is not checked/)
    ])
  })

  it.live("or, of a program, with the line at which the compiler stumbles", () =>
    Effect.gen(function*() {
      const said = yield* compile([wrong("ts", "export const a = 1\nexport const b: string = a\n")])
      expect(said).toContain("docs/x.md:9:14: TS2322")
    }).pipe(Effect.scoped), 60_000)
})

describe("docs/errors.md", () => {
  const errors = pages.find(({ name }) => name === "docs/errors.md")!.text
  const rowsOf = (heading: string) => {
    const section = errors.split(/^## /m).find((section) => section.startsWith(heading))!
    return caught(section, /^\| `(\w+)` /gm).toSorted()
  }

  it("has every reason of a KongTaskError", () => {
    const reasons = KongTaskError.KongTaskErrorReason.members.map((reason) => reason.fields._tag.schema.literal)
    expect(rowsOf("KongTaskError")).toEqual(reasons.toSorted())
  })

  it("has every option of a job, its task and its payload", () => {
    const options: Record<keyof Job.Options, true> = {
      queueName: true,
      runAt: true,
      delay: true,
      maxAttempts: true,
      priority: true,
      jobKey: true,
      jobKeyMode: true,
      flags: true,
      retain: true,
      origin: true
    }
    expect(rowsOf("InvalidJob")).toEqual(["metadata", "payload", "task", ...Object.keys(options)].toSorted())
  })
})

describe("docs/operations.md", () => {
  it("has every event of a worker", () => {
    const { text } = pages.find(({ name }) => name === "docs/operations.md")!
    const section = text.split(/^## /m).find((section) => section.startsWith("Watching a worker"))!
    expect(caught(section, /^\| `(\w+)` /gm).toSorted()).toEqual(Object.keys(WorkerEvent).toSorted())
  })
})

describe("examples/batch", () => {
  it.live("retries the entry that failed, and no other", () =>
    Effect.gen(function*() {
      const child = yield* spawnScript(Path.join(root, "examples/batch/main.ts"))
      yield* child.line("Attempt 1: ada, bob, eve", { within: "60 seconds" })
      yield* child.line("[1] Bounced")
      yield* child.line("Attempt 2: bob")
      yield* child.line("completed: 1")
      expect(yield* child.exit).toEqual({ code: 0, signal: null })
    }).pipe(Effect.scoped), 90_000)
})

describe("files that the documents name", () => {
  it("are there", () => {
    const missing = pages.flatMap(({ name, text }) => {
      const links = caught(text, /\]\((?!https?:|#)([^)#]+)/g).map((link) => Path.join(Path.dirname(name), link))
      const paths = caught(text, /`((?:src|test|typetest|migrations|examples|docs)\/[\w./-]*)`/g)
      return [...links, ...paths].filter((path) => !Fs.existsSync(Path.join(root, path)))
        .map((path) => `${name}: ${path}`)
    })
    expect(missing).toEqual([])
  })

  it("and so are the headings", () => {
    const missing = pages.flatMap((page) =>
      [...page.text.matchAll(/\]\((?!https?:)([^)#]*)#([^)]+)\)/g)].flatMap(([link, file, anchor]) => {
        const name = file === "" ? page.name : Path.join(Path.dirname(page.name), file!)
        const target = pages.find((other) => other.name === name)
        return target === undefined || anchorsOf(target).has(anchor!) ? [] : [`${page.name}: ${link}`]
      })
    )
    expect(missing).toEqual([])
  })

  it("and docs/index.md leads to every page", () => {
    const { text } = pages.find(({ name }) => name === "docs/index.md")!
    const linked = new Set(caught(text, /\]\(([\w./-]+\.md)/g).map((link) => Path.join("docs", link)))
    expect(pages.map(({ name }) => name).filter((name) => /^docs\/(?!index)/.test(name) && !linked.has(name))).toEqual(
      []
    )
  })

  it("and every public module is in docs/architecture.md", () => {
    const modules = Fs.readdirSync(Path.join(root, "src")).filter((name) => /^[A-Z]\w+\.ts$/.test(name))
    const { text } = pages.find(({ name }) => name === "docs/architecture.md")!
    const named = caught(text, /^\| `([A-Z]\w+)` /gm).map((name) => `${name}.ts`)
    expect(named.toSorted()).toEqual(modules.toSorted())
  })
})
