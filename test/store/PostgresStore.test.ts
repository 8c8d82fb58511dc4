import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Reactivity from "effect/reactivity/Reactivity"
import { quoteIdentifier } from "../../src/internal/postgres/schema.ts"
import * as PostgresStore from "../../src/internal/postgres/store.ts"
import * as Migrator from "../../src/Migrator.ts"
import * as Database from "../support/database.ts"
import { eventually } from "../support/events.ts"
import { found, Harness, ids, makePool, running, spec, specs, take } from "./harness.ts"
import { storeSuite } from "./suite.ts"

const clientOf = (config: PgClient.PgPoolConfig) => PgClient.make(config).pipe(Effect.provide(Reactivity.layer))

const storeOf = (client: PgClient.PgClient, schema = "graphile_worker") =>
  Effect.provideService(PostgresStore.make({ schema }), PgClient.PgClient, client)

const storeOn = (config: PgClient.PgPoolConfig) => Effect.flatMap(clientOf(config), (client) => storeOf(client))

const harness = Layer.effect(
  Harness,
  Effect.gen(function*() {
    const database = yield* Database.freshDatabase()
    return {
      store: yield* storeOn(database.config),
      other: yield* storeOn({ ...database.config, applicationName: "other" }),
      severOther: Database.terminateBackends("other").pipe(
        Effect.provideService(Database.TestDatabase, database),
        Effect.orDie
      )
    }
  })
)

storeSuite("the store on PostgreSQL", { harness, capabilities: { batch: true, notifications: true } })

/** A database with one client and its store. */
const single = Effect.gen(function*() {
  const { config } = yield* Database.freshDatabase()
  const sql = yield* clientOf(config)
  return { config, sql, store: yield* storeOf(sql) }
})

describe("transactions", () => {
  it.live("are joined by whatever adds, reads or removes", () =>
    Effect.gen(function*() {
      const { config, sql, store } = yield* single
      const outside = yield* storeOn(config)
      const kept = yield* store.add(spec("kept", { key: "kept" }))
      const exit = yield* Effect.exit(sql.withTransaction(Effect.gen(function*() {
        yield* store.add(spec("task"))
        yield* store.addMany(specs("task", 3))
        assert.isTrue(Option.isSome(yield* store.remove({ key: "kept" })))
        assert.strictEqual(yield* store.count({}), 4)
        assert.strictEqual(yield* outside.count({}), 1)
        return yield* Effect.fail("undone")
      })))
      assert.deepStrictEqual(exit, Exit.fail("undone"))
      assert.deepStrictEqual(yield* outside.list({}, { limit: 10 }), [kept])
      yield* sql.withTransaction(Effect.andThen(store.addMany(specs("task", 3)), store.remove({ id: kept.id })))
      assert.strictEqual(yield* outside.count({ tasks: ["task"] }), 3)
      assert.strictEqual(yield* outside.count({}), 3)
    }))

  it.live("survive a bad job when it is added in one of their own", () =>
    Effect.gen(function*() {
      const { sql, store } = yield* single
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* store.add(spec("good"))
        const refused = sql.withTransaction(store.addMany([spec("bad"), spec("bad", { maxAttempts: 0 })]))
        assert.strictEqual((yield* Effect.flip(refused))._tag, "InvalidJob")
        yield* store.add(spec("good"))
      }))
      assert.strictEqual(yield* store.count({ tasks: ["good"] }), 2)
      assert.strictEqual(yield* store.count({}), 2)
    }))

  it.live("that replace a job are waited for by whoever removes it by its key", () =>
    Effect.gen(function*() {
      const { config, sql, store } = yield* single
      const outside = yield* storeOn(config)
      const pool = yield* makePool(store)
      const old = yield* running(store, pool, "task", { key: "key" })
      const replaced = yield* Deferred.make<void>()
      const removal = yield* Effect.forkChild(Effect.andThen(Deferred.await(replaced), outside.remove({ key: "key" })))
      const job = yield* sql.withTransaction(Effect.gen(function*() {
        const job = yield* store.add(spec("task", { key: "key" }))
        yield* Deferred.succeed(replaced, undefined)
        yield* eventually(waiting(config), { until: (count) => count === 1 })
        return job
      }))
      assert.deepStrictEqual(yield* Fiber.join(removal), Option.some(job))
      assert.deepInclude(yield* found(store, old.id), { state: "running", key: undefined })
    }))
})

/** How many sessions of a database wait for a lock. */
const waiting = (config: PgClient.PgPoolConfig) =>
  Effect.scoped(Effect.flatMap(clientOf({ ...config, maxConnections: 1 }), (sql) =>
    Effect.map(
      sql<{ count: number }>`
        select count(*)::int as count from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'`,
      (rows) => rows[0]!.count
    )))

describe("a dead pool", () => {
  it.live("loses what it is claiming at that moment too", () =>
    Effect.gen(function*() {
      const { config, sql, store } = yield* single
      const outside = yield* storeOn(config)
      const dead = yield* makePool(store, "1 millis")
      const { id } = yield* store.add(spec("task", { queueName: "queue" }))
      const release = yield* sql.withTransaction(Effect.gen(function*() {
        assert.lengthOf((yield* store.claim({ pool: dead, tasks: ["task"], limit: 1 })).jobs, 1)
        const release = yield* Effect.forkDetach(outside.releasePools([dead]), { startImmediately: true })
        yield* eventually(waiting(config), { until: (count) => count === 1 })
        return release
      }))
      assert.deepStrictEqual(yield* Fiber.join(release), { pools: [dead], released: 1, failed: 0 })
      assert.deepInclude(yield* found(store, id), { state: "ready", attempts: 1, lockedBy: undefined })
      assert.lengthOf((yield* store.claim({ pool: yield* makePool(store), tasks: ["task"], limit: 1 })).jobs, 1)
    }))
})

/** So many turns of large batches, until the scope ends. */
const takeTurns = (sql: PgClient.PgClient, count: number) =>
  Effect.forEach(Array.from({ length: count }), () =>
    Effect.gen(function*() {
      const session = yield* sql.reserve
      yield* session.execute("begin", [], undefined)
      yield* Effect.addFinalizer(() => Effect.orDie(session.execute("rollback", [], undefined)))
      const take = "select graphile_worker._private_kongtask_take_turn(2400, false) as taken"
      return (yield* session.execute(take, [], undefined)) as ReadonlyArray<{ readonly taken: boolean }>
    }), { concurrency: "unbounded" }).pipe(Effect.map((rows) => rows.flat().filter(({ taken }) => taken).length))

describe("batches of all pools", () => {
  it.live("are three at a time when they are large, and wait for each other", () =>
    Effect.gen(function*() {
      const { config, sql, store } = yield* single
      const pool = yield* makePool(store)
      yield* store.addMany(specs("task", 10))
      const large = { pool, tasks: ["task"], limit: 2000 }
      const [crowded, small, waiter] = yield* Effect.scoped(Effect.gen(function*() {
        assert.strictEqual(yield* takeTurns(sql, 6), 3)
        const crowded = yield* Effect.scoped(take(store, large))
        const small = yield* Effect.scoped(take(store, { ...large, limit: 5 }))
        const waiter = yield* take(store, large).pipe(
          Effect.repeat({ until: ({ isCrowded }) => !isCrowded }),
          Effect.scoped,
          Effect.forkDetach
        )
        yield* eventually(waiting(config), { until: (count) => count === 1 })
        return [crowded, small, waiter] as const
      }))
      assert.deepInclude(crowded, { isCrowded: true, count: 0, jobs: [] })
      assert.deepInclude(small, { isCrowded: false, count: 5 })
      assert.deepInclude(yield* Fiber.join(waiter), { isCrowded: false, count: 10 })
    }))

  it.live("know each other's jobs by ids of any size", () =>
    Effect.gen(function*() {
      const database = yield* Database.freshDatabase()
      const sql = yield* clientOf(database.config)
      const store = yield* storeOf(sql)
      const other = yield* storeOn({ ...database.config, applicationName: "other" })
      yield* store.remove(yield* store.add(spec("task")))
      yield* sql`
        insert into graphile_worker._private_jobs (id, task_id) overriding system value
        select 9007199254740991 + n, task.id
        from generate_series(0, 4) as n cross join graphile_worker._private_tasks as task`
      const taking = take(other, { pool: yield* makePool(other), tasks: ["task"], limit: 4 })
      const sever = Effect.provideService(Database.terminateBackends("other"), Database.TestDatabase, database)
      const lost = yield* Effect.scoped(Effect.tap(taking, sever))
      const batch = yield* Effect.scoped(take(store, { pool: yield* makePool(store), tasks: ["task"], limit: 10 }))
      assert.deepStrictEqual([lost.jobs.length, batch.count, batch.jobs.length], [4, 5, 0])
      const charged = yield* store.list({}, { limit: 10 })
      assert.sameDeepMembers(
        charged.map(({ attempts, id }) => [String(id), attempts]),
        [0n, 1n, 2n, 3n, 4n].map((n) => [String(9007199254740991n + n), n < 4n ? 1 : 0])
      )
    }).pipe(Effect.scoped))

  it.live("do not wait for the next one", () =>
    Effect.gen(function*() {
      const { sql, store } = yield* single
      const pool = yield* makePool(store)
      yield* store.addMany(specs("task", 10))
      const batch = yield* take(store, { pool, tasks: ["task"], limit: 5 })
      yield* takeTurns(sql, 3)
      const settlements = batch.jobs.map(({ id }) => ({ _tag: "Completed", id }) as const)
      const { next } = yield* batch.settle(settlements, { tasks: ["task"], limit: 2000 })
      assert.deepInclude(next, { isCrowded: true, count: 0 })
      assert.strictEqual(yield* store.count({}), 5)
    }).pipe(Effect.scoped))
})

describe("a client's own settings", () => {
  const camel = (name: string) => name.replaceAll(/_(\w)/g, (_, letter: string) => letter.toUpperCase())
  const snake = (name: string) => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)

  it.live("do not change how jobs are read", () =>
    Effect.gen(function*() {
      const { config } = yield* Database.freshDatabase()
      const store = yield* storeOn({
        ...config,
        transformQueryNames: snake,
        transformResultNames: camel,
        transformJson: true,
        startupParameters: { TimeZone: "Asia/Kathmandu", DateStyle: "SQL, DMY", search_path: "nowhere" }
      })
      const pool = yield* makePool(store)
      const runAt = Date.UTC(1899, 11, 31, 23, 59, 59, 987)
      const job = yield* store.add(
        spec("task", { payload: "{\"a_b\":{\"cD\":1}}", runAt, queueName: "queue", flags: ["a_b"] })
      )
      assert.deepStrictEqual(job.payload, { a_b: { cD: 1 } })
      assert.strictEqual(job.runAt.epochMilliseconds, runAt)
      const { jobs: [claimed] } = yield* store.claim({ pool, tasks: ["task"], limit: 1 })
      assert.deepInclude(claimed, { id: job.id, queueName: "queue", payload: job.payload, runAt: job.runAt })
      assert.deepStrictEqual(claimed?.flags, ["a_b"])
      assert.strictEqual((yield* store.settle(pool, [{ _tag: "Completed", id: job.id }])).size, 1)
    }))

  it.live("and the schema's name may be anything", () =>
    Effect.gen(function*() {
      const schema = "It's \"odd\" $body$ $1 :schema"
      const { config } = yield* Database.freshDatabase({ migrated: false })
      const sql = yield* clientOf(config)
      yield* Migrator.migrate.pipe(
        Effect.provide(Migrator.Migrator.layer({ schema })),
        Effect.provideService(PgClient.PgClient, sql)
      )
      const store = yield* storeOf(sql, schema)
      const pool = yield* makePool(store)
      const added = yield* store.addMany([spec("a", { queueName: "q", key: "k" }), spec("a"), spec("b")])
      const claim = yield* store.claim({ pool, tasks: ["a"], limit: 5 })
      assert.deepStrictEqual(ids(claim.jobs), ids(added.slice(0, 2)))
      yield* store.settle(pool, [{ _tag: "Released", id: added[1]!.id, attempt: 1 }])
      assert.isTrue(Option.isSome(yield* store.remove({ key: "k" })))
      yield* Effect.scoped(Effect.gen(function*() {
        const batch = yield* take(store, { pool, tasks: ["a", "b"], limit: 5 })
        assert.lengthOf(batch.jobs, 2)
        yield* batch.promote([added[2]!.id])
        yield* batch.settle([{ _tag: "Completed", id: added[1]!.id }])
      }))
      yield* store.deregisterPool(pool)
      assert.deepStrictEqual((yield* store.list({}, { limit: 5 })).map((job) => job.state), ["failed", "ready"])
    }))
})

describe("a claim", () => {
  const jobs = `${quoteIdentifier("graphile_worker")}._private_jobs`
  const fill = [
    `insert into ${jobs} (task_id, run_at)
     select 1, now() + interval '1 day' + n * interval '1 second' from generate_series(1, 100000) as n`,
    `insert into ${jobs} (task_id, run_at, attempts)
     select 1, now() - interval '1 day', 25 from generate_series(1, 50000)`,
    `insert into ${jobs} (task_id, run_at) select 2, now() - interval '1 day' from generate_series(1, 50000)`,
    `insert into ${jobs} (task_id, job_queue_id, run_at) select 1, 1, now() - interval '1 day' from generate_series(1, 20000)`
  ]
  const claim = `explain (analyze, buffers, format json)
    select * from graphile_worker._private_kongtask_claim('kongtask-pool', '{mine}', 10, 10, null)`

  /** The blocks that a claim touches in a session that has planned it, and how often it reads the jobs in whole. */
  const measure = Effect.fnUntraced(function*(session: Effect.Success<PgClient.PgClient["reserve"]>) {
    const run = (text: string) => session.executeUnprepared(text, [], undefined)
    const scansSoFar = Effect.map(
      run("select coalesce(sum(seq_scan), 0)::int as n from pg_stat_xact_user_tables where relname = '_private_jobs'"),
      ([row]) => row.n as number
    )
    let blocks = 0
    let scans = 0
    for (let round = 0; round < 2; round++) {
      yield* run("begin")
      const before = yield* scansSoFar
      const [{ "QUERY PLAN": [{ Plan: plan }] }] = yield* run(claim)
      assert.strictEqual(plan["Actual Rows"], 10)
      blocks = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
      scans += (yield* scansSoFar) - before
      yield* run("rollback")
    }
    return { blocks, scans }
  })

  it.live(
    "costs the same beside 220,000 jobs that it cannot have, whenever it was planned",
    () =>
      Effect.gen(function*() {
        const { sql, store } = yield* single
        yield* store.registerPool("kongtask-pool", Duration.hours(1))
        yield* store.add(spec("mine", { queueName: "busy" }))
        yield* store.add(spec("foreign"))
        yield* sql.unsafe("update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'kongtask-x'")
        yield* sql.unsafe(`truncate ${jobs}`)
        yield* sql.unsafe("analyze").unprepared

        const early = yield* sql.reserve
        yield* early.executeUnprepared(claim, [], undefined)
        yield* store.addMany(specs("mine", 150))
        const alone = yield* measure(early)
        for (const statement of fill) yield* sql.unsafe(statement).unprepared

        const results = {
          "planned when the tables were empty": yield* measure(early),
          "with statistics of the empty tables": yield* measure(yield* sql.reserve)
        }
        yield* sql.unsafe("analyze").unprepared
        Object.assign(results, {
          "planned anew": yield* measure(early),
          "with statistics": yield* measure(yield* sql.reserve)
        })
        assert.strictEqual(alone.scans, 0)
        for (const [when, { blocks, scans }] of Object.entries(results)) {
          assert.strictEqual(scans, 0, when)
          assert.isBelow(blocks, alone.blocks * 1.5 + 100, when)
        }
      }),
    60_000
  )

  it.live(
    "reads a bounded number of jobs with a forbidden flag, however many there are",
    () =>
      Effect.gen(function*() {
        const { sql, store } = yield* single
        yield* store.registerPool("kongtask-pool", Duration.hours(1))
        yield* store.add(spec("mine"))
        yield* store.add(spec("mine", { queueName: "line" }))
        yield* sql.unsafe(`truncate ${jobs}`)
        yield* sql.unsafe("analyze").unprepared
        const session = yield* sql.reserve
        const forbidding = claim.replace("10, 10, null", "10, 10, '{no}'")
        const blocksBeside = Effect.fnUntraced(function*(count: number) {
          yield* sql.unsafe(`
            insert into ${jobs} (task_id, job_queue_id, run_at, flags)
            select 1, case when n % 2 = 0 then 1 end, now() - interval '1 day' + n * interval '1 millisecond', '{"no":true}'
            from generate_series(1, ${count}) as n`).unprepared
          const [{ "QUERY PLAN": [{ Plan: plan }] }] = yield* session.executeUnprepared(forbidding, [], undefined)
          assert.strictEqual(plan["Actual Rows"], 1)
          return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        })
        // A block a job at the worst: 1,010 from the oldest on, 1,010 from a place drawn at random, 500 of the queue.
        for (const count of [10_000, 90_000]) assert.isBelow(yield* blocksBeside(count), 3_000)
      }),
    60_000
  )
})
