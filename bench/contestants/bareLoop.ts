/**
 * No queue at all: a loop over the driver on KongTask's tables that locks 500 rows, runs their handlers, deletes them
 * and commits; the profile is the number of such loops. It has no retries, no lease, no wake-up, one task and no named
 * queues: what a queue on this driver could reach at best.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Connection from "effect/sql/SqlConnection"
import { type Contestant, type Make, now, type Payload } from "../support/contestant.ts"
import { make as makeKongTask } from "./kongtask.ts"

const batch = 500

// `job.id`, since `id` alone would be the text that is selected, and no index has that order.
const select = `
  select job.id::text as id, job.payload::text as payload from graphile_worker._private_jobs as job
  where task_id = $1 and priority = 0 and is_available and job_queue_id is null and run_at <= now()
  order by priority nulls first, run_at nulls first, job.id limit ${batch}
  for update skip locked`

const remove = "delete from graphile_worker._private_jobs where id = any ($1::text[]::int8[])"

/** Rows are typed by who writes the statement, as in `sql<Row>`. */
const rows = <A>(connection: Connection.Connection, statement: string, parameters: ReadonlyArray<unknown> = []) =>
  connection.execute(statement, parameters, undefined) as unknown as Effect.Effect<ReadonlyArray<A>>

export const make: Make = (url, profile): Contestant => {
  const streams = Number(profile)
  return {
    configuration: () => ({ streams, batch }),
    migrate: makeKongTask(url, "default").migrate,
    drain: ({ onStart }) =>
      Effect.gen(function*() {
        const start = now()
        const sql = yield* PgClient.PgClient
        const loop = Effect.scoped(Effect.gen(function*() {
          const connection = yield* sql.reserve
          // Planned on an empty table, a prepared statement would go on reading it in whole.
          yield* rows(connection, "set enable_seqscan = off")
          const [task] = yield* rows<{ id: number }>(
            connection,
            "select id from graphile_worker._private_tasks where identifier = 'bench'"
          )
          while (true) {
            yield* rows(connection, "begin")
            const jobs = yield* rows<{ id: string; payload: string }>(connection, select, [task!.id])
            for (const { payload } of jobs) onStart((JSON.parse(payload) as Payload).n)
            if (jobs.length > 0) yield* rows(connection, remove, [jobs.map(({ id }) => id)])
            yield* rows(connection, "commit")
            if (jobs.length === 0) return
          }
        }))
        yield* Effect.all(Array.from({ length: streams }, () => loop), { concurrency: "unbounded", discard: true })
        return { start, end: now() }
      }).pipe(Effect.provide(PgClient.layer({ url: Redacted.make(url), maxConnections: streams })), Effect.orDie),
    work: () => Effect.die(new Error("the bare loop only drains")),
    producer: () => Effect.die(new Error("the bare loop only drains"))
  }
}
