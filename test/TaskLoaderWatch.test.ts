import { describe, expect, it } from "@effect/vitest"
import { Effect, Schema, type Scope } from "effect"
import { Queue, Task } from "kongtask"
import * as Fs from "node:fs"
import { TestDatabase } from "./support/database.ts"
import { eventually } from "./support/events.ts"
import { type Files, makeProject, writeFiles } from "./support/files.ts"
import * as Test from "./support/kongtask.ts"
import { spawnScript } from "./support/process.ts"

const test = (
  name: string,
  effect: Effect.Effect<void, unknown, Scope.Scope | Queue.Queue | TestDatabase>
) => it.live(name, () => Effect.scoped(effect).pipe(Effect.provide(Test.layer())), 60_000)

/** A process that watches the folder `tasks` of a project with these files. */
const watching = Effect.fnUntraced(function*(files: Files, env: Readonly<Record<string, string>> = {}) {
  const folder = yield* makeProject(files)
  const { url } = yield* TestDatabase
  const child = yield* spawnScript(new URL("fixtures/loader.ts", import.meta.url), {
    args: [`${folder}/tasks`],
    env: { DATABASE_URL: url, ...env }
  })
  return {
    ...child,
    folder,
    write: (files: Files) => Effect.sync(() => writeFiles(folder, files)),
    remove: (file: string) => Effect.sync(() => Fs.rmSync(`${folder}/${file}`))
  }
})

const add = (name: string, payload: Schema.Json = null) =>
  Effect.map(Queue.add(Task.make(name, { payload: Schema.Json }), payload), ({ id }) => id)

const says = (text: string) => `export default () => console.log("${text}")\n`

describe("watching tasks on disk", () => {
  test(
    "runs the next attempts with a new version, and lets the running one end with its own",
    Effect.gen(function*() {
      const slow = (version: string) =>
        "import { existsSync } from \"node:fs\"\nimport { setTimeout } from \"node:timers/promises\"\n" +
        `import { name } from "../lib/name.ts"\nexport default async (payload) => {\n  console.log("begin ${version}", name)\n` +
        "  while (payload.wait && !existsSync(new URL(\"../go\", import.meta.url))) await setTimeout(20)\n" +
        `  console.log("end ${version}")\n}\n`
      const child = yield* watching({
        "tasks/slow.ts": slow("v1"),
        "lib/name.ts": "export const name: string = \"one\"\n"
      })
      yield* child.line("loaded +slow -")
      const first = yield* add("slow", { wait: true })
      yield* child.line("begin v1 one")
      yield* child.write({ "tasks/slow.ts": slow("v2") })
      yield* child.line("loaded + -")
      const second = yield* add("slow", {})
      yield* child.line("begin v2 one")
      yield* child.line(`event JobCompleted ${second}`)
      yield* child.write({ go: "" })
      yield* child.line("end v1")
      yield* child.line(`event JobCompleted ${first}`)
    })
  )

  test(
    "sees what a task imports",
    Effect.gen(function*() {
      const child = yield* watching({
        "tasks/a.ts": "import { deep } from \"../lib/one.ts\"\nexport default () => console.log(deep)\n",
        "lib/one.ts": "export { deep } from \"./two.js\"\n",
        "lib/two.js": "export const deep = \"deep 1\"\n",
        "tasks/b.cjs": "const { text } = require(\"../lib/three.cjs\")\nmodule.exports = () => console.log(text)\n",
        "lib/three.cjs": "exports.text = \"common 1\"\n"
      })
      yield* child.line("loaded +a,b -")
      yield* add("a")
      yield* child.line("deep 1")
      yield* add("b")
      yield* child.line("common 1")
      yield* child.write({ "lib/two.js": "export const deep = \"deep 2\"\n" })
      yield* child.line("loaded + -")
      yield* add("a")
      yield* child.line("deep 2")
      yield* child.write({ "lib/three.cjs": "exports.text = \"common 2\"\n" })
      yield* child.line("loaded + -")
      yield* add("b")
      yield* child.line("common 2")
    })
  )

  test(
    "tells of a broken version, and goes on with the one before until it is mended",
    Effect.gen(function*() {
      const child = yield* watching({ "tasks/a.ts": says("good 1") })
      yield* child.line("loaded +a -")
      yield* child.write({ "tasks/a.ts": "export default ((\n" })
      expect(yield* child.line("failed ")).toMatch(/tasks\/a\.ts:\d+:\d+ does not parse: /)
      yield* add("a")
      yield* child.line("good 1")
      yield* child.write({
        "tasks/a.ts": "import { text } from \"../lib.ts\"\nexport default () => console.log(text)\n"
      })
      expect(yield* child.line("failed ")).toContain("imports something that is not there")
      yield* child.write({ "lib.ts": "export const text = \"good 2\"\n" })
      yield* child.write({
        "tasks/a.ts": "import { text } from \"../lib.ts\"\nexport default () => console.log(text)\n\n"
      })
      yield* child.line("loaded + -")
      yield* add("a")
      yield* child.line("good 2")
    })
  )

  test(
    "claims what is added, and leaves what is removed",
    Effect.gen(function*() {
      const child = yield* watching({ "tasks/a.ts": says("a runs") })
      yield* child.line("loaded +a -")
      yield* add("deep/b")
      yield* child.write({ "tasks/deep/b.sh": "#!/bin/sh\necho b runs\n" })
      yield* child.line("loaded +deep/b -")
      yield* child.line("event JobCompleted")
      yield* child.remove("tasks/deep/b.sh")
      yield* child.line("loaded + -deep/b")
      const left = yield* add("deep/b")
      yield* add("a")
      yield* child.line("a runs")
      yield* child.line("event JobCompleted")
      expect((yield* Queue.list()).map(({ attempts, id, state }) => ({ attempts, id, state }))).toEqual([
        { attempts: 0, id: left, state: "ready" }
      ])
    })
  )

  test(
    "releases what a version has acquired when none of its attempts runs any more",
    Effect.gen(function*() {
      const typed = (version: string) =>
        `import { Console, Effect } from "effect"
import { Queue, Task } from "kongtask"
const Typed = Task.make("typed")
export default Typed.toLayer(Effect.gen(function*() {
  yield* Effect.acquireRelease(Console.log("acquired ${version}"), () => Console.log("released ${version}"))
  const queue = yield* Queue.Queue
  return () => Effect.flatMap(queue.count(), (count) => Console.log("${version} counts " + count))
}))\n`
      const child = yield* watching({ "tasks/typed.ts": typed("v1") })
      yield* child.line("acquired v1")
      yield* add("typed")
      yield* child.line("v1 counts 1")
      yield* child.write({ "tasks/typed.ts": typed("v2") })
      yield* child.line("acquired v2")
      yield* child.line("released v1")
      yield* add("typed")
      yield* child.line("v2 counts 1")
      yield* child.kill("SIGTERM")
      yield* child.line("released v2")
      yield* child.line("closed")
      expect((yield* child.exit).code).toBe(130)
    })
  )

  const sleeps = "#!/bin/sh\ncd ..\nsleep 1000 &\necho \"$! $$\" > pids.tmp\nmv pids.tmp pids\nwait\n"

  const isAlive = (pid: number) => {
    try {
      process.kill(pid, 0)
      return true
    } catch {
      return false
    }
  }

  /** Waits until the program has started another one, and answers their ids. */
  const asleep = (folder: string) =>
    eventually(Effect.sync(() => Fs.readFileSync(`${folder}/pids`, "utf8").trim().split(" ").map(Number)))

  test(
    "kills a program at the end of the shutdown's time, and gives its job back",
    Effect.gen(function*() {
      const child = yield* watching({ "tasks/sleep.sh": sleeps }, { SHUTDOWN_TIMEOUT: "200" })
      yield* child.line("loaded +sleep -")
      yield* add("sleep")
      const pids = yield* asleep(child.folder)
      expect(pids.map(isAlive)).toEqual([true, true])
      yield* child.kill("SIGTERM")
      yield* child.line("closed")
      yield* eventually(Effect.sync(() => !pids.some(isAlive)), { what: "their end" })
      expect(yield* Queue.list()).toMatchObject([{ state: "ready", attempts: 0 }])
    })
  )

  test(
    "kills a program whose job is cancelled",
    Effect.gen(function*() {
      const child = yield* watching({ "tasks/sleep.sh": sleeps })
      yield* child.line("loaded +sleep -")
      const id = yield* add("sleep")
      const pids = yield* asleep(child.folder)
      yield* Queue.cancel(id)
      yield* child.line(`event JobCancelled ${id}`)
      yield* eventually(Effect.sync(() => !pids.some(isAlive)), { what: "their end" })
      expect(yield* Queue.count()).toBe(0)
    })
  )

  test(
    "ends with what is wrong where the first version is",
    Effect.gen(function*() {
      const child = yield* watching({ "tasks/a.ts": "throw new Error(\"no\")\n" })
      expect(yield* child.line("failed ")).toContain("tasks/a.ts:1:7 throws when it is imported: no.")
      expect((yield* child.exit).code).toBe(1)
    })
  )
})
