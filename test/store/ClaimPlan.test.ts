import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as PostgresStore from "../../src/internal/postgres/store.ts"
import { withDatabase } from "../support/context.ts"
import * as Database from "../support/database.ts"
import { eventually } from "../support/events.ts"
import * as Graphile from "../support/graphile.ts"
import { connect, migratorOf } from "../support/migrator.ts"
import { makePool } from "./harness.ts"

/** A server that logs the plan of every statement, those inside functions too. It gathers statistics only when told to. */
class Server extends Context.Service<Server, Database.DedicatedServer>()("kongtask/test/Server") {
  static readonly layer = Layer.effect(
    Server,
    Database.dedicatedServerWith({
      settings: {
        "autovacuum": "off",
        "session_preload_libraries": "auto_explain",
        "auto_explain.log_min_duration": "0",
        "auto_explain.log_format": "json",
        "auto_explain.log_nested_statements": "on"
      }
    })
  )
}

interface Node {
  readonly "Node Type": string
  readonly "Relation Name"?: string
  readonly "Index Name"?: string
  readonly Plans?: ReadonlyArray<Node>
}

/** What a statement read, by the plan that it was executed with. */
interface Reads {
  readonly query: string
  /** The tables that were read in whole. */
  readonly tables: ReadonlyArray<string | undefined>
  readonly indexes: ReadonlyArray<string>
}

const nodesOf = (node: Node): ReadonlyArray<Node> => [node, ...(node.Plans ?? []).flatMap(nodesOf)]

const readsOf = (logged: { readonly "Query Text": string; readonly Plan: Node }): Reads => {
  const nodes = nodesOf(logged.Plan)
  return {
    query: logged["Query Text"],
    tables: nodes.filter((node) => node["Node Type"] === "Seq Scan").map((node) => node["Relation Name"]),
    indexes: nodes.flatMap((node) => node["Index Name"] ?? [])
  }
}

/** What the statements read that the server executed during the effect, those that do not touch the jobs left out. */
const readsDuring = Effect.fnUntraced(function*<E, R>(effect: Effect.Effect<unknown, E, R>) {
  const { log } = yield* Server
  const { length } = yield* log
  yield* effect
  const entries = (yield* log).slice(length).matchAll(/ plan:\n((?:\t.*\n)+)/g)
  return Array.from(entries, ([, json]) => readsOf(JSON.parse(json!.replaceAll(/^\t/gm, ""))))
    .filter(({ query }) => query.includes("_private_jobs"))
})

/** An empty database with our schema, in one of the ways in which it comes about, and statistics of that moment. */
const prepare = Effect.fnUntraced(function*(kind: "plain" | "interop" | "adopted") {
  const server = yield* Server
  const admin = yield* connect({ ...server.config, maxConnections: 1 })
  yield* admin.unsafe(`create database ${kind}`)
  const config = { ...server.config, database: kind }
  const url = withDatabase(server.url, kind)
  const sql = yield* connect(config)
  if (kind === "adopted") yield* Graphile.migrate(url)
  yield* (yield* migratorOf(sql, { interop: kind === "interop" })).migrate
  yield* sql`select graphile_worker.add_job('mine', queue_name := 'mine') is null`
  yield* sql`select graphile_worker.add_job('foreign', queue_name := 'foreign') is null`
  yield* sql`select graphile_worker.add_job('free') is null`
  yield* sql.unsafe("truncate graphile_worker._private_jobs")
  yield* sql.unsafe("analyze").unprepared
  return { config, sql, url }
})

/** Jobs that are due, and many that no claim of `mine` can have. */
const fill = (sql: PgClient.PgClient) =>
  Effect.forEach([
    `insert into graphile_worker._private_jobs (task_id, run_at)
     select 1, now() + n * interval '1 hour' from generate_series(1, 20000) as n`,
    "insert into graphile_worker._private_jobs (task_id, attempts) select 1, 25 from generate_series(1, 10000)",
    "insert into graphile_worker._private_jobs (task_id, job_queue_id) select 2, 2 from generate_series(1, 2000)",
    "insert into graphile_worker._private_jobs (task_id) select 2 from generate_series(1, 2000)",
    "insert into graphile_worker._private_jobs (task_id) select 1 from generate_series(1, 500)",
    "insert into graphile_worker._private_jobs (task_id) select 3 from generate_series(1, 500)",
    "insert into graphile_worker._private_jobs (task_id, job_queue_id) select 1, 1 from generate_series(1, 5)"
  ], (statement) =>
    sql.unsafe(statement).unprepared, { discard: true })

/** Claims and settles in a session of its own, which keeps its plans. */
const session = Effect.fnUntraced(function*(config: PgClient.PgPoolConfig) {
  const client = yield* connect({ ...config, maxConnections: 1 })
  const store = yield* Effect.provideService(
    PostgresStore.make({ schema: "graphile_worker" }),
    PgClient.PgClient,
    client
  )
  const pool = yield* makePool(store)
  const claimAndSettle = Effect.fnUntraced(function*(task: string) {
    const { jobs: [first, ...others] } = yield* store.claim({ pool, tasks: [task], limit: 10 })
    if (first === undefined) return
    yield* store.settle(pool, [
      { _tag: "Failed", id: first.id, error: "no", retryIn: 1000 },
      ...others.map(({ id }) => ({ _tag: "Completed", id } as const))
    ])
  })
  return { work: claimAndSettle("mine"), free: claimAndSettle("free") }
})

const schemas = {
  plain: "a schema that KongTask made",
  interop: "a schema that KongTask made with `interop`",
  adopted: "a schema that graphile-worker made and KongTask adopted"
} as const

layer(Server.layer, { timeout: 60_000, excludeTestServices: true })("the plan of a claim", (it) => {
  for (const kind of ["plain", "interop", "adopted"] as const) {
    it.effect(
      `uses the indexes made for it on ${schemas[kind]}`,
      () =>
        Effect.gen(function*() {
          const { config, sql, url } = yield* prepare(kind)

          const checkOurs = Effect.fnUntraced(
            function*(when: string, { free, work }: Effect.Success<ReturnType<typeof session>>) {
              // Of a task without queues, whose claims are another statement.
              const short = yield* readsDuring(free)
              assert.isNotEmpty(short)
              for (const { indexes, query, tables } of short) {
                assert.deepStrictEqual(tables, [], when)
                assert.notInclude(indexes, "jobs_main_index", when)
                if (query.includes("skip locked")) assert.include(indexes, "jobs_claim_index", when)
              }
              const reads = yield* readsDuring(work)
              const claim = reads.find(({ query }) => query.includes("skip locked"))
              assert.includeMembers([...claim?.indexes ?? []], [
                "jobs_claim_index",
                "jobs_queue_due_index",
                "jobs_queue_index"
              ], when)
              for (const { indexes, tables } of reads) {
                assert.deepStrictEqual(tables, [], when)
                assert.notInclude(indexes, "jobs_main_index", when)
                assert.notInclude(indexes, "jobs_no_queue_index", when)
              }
            }
          )
          const checkTheirs = Effect.fnUntraced(function*(when: string, options: typeof Graphile.batched) {
            let ran = 0
            const work = Effect.scoped(Effect.gen(function*() {
              yield* Graphile.start({ url, sql }, { mine: () => void ran++ }, { concurrency: 1, ...options })
              yield* eventually(Effect.sync(() => ran >= 10))
            }))
            const claims = (yield* readsDuring(work)).filter(({ query }) => query.includes("skip locked"))
            assert.isNotEmpty(claims)
            for (const { indexes, tables } of claims) {
              assert.strictEqual(indexes.includes("jobs_main_index"), kind !== "plain", when)
              assert.strictEqual(tables.includes("_private_jobs"), kind === "plain", when)
            }
          })

          const early = yield* session(config)
          yield* early.work
          yield* sql`insert into graphile_worker._private_jobs (task_id, job_queue_id) values (1, 1)`
          yield* checkOurs("on empty tables", early)
          yield* fill(sql)
          yield* checkOurs("planned when the tables were empty", early)
          yield* checkOurs("with statistics of the empty tables", yield* session(config))
          yield* checkTheirs("with statistics of the empty tables", {})
          yield* sql.unsafe("analyze").unprepared
          yield* checkOurs("planned anew", early)
          yield* checkOurs("with statistics", yield* session(config))
          yield* checkTheirs("with statistics", {})
          yield* checkTheirs("with statistics, in batches", Graphile.batched)
        }),
      60_000
    )
  }
})
