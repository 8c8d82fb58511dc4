import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import * as Reactivity from "effect/reactivity/Reactivity"
import type { SqlError } from "effect/sql/SqlError"
import { sqlErrorDetail, sqlState } from "../src/internal/postgres/errors.ts"
import * as Database from "./support/database.ts"
import { within } from "./support/events.ts"

/** A row of `_private_jobs`, as `row_to_json` shows it. */
interface Job {
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

const run = <Row extends object>(text: string, params: ReadonlyArray<unknown> = []) =>
  Effect.flatMap(PgClient.PgClient, (sql) => sql.unsafe<Row>(text, params))

const jobsFrom = (from: string, params: ReadonlyArray<unknown> = []) =>
  Effect.map(
    run<{ job: string }>(`select row_to_json(job)::text as job from ${from}`, params),
    (rows) => rows.map(({ job }): Job => JSON.parse(job))
  )

/** The rows that a function of the schema returns. */
const call = (text: string, params?: ReadonlyArray<unknown>) => jobsFrom(`graphile_worker.${text} as job`, params)

const one = (text: string, params?: ReadonlyArray<unknown>) =>
  Effect.map(call(text, params), (jobs) => {
    assert.strictEqual(jobs.length, 1)
    return jobs[0]!
  })

const job = (id: number) =>
  Effect.map(jobsFrom(`graphile_worker._private_jobs as job where id = ${id}`), ([job]) => job!)

/** A job under a key, changed as `set` says after it was added. */
const existing = Effect.fnUntraced(function*(key: string, set?: string) {
  const added = yield* one(
    `add_job('old', '{"old":true}', 'old queue', '2030-01-01Z', 5, $1, 7, array['old'])`,
    [key]
  )
  if (set !== undefined) yield* run(`update graphile_worker._private_jobs set ${set} where id = ${added.id}`)
  return added
})

const specs = (values: ReadonlyArray<object>) =>
  `array(select json_populate_recordset(null::graphile_worker.job_spec, '${JSON.stringify(values)}'))`

const hours = (n: number) => `locked_at = now() - interval '${n} hours', locked_by = 'pool-1'`
const isAboutNow = (time: string) => Math.abs(Date.parse(time) - Date.now()) < 60_000
const year = (time: string) => new Date(time).getUTCFullYear()

const refusal = <A, R>(effect: Effect.Effect<A, SqlError, R>) =>
  Effect.map(Effect.flip(effect), (error) => `${sqlState(error)}: ${sqlErrorDetail(error)}`)

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
        indexes: "_private_jobs_key_key, _private_jobs_pkey, jobs_claim_index, jobs_queue_index"
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
        where relnamespace = 'graphile_worker'::regnamespace and relkind = 'r' and not relrowsecurity`)
      assert.deepStrictEqual(open, [{ relname: "_private_kongtask_migrations" }])
      assert.deepStrictEqual(yield* run("select from pg_policies where schemaname = 'graphile_worker'"), [])
    }))
})

it.layer(Database.layer(), { excludeTestServices: true })("add_job", (it) => {
  it.effect("needs a name only", () =>
    Effect.gen(function*() {
      const { created_at, id, run_at, task_id, updated_at, ...rest } = yield* one("add_job('plain')")
      assert.isTrue([created_at, run_at, updated_at].every(isAboutNow))
      assert.deepStrictEqual(rest, {
        job_queue_id: null,
        payload: {},
        priority: 0,
        attempts: 0,
        max_attempts: 25,
        last_error: null,
        key: null,
        locked_at: null,
        locked_by: null,
        revision: 0,
        flags: null,
        is_available: true
      })
      const names = yield* run("select task_identifier, queue_name from graphile_worker.jobs where id = $1::int", [id])
      assert.deepStrictEqual(names, [{ task_identifier: "plain", queue_name: null }])
      assert.isNumber(task_id)
    }))

  it.effect("takes all arguments, by position and by name, and null for the default of each", () =>
    Effect.gen(function*() {
      const positional = yield* one(
        `add_job('full', '[1,{"a":  2}]', 'serial', '2030-01-01Z', 3, 'full key', -5, array['a', 'b'], 'preserve_run_at')`
      )
      assert.deepInclude(positional, {
        payload: [1, { a: 2 }],
        max_attempts: 3,
        key: "full key",
        priority: -5,
        flags: { a: true, b: true }
      })
      const [text] = yield* run<{ text: string; queue: string }>(
        "select payload::text as text, queue_name as queue from graphile_worker._private_jobs " +
          "join graphile_worker._private_job_queues as queue on queue.id = job_queue_id where key = 'full key'"
      )
      assert.deepStrictEqual(text, { text: "[1,{\"a\":  2}]", queue: "serial" })
      const named = yield* one(
        `add_job(identifier => $1::text, payload => $2::json, queue_name => $3::text, run_at => $4::timestamptz,
          max_attempts => $5::int, job_key => $6::text, priority => $7::int, flags => $8::text[], job_key_mode => $9::text)`,
        ["full", "null", null, null, null, null, null, null, null]
      )
      assert.deepInclude(named, { payload: null, max_attempts: 25, priority: 0, flags: null, job_queue_id: null })
    }))

  it.effect("replaces all of a waiting job, back to the defaults", () =>
    Effect.gen(function*() {
      const old = yield* existing("r1", "attempts = 2, last_error = 'x'")
      const { task_id, updated_at, ...replaced } = yield* one("add_job('new', job_key => 'r1')")
      assert.isTrue(isAboutNow(replaced.run_at))
      assert.notStrictEqual(task_id, old.task_id)
      assert.isAbove(Date.parse(updated_at), Date.parse(old.updated_at))
      assert.deepInclude(replaced, {
        id: old.id,
        payload: {},
        job_queue_id: null,
        attempts: 0,
        max_attempts: 25,
        last_error: null,
        priority: 0,
        flags: null,
        revision: 1,
        created_at: old.created_at
      })
    }))

  it.effect("preserves the run_at of a job that was never tried, and of no other", () =>
    Effect.gen(function*() {
      const mode = "job_key_mode => 'preserve_run_at'"
      yield* existing("p1")
      const kept = yield* one(`add_job('new', run_at => '2040-01-01Z', job_key => 'p1', ${mode})`)
      assert.deepInclude({ ...kept, year: year(kept.run_at) }, { year: 2030, revision: 1, attempts: 0 })
      yield* existing("p2", "attempts = 1")
      const retrying = yield* one(`add_job('new', run_at => '2040-01-01Z', job_key => 'p2', ${mode})`)
      assert.strictEqual(year(retrying.run_at), 2040)
      yield* existing("p3")
      assert.strictEqual(year((yield* one(`add_job('new', '{}', null, '2040-01-01Z', 25, 'p3')`)).run_at), 2040)
    }))

  for (const mode of ["replace", "preserve_run_at"]) {
    it.effect(`takes the key from a running or failed job and adds a new one (${mode})`, () =>
      Effect.gen(function*() {
        for (const set of [hours(1), hours(5), "attempts = max_attempts, last_error = 'gone'"]) {
          const key = `${mode} ${set}`
          const old = yield* existing(key, set)
          const added = yield* one("add_job('new', job_key => $1::text, job_key_mode => $2::text)", [key, mode])
          assert.notStrictEqual(added.id, old.id)
          assert.deepInclude(added, { key, revision: 0, attempts: 0, is_available: true })
          assert.deepInclude(yield* job(old.id), { key: null, attempts: 5, max_attempts: 5, payload: { old: true } })
        }
      }))
  }

  it.effect("only counts the revision up with unsafe_dedupe, whatever the state of the job", () =>
    Effect.gen(function*() {
      const mode = "job_key_mode => 'unsafe_dedupe'"
      for (const set of ["attempts = 1", hours(1), "attempts = max_attempts", "locked_at = 'infinity'"]) {
        const { id } = yield* existing(set, set)
        const before = yield* job(id)
        const { updated_at, ...after } = yield* one(`add_job('new', '[9]', job_key => $1::text, ${mode})`, [set])
        const { updated_at: _, ...expected } = { ...before, revision: 1 }
        assert.deepStrictEqual(after, expected)
        assert.isTrue(isAboutNow(updated_at))
      }
      assert.deepInclude(yield* one(`add_job('new', '[9]', job_key => 'fresh', ${mode})`), {
        revision: 0,
        payload: [9]
      })
    }))

  it.effect("concatenates the payloads when both are arrays, with the text of each element", () =>
    Effect.gen(function*() {
      const merged = (old: string, added: string) =>
        Effect.gen(function*() {
          yield* one("add_job('batch', $1::json, job_key => 'batch')", [old])
          yield* one("add_job('batch', $1::json, job_key => 'batch')", [added])
          const [row] = yield* run<{ text: string }>(
            "select (graphile_worker.remove_job('batch')).payload::text as text"
          )
          return row?.text
        })
      assert.strictEqual(
        yield* merged("[1.0, {\"b\":1,\"a\":2}]", "[\"\\u0000\", null]"),
        "[1.0, {\"b\":1,\"a\":2}, \"\\u0000\", null]"
      )
      assert.strictEqual(yield* merged("[]", "[]"), "[]")
      assert.strictEqual(yield* merged("[1]", "[]"), "[1]")
      assert.strictEqual(yield* merged("[1]", "{\"a\":1}"), "{\"a\":1}")
      assert.strictEqual(yield* merged("{\"a\":1}", "[1]"), "[1]")
    }))

  it.effect("replaces a hidden job, which stays hidden", () =>
    Effect.gen(function*() {
      const old = yield* existing("h1", "locked_at = 'infinity', attempts = 1")
      assert.deepInclude(yield* one("add_job('new', '[1]', job_key => 'h1')"), {
        id: old.id,
        payload: [1],
        attempts: 0,
        locked_at: "infinity",
        is_available: false
      })
    }))

  it.effect("refuses what is too long or out of range, with the field and its limit", () =>
    Effect.gen(function*() {
      const refused = (args: string) => refusal(call(`add_job(${args})`))
      const spec = (value: object) => refusal(call(`add_jobs(${specs([{ identifier: "a" }, value])})`))
      const tooLong = "GWBID: The task identifier has 129 characters; the limit is 128"
      assert.strictEqual(yield* refused("repeat('ü', 129)"), tooLong)
      assert.strictEqual(yield* spec({ identifier: "a".repeat(129) }), tooLong)
      const missing = "GWBID: The task identifier is null; it has up to 128 characters"
      assert.strictEqual(yield* refused("null"), missing)
      assert.strictEqual(yield* spec({}), missing)
      const queue = "GWBQN: The queue name has 129 characters; the limit is 128"
      assert.strictEqual(yield* refused("'a', queue_name => repeat('q', 129)"), queue)
      assert.strictEqual(yield* spec({ identifier: "a", queue_name: "q".repeat(129) }), queue)
      const key = "GWBJK: The job key has 513 characters; the limit is 512"
      assert.strictEqual(yield* refused("'a', job_key => repeat('k', 513)"), key)
      assert.strictEqual(yield* spec({ identifier: "a", job_key: "k".repeat(513) }), key)
      const attempts = "GWBMA: max_attempts is 0; it must be from 1 to 32767"
      assert.strictEqual(yield* refused("'a', max_attempts => 0"), attempts)
      assert.strictEqual(yield* spec({ identifier: "a", max_attempts: 0 }), attempts)
      assert.include(yield* refused("'a', max_attempts => 32768"), "GWBMA: max_attempts is 32768;")
      assert.strictEqual(
        yield* refused("'a', priority => 32768"),
        "22003: priority is 32768; it must be from -32768 to 32767"
      )
      assert.strictEqual(
        yield* refused("'a', job_key => 'k', job_key_mode => 'merge'"),
        "GWBKM: job_key_mode is 'merge'; it must be 'replace', 'preserve_run_at' or 'unsafe_dedupe'"
      )
      assert.include(yield* refused("'a', job_key => ''"), "23514: ")
    }))

  it.effect("accepts what just fits, and any key mode without a key", () =>
    Effect.gen(function*() {
      const fits = yield* one(
        "add_job(repeat('ü', 128), '{}', repeat('q', 128), null, 32767, repeat('k', 512), -32768)"
      )
      assert.deepInclude(fits, { max_attempts: 32767, priority: -32768 })
      assert.strictEqual((yield* one("add_job('a', job_key_mode => 'merge')")).key, null)
    }))

  it.effect("never answers nulls, loses a call or adds a key twice, however many race for it", () =>
    Effect.gen(function*() {
      const modes = ["replace", "replace", "preserve_run_at", "unsafe_dedupe"]
      const producer = Effect.gen(function*() {
        for (let n = 0; n < 150; n++) {
          const key = `race ${yield* Random.nextIntBetween(0, 9)}`
          const mode = modes[yield* Random.nextIntBetween(0, modes.length - 1)]
          const many = n % 5 === 0
          const added = many
            ? yield* call(`add_jobs(${specs([{ identifier: "b", job_key: key, queue_name: `q${n}` }])})`)
            : yield* call("add_job('a', job_key => $1::text, job_key_mode => $2::text)", [key, mode])
          assert.deepStrictEqual(added.map((job) => [typeof job.id, job.key]), [["number", key]])
        }
      })
      const consumer = Effect.gen(function*() {
        for (let n = 0; n < 150; n++) {
          yield* run(`
            update graphile_worker._private_jobs set ${hours(0)}, attempts = attempts + 1
            where id = (select id from graphile_worker._private_jobs where is_available and key like 'race %'
              order by random() for update skip locked limit 1)`)
          yield* run(`
            delete from graphile_worker._private_jobs where id in (select id from graphile_worker._private_jobs
              where locked_by = 'pool-1' order by random() for update skip locked limit 1)`)
        }
      })
      yield* Effect.all([...Array.from({ length: 8 }, () => producer), consumer, consumer], {
        concurrency: "unbounded"
      })
    }))

  it.effect("uses up numbers only for what is new", () =>
    Effect.gen(function*() {
      const numbers = Effect.map(
        run<{ job: number; task: number; queue: number }>(`
          select
            (select last_value::int from graphile_worker._private_jobs_id_seq) as job,
            (select last_value::int from graphile_worker._private_tasks_id_seq) as task,
            (select last_value::int from graphile_worker._private_job_queues_id_seq) as queue`),
        (rows) => rows[0]!
      )
      const first = ["seq", "{}", "seq queue", "seq key"]
      yield* one("add_job($1::text, $2::json, $3::text, job_key => $4::text)", first)
      const before = yield* numbers
      for (const mode of ["replace", "preserve_run_at", "unsafe_dedupe"]) {
        yield* one("add_job($1::text, $2::json, $3::text, job_key => $4::text, job_key_mode => $5::text)", [
          ...first,
          mode
        ])
      }
      const spec = { identifier: "seq", queue_name: "seq queue", job_key: "seq key" }
      yield* call(`add_jobs(${specs([spec, spec])})`)
      assert.deepStrictEqual(yield* numbers, before)
      yield* call(`add_jobs(${specs([spec, { identifier: "seq" }, { identifier: "seq 2", queue_name: "seq queue" }])})`)
      assert.deepStrictEqual(yield* numbers, { job: before.job + 2, task: before.task + 1, queue: before.queue })
    }))

  it.effect("is safe from what the caller's search_path holds", () =>
    Effect.gen(function*() {
      const { config } = yield* Database.TestDatabase
      yield* run("create schema evil")
      for (
        const signature of [
          "length(text) returns int",
          "now() returns timestamptz",
          "pg_notify(text, text) returns void",
          "coalesce_less(timestamptz, timestamptz) returns boolean"
        ]
      ) {
        yield* run(`create function evil.${signature} language plpgsql as $$ begin raise exception 'evil'; end $$`)
      }
      yield* run(
        "create operator evil.< (function = evil.coalesce_less, leftarg = timestamptz, rightarg = timestamptz)"
      )
      const victim = yield* PgClient.make({ ...config, startupParameters: { search_path: "evil, pg_catalog" } }).pipe(
        Effect.provide(Reactivity.layer)
      )
      assert.include(yield* refusal(victim`select now()`), "evil")
      const [row] = yield* victim<{ id: string }>`
        select (graphile_worker.add_job('a', '[1]', 'q', job_key => 'evil', flags => array['x'])).id::text as id`
      yield* victim`select graphile_worker.add_job('a', '[1]', 'q', job_key => 'evil')::text`
      yield* victim`select graphile_worker.reschedule_jobs(array[${row!.id}::bigint], attempts => 1)::text`
      yield* victim`select graphile_worker.force_unlock_workers(array['x'])::text`
      yield* victim`select graphile_worker.remove_job('evil')::text`
    }))
})

it.layer(Database.layer(), { excludeTestServices: true })("add_jobs", (it) => {
  it.effect("answers a row for each spec, in their order, and numbers new jobs in that order", () =>
    Effect.gen(function*() {
      yield* existing("m")
      const added = yield* call(`add_jobs(${
        specs([
          { identifier: "a", job_key: "z", payload: 1 },
          { identifier: "b", job_key: "m", payload: 2, queue_name: "q" },
          { identifier: "c", payload: 3 },
          { identifier: "a", job_key: "a", payload: 4, flags: ["x"], priority: 2, max_attempts: 3 },
          { identifier: "c", payload: 5 }
        ])
      })`)
      assert.deepStrictEqual(added.map(({ payload }) => payload), [1, 2, 3, 4, 5])
      assert.deepStrictEqual(added.map(({ key }) => key), ["z", "m", null, "a", null])
      assert.deepStrictEqual(added.map(({ revision }) => revision), [0, 1, 0, 0, 0])
      const ids = added.filter(({ revision }) => revision === 0).map(({ id }) => id)
      assert.deepStrictEqual(ids, [0, 1, 2, 3].map((n) => ids[0]! + n))
      assert.deepInclude(added[3], { flags: { x: true }, priority: 2, max_attempts: 3 })
      assert.isNotNull(added[1]!.job_queue_id)
    }))

  it.effect("treats specs that share a key as calls one after another", () =>
    Effect.gen(function*() {
      const added = yield* call(`add_jobs(${
        specs([
          { identifier: "a", job_key: "twice", payload: [1] },
          { identifier: "a", payload: "between" },
          { identifier: "a", job_key: "twice", payload: [2], run_at: "2040-01-01Z" },
          { identifier: "b", job_key: "twice", payload: [3], run_at: "2050-01-01Z" }
        ])
      }, true)`)
      assert.deepStrictEqual(added.map(({ payload }) => payload), [[1], "between", [1, 2], [1, 2, 3]])
      assert.deepStrictEqual(added.map(({ revision }) => revision), [0, 0, 1, 2])
      assert.strictEqual(new Set([0, 2, 3].map((n) => added[n]!.id)).size, 1)
      assert.isTrue(isAboutNow(added[3]!.run_at))
      assert.strictEqual((yield* jobsFrom("graphile_worker.jobs as job where key = 'twice'")).length, 1)
    }))

  it.effect("takes the keys from running and failed jobs", () =>
    Effect.gen(function*() {
      const running = yield* existing("running", hours(1))
      const failed = yield* existing("failed", "attempts = max_attempts")
      const added = yield* call(
        `add_jobs(${specs([{ identifier: "a", job_key: "running" }, { identifier: "a", job_key: "failed" }])})`
      )
      assert.deepStrictEqual(added.map(({ revision }) => revision), [0, 0])
      assert.deepInclude(yield* job(running.id), { key: null, attempts: 5, locked_by: "pool-1" })
      assert.deepInclude(yield* job(failed.id), { key: null, attempts: 5 })
    }))

  it.effect("adds all or none", () =>
    Effect.gen(function*() {
      const bad = specs([{ identifier: "none" }, { identifier: "none", job_key: "" }])
      assert.include(yield* refusal(call(`add_jobs(${bad})`)), "23514")
      assert.deepStrictEqual(yield* run("select from graphile_worker.jobs where task_identifier = 'none'"), [])
      assert.deepStrictEqual(yield* call("add_jobs('{}')"), [])
      assert.deepStrictEqual(yield* call("add_jobs(null)"), [])
    }))

  it.effect("does not deadlock with another call that has the same keys in another order", () =>
    Effect.gen(function*() {
      const keys = Array.from(
        { length: 20 },
        (_, n) => ({ identifier: `t${n}`, job_key: `d${n}`, queue_name: `q${n}` })
      )
      const [forwards, backwards] = [specs(keys), specs(keys.toReversed())]
      yield* Effect.forEach(
        Array.from({ length: 80 }, (_, n) => n),
        (n) =>
          n % 4 === 3
            ? run(
              "delete from graphile_worker._private_jobs where key in (select key from graphile_worker._private_jobs " +
                "where key like 'd%' order by key for update skip locked)"
            )
            : Effect.map(call(`add_jobs(${n % 2 === 0 ? forwards : backwards})`), (jobs) =>
              assert.strictEqual(jobs.length, 20)),
        { concurrency: 8, discard: true }
      )
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
