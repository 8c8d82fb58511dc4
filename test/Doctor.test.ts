import { PgClient } from "@effect/sql-pg"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Layer, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { Doctor, KongTask, Migrator, Queue, Task } from "kongtask"
import * as Checks from "../src/internal/doctor/checks.ts"
import type { Server, TableSize } from "../src/internal/postgres/diagnosis.ts"
import * as Database from "./support/database.ts"
import { makeDirectory } from "./support/directory.ts"
import * as Test from "./support/kongtask.ts"

const test = <E>(
  name: string,
  effect: () => Effect.Effect<unknown, E, Layer.Success<ReturnType<typeof Test.layer>> | Scope.Scope>
) => it.live(name, () => Effect.scoped(effect()).pipe(Effect.provide(Test.layer())), 60_000)

const problems = ({ findings }: Doctor.Report) =>
  findings.filter(({ status }) => status === "problem").map(({ check, message, todo }) => ({ check, message, todo }))

const checks = [
  "connection",
  "version",
  "privileges",
  "migrations",
  "indexes",
  "workers",
  "transactions",
  "bloat",
  "clock"
]

describe("the doctor", () => {
  test("finds nothing on a database that is well", () =>
    Effect.gen(function*() {
      const report = yield* Doctor.examine()
      expect(report.findings.map(({ check, status }) => [check, status])).toEqual(checks.map((check) => [check, "ok"]))
      expect(report.isHealthy).toBe(true)
    }))

  it.live("says what to do where nothing is there yet", () =>
    Effect.gen(function*() {
      const report = yield* Doctor.examine()
      expect(report.findings.map(({ check }) => check)).toEqual(checks)
      expect(problems(report)).toMatchObject([{ check: "migrations", todo: "Run `kongtask migrate`." }])
      expect(report.findings.find(({ check }) => check === "workers")?.status).toBe("unknown")
    }).pipe(Effect.provide(Layer.provideMerge(Migrator.Migrator.layer(), Database.layer({ migrated: false })))), 60_000)

  it.live("examines the embedded database", () =>
    Effect.gen(function*() {
      const dataDir = yield* makeDirectory("data")
      const report = yield* Effect.provide(Doctor.examine(), KongTask.layerEmbedded({ dataDir: `${dataDir}/db` }))
      expect(problems(report)).toEqual([])
    }).pipe(Effect.scoped), 60_000)

  test("finds an index that is missing, and one that could not be made", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`drop index graphile_worker.jobs_queue_index`
      yield* sql`create index broken on graphile_worker._private_jobs (id)`
      yield* sql`update pg_index set indisvalid = false where indexrelid = 'graphile_worker.broken'::regclass`
      const [found] = problems(yield* Doctor.examine())
      expect(found).toMatchObject({ check: "indexes", todo: expect.stringContaining("kongtask migrate") })
      expect(found?.message).toContain("jobs_queue_index, broken")
    }))

  test("finds workers that died, locks of nobody, and jobs that nobody runs", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const mail = Task.make("mail")
      const [held] = yield* Queue.addMany([mail.request(undefined), mail.request(undefined)])
      yield* sql`insert into graphile_worker._private_kongtask_pools (id, heartbeat_at, lease)
        values ('kongtask-dead', now() - interval '1 hour', '60 seconds')`
      yield* sql`update graphile_worker._private_jobs set run_at = now() - interval '1 hour'`
      yield* sql`update graphile_worker._private_jobs set locked_by = 'kongtask-gone', locked_at = now() - interval '1 hour'
        where id = ${held!.id}::text::int8`
      const messages = problems(yield* Doctor.examine()).map(({ message }) => message)
      expect(messages).toEqual([
        "1 worker died: kongtask-dead.",
        "Jobs are held by workers that nobody knows: kongtask-gone.",
        "1 job has been due for longer than a minute, and no worker runs."
      ])
    }))

  test("finds graphile-worker's workers without their indexes", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* Queue.add(Task.make("mail"), undefined)
      yield* sql`update graphile_worker._private_jobs set locked_by = 'worker-1', locked_at = now()`
      expect(problems(yield* Doctor.examine())).toMatchObject([
        { check: "indexes", todo: expect.stringContaining("kongtask migrate --interop") }
      ])
    }))

  test("finds a transaction that somebody left open", () =>
    Effect.gen(function*() {
      const { config } = yield* Database.TestDatabase
      const opened = yield* Deferred.make<void>()
      yield* Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        return yield* sql.withTransaction(Effect.andThen(
          sql`select 1`,
          Effect.andThen(Deferred.succeed(opened, undefined), Effect.never)
        ))
      }).pipe(
        Effect.provide(PgClient.layer({ ...config, applicationName: "forgetful" })),
        Effect.forkScoped
      )
      yield* Deferred.await(opened)
      expect(problems(yield* Doctor.examine({ openFor: "1 hour" }))).toEqual([])
      const found = problems(yield* Doctor.examine({ openFor: 0 })).find(({ check }) => check === "transactions")
      expect(found?.message).toMatch(/^Session \d+ \(forgetful\) has had a transaction open .*idle in transaction/)
      expect(found?.todo).toMatch(/pg_terminate_backend\(\d+\)/)
    }))

  test("finds that autovacuum is off", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`alter table graphile_worker._private_jobs set (autovacuum_enabled = false)`
      expect(problems(yield* Doctor.examine())).toMatchObject([
        { check: "bloat", message: expect.stringContaining("Autovacuum is off for _private_jobs") }
      ])
    }))
})

describe("what the doctor makes of it", () => {
  const server: Server = {
    version: "15.1",
    version_number: 150_001,
    database: "app",
    role: "me",
    is_standby: false,
    is_read_only: false,
    connections: 10,
    max_connections: 100,
    is_autovacuum_on: true
  }
  const status = (findings: ReadonlyArray<Doctor.Finding>) => findings.map(({ status }) => status)

  it("a server without connections left, a standby, one that is too old", () => {
    expect(status(Checks.connection(server, 1))).toEqual(["ok"])
    expect(status(Checks.connection({ ...server, connections: 90 }, 1))).toEqual(["problem"])
    expect(Checks.connection({ ...server, is_standby: true }, 1)[0]?.todo).toContain("primary")
    expect(status(Checks.version({ ...server, version: "11.22", version_number: 110_022 }))).toEqual(["problem"])
  })

  it("clocks: what the way there and back may explain is no skew", () => {
    expect(status(Checks.clock(900, 0))).toEqual(["ok"])
    expect(status(Checks.clock(-2500, 2000))).toEqual(["ok"])
    expect(Checks.clock(5000, 10)[0]?.message).toBe("This machine's clock is 5.0 s behind the server's.")
    expect(Checks.clock(-5000, 10)[0]?.message).toContain("ahead of")
  })

  it("bloat: many dead rows, and many bytes for few rows", () => {
    const table: TableSize = {
      name: "_private_jobs",
      live: 1000,
      dead: 0,
      bytes: 1e6,
      is_autovacuum_off: false,
      vacuumed_at: null
    }
    expect(status(Checks.bloat([table], true))).toEqual(["ok"])
    expect(status(Checks.bloat([{ ...table, dead: 150_000 }], true))).toEqual(["problem"])
    expect(status(Checks.bloat([{ ...table, dead: 150_000, live: 1e6, bytes: 1e9 }], true))).toEqual(["ok"])
    expect(status(Checks.bloat([{ ...table, bytes: 1e9 }], true))).toEqual(["problem"])
    expect(status(Checks.bloat([table], false))).toEqual(["problem"])
  })

  it("sessions that the role does not see are said to be unknown", () => {
    const none = { open: [], prepared: [], slots: [], unseen: 3 }
    expect(Checks.transactions(none, Duration.minutes(5))).toMatchObject([
      { status: "unknown", todo: expect.stringContaining("pg_read_all_stats") }
    ])
    expect(status(Checks.transactions({ ...none, prepared: ["tx1"], slots: ["s"] }, Duration.minutes(5)))).toEqual([
      "problem",
      "problem"
    ])
  })
})
