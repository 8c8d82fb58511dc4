import { describe, expect, it } from "@effect/vitest"
import { Effect, Logger, Option, References, Schema, type Scope } from "effect"
import { type Job, Queue, Task, TaskLoader, Worker } from "kongtask"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { eventually } from "./support/events.ts"
import { type Files, makeProject } from "./support/files.ts"
import * as Test from "./support/kongtask.ts"

const test = (name: string, effect: Effect.Effect<void, unknown, Scope.Scope>) =>
  it.live(name, () => Effect.scoped(effect))

/** What is wrong with these files, one line an issue, paths relative to their folder. */
const issues = Effect.fnUntraced(function*(files: Files, paths: ReadonlyArray<string> = ["tasks"]) {
  const folder = yield* makeProject(files)
  const error = yield* Effect.flip(TaskLoader.load(paths.map((path) => Path.join(folder, path))))
  expect(error).toBeInstanceOf(TaskLoader.TaskLoaderError)
  return error.message.replaceAll(`${folder}/`, "").split("\n")
})

const names = Effect.fnUntraced(function*(files: Files, paths: ReadonlyArray<string> = ["tasks"]) {
  const folder = yield* makeProject(files)
  const { tasks } = yield* TaskLoader.load(paths.map((path) => Path.join(folder, path)))
  return tasks.map(({ name }) => name)
})

const ok = "export default () => {}\n"

describe("docs/tasks.md", () => {
  it("has every reason of a TaskLoaderError", () => {
    const page = Fs.readFileSync(new URL("../docs/tasks.md", import.meta.url), "utf8")
    const reasons = [...page.matchAll(/^\| `([A-Z]\w+[a-z])` +\|/gm)].map(([, reason]) => reason)
    expect(reasons).toEqual(TaskLoader.Issue.fields.reason.literals)
  })
})

describe("which files are tasks", () => {
  test(
    "each file of a folder and below, by its path, whatever kind of module",
    Effect.gen(function*() {
      const files = {
        "tasks/a.ts": ok,
        "tasks/b.js": ok,
        "tasks/c.mjs": ok,
        "tasks/d.cjs": "module.exports = () => {}\n",
        "tasks/e.mts": ok,
        "tasks/mail/welcome.ts": ok,
        "tasks/mail/deep/er.ts": ok,
        "tasks/resize.sh": "#!/bin/sh\n",
        "tasks/bare": "#!/bin/sh\n"
      }
      expect(yield* names(files)).toEqual(["a", "b", "bare", "c", "d", "e", "mail/deep/er", "mail/welcome", "resize"])
    })
  )

  test(
    "but what is hidden, a helper, or there for tools",
    Effect.gen(function*() {
      const files = {
        "tasks/a.ts": ok,
        "tasks/_helper.ts": "throw new Error()\n",
        "tasks/_lib/b.ts": "throw new Error()\n",
        "tasks/.hidden": "x",
        "tasks/a.d.ts": "x",
        "tasks/a.js.map": "{}",
        "tasks/package.json": "{\"type\": \"module\"}",
        "tasks/node_modules/x/index.js": "throw new Error()\n"
      }
      expect(yield* names(files)).toEqual(["a"])
    })
  )

  test(
    "links to files and folders too, and a folder that contains itself ends",
    Effect.gen(function*() {
      const folder = yield* makeProject({ "tasks/a.ts": ok, "elsewhere/b.ts": ok, "c.ts": ok })
      Fs.symlinkSync(Path.join(folder, "c.ts"), Path.join(folder, "tasks/c.ts"))
      Fs.symlinkSync(Path.join(folder, "elsewhere"), Path.join(folder, "tasks/more"))
      Fs.symlinkSync(Path.join(folder, "tasks"), Path.join(folder, "tasks/again"))
      const { tasks } = yield* TaskLoader.load([`${folder}/tasks`])
      expect(tasks.map(({ name }) => name)).toEqual(["a", "c", "more/b"])
    })
  )

  test(
    "a single module: its named exports, or the keys of its default",
    Effect.gen(function*() {
      const named = "export const a = () => {}\nexport async function b() {}\nexport const limit = 3\n"
      expect(yield* names({ "tasks.ts": named }, ["tasks.ts"])).toEqual(["a", "b"])
      expect(yield* names({ "tasks.ts": "export default { a: () => {}, \"b/c\": async () => {} }" }, ["tasks.ts"]))
        .toEqual(["a", "b/c"])
      expect(yield* names({ "tasks.cjs": "exports.a = () => {}\nexports.b = () => {}\n" }, ["tasks.cjs"])).toEqual([
        "a",
        "b"
      ])
      expect(yield* names({ "send_mail.ts": ok }, ["send_mail.ts"])).toEqual(["send_mail"])
      const transpiled = "Object.defineProperty(exports, '__esModule', { value: true })\nexports.default = () => {}\n"
      expect(yield* names({ "tasks/a.cjs": transpiled })).toEqual(["a"])
    })
  )

  test(
    "several paths together, one file only once",
    Effect.gen(function*() {
      const files = { "tasks/a.ts": ok, "more/b.ts": ok }
      expect(yield* names(files, ["tasks", "more", "tasks/a.ts"])).toEqual(["a", "b"])
    })
  )
})

describe("a file that is wrong", () => {
  const wrong: Readonly<Record<string, readonly [files: Files, message: RegExp, paths?: ReadonlyArray<string>]>> = {
    "is not there": [{}, /^tasks cannot be read: ENOENT.* Check the path and its rights\.$/],
    "is a link to itself": [{}, /^loop cannot be read: ELOOP/, ["loop"]],
    "is of an unknown type": [
      { "tasks/a.ts": ok, "tasks/notes.md": "# Notes\n" },
      /^tasks\/notes\.md is no task: neither a module \(\.ts, .*\) nor executable\. .*chmod \+x notes\.md/
    ],
    "is a program without the right to run": [{ "tasks/run.sh": "echo hello\n" }, /^tasks\/run\.sh is no task: /],
    "has a name that no task can have": [
      { "tasks/send mail.ts": ok },
      /^tasks\/send mail\.ts gives no name of a task: "send mail" has other characters .*begin its name with _/
    ],
    "throws when it is imported": [
      { "tasks/a.ts": "const url: string = \"\"\nif (!url) throw new Error(\"no URL\")\n" },
      /^tasks\/a\.ts:2:17 throws when it is imported: no URL\.$/
    ],
    "throws something that is no error": [
      { "tasks/a.ts": "throw \"a tantrum\"\n" },
      /^tasks\/a\.ts throws .*: a tantrum\.$/
    ],
    "does not parse": [{ "tasks/a.ts": "export default ((\n" }, /^tasks\/a\.ts:\d+:\d+ does not parse: /],
    "imports what is not there": [
      { "tasks/a.ts": "import \"./nowhere.ts\"\n" },
      /^tasks\/a\.ts imports something that is not there: .*nowhere\.ts/
    ],
    "imports a package that is not installed": [
      { "tasks/a.ts": "import \"left-pad\"\n" },
      /^tasks\/a\.ts imports something that is not there: .*left-pad.* Install it/
    ],
    "uses an enum": [
      { "tasks/a.ts": "enum A { B }\nexport default () => A.B\n" },
      /^tasks\/a\.ts:1:1 uses TypeScript that Node cannot/
    ],
    "exports nothing": [
      { "tasks/a.ts": "const a = 1\n" },
      /^tasks\/a\.ts exports nothing that runs jobs: export default \(payload, job\) => …/
    ],
    "exports no function": [{ "tasks/a.ts": "export default 3\n" }, /^tasks\/a\.ts exports nothing that runs jobs/],
    "exports a contract without its handler": [
      { "tasks/a.ts": "import { Task } from \"kongtask\"\nexport const Mail = Task.make(\"mail\")\n" },
      /^tasks\/a\.ts exports the task "mail" without its handler: .*task\.toLayer/
    ],
    "exports a task twice": [
      {
        "tasks/a.ts":
          "import { Effect } from \"effect\"\nimport { Task } from \"kongtask\"\nconst Mail = Task.make(\"mail\")\n" +
          "export const One = Mail.toLayer(() => Effect.void)\nexport const Two = Mail.toLayer(() => Effect.void)\n"
      },
      /^tasks\/a\.ts exports the task "mail" twice, as One and as Two\. Keep one of them\.$/
    ],
    "is the task of another file": [
      { "tasks/a.ts": ok, "tasks/a.sh": "#!/bin/sh\n" },
      /^tasks\/a\.ts is the task "a", which tasks\/a\.sh is too\. Keep one of them, or rename one\.$/
    ],
    "exports a layer that needs what nobody provides": [
      {
        "tasks/a.ts": "import { Context, Effect } from \"effect\"\nimport { Task } from \"kongtask\"\n" +
          "class Mailer extends Context.Service<Mailer, {}>()(\"Mailer\") {}\n" +
          "export default Task.make(\"a\").toLayer(Effect.as(Mailer, () => Effect.void))\n"
      },
      /^tasks\/a\.ts exports the layer default, which cannot be built: Service not found: Mailer.* has to be provided in the file\.$/
    ],
    "exports a layer that fails": [
      {
        "tasks/a.ts": "import { Effect } from \"effect\"\nimport { Task } from \"kongtask\"\n" +
          "export default Task.make(\"a\").toLayer(Effect.fail(new Error(\"no mail server\")))\n"
      },
      /which cannot be built: no mail server/
    ],
    "exports a task with a name that is too long": [
      { "tasks.js": `export default { ["x".repeat(129)]: () => {} }\n` },
      /^tasks\.js exports a task, as x+, whose name must have at most 128 characters, not 129\.$/,
      ["tasks.js"]
    ],
    "exports options that are none": [
      { "tasks/a.ts": `${ok}export const options = "fast"\n` },
      /^tasks\/a\.ts exports options that are no object/
    ],
    "exports a timeout that is none": [
      { "tasks/a.ts": `${ok}export const options = { timeout: "a while" }\n` },
      /^tasks\/a\.ts exports options with a timeout that is no duration/
    ],
    "is an empty folder": [{ "tasks/_x": "" }, /^tasks has no tasks: /]
  }
  for (const [what, [files, message, paths]] of Object.entries(wrong)) {
    test(
      what,
      Effect.gen(function*() {
        const folder = yield* makeProject(files)
        Fs.symlinkSync(Path.join(folder, "loop"), Path.join(folder, "loop"))
        const error = yield* Effect.flip(TaskLoader.load((paths ?? ["tasks"]).map((path) => Path.join(folder, path))))
        const text = error.message.replaceAll(`${folder}/`, "")
        expect(text).toMatch(message)
        expect(text.split("\n")).toHaveLength(1)
      })
    )
  }

  test(
    "every mistake of every file is told at once",
    Effect.gen(function*() {
      expect(
        yield* issues({ "tasks/a.ts": "throw new Error(\"a\")\n", "tasks/b.ts": "", "tasks/c.txt": "" }, [
          "tasks",
          "no"
        ])
      ).toHaveLength(4)
    })
  )
})

const Loaded = (name: string) => Task.make(name, { payload: Schema.Json })

/** Runs one job of a task on disk, and answers what is left of it with what was logged. */
const runOne = Effect.fnUntraced(function*(
  files: Files,
  name: string,
  payload: Schema.Json = null,
  options: Job.Options = { maxAttempts: 1 },
  loading?: TaskLoader.Options
) {
  const folder = yield* makeProject(files)
  const { handlers, tasks } = yield* TaskLoader.load([`${folder}/tasks`], loading)
  const { id } = yield* Queue.add(Loaded(name), payload, options)
  const logged: Array<string> = []
  const logger = Logger.make(({ fiber, logLevel, message }) => {
    const { task } = fiber.getRef(References.CurrentLogAnnotations)
    logged.push(`${logLevel} ${String(task)} ${Array.isArray(message) ? message.join(" ") : String(message)}`)
  })
  const summary = yield* Worker.runOnce({ tasks }).pipe(
    Effect.provideContext(handlers),
    Effect.provide(Logger.layer([logger]))
  )
  return {
    folder,
    id,
    logged,
    summary,
    job: yield* Queue.get(id),
    read: (file: string) => Fs.readFileSync(`${folder}/${file}`, "utf8")
  }
})

const running = (name: string, effect: Effect.Effect<void, unknown, Scope.Scope | Queue.Queue | Worker.Worker>) =>
  it.live(name, () => Effect.scoped(effect).pipe(Effect.provide(Test.layer())))

const writes = "import { writeFileSync } from \"node:fs\"\nconst out = new URL(\"../out\", import.meta.url)\n"

describe("a function as a handler", () => {
  running(
    "gets payload and job, and may answer nothing, a promise or an effect",
    Effect.gen(function*() {
      const sync =
        `${writes}export default (payload, job) => writeFileSync(out, payload.text + job.task + job.attempt)\n`
      expect((yield* runOne({ "tasks/b.ts": sync }, "b", { text: "hello " })).read("out")).toBe("hello b1")
      const async = `${writes}export default async (payload) => { await null; writeFileSync(out, payload) }\n`
      expect((yield* runOne({ "tasks/a.js": async }, "a", "later")).read("out")).toBe("later")
      const effect = `import { Effect } from "effect"\n${writes}` +
        "export default (payload: string) => Effect.delay(Effect.sync(() => writeFileSync(out, payload)), 1)\n"
      expect((yield* runOne({ "tasks/a.ts": effect }, "a", "effect")).read("out")).toBe("effect")
    })
  )

  running(
    "fails by throwing, by rejecting and by an effect",
    Effect.gen(function*() {
      const error = (file: string, name = "a.ts") =>
        Effect.map(runOne({ [`tasks/${name}`]: file }, "a"), ({ job }) => Option.getOrThrow(job).lastError)
      expect(yield* error("export default () => { throw new Error(\"thrown\") }\n")).toBe("Error: thrown")
      expect(yield* error("export default async () => { throw new TypeError(\"rejected\") }\n")).toBe(
        "TypeError: rejected"
      )
      expect(yield* error("export default () => Promise.reject(\"a text\")\n")).toBe("a text")
      expect(yield* error("import { Effect } from \"effect\"\nexport default () => Effect.fail({ _tag: \"Oh\" })\n"))
        .toBe("Oh")
    })
  )

  running(
    "takes options beside it, and its signal is aborted by the timeout",
    Effect.gen(function*() {
      const file = `${writes}export const options = { timeout: "50 millis" }\n` +
        "export default (_, __, signal) => new Promise(() => signal.onabort = () => writeFileSync(out, \"aborted\"))\n"
      const { job, read } = yield* runOne({ "tasks/a.js": file }, "a")
      expect(Option.getOrThrow(job).lastError).toContain("TimedOut")
      expect(read("out")).toBe("aborted")
    })
  )
})

/** What a program gets, as JSON. */
const echo = `#!${process.execPath}
const { readFileSync, writeFileSync } = require("node:fs")
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => name.startsWith("GRAPHILE_WORKER_")))
writeFileSync(__dirname + "/../out", JSON.stringify({ stdin: readFileSync(0, "utf8"), env, cwd: process.cwd() }))
`

describe("an executable", () => {
  running(
    "gets the payload on its input and the job in its environment, as graphile-worker's do",
    Effect.gen(function*() {
      const payload = { text: "Grüße", list: [1, null] }
      const { folder, id, read, summary } = yield* runOne(
        { "tasks/mail/echo": echo.replace("/../out", "/../../out").replaceAll("\"type\"", ""), "package.json": "{}" },
        "mail/echo",
        payload,
        { maxAttempts: 7, priority: 3, jobKey: "k", runAt: new Date("2020-01-02T03:04:05.678Z") }
      )
      expect(summary.completed).toBe(1)
      const out = JSON.parse(read("out"))
      expect(out.stdin).toBe(JSON.stringify({ payload }))
      expect(out.cwd).toBe(`${folder}/tasks/mail`)
      expect(out.env).toEqual({
        GRAPHILE_WORKER_PAYLOAD_FORMAT: "json",
        GRAPHILE_WORKER_TASK_IDENTIFIER: "mail/echo",
        GRAPHILE_WORKER_JOB_ID: id,
        GRAPHILE_WORKER_JOB_KEY: "k",
        GRAPHILE_WORKER_JOB_ATTEMPTS: "1",
        GRAPHILE_WORKER_JOB_MAX_ATTEMPTS: "7",
        GRAPHILE_WORKER_JOB_PRIORITY: "3",
        GRAPHILE_WORKER_JOB_RUN_AT: "2020-01-02T03:04:05.678Z"
      })
    })
  )

  running(
    "need not read its input, however long that is",
    Effect.gen(function*() {
      const { summary } = yield* runOne({ "tasks/a.sh": "#!/bin/sh\nexit 0\n" }, "a", "x".repeat(900_000))
      expect(summary.completed).toBe(1)
    })
  )

  running(
    "fails with its code and the end of what it wrote to its error output",
    Effect.gen(function*() {
      const script = "#!/bin/sh\necho fine\necho first >&2\ni=0\n" +
        "while [ $i -lt 3000 ]; do echo line $i >&2; i=$((i+1)); done\nexit 3\n"
      const { job, logged } = yield* runOne({ "tasks/a.sh": script }, "a")
      const error = Option.getOrThrow(job).lastError!
      expect(error).toMatch(/^ExecutableFailed: exited with code 3:\n/)
      expect(error).toMatch(/\nline 2998\nline 2999$/)
      expect(error.length).toBeLessThan(5000)
      expect(logged).toContain("Info a fine")
      expect(logged).toContain("Error a first")
    })
  )

  running(
    "writes a flood that is logged in part and read to its end",
    Effect.gen(function*() {
      const script =
        "#!/bin/sh\nhead -c 3000000 /dev/zero | tr '\\0' x\necho\nhead -c 3000000 /dev/zero | tr '\\0' '\\n'\n"
      const { logged, summary } = yield* runOne({ "tasks/a.sh": script }, "a")
      expect(summary.completed).toBe(1)
      const lines = logged.filter((line) => line.startsWith("Info a"))
      expect(lines.join("").length).toBeLessThan(2_000_000)
      expect(lines.at(-1)).toContain("the rest is not logged")
    })
  )

  running(
    "killed by a signal says by which",
    Effect.gen(function*() {
      const { job } = yield* runOne({ "tasks/a.sh": "#!/bin/sh\nkill -KILL $$\n" }, "a")
      expect(Option.getOrThrow(job).lastError).toBe("ExecutableFailed: was ended by SIGKILL")
    })
  )

  running(
    "that cannot be started fails the attempt, and says why",
    Effect.gen(function*() {
      const { job } = yield* runOne({ "tasks/a.sh": "#!/nowhere/sh\n" }, "a")
      expect(Option.getOrThrow(job).lastError).toMatch(/^ExecutableFailed: could not be started: /)
    })
  )

  const children = (folder: string) => Fs.readFileSync(`${folder}/out`, "utf8").trim().split("\n").map(Number)

  const isAlive = (pid: number) => {
    try {
      process.kill(pid, 0)
      return true
    } catch {
      return false
    }
  }

  running(
    "is killed with all that it has started when its time is over",
    Effect.gen(function*() {
      const script = "#!/bin/sh\ncd ..\nsleep 1000 &\necho $! > out.tmp\necho $$ >> out.tmp\nmv out.tmp out\nwait\n"
      const { folder, job } = yield* runOne({ "tasks/a.sh": script }, "a", null, { maxAttempts: 1 }, {
        executableTimeout: "300 millis"
      })
      expect(Option.getOrThrow(job).lastError).toContain("TimedOut")
      const pids = children(folder)
      expect(pids).toHaveLength(2)
      yield* eventually(Effect.sync(() => !pids.some(isAlive)))
    })
  )

  running(
    "that ignores SIGTERM is killed all the same, and what it leaves in the background too",
    Effect.gen(function*() {
      const stubborn = "#!/bin/sh\ntrap '' TERM\ncd ..\necho $$ > out\nwhile true; do sleep 0.1; done\n"
      const one = yield* runOne({ "tasks/a.sh": stubborn }, "a", null, { maxAttempts: 1 }, {
        executableTimeout: "300 millis"
      })
      expect(Option.getOrThrow(one.job).lastError).toContain("TimedOut")
      yield* eventually(Effect.sync(() => !children(one.folder).some(isAlive)), { within: "20 seconds" })
      const leaves = "#!/bin/sh\ncd ..\nsleep 1000 > /dev/null 2>&1 &\necho $! > out\n"
      const other = yield* runOne({ "tasks/a.sh": leaves }, "a")
      expect(other.summary.completed).toBe(1)
      yield* eventually(Effect.sync(() => !children(other.folder).some(isAlive)))
    })
  )
})
