import { PgClient } from "@effect/sql-pg"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Latch, type Layer, Schema, Scope } from "effect"
import { Reactivity } from "effect/reactivity"
import { SqlClient } from "effect/sql"
import { KongTaskError, Queue, Retry, Task, Worker, type WorkerEvent } from "kongtask"
import { connection, dedicatedServerWith, terminateBackends, TestDatabase } from "./support/database.ts"
import { eventually } from "./support/events.ts"
import * as Test from "./support/kongtask.ts"
import * as Lane from "./support/lane.ts"

const Step = Task.make("step", { payload: { n: Schema.Int } })

const test = <E>(
  name: string,
  effect: () => Effect.Effect<unknown, E, Layer.Success<ReturnType<typeof Test.layer>> | Scope.Scope>
) => it.live(name, () => Effect.scoped(effect()).pipe(Effect.provide(Test.layer())), 60_000)

const requests = (count: number) => Array.from({ length: count }, (_, n) => Step.request({ n }))

const once = (count: number) => Array.from({ length: count }, () => 1)

const drained = eventually(Queue.count(), {
  until: (count) => count === 0,
  what: "an empty queue",
  within: "30 seconds"
})

/** A worker in the test's scope whose handlers wait for `gate`, and how often it has run each job. */
const start = Effect.fnUntraced(function*(options: { readonly concurrency?: number } = {}) {
  const gate = yield* Latch.make(false)
  const runs = new Map<number, number>()
  const handler = Step.toLayer(({ n }) =>
    Effect.andThen(gate.await, Effect.sync(() => void runs.set(n, (runs.get(n) ?? 0) + 1)))
  )
  const fiber = yield* Worker.run({ tasks: [Step], pollInterval: "200 millis", handleSignals: false, ...options }).pipe(
    Effect.provide(handler),
    Effect.forkScoped({ startImmediately: true })
  )
  return { fiber, gate, runs }
})

const clientOf = (config: PgClient.PgPoolConfig) => PgClient.make(config).pipe(Effect.provide(Reactivity.layer))

/** The SQLSTATE that the worker tells of, or the reason where the error has none of its own. */
const trouble = ({ error: { reason } }: Extract<WorkerEvent.WorkerEvent, { _tag: "DatabaseUnavailable" }>) =>
  reason._tag === "StatementFailed" ? reason.code : reason._tag

/**
 * Makes the first `times` attempts to claim jobs, or to record what became of them, fail with that SQLSTATE. A sequence
 * counts, for it is not rolled back.
 */
const failing = Effect.fnUntraced(function*(what: "claim" | "settle", code: string, times: number) {
  const sql = yield* SqlClient.SqlClient
  yield* sql`create sequence public.trouble`
  yield* sql.unsafe(`
    create function public.trouble() returns trigger language plpgsql as $$
    begin
      if (tg_op = 'UPDATE' and new.locked_by is not null) = ${what === "claim"} then
        if nextval('public.trouble') <= ${times} then
          raise exception 'made up' using errcode = '${code}';
        end if;
      end if;
      return case when tg_op = 'DELETE' then old else new end;
    end
    $$`)
  yield* sql`
    create trigger trouble before update or delete on graphile_worker._private_jobs
    for each row execute function public.trouble()`
})

/** What PostgreSQL says, and when. */
const passing = {
  "53100": "the disk is full",
  "53200": "the server is out of memory",
  "40001": "the statement cannot be serialized",
  "40P01": "the statement was chosen to end a deadlock",
  "55P03": "a lock was not to be had",
  "57014": "the statement was cancelled",
  "25006": "the server is read-only"
}

describe("a worker waits and tries again", () => {
  for (const [code, says] of Object.entries(passing)) {
    test(`when ${says} while it records outcomes, and runs no job twice for that`, () =>
      Effect.gen(function*() {
        const events = yield* Test.watch
        yield* failing("settle", code, 3)
        yield* Queue.add(Step, { n: 0 })
        const { gate, runs } = yield* start()
        yield* gate.open
        yield* events.next("JobStarted")
        const before = performance.now()
        for (let time = 0; time < 3; time++) {
          expect(trouble(yield* events.next("DatabaseUnavailable"))).toBe(code)
        }
        yield* events.next("JobCompleted")
        // 100, 200 and 400 ms, each less a fifth at most.
        expect(performance.now() - before).toBeGreaterThan(550)
        yield* Queue.addMany(requests(20).slice(1))
        yield* drained
        expect([...runs.values()]).toEqual(once(20))
      }))

    test(`when ${says} while it claims jobs, and charges none for that`, () =>
      Effect.gen(function*() {
        const events = yield* Test.watch
        yield* failing("claim", code, 2)
        yield* Queue.addMany(requests(20))
        const { gate, runs } = yield* start()
        for (let time = 0; time < 2; time++) {
          expect(trouble(yield* events.next("DatabaseUnavailable"))).toBe(code)
        }
        yield* gate.open
        const completed = yield* events.many("JobCompleted", 20)
        expect(completed.map(({ job }) => job.attempt)).toEqual(once(20))
        expect([...runs.values()]).toEqual(once(20))
      }))
  }

  test("until a full disk has room again, for outcomes, claims and heartbeats alike", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const events = yield* Test.watch
      yield* sql`create table public.full_disk ()`
      yield* sql.unsafe(`
        create function public.full_disk() returns trigger language plpgsql as $$
        begin
          if exists (select from public.full_disk) then
            raise exception 'could not extend file: No space left on device' using errcode = 'disk_full';
          end if;
          return null;
        end
        $$`)
      for (const table of ["_private_jobs", "_private_kongtask_pools"]) {
        yield* sql.unsafe(`create trigger full_disk before insert or update or delete on graphile_worker.${table}
          for each statement execute function public.full_disk()`)
      }
      yield* Queue.addMany(requests(100))
      const { gate, runs } = yield* start({ concurrency: 20 })
      const { pool } = (yield* events.many("JobStarted", 20))[0]!
      yield* sql`insert into public.full_disk default values`
      yield* gate.open
      for (let time = 0; time < 5; time++) {
        expect(trouble(yield* events.next("DatabaseUnavailable"))).toBe("53100")
      }
      const error = yield* Effect.flip(Queue.add(Step, { n: 100 }))
      expect(error).toMatchObject({ _tag: "KongTaskError", isTransient: true, reason: { code: "53100" } })
      expect(error.message).toContain("No space left on device")
      expect(yield* Queue.count()).toBe(100)

      yield* sql`delete from public.full_disk`
      const completed = yield* events.many("JobCompleted", 100)
      expect(completed.every((event) => event.pool === pool)).toBe(true)
      expect([...runs.values()]).toEqual(once(100))
      expect(yield* Queue.count()).toBe(0)
    }))

  it.live(
    "when the answers to a failure's record and to the next claim of its job are lost, and charges nothing twice",
    () =>
      Effect.gen(function*() {
        const lane = Lane.make()
        const severed = new KongTaskError.KongTaskError({
          reason: new KongTaskError.ConnectionFailed({ detail: "cut", cause: new Error("cut") })
        })
        const isRecorded = yield* Latch.make(false)
        const isClaimed = yield* Latch.make(false)
        lane.settle = (settle) => (pool, settlements, held) =>
          Effect.gen(function*() {
            const settled = yield* settle(pool, settlements, held)
            if (isRecorded.isOpen()) return settled
            yield* isRecorded.open
            yield* isClaimed.await
            return yield* severed
          })
        lane.claim = (claim) => (request) =>
          Effect.gen(function*() {
            const claimed = yield* claim(request)
            if (!isRecorded.isOpen() || isClaimed.isOpen() || claimed.jobs.length === 0) return claimed
            yield* isClaimed.open
            return yield* severed
          })
        yield* Effect.gen(function*() {
          const attempts: Array<number> = []
          const handler = Step.toLayer((_, job) => {
            attempts.push(job.attempt)
            return job.attempt === 1 ? Effect.die("no") : Effect.void
          }, { retry: Retry.fixed(0) })
          yield* Queue.add(Step, { n: 0 })
          yield* Worker.run({ tasks: [Step], pollInterval: "50 millis", handleSignals: false }).pipe(
            Effect.provide(handler),
            Effect.forkScoped({ startImmediately: true })
          )
          yield* drained
          expect(attempts).toEqual([1, 2])
        }).pipe(Effect.provide(lane.layer))
      }).pipe(Effect.scoped, Effect.provide(Test.layer())),
    60_000
  )

  test("when its statements are cancelled from outside", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const events = yield* Test.watch
      yield* Queue.addMany(requests(10))
      const { gate, runs } = yield* start()
      yield* events.many("JobStarted", 10)
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* sql`lock table graphile_worker._private_jobs in access exclusive mode`
        yield* gate.open
        for (let time = 0; time < 3; time++) {
          yield* eventually(
            sql`
              select pg_cancel_backend(pid) from pg_stat_activity
              where datname = current_database() and application_name = 'kongtask' and wait_event_type = 'Lock'`,
            { until: (rows) => rows.length > 0, what: "a statement that waits" }
          )
          expect(trouble(yield* events.next("DatabaseUnavailable"))).toBe("57014")
        }
      }))
      yield* events.many("JobCompleted", 10)
      expect([...runs.values()]).toEqual(once(10))
    }))

  test("when the database is made read-only, and goes on when it is not any more", () =>
    Effect.gen(function*() {
      const { name } = yield* TestDatabase
      const events = yield* Test.watch
      yield* Queue.addMany(requests(30))
      const { gate, runs } = yield* start()
      yield* events.many("JobStarted", 10)
      const alter = (setting: string) =>
        Effect.scoped(Effect.flatMap(clientOf(connection), (sql) => sql.unsafe(`alter database "${name}" ${setting}`)))
      yield* alter("set default_transaction_read_only = on")
      yield* terminateBackends()
      yield* gate.open
      yield* events.next("DatabaseUnavailable", (event) => trouble(event) === "25006")
      // Sessions that began in between stay read-only, and nobody ends them.
      yield* alter("reset default_transaction_read_only")
      yield* events.many("JobCompleted", 30)
      expect([...runs.values()]).toEqual(once(30))
      yield* drained
    }))

  it.live("when its role may open no more connections", () =>
    Effect.gen(function*() {
      const { config } = yield* dedicatedServerWith()
      const sql = yield* clientOf(config)
      yield* sql`create role app login`
      yield* sql`create database app owner app`
      yield* Effect.gen(function*() {
        const events = yield* Test.watch
        yield* Queue.addMany(requests(30))
        const { gate, runs } = yield* start()
        yield* events.many("JobStarted", 10)
        yield* sql`alter role app connection limit 0`
        yield* sql`select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'`
        yield* gate.open
        const { error } = yield* events.next("DatabaseUnavailable", (event) => /too many/.test(event.error.message))
        expect(error).toMatchObject({ isTransient: true, reason: { _tag: "ConnectionFailed" } })
        yield* sql`alter role app connection limit -1`
        yield* events.many("JobCompleted", 30)
        expect([...runs.values()]).toEqual(once(30))
        yield* drained
      }).pipe(Effect.provide(Test.layerOn({ ...config, username: "app", database: "app" })))
    }).pipe(Effect.scoped), 60_000)

  it.live("when others have all the connections of the server", () =>
    Effect.gen(function*() {
      const { config } = yield* dedicatedServerWith({ settings: { max_connections: "12" } })
      yield* Effect.gen(function*() {
        const events = yield* Test.watch
        yield* Queue.addMany(requests(30))
        const others = yield* Scope.make()
        const another = clientOf({ ...config, maxConnections: 1 }).pipe(
          Effect.tap((sql) => sql`select 1`),
          Scope.provide(others)
        )
        const refusal = yield* Effect.flip(Effect.forever(another))
        expect(refusal.message + String(refusal.reason.cause)).toMatch(/too many clients/)

        const { gate, runs } = yield* start()
        yield* gate.open
        const { error } = yield* events.next("DatabaseUnavailable")
        expect(error).toMatchObject({ isTransient: true, reason: { _tag: "ConnectionFailed" } })
        expect(error.message).toContain("too many clients")
        yield* Scope.close(others, Exit.void)
        yield* events.many("JobCompleted", 30)
        expect([...runs.values()]).toEqual(once(30))
      }).pipe(Effect.provide(Test.layerOn(config)))
    }).pipe(Effect.scoped), 60_000)
})
