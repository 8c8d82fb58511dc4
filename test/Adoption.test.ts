import { PgClient } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Queue as Buffer, Schema } from "effect"
import { KongTask, type Migrator, Queue, Task, Worker } from "kongtask"
import { eventually, pause, within } from "./support/events.ts"
import * as Graphile from "./support/graphile.ts"
import { connect, empty as emptyWith, makeRole, migratorOf, reasonOf } from "./support/migrator.ts"
import { spawnScript } from "./support/process.ts"

const empty = (options?: Migrator.MigratorOptions) => emptyWith(undefined, options)

/** A database that graphile-worker 0.18 has migrated. */
const graphile = Effect.fnUntraced(function*() {
  const database = yield* empty()
  yield* Graphile.migrate(database.url)
  return database
})

/** What statements can see of a schema: all but the names of constraints, sequences and unique indexes. */
const shape = (sql: PgClient.PgClient) =>
  Effect.map(
    sql<{ line: string }>`
      select regexp_replace(line, '[(]_private_jobs[)]', '') as line from (
        select 'column ' || relname || '.' || attname || ' ' || format_type(atttypid, atttypmod) || ' '
          || attnotnull || ' ' || attidentity::text || attgenerated::text || ' '
          || coalesce(pg_get_expr(adbin, adrelid), '') as line
        from pg_class join pg_attribute on attrelid = pg_class.oid and attnum > 0 and not attisdropped
        left join pg_attrdef on adrelid = attrelid and adnum = attnum
        where relnamespace = 'graphile_worker'::regnamespace and relkind in ('r', 'v', 'c')
        union all
        select 'security ' || relname || ' ' || relrowsecurity || ' ' || relforcerowsecurity from pg_class
        where relnamespace = 'graphile_worker'::regnamespace and relkind = 'r'
        union all
        select 'constraint ' || conrelid::regclass || ' ' || replace(
          replace(pg_get_constraintdef(oid), 'length(key) > 0', 'length(key) >= 1'), 'length(id) > 0', 'length(id) >= 1'
        ) from pg_constraint where connamespace = 'graphile_worker'::regnamespace
        union all
        select 'index ' || case when indisunique then '' else class.relname || ' ' end
          || regexp_replace(pg_get_indexdef(indexrelid), '^create (unique )?index \\S+ ', '\\1', 'i')
        from pg_index join pg_class as class on class.oid = indexrelid
        where class.relnamespace = 'graphile_worker'::regnamespace
        union all
        select 'function ' || pg_get_functiondef(oid) from pg_proc where pronamespace = 'graphile_worker'::regnamespace
        union all
        select 'view ' || viewname || definition from pg_views where schemaname = 'graphile_worker'
        union all
        select 'trigger ' || tgname from pg_trigger join pg_class on pg_class.oid = tgrelid
        where relnamespace = 'graphile_worker'::regnamespace
        union all
        select 'migration ' || id || ' ' || breaking from graphile_worker.migrations
        union all
        select 'ours ' || id || ' ' || name || ' ' || breaking from graphile_worker._private_kongtask_migrations
      ) as lines
      order by line collate "C"`,
    (rows) => rows.map(({ line }) => line)
  )

const ownObjects = (sql: PgClient.PgClient) =>
  Effect.map(
    sql<{ name: string }>`
      select relname::text as name from pg_class
      where relname like '\_private\_kongtask%' or relname ~ '^jobs_(claim|queue|queue_due)_index$'`,
    (rows) => rows.map(({ name }) => name)
  )

describe("a schema that graphile-worker made", () => {
  for (const version of [16, 17, 18, 19, 20]) {
    it.live(`is adopted from ${version} with its jobs, and is then like a new one`, () =>
      Effect.gen(function*() {
        const fresh = yield* empty({ interop: true })
        yield* fresh.migrator.migrate
        const adopt = version < 19 ? "breaking" : undefined
        const { migrator, sql, url } = yield* empty({ adopt })
        if (version === 20) yield* Graphile.migrate(url)
        else yield* Graphile.migrateTo(sql, version, version === 17 ? undefined : [1, 3, 11, 13, 14, 16, 19])
        yield* Graphile.fill(sql)
        const before = yield* Graphile.contents(sql)
        const { adopted: none, applied, pending } = yield* migrator.status
        assert.deepStrictEqual([none, applied], [undefined, []])

        const report = yield* migrator.migrate
        assert.deepStrictEqual(report, {
          schema: "graphile_worker",
          applied: pending,
          adoptedFrom: version,
          repaired: []
        })
        assert.strictEqual(yield* Graphile.contents(sql), before)
        assert.deepStrictEqual(yield* shape(sql), yield* shape(fresh.sql))
        const { adopted } = yield* migrator.status
        assert.deepInclude(adopted, { from: version, isFinished: false })
        yield* migrator.verify
        assert.deepStrictEqual((yield* migrator.migrate).applied, [])
        yield* Graphile.migrate(url)
        yield* migrator.verify
      }))
  }

  it.live("is refused at 16 to 18 unless that is asked for, and left as it is", () =>
    Effect.gen(function*() {
      for (const version of [16, 18]) {
        const { migrator, sql } = yield* empty()
        yield* Graphile.migrateTo(sql, version)
        for (const effect of [migrator.migrate, migrator.verify, migrator.status, migrator.finishAdoption]) {
          const reason = yield* reasonOf<unknown>(effect)
          assert.strictEqual(reason._tag, "SchemaIncompatible")
          assert.include(reason.message, `graphile-worker migrated it to ${version}`)
          assert.include(reason.message, "adopt: \"breaking\"")
        }
        assert.deepStrictEqual(yield* ownObjects(sql), [])
      }
    }))

  it.live("tells the workers that cannot go on when it was asked for", () =>
    Effect.gen(function*() {
      const { migrator, sql } = yield* empty({ adopt: "breaking" })
      yield* Graphile.migrateTo(sql, 18)
      const heard = yield* sql.listen("worker:migrate")
      yield* migrator.migrate
      const { payload } = yield* within(Buffer.take(heard), "5 seconds", "the notification")
      assert.deepStrictEqual(JSON.parse(payload ?? ""), { migrationNumber: 19, breaking: true })
    }))

  it.live("is refused when it is older, changed by a newer one, or not graphile-worker's at all", () =>
    Effect.gen(function*() {
      const problemOf = Effect.fnUntraced(
        function*(prepare: (sql: PgClient.PgClient) => Effect.Effect<unknown, unknown>) {
          const { migrator, sql } = yield* empty({ adopt: "breaking" })
          yield* Effect.orDie(prepare(sql))
          const reason = yield* reasonOf(migrator.migrate)
          assert.strictEqual(reason._tag, "SchemaIncompatible")
          assert.deepStrictEqual(yield* ownObjects(sql), [])
          return reason.message
        }
      )
      assert.include(yield* problemOf((sql) => Graphile.migrateTo(sql, 15)), "its migrations end at 15")
      assert.include(yield* problemOf((sql) => Graphile.migrateTo(sql, 10, undefined)), "its migrations end at 10")
      assert.include(
        yield* problemOf((sql) =>
          Effect.andThen(
            sql`create schema graphile_worker`,
            sql`create table graphile_worker.migrations (id int primary key)`
          )
        ),
        "its migrations end at 0"
      )
      assert.include(
        yield* problemOf((sql) =>
          Effect.andThen(
            sql`create schema graphile_worker`,
            sql`create table graphile_worker.migrations as select 'a' as name`
          )
        ),
        "not graphile-worker's"
      )
      assert.include(
        yield* problemOf((sql) =>
          Effect.andThen(
            Graphile.migrateTo(sql, 20),
            sql`insert into graphile_worker.migrations (id, breaking) values (21, true)`
          )
        ),
        "graphile-worker's migration 21"
      )
    }))

  it.live("is adopted with rows that change nothing for those who do not know them, and refused later for one that does", () =>
    Effect.gen(function*() {
      const { migrator, sql } = yield* graphile()
      yield* sql`insert into graphile_worker.migrations (id, breaking) values (21, false), (1000, false)`
      assert.strictEqual((yield* migrator.migrate).adoptedFrom, 20)
      yield* migrator.verify
      yield* sql`insert into graphile_worker.migrations (id, breaking) values (22, true)`
      for (const effect of [migrator.migrate, migrator.verify, migrator.status]) {
        assert.include((yield* reasonOf<unknown>(effect)).message, "graphile-worker's migration 22")
      }
    }))

  it.live("gets our functions back after graphile-worker has overwritten them", () =>
    Effect.gen(function*() {
      const { migrator, sql, url } = yield* empty()
      yield* migrator.migrate
      yield* sql`delete from graphile_worker.migrations where id = 20`
      yield* Graphile.migrate(url)
      const reason = yield* reasonOf(migrator.verify)
      assert.deepStrictEqual(reason._tag === "SchemaDamaged" && reason.objects, ["add_jobs", "add_job"])
      assert.deepStrictEqual((yield* migrator.migrate).repaired, ["add_jobs", "add_job"])
      yield* migrator.verify
    }))

  it.live(
    "is adopted once when twenty processes start at once, graphile-worker among them",
    () =>
      Effect.gen(function*() {
        const { config, sql, url } = yield* empty()
        yield* Graphile.migrateTo(sql, 19)
        yield* Graphile.fill(sql)
        const before = yield* Graphile.contents(sql)
        const adopt = Effect.scoped(Effect.gen(function*() {
          const migrator = yield* migratorOf(yield* connect({ ...config, maxConnections: 1 }))
          const report = yield* migrator.migrate
          yield* migrator.verify
          return report.adoptedFrom
        }))
        const [from] = yield* Effect.all([
          Effect.all(Array.from({ length: 20 }, () => adopt), { concurrency: "unbounded" }),
          Graphile.migrate(url)
        ], { concurrency: 2 })
        assert.strictEqual(from.filter((version) => version !== undefined).length, 1)
        assert.strictEqual(yield* Graphile.contents(sql), before)
      }),
    60_000
  )

  it.live("may have any name", () =>
    Effect.gen(function*() {
      const schema = `we"ird Schéma $kongtask$`
      const { migrator, sql, url } = yield* empty({ schema })
      yield* Graphile.migrate(url, schema)
      assert.strictEqual((yield* migrator.migrate).adoptedFrom, 20)
      yield* migrator.verify
      assert.deepStrictEqual(
        yield* sql.unsafe(`select id::int from "${schema.replaceAll("\"", "\"\"")}".add_job('a', queue_name := 'q')`),
        [{ id: 1 }]
      )
      assert.lengthOf((yield* migrator.finishAdoption).dropped, 2)
    }))

  it.live("becomes the property of its owner, not of who adopts it", () =>
    Effect.gen(function*() {
      const { config, migrator, sql } = yield* empty()
      const role = yield* makeRole(sql)
      const [named] = yield* sql<{ name: string }>`select current_database()::text as name`
      yield* sql.unsafe(`grant create on database "${named!.name}" to ${role}`)
      const owner = yield* connect({ ...config, startupParameters: { role } })
      yield* Graphile.migrateTo(owner, 20)
      yield* migrator.migrate
      yield* (yield* migratorOf(owner)).verify
      const job = yield* Queue.add(Task.make("a"), undefined).pipe(
        Effect.provide(KongTask.layer()),
        Effect.provideService(PgClient.PgClient, owner)
      )
      assert.strictEqual(job.task, "a")
    }))
})

describe("an adoption that is interrupted", () => {
  const isInvalid = (sql: PgClient.PgClient) =>
    eventually(
      sql`select from pg_index where indexrelid = to_regclass('graphile_worker.jobs_claim_index') and not indisvalid`,
      { what: "the unfinished index", until: (rows) => rows.length === 1 }
    )

  /** A child that is killed while its index waits for a transaction of the test's. */
  const killed = Effect.fnUntraced(function*() {
    const database = yield* graphile()
    const { config, sql, url } = database
    yield* sql`select count(graphile_worker.add_job('a', run_at := '2040-01-01Z'))::int from generate_series(1, 1000)`
    const blocker = yield* connect({ ...config, maxConnections: 1, applicationName: "blocker" })
    const connection = yield* blocker.reserve
    const statement = (text: string) => Effect.orDie(connection.execute(text, [], undefined))
    yield* statement("begin")
    yield* statement("select graphile_worker.add_job('b') is null as x")
    const release = statement("commit")
    yield* Effect.addFinalizer(() => release)
    const child = yield* spawnScript(new URL("fixtures/adopt.ts", import.meta.url), { env: { DATABASE_URL: url } })
    yield* isInvalid(sql)
    yield* child.killGroup
    return { ...database, release }
  })

  it.live("goes on from the index that a killed process has left half-made", () =>
    Effect.gen(function*() {
      const { migrator, release, sql } = yield* killed()
      yield* sql`
        select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and query like 'create index concurrently%' and pid <> pg_backend_pid()`
      const [left] = yield* sql<{ valid: boolean }>`
        select indisvalid as valid from pg_index where indexrelid = 'graphile_worker.jobs_claim_index'::regclass`
      assert.deepStrictEqual(left, { valid: false })
      assert.strictEqual((yield* reasonOf(migrator.verify))._tag, "SchemaMissing")
      yield* release
      assert.strictEqual((yield* migrator.migrate).adoptedFrom, 20)
      yield* migrator.verify
      assert.deepStrictEqual(yield* sql`select count(*)::int as n from graphile_worker.jobs`, [{ n: 1001 }])
    }), 60_000)

  it.live("waits for the server to end what a killed process has begun", () =>
    Effect.gen(function*() {
      const { migrator, release, sql } = yield* killed()
      const fiber = yield* Effect.forkChild(migrator.migrate)
      yield* pause("1 second")
      assert.isUndefined(fiber.pollUnsafe())
      yield* release
      assert.strictEqual((yield* Fiber.join(fiber)).adoptedFrom, 20)
      yield* migrator.verify
      assert.deepStrictEqual(yield* sql`select count(*)::int as n from pg_index where not indisvalid`, [{ n: 0 }])
    }), 60_000)

  it.live("leaves a schema that graphile-worker can use when its transaction fails", () =>
    Effect.gen(function*() {
      const { migrator, sql, url } = yield* graphile()
      yield* sql`
        create function public.refuse() returns event_trigger language plpgsql as $$
        begin
          if tg_tag = 'CREATE TABLE' and current_query() like '%kongtask_pools%' then raise exception 'no DDL here'; end if;
        end $$`
      yield* sql`create event trigger refuse on ddl_command_start execute function public.refuse()`
      const functions = sql`
        select md5(string_agg(prosrc, '' order by proname)) as sum from pg_proc
        where pronamespace = 'graphile_worker'::regnamespace`
      const before = yield* functions
      const reason = yield* reasonOf(migrator.migrate)
      assert.strictEqual(reason.message, "Migration 0004_pools.sql failed and was rolled back: no DDL here.")
      assert.deepStrictEqual((yield* ownObjects(sql)).toSorted(), [
        "jobs_claim_index",
        "jobs_queue_due_index",
        "jobs_queue_index"
      ])
      assert.deepStrictEqual(yield* functions, before)
      assert.deepStrictEqual((yield* migrator.status).applied, [])
      yield* sql`drop event trigger refuse`
      yield* Graphile.migrate(url)
      assert.strictEqual((yield* migrator.migrate).adoptedFrom, 20)
    }))
})

describe("graphile-worker and KongTask on one schema", () => {
  const Ours = Task.make("ours", { payload: { n: Schema.Int } })
  const Theirs = Task.make("theirs", { payload: { n: Schema.Int } })
  const Both = Task.make("both", { payload: { n: Schema.Int } })
  const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => ({ n: from + i }))

  it.live("both go on while the schema is adopted, and feed each other afterwards", () =>
    Effect.gen(function*() {
      const { config, migrator, sql, url } = yield* graphile()
      const ran: Record<"ours" | "theirs" | "both", Array<number>> = { ours: [], theirs: [], both: [] }
      const note = (task: keyof typeof ran) => (payload: unknown) => void ran[task].push((payload as { n: number }).n)
      const utils = yield* Graphile.utils({ sql, url })
      yield* Graphile.start({ sql, url }, { theirs: note("theirs"), both: note("both") }, { concurrency: 3 })

      let n = 0
      const producer = yield* Effect.forkChild(Effect.forever(Effect.gen(function*() {
        yield* Effect.promise(() => utils.addJob("theirs", { n: n++ }))
        yield* pause("1 millis")
      })))
      yield* eventually(Effect.sync(() => ran.theirs.length > 50))
      assert.strictEqual((yield* migrator.migrate).adoptedFrom, 20)
      const then = n
      yield* eventually(Effect.sync(() => ran.theirs.length > then + 50))
      yield* Fiber.interrupt(producer)
      // The interrupted one may have been added, or not.
      yield* pause("200 millis")

      yield* Effect.gen(function*() {
        const handlers = Layer.mergeAll(
          Ours.toLayer((payload) => Effect.sync(() => note("ours")(payload))),
          Both.toLayer((payload) => Effect.sync(() => note("both")(payload)))
        )
        const worker = yield* Worker.run({ tasks: [Ours, Both], handleSignals: false }).pipe(
          Effect.provide(handlers),
          Effect.forkChild
        )
        const start = ran.theirs.length
        yield* Queue.addMany(range(10_000, 10_100).map((payload) => Theirs.request(payload)))
        yield* Effect.forEach(range(0, 10), (payload) => Queue.add(Theirs, payload, { queueName: "serial" }))
        yield* Effect.promise(() => utils.addJobs(range(0, 100).map((payload) => ({ identifier: "ours", payload }))))
        yield* Effect.forEach(range(100, 110), (payload) =>
          Effect.promise(() =>
            utils.addJob("ours", payload, { queueName: "serial", jobKey: `key ${payload.n}` })
          ))
        yield* Queue.addMany(range(0, 250).map((payload) => Both.request(payload)))
        yield* Effect.promise(() => utils.addJobs(range(250, 500).map((payload) => ({ identifier: "both", payload }))))
        yield* eventually(
          Effect.map(sql<{ n: number }>`select count(*)::int as n from graphile_worker.jobs`, ([row]) => row!.n),
          { what: "an empty queue", until: (left) => left === 0, within: "40 seconds" }
        )
        yield* Fiber.interrupt(worker)
        const sorted = (task: keyof typeof ran) => ran[task].toSorted((a, b) => a - b)
        assert.deepStrictEqual(sorted("ours"), range(0, 110).map(({ n }) => n))
        assert.deepStrictEqual(sorted("both"), range(0, 500).map(({ n }) => n))
        assert.strictEqual(ran.theirs.length, start + 110)
        assert.strictEqual(new Set(ran.theirs.slice(0, start)).size, start)
      }).pipe(
        Effect.provide(KongTask.layer()),
        Effect.provideServiceEffect(PgClient.PgClient, connect(config))
      )
    }), 90_000)

  it.live("goes on with its workers after the adoption is finished", () =>
    Effect.gen(function*() {
      const { migrator, sql, url } = yield* graphile()
      assert.strictEqual((yield* reasonOf(migrator.finishAdoption))._tag, "SchemaMissing")
      let ran = 0
      yield* Graphile.start({ sql, url }, { theirs: () => void ran++ })
      yield* migrator.migrate
      assert.deepStrictEqual((yield* migrator.finishAdoption).dropped, ["jobs_main_index", "jobs_no_queue_index"])
      assert.deepInclude((yield* migrator.status).adopted, { from: 20, isFinished: true })
      yield* migrator.verify
      yield* sql`select count(graphile_worker.add_job('theirs'))::int from generate_series(1, 20)`
      yield* eventually(Effect.sync(() => ran === 20))
    }))
})
