import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Reactivity from "effect/reactivity/Reactivity"
import { sqlState } from "../src/internal/postgres/errors.ts"
import { call, existing, hours, isAboutNow, job, jobsFrom, one, refusal, run, specs, year } from "./support/contract.ts"
import * as Database from "./support/database.ts"

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

  it.effect("finds its task and its queue while a cleanup deletes those without jobs", () =>
    Effect.gen(function*() {
      // A cleanup in the middle of a call makes it wait for names out of their order: a deadlock is possible here.
      const add = (text: string, params?: ReadonlyArray<unknown>) =>
        Effect.retry(call(text, params), { while: (error) => sqlState(error) === "40P01" })
      const spec = (n: number) => ({ identifier: `swept ${n % 3}`, queue_name: `swept ${n % 4}` })
      const producer = Effect.gen(function*() {
        for (let n = 0; n < 60; n++) {
          const { identifier, queue_name } = spec(n)
          const added = [
            ...yield* add("add_job($1::text, queue_name => $2::text)", [identifier, queue_name]),
            ...yield* add("add_job($1::text, queue_name => $2::text, job_key => 'swept')", [identifier, queue_name]),
            ...yield* add(`add_jobs(${specs([spec(n), { ...spec(n + 1), job_key: "swept too" }, spec(n + 2)])})`)
          ]
          assert.strictEqual(added.length, 5)
          assert.isTrue(added.every((job) => job.id > 0 && job.task_id > 0 && job.job_queue_id !== null))
        }
      })
      const cleanup = Effect.gen(function*() {
        for (let n = 0; n < 120; n++) {
          yield* run(
            "delete from graphile_worker._private_jobs where task_id in " +
              "(select id from graphile_worker._private_tasks where identifier like 'swept%')"
          )
          yield* run("delete from graphile_worker._private_tasks where identifier like 'swept%'")
          yield* run("delete from graphile_worker._private_job_queues where queue_name like 'swept%'")
        }
      })
      yield* Effect.all([producer, producer, producer, cleanup], { concurrency: "unbounded" })
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
