/**
 * What the documents show and name: programs compile and run, statements run,
 * errors and files are those that there are.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { type Job, KongTaskError, Queue, Task, WorkerEvent } from "kongtask"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { TestDatabase } from "./support/database.ts"
import { makeDirectory } from "./support/directory.ts"
import * as Test from "./support/kongtask.ts"
import { spawnScript } from "./support/process.ts"

const root = Path.dirname(import.meta.dirname)

interface Page {
  readonly name: string
  readonly text: string
}

interface Block {
  /** The page and the line on which it begins, as a file's name. */
  readonly name: string
  readonly language: string
  readonly code: string
}

const pages: ReadonlyArray<Page> = [
  "README.md",
  "CHANGELOG.md",
  ...Fs.readdirSync(Path.join(root, "docs")).filter((name) => name.endsWith(".md")).map((name) => `docs/${name}`)
].map((name) => ({ name, text: Fs.readFileSync(Path.join(root, name), "utf8") }))

const blocksOf = (page: Page): ReadonlyArray<Block> =>
  [...page.text.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map((match) => ({
    name: `${page.name.replaceAll("/", "-")}-line-${page.text.slice(0, match.index).split("\n").length}`,
    language: match[1]!,
    code: match[2]!
  }))

const blocks = pages.flatMap(blocksOf)
const programs = blocks.filter(({ language }) => language === "ts")

/** A project beside this one, in which `kongtask` and its peers are installed. */
const makeProject: Effect.Effect<string, never, Scope.Scope> = Effect.gen(function*() {
  const directory = yield* makeDirectory("programs")
  for (const name of ["effect", "@effect", "@electric-sql", "@types"]) {
    Fs.mkdirSync(Path.join(directory, "node_modules"), { recursive: true })
    Fs.symlinkSync(Path.join(root, "node_modules", name), Path.join(directory, "node_modules", name), "dir")
  }
  Fs.symlinkSync(root, Path.join(directory, "node_modules/kongtask"), "dir")
  Fs.writeFileSync(Path.join(directory, "package.json"), JSON.stringify({ private: true, type: "module" }))
  return directory
})

const write = (directory: string, name: string, code: string): string => {
  const path = Path.join(directory, name)
  Fs.writeFileSync(path, code)
  return path
}

/** What the pattern's group catches, at every match. */
const caught = (text: string, pattern: RegExp): ReadonlyArray<string> =>
  [...text.matchAll(pattern)].map((match) => match[1]!)

const readme = blocksOf(pages[0]!)
const first = readme.find(({ language }) => language === "ts")!.code
const variant = readme.find(({ code }) => code.includes("KongTask.layerEmbedded"))!.code

describe("programs in the documents", () => {
  it.live("compile, each for itself", () =>
    Effect.gen(function*() {
      expect(programs.length).toBeGreaterThan(5)
      const directory = yield* makeProject
      for (const { code, name } of programs) write(directory, `${name}.ts`, code)
      write(
        directory,
        "tsconfig.json",
        JSON.stringify({
          extends: Path.join(root, "tsconfig.json"),
          include: ["*.ts"],
          compilerOptions: { noUnusedLocals: false, noUnusedParameters: false }
        })
      )
      const compiler = yield* spawnScript(Path.join(root, "node_modules/typescript/bin/tsc"), {
        args: ["-p", directory, "--pretty", "false"],
        cwd: directory
      })
      const { code } = yield* compiler.exit
      expect(`${yield* compiler.stdout}${yield* compiler.stderr}`).toBe("")
      expect(code).toBe(0)
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
})

describe("SQL in the documents", () => {
  for (const { code, name } of blocks.filter(({ language }) => language === "sql")) {
    it.live(`runs: ${name}`, () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* Queue.add(Task.make("example"), undefined)
        for (const statement of code.split(/;\n/)) yield* sql.unsafe(statement).unprepared
      }).pipe(Effect.provide(Test.layer())))
  }
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
      flags: true
    }
    expect(rowsOf("InvalidJob")).toEqual(["payload", "task", ...Object.keys(options)].toSorted())
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

  it("and every public module is in docs/architecture.md", () => {
    const modules = Fs.readdirSync(Path.join(root, "src")).filter((name) => /^[A-Z]\w+\.ts$/.test(name))
    const { text } = pages.find(({ name }) => name === "docs/architecture.md")!
    const named = caught(text, /^\| `([A-Z]\w+)` /gm).map((name) => `${name}.ts`)
    expect(named.toSorted()).toEqual(modules.toSorted())
  })
})
