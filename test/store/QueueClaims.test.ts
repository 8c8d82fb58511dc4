/** What a claim costs where there are very many queues, or very many jobs in one: pages, not time. */
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as PostgresStore from "../../src/internal/postgres/store.ts"
import * as Database from "../support/database.ts"
import { ids, spec } from "./harness.ts"

const pool = "kongtask-pool"

/** An empty database that has been planned for as such, and claims of ten jobs on it. */
const prepare = Effect.gen(function*() {
  const { config } = yield* Database.freshDatabase()
  const sql = yield* PgClient.make({ ...config, maxConnections: 1 }).pipe(Effect.provide(Reactivity.layer))
  const store = yield* Effect.provideService(PostgresStore.make({ schema: "graphile_worker" }), PgClient.PgClient, sql)
  yield* store.registerPool(pool, Duration.hours(1))
  for (const task of ["mine", "foreign"]) {
    const { id } = yield* store.add(spec(task))
    yield* store.remove({ id })
  }
  yield* sql.unsafe("analyze").unprepared
  const claim = store.claim({ pool, tasks: ["mine"], limit: 10, runs: [50] })
  yield* claim

  const addQueues = (count: number) =>
    sql.unsafe(`
      insert into graphile_worker._private_job_queues (queue_name)
      select 'queue ' || n || ' of ' || random() from generate_series(1, ${count}) as n`).unprepared
  /** Jobs in each queue there is, as the expressions have it. */
  const fill = (columns: string, values: string, rest = "") =>
    sql.unsafe(`
      insert into graphile_worker._private_jobs (job_queue_id, ${columns})
      select queue.id, ${values} from graphile_worker._private_job_queues as queue ${rest}`).unprepared

  const undone = new Error("undone")
  /** The jobs and the pages of a claim that is undone. */
  const measure = Effect.gen(function*() {
    let jobs = 0
    let pages = 0
    const run = sql.unsafe<{ readonly "QUERY PLAN": ReadonlyArray<{ readonly Plan: Record<string, number> }> }>(
      `explain (analyze, buffers, format json) select *
       from graphile_worker._private_kongtask_claim('${pool}', '{mine}', 10, 10, null, '{50}')`
    ).unprepared
    // The first one meets, and marks, what the others before it have left.
    for (let round = 0; round < 2; round++) {
      yield* sql.withTransaction(Effect.gen(function*() {
        const [row] = yield* run
        const { Plan } = row!["QUERY PLAN"][0]!
        jobs = Plan["Actual Rows"]!
        pages = Plan["Shared Hit Blocks"]! + Plan["Shared Read Blocks"]!
        return yield* Effect.fail(undone)
      })).pipe(Effect.catchIf((error) => error === undone, () => Effect.void))
    }
    return { jobs, pages }
  })
  return { addQueues, claim, fill, measure, sql, store }
})

it.live("a claim costs the same with 100 and with 100,000 queues that have jobs", () =>
  Effect.gen(function*() {
    const { addQueues, fill, measure, sql } = yield* prepare
    yield* addQueues(100)
    yield* fill("task_id", "1")
    const few = yield* measure
    yield* sql.unsafe("truncate graphile_worker._private_jobs").unprepared
    yield* addQueues(99_900)
    yield* fill("task_id", "1")
    const many = yield* measure
    assert.deepStrictEqual([few.jobs, many.jobs], [10, 10])
    assert.isBelow(many.pages, few.pages * 2 + 100)
  }), 60_000)

it.live(
  "a claim finds the one due job beside 100,000 queues of future, foreign and failed jobs, and says what is next",
  () =>
    Effect.gen(function*() {
      const { addQueues, claim, fill, measure, store } = yield* prepare
      yield* addQueues(100_000)
      yield* fill("task_id, run_at", "1, now() + interval '1 hour'")
      yield* fill("task_id", "2")
      yield* fill("task_id, attempts", "1, 25", "where queue.id % 10 = 0")
      const none = yield* measure
      assert.strictEqual(none.jobs, 1)
      assert.isBelow(none.pages, 500)
      const { contended, jobs, nextDueIn } = yield* claim
      assert.deepStrictEqual([jobs.length, contended], [0, false])
      assert.isAbove(nextDueIn!, 3_000_000)
      const { id } = yield* store.add(spec("mine", { queueName: "new" }))
      assert.isBelow((yield* measure).pages, 500)
      assert.deepStrictEqual(ids((yield* claim).jobs), [id])
    }),
  60_000
)

it.live("a claim finds every free queue behind those that others hold, in a few claims", () =>
  Effect.gen(function*() {
    const { addQueues, claim, fill, measure, sql } = yield* prepare
    yield* addQueues(5_000)
    yield* fill("task_id", "1")
    yield* sql`update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'kongtask-other'`
    yield* addQueues(20)
    yield* fill("task_id", "1", "where queue.id > 5000")
    assert.isBelow((yield* measure).pages, 2_500)
    const found = new Set<string>()
    for (let claims = 0; found.size < 20 && claims < 1_000; claims++) {
      const { contended, jobs } = yield* claim
      assert.isTrue(jobs.length > 0 || contended, "what was not looked at may be due")
      for (const { id } of jobs) found.add(id)
    }
    assert.strictEqual(found.size, 20)
  }), 60_000)

it.live(
  "a claim passes a backlog of 100,000 jobs of one queue, held or not, and takes a run of it",
  () =>
    Effect.gen(function*() {
      const { addQueues, claim, fill, measure, sql, store } = yield* prepare
      yield* addQueues(1)
      yield* fill("task_id, priority", "1, -1", ", generate_series(1, 100000)")
      const backlog = yield* measure
      assert.strictEqual(backlog.jobs, 50)
      assert.isBelow(backlog.pages, 3_000)
      yield* sql`update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'kongtask-other'`
      const empty = yield* measure
      assert.isBelow(empty.pages, 1_000)
      assert.deepInclude(yield* claim, { jobs: [], contended: false })
      const others = yield* store.addMany([spec("mine"), spec("mine", { queueName: "other", priority: 5 })])
      assert.deepStrictEqual(ids((yield* claim).jobs), ids(others))
    }),
  60_000
)
