import * as PgClient from "@effect/sql-pg/PgClient"
import { describe, expect, it, layer } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Latch, Layer, Queue, Scope } from "effect"
import * as Reactivity from "effect/reactivity/Reactivity"
import type { SqlError } from "effect/sql/SqlError"
import * as Embedded from "../../src/internal/pglite/layer.ts"
import * as Maintenance from "../../src/internal/pglite/maintenance.ts"

/** A client of a database of its own. */
const embedded = Effect.map(Layer.build(Embedded.layer({})), Context.get(PgClient.PgClient))

/** A further client of the same database. */
const derive = (options: Partial<PgClient.PgPoolConfig> = {}) =>
  Effect.flatMap(PgClient.PgClient, (sql) => PgClient.make({ ...sql.config, maxConnections: 3, ...options })).pipe(
    Effect.provide(Reactivity.layer)
  )

const codeOf = (error: SqlError) => (error.reason.cause as { readonly code?: string }).code

/** Enough turns of the event loop that whatever was sent has arrived. */
const settle = (sql: PgClient.PgClient) =>
  Effect.forEach(Array.from({ length: 20 }), () => sql`select 1`, { discard: true })

/** Opens this many connections in the client's pool. */
const warm = (sql: PgClient.PgClient, connections: number) =>
  Effect.forEach(Array.from({ length: connections }), () => sql`select 1`, { concurrency: "unbounded", discard: true })

const table = Effect.fnUntraced(function*(name: string) {
  const sql = yield* PgClient.PgClient
  yield* sql`drop table if exists ${sql(name)}`
  yield* sql`create table ${sql(name)} (n int)`
  return sql
})

const sum = (sql: PgClient.PgClient, name: string) =>
  Effect.map(sql<{ n: number }>`select coalesce(sum(n), 0)::int as n from ${sql(name)}`, (rows) => rows[0]!.n)

layer(Embedded.layer({}), { excludeTestServices: true, timeout: 60_000 })("connections to one PGlite", (it) => {
  it.effect("are known as embedded, derived ones too, and others are not", () =>
    Effect.gen(function*() {
      expect(Embedded.isEmbedded(yield* PgClient.PgClient)).toBe(true)
      expect(Embedded.isEmbedded(yield* derive())).toBe(true)
      const plain = yield* Effect.provide(PgClient.make({ host: "localhost" }), Reactivity.layer)
      expect(Embedded.isEmbedded(plain)).toBe(false)
    }))

  it.effect("run the transactions of eight fibers one after the other", () =>
    Effect.gen(function*() {
      const sql = yield* table("counter")
      yield* sql`insert into counter values (0)`
      let inside = 0
      const increment = Effect.gen(function*() {
        const [row] = yield* sql<{ n: number }>`select n from counter`
        expect(++inside).toBe(1)
        yield* Effect.yieldNow
        yield* sql`update counter set n = ${row!.n + 1}`
        inside--
      })
      yield* Effect.forEach(
        Array.from({ length: 8 }),
        () => Effect.forEach(Array.from({ length: 10 }), () => sql.withTransaction(increment), { discard: true }),
        { concurrency: "unbounded", discard: true }
      )
      expect(yield* sum(sql, "counter")).toBe(80)
    }))

  it.effect("roll back the transactions that fail and keep the others", () =>
    Effect.gen(function*() {
      const sql = yield* table("halves")
      const exits = yield* Effect.forEach(
        Array.from({ length: 16 }, (_, index) => index),
        (index) =>
          Effect.exit(sql.withTransaction(Effect.andThen(
            sql`insert into halves values (1)`,
            sql`select 1 / ${index % 2}::int`
          ))),
        { concurrency: "unbounded" }
      )
      expect(exits.filter(Exit.isSuccess)).toHaveLength(8)
      expect(yield* sum(sql, "halves")).toBe(8)
    }))

  it.effect("see nothing of a transaction before it commits", () =>
    Effect.gen(function*() {
      const sql = yield* table("isolated")
      yield* warm(sql, 2)
      const opened = yield* Deferred.make<void>()
      const reader = yield* Effect.forkChild(Effect.andThen(Deferred.await(opened), sum(sql, "isolated")))
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* sql`insert into isolated values (1)`
        yield* Deferred.succeed(opened, undefined)
        yield* settle(sql)
        expect(reader.pollUnsafe()).toBeUndefined()
        yield* sql`insert into isolated values (2)`
      }))
      expect(yield* Fiber.join(reader)).toBe(3)
    }))

  it.effect("nest transactions as savepoints", () =>
    Effect.gen(function*() {
      const sql = yield* table("nested")
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* sql`insert into nested values (1)`
        yield* Effect.exit(sql.withTransaction(Effect.andThen(sql`insert into nested values (2)`, sql`select 1 / 0`)))
        yield* sql`insert into nested values (4)`
      }))
      expect(yield* sum(sql, "nested")).toBe(5)
    }))

  it.effect("forget a statement that is interrupted while it waits, at once", () =>
    Effect.gen(function*() {
      const sql = yield* table("queued")
      yield* warm(sql, 3)
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* sql`insert into queued values (1)`
        const waiting = yield* Effect.forkChild(Effect.provideService(
          sql`insert into queued values (10)`,
          sql.transactionService,
          undefined as never
        ))
        yield* settle(sql)
        yield* Fiber.interrupt(waiting)
        yield* sql`insert into queued values (1)`
      }))
      expect(yield* sum(sql, "queued")).toBe(2)
    }))

  it.effect("roll back the transaction of a fiber that is interrupted", () =>
    Effect.gen(function*() {
      const sql = yield* table("interrupted")
      const opened = yield* Latch.make()
      const fiber = yield* Effect.forkChild(sql.withTransaction(Effect.andThen(
        sql`insert into interrupted values (1)`,
        Effect.andThen(opened.open, Effect.never)
      )))
      yield* opened.await
      yield* Fiber.interrupt(fiber)
      expect(yield* sum(sql, "interrupted")).toBe(0)
    }))

  it.effect("roll back the transaction of a stream that is destroyed", () =>
    Effect.gen(function*() {
      const sql = yield* table("destroyed")
      const streams: Array<ReturnType<NonNullable<PgClient.PgClientConfig["stream"]>>> = []
      const other = yield* derive({
        stream: () => {
          const stream = sql.config.stream!()
          streams.push(stream)
          return stream
        }
      })
      const exit = yield* Effect.exit(other.withTransaction(Effect.gen(function*() {
        yield* other`insert into destroyed values (1)`
        streams.forEach((stream) => stream.destroy())
        yield* other`insert into destroyed values (1)`
      })))
      expect(Exit.isFailure(exit)).toBe(true)
      expect(yield* sum(sql, "destroyed")).toBe(0)
    }))

  it.effect("deliver a notification to every listener, and only when it is committed", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const other = yield* derive()
      const here = yield* sql.listen("news")
      const there = yield* other.listen("news")
      const elsewhere = yield* other.listen("weather")
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* sql`select pg_notify('news', 'first')`
        yield* settle(sql)
        expect(yield* Queue.size(here)).toBe(0)
        expect(yield* Queue.size(there)).toBe(0)
      }))
      expect((yield* Queue.take(here)).payload).toBe("first")
      expect((yield* Queue.take(there)).payload).toBe("first")
      yield* Effect.exit(sql.withTransaction(
        Effect.andThen(sql`select pg_notify('news', 'lost')`, Effect.fail("no"))
      ))
      yield* other.notify("news", "second")
      expect(yield* Queue.take(here)).toMatchObject({ channel: "news", payload: "second" })
      expect((yield* Queue.take(there)).payload).toBe("second")
      expect(yield* Queue.size(elsewhere)).toBe(0)
    }))

  it.effect("keep listening when another one stops to", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const other = yield* derive()
      const stays = yield* sql.listen("shared")
      yield* Effect.scoped(other.listen("shared"))
      yield* other.notify("shared", "still")
      expect((yield* Queue.take(stays)).payload).toBe("still")
    }))

  it.effect("leave no prepared statement behind", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const count = sql<{ n: number }>`
        select count(*)::int as n from pg_prepared_statements where statement like 'select%as only_here'`
      const scope = yield* Scope.make()
      const other = yield* Scope.provide(derive(), scope)
      yield* Effect.forEach(
        Array.from({ length: 6 }),
        () => other`select ${1}::int as only_here`,
        { concurrency: "unbounded" }
      )
      expect((yield* count)[0]!.n).toBeGreaterThan(0)
      yield* Scope.close(scope, Exit.void)
      yield* settle(sql)
      expect((yield* count)[0]!.n).toBe(0)
    }))

  it.effect("take turns, however much one of them has sent", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      yield* warm(sql, 1)
      const busy = yield* derive({ multiplex: true, maxConnections: 1, multiplexConcurrency: 1000 })
      yield* warm(busy, 1)
      let answered = 0
      const flood = yield* Effect.forkChild(Effect.forEach(
        Array.from({ length: 500 }),
        () => Effect.tap(busy`select 1`, () => Effect.sync(() => answered++)),
        { concurrency: "unbounded", discard: true }
      ))
      while (answered === 0) yield* Effect.yieldNow
      yield* sql`select 1`
      expect(answered).toBeLessThan(250)
      yield* Fiber.join(flood)
      expect(answered).toBe(500)
    }))

  it.effect("let timers run between statements", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      let answered = 0
      const atTimer = yield* Effect.forkChild(Effect.as(Effect.sleep(1), () => answered))
      const flood = yield* Effect.forkChild(Effect.forEach(
        Array.from({ length: 3000 }),
        () => Effect.tap(sql`select 1`, () => Effect.sync(() => answered++)),
        { concurrency: "unbounded", discard: true }
      ))
      const seen = (yield* Fiber.join(atTimer))()
      expect(seen).toBeLessThan(1500)
      yield* Fiber.join(flood)
    }))

  it.effect("stream a large result and go on", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const rows = yield* sql<{ text: string }>`
        select repeat('x', 10000) || n as text from generate_series(1, 1500) n`
      expect(rows).toHaveLength(1500)
      expect(rows[1499]!.text.endsWith("x1500")).toBe(true)
      const large = "y".repeat(8 * 1024 * 1024)
      expect((yield* sql<{ n: number }>`select length(${large}::text) as n`)[0]!.n).toBe(large.length)
    }))

  it.effect("answer errors of SQL with their code, also for recursion without an end", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      yield* sql`create or replace function pg_temp.deeper(n int) returns int language plpgsql as
        'begin return pg_temp.deeper(n + 1); end'`
      expect(codeOf(yield* Effect.flip(sql`select pg_temp.deeper(1)`))).toBe("54001")
      expect(codeOf(yield* Effect.flip(sql`select * from nowhere`))).toBe("42P01")
      expect(yield* sql`select 1 as n`).toEqual([{ n: 1 }])
    }))

  it.effect("refuse COPY FROM STDIN, inside a transaction too", () =>
    Effect.gen(function*() {
      const sql = yield* table("copied")
      const copy = sql`copy copied from stdin`
      expect(codeOf(yield* Effect.flip(copy))).toBe("0A000")
      expect(codeOf(yield* Effect.flip(sql.withTransaction(copy)))).toBe("0A000")
      expect(yield* sum(sql, "copied")).toBe(0)
    }))

  it.effect("are kept tidy: dead rows are vacuumed and the log is cut", () =>
    Effect.gen(function*() {
      const sql = yield* table("bloated")
      yield* sql`insert into bloated select generate_series(1, 20000)`
      const fat = "z".repeat(1024 * 1024)
      for (let round = 0; round < 4; round++) yield* sql`update bloated set n = n + 1`
      yield* sql`create table if not exists logged (text text)`
      yield* sql`alter table logged alter text set storage external`
      for (let round = 0; round < 70; round++) yield* sql`insert into logged values (${fat})`
      yield* sql`select pg_stat_force_next_flush()`
      // The layer's own maintenance may have been faster, with all or with a part of it.
      yield* Maintenance.runOnce(sql)
      yield* sql`select pg_stat_force_next_flush()`
      expect(
        yield* sql`
          select s.vacuum_count > 0 as vacuumed,
            pg_wal_lsn_diff(pg_current_wal_insert_lsn(), p.redo_lsn) < 64 * 1024 * 1024 as cut
          from pg_stat_user_tables s, pg_control_checkpoint() p where s.relname = 'bloated'`
      ).toEqual([{ vacuumed: true, cut: true }])
      expect(yield* Maintenance.runOnce(sql)).toEqual([])
    }), 60_000)
})

describe("an embedded database", () => {
  it.live("that broke answers with connection errors and closes", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const sql = yield* Scope.provide(embedded, scope)
      yield* sql`create function endless(n int) returns int language sql as 'select endless($1 + 1)'`
      const news = yield* Scope.provide(sql.listen("news"), scope)
      const errors = yield* Effect.forEach(
        ["select endless(1)", "select 2", "select 3"],
        (statement) => Effect.flip(sql.unsafe(statement)),
        { concurrency: "unbounded" }
      )
      expect(errors.map((error) => error.reason._tag)).toEqual([
        "ConnectionError",
        "ConnectionError",
        "ConnectionError"
      ])
      const late = yield* Effect.flip(sql`select 4`)
      expect(late.reason._tag).toBe("ConnectionError")
      expect(String(late.reason.cause)).toContain("The embedded database broke")
      expect(Exit.isFailure(yield* Effect.exit(Queue.take(news)))).toBe(true)
      yield* Scope.close(scope, Exit.void)
    }), 60_000)

  it.live("that is closed ends the connections of derived clients", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const sql = yield* Scope.provide(embedded, scope)
      const other = yield* Effect.provideService(derive(), PgClient.PgClient, sql)
      const news = yield* other.listen("news")
      const waiting = yield* Effect.forkChild(Effect.exit(Queue.take(news)))
      yield* Scope.close(scope, Exit.void)
      const exit = yield* Fiber.join(waiting)
      expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toContain("was closed")
      expect((yield* Effect.flip(other`select 1`)).reason._tag).toBe("ConnectionError")
    }), 60_000)
})
