/**
 * Calls of the schema's SQL functions, as a producer without this library makes
 * them.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import { sqlErrorDetail, sqlState } from "../../src/internal/postgres/errors.ts"

/** A row of `_private_jobs`, as `row_to_json` shows it. */
export interface Job {
  readonly id: number
  readonly job_queue_id: number | null
  readonly task_id: number
  readonly payload: unknown
  readonly priority: number
  readonly run_at: string
  readonly attempts: number
  readonly max_attempts: number
  readonly last_error: string | null
  readonly created_at: string
  readonly updated_at: string
  readonly key: string | null
  readonly locked_at: string | null
  readonly locked_by: string | null
  readonly revision: number
  readonly flags: Record<string, boolean> | null
  readonly is_available: boolean
}

export const run = <Row extends object>(text: string, params: ReadonlyArray<unknown> = []) =>
  Effect.flatMap(PgClient.PgClient, (sql) => sql.unsafe<Row>(text, params))

export const jobsFrom = (from: string, params: ReadonlyArray<unknown> = []) =>
  Effect.map(
    run<{ job: string }>(`select row_to_json(job)::text as job from ${from}`, params),
    (rows) => rows.map(({ job }): Job => JSON.parse(job))
  )

/** The rows that a function of the schema returns. */
export const call = (text: string, params?: ReadonlyArray<unknown>) =>
  jobsFrom(`graphile_worker.${text} as job`, params)

export const one = (text: string, params?: ReadonlyArray<unknown>) =>
  Effect.map(call(text, params), (jobs) => {
    assert.strictEqual(jobs.length, 1)
    return jobs[0]!
  })

export const job = (id: number) =>
  Effect.map(jobsFrom(`graphile_worker._private_jobs as job where id = ${id}`), ([job]) => job!)

/** A job under a key, changed as `set` says after it was added. */
export const existing = Effect.fnUntraced(function*(key: string, set?: string) {
  const added = yield* one(
    `add_job('old', '{"old":true}', 'old queue', '2030-01-01Z', 5, $1, 7, array['old'])`,
    [key]
  )
  if (set !== undefined) yield* run(`update graphile_worker._private_jobs set ${set} where id = ${added.id}`)
  return added
})

export const specs = (values: ReadonlyArray<object>) =>
  `array(select json_populate_recordset(null::graphile_worker.job_spec, '${JSON.stringify(values)}'))`

export const hours = (n: number) => `locked_at = now() - interval '${n} hours', locked_by = 'pool-1'`
export const isAboutNow = (time: string) => Math.abs(Date.parse(time) - Date.now()) < 60_000
export const year = (time: string) => new Date(time).getUTCFullYear()

export const refusal = <A, R>(effect: Effect.Effect<A, SqlError, R>) =>
  Effect.map(Effect.flip(effect), (error) => `${sqlState(error)}: ${sqlErrorDetail(error)}`)
