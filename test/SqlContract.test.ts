import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type { SqlError } from "effect/sql/SqlError"
import { call, existing, hours, isAboutNow, job, one, run, specs, year } from "./support/contract.ts"
import * as Database from "./support/database.ts"
import { within } from "./support/events.ts"

it.layer(Database.layer(), { excludeTestServices: true })("the shape that is shared with graphile-worker", (it) => {
  it.effect("has its columns, in their order, with their types and defaults", () =>
    Effect.gen(function*() {
      const columns = yield* run<{ line: string }>(`
        select table_name || '.' || column_name || ' ' || data_type
          || case when is_nullable = 'NO' then ' not null' else '' end
          || case when is_identity = 'YES' then ' identity ' || lower(identity_generation) else '' end
          || coalesce(' default ' || column_default, '')
          || coalesce(' generated ' || generation_expression, '') as line
        from information_schema.columns
        where table_schema = 'graphile_worker'
          and table_name in ('_private_jobs', '_private_job_queues', '_private_tasks', '_private_known_crontabs', 'migrations')
        order by table_name, ordinal_position`)
      assert.deepStrictEqual(columns.map(({ line }) => line), [
        "_private_job_queues.id integer not null identity always",
        "_private_job_queues.queue_name text not null",
        "_private_job_queues.locked_at timestamp with time zone",
        "_private_job_queues.locked_by text",
        "_private_job_queues.is_available boolean not null generated (locked_at IS NULL)",
        "_private_jobs.id bigint not null identity always",
        "_private_jobs.job_queue_id integer",
        "_private_jobs.task_id integer not null",
        "_private_jobs.payload json not null default '{}'::json",
        "_private_jobs.priority smallint not null default 0",
        "_private_jobs.run_at timestamp with time zone not null default now()",
        "_private_jobs.attempts smallint not null default 0",
        "_private_jobs.max_attempts smallint not null default 25",
        "_private_jobs.last_error text",
        "_private_jobs.created_at timestamp with time zone not null default now()",
        "_private_jobs.updated_at timestamp with time zone not null default now()",
        "_private_jobs.key text",
        "_private_jobs.locked_at timestamp with time zone",
        "_private_jobs.locked_by text",
        "_private_jobs.revision integer not null default 0",
        "_private_jobs.flags jsonb",
        "_private_jobs.is_available boolean not null generated ((locked_at IS NULL) AND (attempts < max_attempts))",
        "_private_known_crontabs.identifier text not null",
        "_private_known_crontabs.known_since timestamp with time zone not null",
        "_private_known_crontabs.last_execution timestamp with time zone",
        "_private_tasks.id integer not null identity always",
        "_private_tasks.identifier text not null",
        "migrations.id integer not null",
        "migrations.ts timestamp with time zone not null default now()",
        "migrations.breaking boolean not null default false"
      ])
    }))

  it.effect("has its view, its type, its checks, and our indexes", () =>
    Effect.gen(function*() {
      const [shape] = yield* run<{ view: string; spec: string; checks: string; indexes: string }>(`
        select
          (select string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' order by attnum)
            from pg_attribute where attrelid = 'graphile_worker.jobs'::regclass) as view,
          (select string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' order by attnum)
            from pg_attribute where attrelid = 'graphile_worker.job_spec'::regclass) as spec,
          (select string_agg(conname, ', ' order by conname collate "C")
            from pg_constraint where connamespace = 'graphile_worker'::regnamespace and contype = 'c'
            and conname not like 'kongtask%') as checks,
          (select string_agg(indexname, ', ' order by indexname collate "C")
            from pg_indexes where schemaname = 'graphile_worker' and tablename = '_private_jobs') as indexes`)
      assert.deepStrictEqual(shape, {
        view: "id bigint, queue_name text, task_identifier text, priority smallint, run_at timestamp with time zone, " +
          "attempts smallint, max_attempts smallint, last_error text, created_at timestamp with time zone, " +
          "updated_at timestamp with time zone, key text, locked_at timestamp with time zone, locked_by text, " +
          "revision integer, flags jsonb",
        spec:
          "identifier text, payload json, queue_name text, run_at timestamp with time zone, max_attempts smallint, " +
          "job_key text, priority smallint, flags text[]",
        checks: "job_queues_queue_name_check, jobs_key_check, jobs_max_attempts_check, tasks_identifier_check",
        indexes: "_private_jobs_key_key, _private_jobs_pkey, jobs_claim_index, jobs_queue_due_index, " +
          "jobs_queue_index"
      })
    }))

  it.effect("has its functions, one of each name", () =>
    Effect.gen(function*() {
      const functions = yield* run<{ line: string }>(`
        select proname || '(' || pg_get_function_arguments(oid) || ') ' || pg_get_function_result(oid)
          || ' ' || provolatile::text || case when proisstrict then ' strict' else '' end
          || case when prosecdef then ' security definer' else '' end as line
        from pg_proc
        where pronamespace = 'graphile_worker'::regnamespace and proname not like '\\_private\\_%'
        order by proname collate "C"`)
      assert.deepStrictEqual(functions.map(({ line }) => line), [
        "add_job(identifier text, payload json DEFAULT NULL::json, queue_name text DEFAULT NULL::text, " +
        "run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, " +
        "max_attempts integer DEFAULT NULL::integer, job_key text DEFAULT NULL::text, " +
        "priority integer DEFAULT NULL::integer, flags text[] DEFAULT NULL::text[], " +
        "job_key_mode text DEFAULT 'replace'::text) graphile_worker._private_jobs v",
        "add_jobs(specs graphile_worker.job_spec[], job_key_preserve_run_at boolean DEFAULT false) " +
        "SETOF graphile_worker._private_jobs v",
        "complete_jobs(job_ids bigint[]) SETOF graphile_worker._private_jobs v",
        "force_unlock_workers(worker_ids text[]) void v",
        "permanently_fail_jobs(job_ids bigint[], error_message text DEFAULT NULL::text) " +
        "SETOF graphile_worker._private_jobs v",
        "remove_job(job_key text) graphile_worker._private_jobs v strict",
        "reschedule_jobs(job_ids bigint[], run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, " +
        "priority integer DEFAULT NULL::integer, attempts integer DEFAULT NULL::integer, " +
        "max_attempts integer DEFAULT NULL::integer) SETOF graphile_worker._private_jobs v"
      ])
    }))

  it.effect("has its twenty migrations, and row level security without policies", () =>
    Effect.gen(function*() {
      const [migrations] = yield* run<{ ids: string; breaking: string }>(`
        select string_agg(id::text, ' ' order by id) as ids,
          string_agg(id::text, ' ' order by id) filter (where breaking) as breaking
        from graphile_worker.migrations`)
      assert.deepStrictEqual(migrations, {
        ids: Array.from({ length: 20 }, (_, i) => i + 1).join(" "),
        breaking: "1 3 11 13 14 16 19"
      })
      const open = yield* run(`
        select relname::text from pg_class
        where relnamespace = 'graphile_worker'::regnamespace and relkind = 'r' and not relrowsecurity
        order by 1`)
      assert.deepStrictEqual(open, [{ relname: "_private_kongtask_migrations" }, { relname: "migrations" }])
      assert.deepStrictEqual(yield* run("select from pg_policies where schemaname = 'graphile_worker'"), [])
    }))
})

it.layer(Database.layer(), { excludeTestServices: true })("the functions for single jobs", (it) => {
  const states = {
    waiting: undefined,
    failed: "attempts = max_attempts",
    hidden: "locked_at = 'infinity'",
    stale: hours(5),
    running: hours(3)
  }

  const each = (prefix: string) =>
    Effect.all(Object.fromEntries(
      Object.entries(states).map(([state, set]) => [state, Effect.map(existing(prefix + state, set), ({ id }) => id)])
    ) as Record<keyof typeof states, Effect.Effect<number, SqlError, PgClient.PgClient>>)

  it.effect("remove_job deletes a job that nobody holds, and ends one that is running", () =>
    Effect.gen(function*() {
      const ids = yield* each("remove ")
      for (const state of ["waiting", "failed", "hidden", "stale"] as const) {
        const removed = yield* one("remove_job($1::text)", [`remove ${state}`])
        assert.deepInclude(removed, { id: ids[state], key: `remove ${state}` })
        assert.deepStrictEqual(yield* run(`select from graphile_worker._private_jobs where id = ${ids[state]}`), [])
      }
      assert.deepInclude(yield* one("remove_job('remove running')"), { id: ids.running, key: null, attempts: 5 })
      assert.deepInclude(yield* job(ids.running), { key: null, attempts: 5, locked_by: "pool-1" })
      const none = yield* one("remove_job('remove running')")
      assert.isTrue(Object.values(none).every((value) => value === null))
      assert.strictEqual(Object.keys(none).length, 17)
      assert.strictEqual((yield* run("select * from graphile_worker.remove_job(null)")).length, 1)
    }))

  it.effect("complete_jobs deletes the jobs that nobody holds", () =>
    Effect.gen(function*() {
      const ids = yield* each("complete ")
      const completed = yield* call("complete_jobs($1::bigint[])", [`{${Object.values(ids).join()}}`])
      const { running, ...others } = ids
      assert.sameMembers(completed.map(({ id }) => id), Object.values(others))
      assert.strictEqual((yield* job(running)).attempts, 0)
    }))

  it.effect("permanently_fail_jobs uses up the attempts of the jobs that nobody holds", () =>
    Effect.gen(function*() {
      const ids = yield* each("fail ")
      const list = `{${Object.values(ids).join()}}`
      const failed = yield* call("permanently_fail_jobs($1::bigint[])", [list])
      assert.sameMembers(failed.map(({ id }) => id), Object.values(ids).filter((id) => id !== ids.running))
      assert.isTrue(failed.every((job) => job.attempts === 5 && job.last_error === "Manually marked as failed"))
      const again = yield* call("permanently_fail_jobs($1::bigint[], 'because')", [list])
      assert.isTrue(again.every((job) => job.last_error === "because" && isAboutNow(job.updated_at)))
      assert.strictEqual((yield* job(ids.running)).last_error, null)
    }))

  it.effect("reschedule_jobs changes what is given, zero included, of the jobs that nobody holds", () =>
    Effect.gen(function*() {
      const ids = yield* each("move ")
      const list = `{${Object.values(ids).join()}}`
      const moved = yield* call(
        "reschedule_jobs($1::bigint[], run_at => '2050-01-01Z', priority => 9, attempts => 2, max_attempts => 8)",
        [list]
      )
      assert.sameMembers(moved.map(({ id }) => id), Object.values(ids).filter((id) => id !== ids.running))
      for (const job of moved) {
        assert.deepInclude({ ...job, year: year(job.run_at) }, {
          year: 2050,
          priority: 9,
          attempts: 2,
          max_attempts: 8
        })
      }
      const zero = yield* call("reschedule_jobs($1::bigint[], priority => 0, attempts => 0)", [list])
      for (const job of zero) {
        assert.deepInclude({ ...job, year: year(job.run_at) }, {
          year: 2050,
          priority: 0,
          attempts: 0,
          max_attempts: 8
        })
      }
      assert.deepInclude(yield* job(ids.hidden), { locked_at: "infinity", is_available: false })
      assert.strictEqual((yield* job(ids.running)).priority, 7)
    }))

  it.effect("force_unlock_workers frees jobs and queues of the given pools, and reveals nothing hidden", () =>
    Effect.gen(function*() {
      const held = yield* existing("held", hours(0))
      const other = yield* existing("other", "locked_at = now(), locked_by = 'pool-2'")
      const hidden = yield* existing("kept hidden", "locked_at = 'infinity', locked_by = 'pool-1'")
      yield* run(`update graphile_worker._private_job_queues set ${hours(0)} where queue_name = 'old queue'`)
      yield* run("select graphile_worker.force_unlock_workers(array['pool-1', 'pool-9'])::text")
      assert.deepInclude(yield* job(held.id), { locked_at: null, locked_by: null, is_available: true })
      assert.strictEqual((yield* job(other.id)).locked_by, "pool-2")
      assert.strictEqual((yield* job(hidden.id)).locked_at, "infinity")
      assert.deepStrictEqual(
        yield* run(
          "select locked_by, is_available from graphile_worker._private_job_queues where queue_name = 'old queue'"
        ),
        [{ locked_by: null, is_available: true }]
      )
    }))

  it.effect("an update of the view recovers jobs by hand", () =>
    Effect.gen(function*() {
      const [stuck, fresh] = [yield* existing("stuck", hours(2)), yield* existing("not stuck", hours(0))]
      const recovered = yield* run<{ id: number }>(`
        update graphile_worker.jobs set locked_at = null, locked_by = null
        where locked_at < now() - interval '1 hour' and key = 'stuck' and queue_name = 'old queue'
        returning id::int as id`)
      assert.deepStrictEqual(recovered, [{ id: stuck.id }])
      assert.deepInclude(yield* job(stuck.id), { locked_at: null, locked_by: null, is_available: true })
      assert.strictEqual((yield* job(fresh.id)).locked_by, "pool-1")
      yield* run(`update graphile_worker.jobs set locked_at = null, locked_by = null where id = ${fresh.id}`)
      assert.isTrue((yield* job(fresh.id)).is_available)
    }))
})

it.layer(Database.layer(), { excludeTestServices: true })("NOTIFY", (it) => {
  it.effect("tells on jobs:insert how many jobs a call added, once a call", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const messages = yield* sql.listen("jobs:insert")
      const spec = { identifier: "a" }
      yield* sql.withTransaction(Effect.andThen(one("add_job('a')"), one("add_job('a', job_key => 'k')")))
      yield* one("add_job('a', job_key => 'k')")
      yield* one("add_job('a', job_key => 'k', job_key_mode => 'unsafe_dedupe')")
      yield* call(`add_jobs(${specs([spec, { ...spec, job_key: "k" }, spec])})`)
      yield* call("add_jobs('{}')")
      yield* one("remove_job('k')")
      yield* one("remove_job('k')")
      yield* run("notify \"jobs:insert\", 'end'")

      const received: Array<string> = []
      while (received.at(-1) !== "end") {
        received.push((yield* within(Queue.take(messages), "5 seconds", "a notification")).payload)
      }
      const parsed = received.slice(0, -1).map((payload): { r: number; count: number } => JSON.parse(payload))
      assert.deepStrictEqual(parsed.map(({ count }) => count), [1, 1, 1, 3, -1])
      assert.isTrue(parsed.every(({ r }) => r >= 0 && r < 1))
    }))
})
