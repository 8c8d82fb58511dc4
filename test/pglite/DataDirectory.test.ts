import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as DataDirectory from "../../src/internal/pglite/dataDirectory.ts"
import type { KongTaskError } from "../../src/KongTaskError.ts"
import { appears, start, temporary } from "./process.ts"

const long = `${"d".repeat(60)}/${"e".repeat(60)}`

const nobody = 65534

/** Root may write anywhere, so it is somebody else until the scope closes. */
const withoutPrivileges = process.getuid?.() === 0
  ? Effect.acquireRelease(
    Effect.sync(() => process.seteuid!(nobody)),
    () => Effect.sync(() => process.seteuid!(0))
  )
  : Effect.void

const problemOf = (error: KongTaskError) => {
  if (error.reason._tag !== "EmbeddedDatabaseFailed") throw error
  return error.reason.problem
}

/** Opens and closes again. */
const visit = (dataDir: string) => Effect.scoped(DataDirectory.open(dataDir))

const lockOf = (dataDir: string) => Path.join(dataDir, "kongtask.lock")

const entriesOf = (dataDir: string) => Fs.readdirSync(dataDir).toSorted()

describe("the data directory", () => {
  it.live("is made with its parents and kept out of git", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporary("a/b/c")
      const directory = yield* DataDirectory.open(dataDir)
      expect(directory).toMatchObject({ path: dataDir, database: Path.join(dataDir, "pgdata") })
      expect(Fs.readFileSync(Path.join(dataDir, ".gitignore"), "utf8")).toBe("*\n")
      expect(entriesOf(dataDir)).toEqual([".gitignore", "kongtask.creating", "kongtask.lock"])
      yield* directory.complete
      expect(entriesOf(dataDir)).toEqual([".gitignore", "kongtask.database", "kongtask.lock"])
    }))

  it.live("is given back when the scope closes", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporary()
      yield* visit(dataDir)
      expect(entriesOf(dataDir)).toEqual([".gitignore", "kongtask.creating"])
      yield* visit(dataDir)
    }))

  it.live("is refused to the process that has it already", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporary()
      yield* DataDirectory.open(dataDir)
      const error = yield* Effect.flip(visit(`${dataDir}/../data`))
      expect(error.reason).toMatchObject({ _tag: "DataDirectoryInUse", dataDir, pid: process.pid })
      expect(entriesOf(dataDir)).toEqual([".gitignore", "kongtask.creating", "kongtask.lock"])
    }))

  it.live("goes to one of many fibers that want it at once", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporary()
      const exits = yield* Effect.forEach(
        Array.from({ length: 20 }),
        () => Effect.exit(DataDirectory.open(dataDir)),
        { concurrency: "unbounded" }
      )
      expect(exits.filter(Exit.isSuccess)).toHaveLength(1)
      expect(entriesOf(dataDir).filter((name) => name.startsWith("kongtask.lock"))).toEqual(["kongtask.lock"])
    }))

  it.live.each([["a short path", "data"], ["a path too long for a socket", long]] as const)(
    "goes to exactly one of ten processes when its owner was killed, with %s",
    ([, name]) =>
      Effect.gen(function*() {
        const dataDir = yield* temporary(name)
        const children = yield* Effect.forEach(
          Array.from({ length: 10 }),
          () => start("race", dataDir),
          { concurrency: "unbounded" }
        )
        yield* Effect.forEach(children, (child) => child.line, { concurrency: "unbounded" })
        let alive = children
        while (alive.length > 0) {
          yield* Effect.forEach(alive, (child) => child.send("go"), { concurrency: "unbounded" })
          const answers = yield* Effect.forEach(alive, (child) => child.line, { concurrency: "unbounded" })
          const winners = alive.filter((_, index) => answers[index] === "held")
          expect(winners).toHaveLength(1)
          const losses = new Set(answers.filter((answer) => answer !== "held"))
          expect([...losses]).toEqual(alive.length === 1 ? [] : [`in use by ${winners[0]!.pid}`])
          yield* winners[0]!.kill
          alive = alive.filter((child) => child !== winners[0])
        }
        expect(Fs.readdirSync(lockOf(dataDir))).toHaveLength(1)
        yield* visit(dataDir)
        expect(entriesOf(dataDir)).toEqual([".gitignore", "kongtask.creating"])
      }),
    60_000
  )

  it.live("is taken over when the pid in its lock belongs to another process now", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporary()
      Fs.mkdirSync(lockOf(dataDir), { recursive: true })
      Fs.writeFileSync(Path.join(lockOf(dataDir), `${process.pid}.1.abcdef`), "")
      if (Fs.existsSync("/proc/self/stat")) yield* visit(dataDir)
      else expect((yield* Effect.flip(visit(dataDir))).reason._tag).toBe("DataDirectoryInUse")
    }))

  it.live("is in use when its lock is a file of a living process", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporary()
      Fs.mkdirSync(lockOf(dataDir), { recursive: true })
      Fs.writeFileSync(Path.join(lockOf(dataDir), `${process.ppid}.0.abcdef`), "")
      const error = yield* Effect.flip(visit(dataDir))
      expect(error.reason).toMatchObject({ _tag: "DataDirectoryInUse", pid: process.ppid })
    }))

  it.live("is cleared of what a process left that was killed while it took the lock", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporary()
      const dead = yield* start("race", dataDir)
      yield* dead.line
      yield* dead.kill
      Fs.mkdirSync(Path.join(dataDir, `kongtask.lock.${dead.pid}.1.abcdef`), { recursive: true })
      yield* visit(dataDir)
      expect(entriesOf(dataDir)).toEqual([".gitignore", "kongtask.creating"])
    }))

  it.live("is refused when its lock holds something else", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporary()
      Fs.mkdirSync(lockOf(dataDir), { recursive: true })
      Fs.writeFileSync(Path.join(lockOf(dataDir), "notes.txt"), "")
      expect(problemOf(yield* Effect.flip(visit(dataDir)))).toContain("holds notes.txt")
    }))

  it.live("is refused, and left alone, when it holds something else", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporary()
      Fs.mkdirSync(Path.join(dataDir, "pgdata"), { recursive: true })
      expect(problemOf(yield* Effect.flip(visit(dataDir)))).toContain("is not empty")
      Fs.rmdirSync(Path.join(dataDir, "pgdata"))
      Fs.writeFileSync(Path.join(dataDir, "thesis.txt"), "")
      expect(problemOf(yield* Effect.flip(visit(dataDir)))).toContain("\"thesis.txt\"")
      expect(entriesOf(dataDir)).toEqual(["thesis.txt"])
    }))

  it.live("may be the root of an empty volume", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporary()
      Fs.mkdirSync(Path.join(dataDir, "lost+found"), { recursive: true })
      yield* visit(dataDir)
    }))

  it.live("is emptied of a database that was half made, and of nothing else", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporary()
      yield* visit(dataDir)
      Fs.mkdirSync(Path.join(dataDir, "pgdata"))
      Fs.writeFileSync(Path.join(dataDir, "pgdata", "PG_VERSION"), "18\n")
      const scope = yield* Scope.make()
      const directory = yield* Scope.provide(DataDirectory.open(dataDir), scope)
      expect(Fs.existsSync(directory.database)).toBe(false)
      Fs.mkdirSync(directory.database)
      yield* directory.complete
      yield* Scope.close(scope, Exit.void)
      yield* visit(dataDir)
      expect(entriesOf(dataDir)).toEqual([".gitignore", "kongtask.database", "pgdata"])
    }))

  it.live("is refused when its database is gone", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporary()
      yield* Effect.scoped(Effect.flatMap(DataDirectory.open(dataDir), (directory) => directory.complete))
      expect(problemOf(yield* Effect.flip(visit(dataDir)))).toContain("pgdata folder is gone")
    }))

  it.live("is refused when a file is in its place, or above it", () =>
    Effect.gen(function*() {
      const file = yield* temporary("file")
      Fs.writeFileSync(file, "mine")
      for (const path of [file, Path.join(file, "below")]) {
        const error = yield* Effect.flip(visit(path))
        expect(problemOf(error)).toContain("a file is in the place of the directory")
        expect(error.message).toContain(path)
      }
      expect(Fs.readFileSync(file, "utf8")).toBe("mine")
    }))

  it.live("is refused when the process may not write there", () =>
    Effect.gen(function*() {
      const parent = yield* temporary("parent")
      Fs.mkdirSync(parent, { mode: 0o500 })
      yield* withoutPrivileges
      expect(problemOf(yield* Effect.flip(visit(Path.join(parent, "data"))))).toContain("may not read and write")
    }))

  it.live("is refused with the pid of the process that has it", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporary()
      Fs.mkdirSync(dataDir)
      const child = yield* start("race", dataDir)
      yield* child.send("go")
      yield* appears(lockOf(dataDir))
      expect((yield* Effect.flip(visit(dataDir))).reason).toMatchObject({ _tag: "DataDirectoryInUse", pid: child.pid })
    }))
})
