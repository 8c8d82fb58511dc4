import * as PgClient from "@effect/sql-pg/PgClient"
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Embedded from "../../src/internal/pglite/layer.ts"
import { appears, start, temporary } from "./process.ts"

const client = (dataDir: string) => Effect.map(Layer.build(Embedded.layer({ dataDir })), Context.get(PgClient.PgClient))

/** Opens the database, runs one statement in it and closes it. */
const query = <A extends object>(dataDir: string, statement: string) =>
  Effect.scoped(Effect.flatMap(client(dataDir), (sql) => sql.unsafe<A>(statement)))

/** A resolver that does not find PGlite. */
const withoutPGlite = `data:text/javascript,${
  encodeURIComponent(`
    import { registerHooks } from "node:module"
    registerHooks({
      resolve: (specifier, context, next) => {
        if (specifier !== "@electric-sql/pglite") return next(specifier, context)
        throw Object.assign(new Error("Cannot find package"), { code: "ERR_MODULE_NOT_FOUND" })
      }
    })
  `)
}`

describe("an embedded database on disk", () => {
  it.live("keeps what it holds when it is closed and opened again", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporary()
      yield* query(dataDir, "create table kept as select 42 as n")
      expect(yield* query(dataDir, "select n from kept")).toEqual([{ n: 42 }])
      expect(Fs.readdirSync(dataDir).toSorted()).toEqual([".gitignore", "kongtask.database", "pgdata"])
    }), 60_000)

  it.live("keeps every commit that it reported, through three times kill -9", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporary()
      const reported: Array<number> = []
      for (let round = 1; round <= 3; round++) {
        const child = yield* start("write", dataDir)
        expect(yield* child.line).toBe("ready")
        for (let row = 0; row < 300 * round; row++) reported.push(Number(yield* child.line))
        reported.push(...(yield* child.kill).map(Number))
      }
      const rows = yield* query<{ id: number }>(dataDir, "select id from written")
      const kept = new Set(rows.map((row) => row.id))
      expect(reported.length).toBeGreaterThanOrEqual(1800)
      expect(reported.filter((id) => !kept.has(id))).toEqual([])
    }), 120_000)

  it.live.each(["kongtask.creating", "pgdata", "pgdata/base", "pgdata/PG_VERSION", "kongtask.database"])(
    "is made anew, or kept, after kill -9 of its first creation at %s",
    (path) =>
      Effect.gen(function*() {
        const dataDir = yield* temporary()
        Fs.mkdirSync(dataDir)
        const child = yield* start("open", dataDir)
        const steps = path.split("/").map((_, index, parts) => parts.slice(0, index + 1).join("/"))
        for (const step of steps) yield* appears(Path.join(dataDir, step))
        yield* child.kill
        expect(yield* query(dataDir, "select 1 as n")).toEqual([{ n: 1 }])
      }),
    60_000
  )

  it.live("is refused to a second process, and free as soon as the first was killed", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporary()
      const first = yield* start("open", dataDir)
      expect(yield* first.line).toBe("ready")
      expect(yield* first.line).toBe("open")
      const second = yield* start("open", dataDir)
      expect(yield* second.line).toBe("ready")
      expect(yield* second.line).toBe(`in use by ${first.pid}`)
      const error = yield* Effect.flip(Effect.scoped(client(dataDir)))
      expect(error.reason).toMatchObject({ _tag: "DataDirectoryInUse", dataDir, pid: first.pid })
      yield* first.kill
      expect(yield* query(dataDir, "select 1 as n")).toEqual([{ n: 1 }])
    }), 60_000)

  it.live("keeps what was committed before it broke", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporary()
      yield* Effect.scoped(Effect.gen(function*() {
        const sql = yield* client(dataDir)
        yield* sql`create table kept as select 42 as n`
        yield* sql`create function endless(n int) returns int language sql as 'select endless($1 + 1)'`
        expect((yield* Effect.flip(sql`select endless(1)`)).reason._tag).toBe("ConnectionError")
      }))
      expect(yield* query(dataDir, "select n from kept")).toEqual([{ n: 42 }])
    }), 60_000)

  it.live("says what is wrong when its files are damaged", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporary()
      yield* query(dataDir, "select 1")
      Fs.writeFileSync(Path.join(dataDir, "pgdata", "PG_VERSION"), "11\n")
      const error = yield* Effect.flip(Effect.scoped(client(dataDir)))
      expect(error.reason._tag).toBe("EmbeddedDatabaseFailed")
      expect(error.message).toContain("initialized by PostgreSQL version 11")
      Fs.writeFileSync(Path.join(dataDir, "pgdata", "PG_VERSION"), "18\n")
      expect(yield* query(dataDir, "select 1 as n")).toEqual([{ n: 1 }])
    }), 60_000)

  it.live("says which package to install when PGlite is missing", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporary()
      const child = yield* start("open", dataDir, ["--import", withoutPGlite])
      expect(yield* child.line).toBe("ready")
      expect(yield* child.line).toContain("Run `npm install @electric-sql/pglite`")
    }), 60_000)
})
