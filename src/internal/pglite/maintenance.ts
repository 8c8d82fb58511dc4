/**
 * What PostgreSQL's background processes would do, of which PGlite has none:
 * without checkpoints its log grows for ever, without autovacuum its tables do.
 */
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"

const interval = "5 seconds"

/** Log since the last checkpoint, in bytes: what a crash makes the next start replay, well under a second. */
const maxLog = 64 * 1024 * 1024

/** Autovacuum's rule with a larger constant, for the rounds are shorter; reads statistics only and locks nothing. */
const dueStatements = (sql: PgClient.PgClient) =>
  sql<{ readonly statement: string }>`
    select format('VACUUM (ANALYZE) %I.%I', s.schemaname, s.relname) as statement
    from pg_stat_user_tables s
    join pg_class c on c.oid = s.relid
    where s.n_dead_tup > 1000 + 0.2 * greatest(c.reltuples, 0)
       or s.n_mod_since_analyze > 1000 + 0.2 * greatest(c.reltuples, 0)
    union all
    select 'CHECKPOINT'
    from pg_control_checkpoint() p
    where pg_wal_lsn_diff(pg_current_wal_insert_lsn(), p.redo_lsn) > ${maxLog}::bigint`

/**
 * Runs what is due and returns it: one statement to see, one for each table to
 * vacuum and for a checkpoint.
 */
export const runOnce = (sql: PgClient.PgClient): Effect.Effect<ReadonlyArray<string>, SqlError> =>
  Effect.gen(function*() {
    const due = (yield* dueStatements(sql)).map((row) => row.statement)
    yield* Effect.forEach(due, (statement) => sql.unsafe(statement).unprepared, { discard: true })
    return due
  })

/**
 * Runs what is due every five seconds; failures are left for the next round.
 */
export const run = (sql: PgClient.PgClient): Effect.Effect<never> =>
  Effect.forever(Effect.andThen(Effect.sleep(interval), Effect.ignoreCause(runOnce(sql)))).pipe(
    Effect.withTracerEnabled(false)
  )
