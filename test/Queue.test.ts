import { PgClient } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Exit, Option, Schema } from "effect"
import { Reactivity } from "effect/reactivity"
import { Job, KongTask, Queue, Task } from "kongtask"
import * as Database from "./support/database.ts"
import * as Kong from "./support/kongtask.ts"

const Plain = Task.make("plain", { payload: { n: Schema.Int } })
const Text = Task.make("text", { payload: Schema.String })
const Anything = Task.make("anything", { payload: Schema.Unknown })
const Defaults = Task.make("defaults", { queueName: "line", priority: 7, maxAttempts: 3 })

class Visit extends Schema.Class<Visit>("Visit")({ at: Schema.Date, ref: Schema.BigInt }) {}

const astral = "🦍"

it.layer(Kong.layer())("Queue", (it) => {
  /** Fails to add, and checks that nothing was written. */
  const refused = Effect.fnUntraced(function*(adding: Effect.Effect<unknown, unknown, Queue.Queue>) {
    const before = yield* Queue.count()
    const error = yield* Effect.flip(adding)
    assert.instanceOf(error, Job.InvalidJob)
    assert.strictEqual(yield* Queue.count(), before)
    return error
  })

  describe("refuses", () => {
    const text = (limit: number, code: string) =>
      [
        ["", `must have 1 to ${limit} characters, not 0`, { limit, actual: 0, code }],
        ["x".repeat(limit + 1), `must have at most ${limit} characters, not ${limit + 1}`, {
          limit,
          actual: limit + 1,
          code
        }],
        [astral.repeat(limit + 2), `must have at most ${limit} characters, not ${limit + 2}`, {
          limit,
          actual: limit + 2,
          code
        }],
        ["a\u0000", "has a NUL character or half a surrogate pair, which PostgreSQL cannot store", { code }],
        ["a\ud83e", "has a NUL character or half a surrogate pair, which PostgreSQL cannot store", { code }],
        [5, "must be a string", { code }],
        [null, "must be a string", { code }]
      ] as const
    const whole = (minimum: number, code: object) =>
      [
        [minimum - 1, `must be a whole number from ${minimum} to 32767, not ${minimum - 1}`, {
          limit: minimum,
          actual: minimum - 1,
          ...code
        }],
        [32_768, `must be a whole number from ${minimum} to 32767, not 32768`, {
          limit: 32_767,
          actual: 32_768,
          ...code
        }],
        [1.5, `must be a whole number from ${minimum} to 32767, not 1.5`, { actual: 1.5, ...code }],
        [Number.NaN, `must be a whole number from ${minimum} to 32767, not NaN`, code],
        ["5", `must be a whole number from ${minimum} to 32767, not 5`, code]
      ] as const
    const flags = "must be strings of at least one character, without NUL or half surrogate pairs"
    const fields = {
      queueName: text(128, "GWBQN"),
      jobKey: text(512, "GWBJK"),
      maxAttempts: whole(1, { code: "GWBMA" }),
      priority: whole(-32_768, {}),
      jobKeyMode: [["nope", "must be one of replace, preserve_run_at, unsafe_dedupe, dedupe, reject", {
        code: "GWBKM"
      }]],
      flags: [[[""], flags, {}], [["\u0000"], flags, {}], [["ok", "\udc00"], flags, {}], [[5], flags, {}]],
      runAt: [
        [new Date(Number.NaN), "is not a date", {}],
        [new Date("+010000-01-01T00:00:00Z"), "must be in the years 1 to 9999", {}],
        [new Date("-000001-01-01T00:00:00Z"), "must be in the years 1 to 9999", {}]
      ],
      delay: [
        ["Infinity", "must be a finite duration", {}],
        ["soon", "must be a finite duration", {}],
        [Duration.days(365_251), "must be at most 365250 days, not 365251", {
          limit: 31_557_600_000_000,
          actual: 31_557_686_400_000
        }]
      ]
    } as const

    for (const [field, cases] of Object.entries(fields)) {
      it.effect(`a bad ${field}, saying what is wrong`, () =>
        Effect.gen(function*() {
          for (const [value, problem, more] of cases) {
            const options = { [field]: value } as Job.Options
            const error = yield* refused(Queue.add(Plain, { n: 1 }, options))
            assert.deepInclude(error, { task: "plain", field, problem, ...more })
            assert.strictEqual(error.message, `A job of task "plain" cannot be added: ${field} ${problem}.`)
            const many = yield* refused(
              Queue.addMany([Plain.request({ n: 1 }), Plain.request({ n: 2 }, options), Plain.request({ n: 3 })])
            )
            assert.deepInclude(many, { field, problem, index: 1, ...more })
            assert.strictEqual(
              many.message,
              `A job of task "plain" (job 1 of the call) cannot be added: ${field} ${problem}.`
            )
          }
        }))
    }

    it.effect("a task whose name cannot be stored", () =>
      Effect.gen(function*() {
        for (const [name, problem, more] of text(128, "GWBID")) {
          const error = yield* refused(Queue.add(Task.make(name as string), undefined))
          assert.deepInclude(error, { task: String(name), field: "task", problem, ...more })
        }
      }))

    it.effect("a delay beside a time", () =>
      Effect.gen(function*() {
        const error = yield* refused(Queue.add(Plain, { n: 1 }, { delay: "1 second", runAt: new Date(0) }))
        assert.deepInclude(error, { field: "delay", problem: "excludes runAt; give one of them" })
      }))

    it.effect("a payload that its schema does not take, saying where", () =>
      Effect.gen(function*() {
        const error = yield* refused(Queue.add(Plain, { n: 1.5 }))
        assert.deepInclude(error, { field: "payload" })
        assert.match(error.problem, /^cannot be encoded: .*integer[^]*\["n"\]/)
        const many = yield* refused(Queue.addMany([Plain.request({ n: 1 }), Plain.request({ n: "2" as never })]))
        assert.deepInclude(many, { field: "payload", index: 1 })
      }))

    it.effect("a payload that no JSON can say", () =>
      Effect.gen(function*() {
        const circular: Record<string, unknown> = {}
        circular["self"] = circular
        let deep: Array<unknown> = []
        for (let depth = 0; depth < 100_000; depth++) deep = [deep]
        const Any = Task.make("any", { payload: Schema.Any })
        for (const payload of [() => 1, { f: () => 1 }, 1n, Symbol("s"), circular, deep, new Map(), { a: undefined }]) {
          assert.deepInclude(yield* refused(Queue.add(Anything, payload)), { field: "payload" })
        }
        for (const payload of [() => 1, 1n, circular, deep, Symbol("s")]) {
          assert.deepInclude(yield* refused(Queue.add(Any, payload)), { field: "payload" })
        }
      }))

    it.effect("a payload that is too large", () =>
      Effect.gen(function*() {
        const limit = 1024 * 1024
        assert.lengthOf(yield* Queue.addMany([Text.request("x".repeat(limit - 2))]), 1)
        const error = yield* refused(Queue.add(Text, "é".repeat(limit / 2)))
        assert.deepInclude(error, { field: "payload", limit, actual: limit + 2 })
        assert.include(error.message, `payload must have at most ${limit} bytes of JSON, not ${limit + 2}`)
      }))
  })

  describe("takes", () => {
    it.effect("names, keys and flags up to their limits, counted in characters", () =>
      Effect.gen(function*() {
        const Long = Task.make(astral.repeat(128))
        const options = { queueName: astral.repeat(128), jobKey: astral.repeat(512), flags: [astral.repeat(100)] }
        const job = yield* Queue.add(Long, undefined, options)
        assert.deepInclude(job, { task: Long.name, queueName: options.queueName, key: options.jobKey })
        assert.deepStrictEqual(job.flags, options.flags)
      }))

    it.effect("numbers up to their limits", () =>
      Effect.gen(function*() {
        const low = yield* Queue.add(Plain, { n: 1 }, { maxAttempts: 1, priority: -32_768 })
        const high = yield* Queue.add(Plain, { n: 1 }, { maxAttempts: 32_767, priority: 32_767 })
        assert.deepInclude(low, { maxAttempts: 1, priority: -32_768 })
        assert.deepInclude(high, { maxAttempts: 32_767, priority: 32_767 })
      }))

    it.effect("a time as Date or DateTime, or a delay", () =>
      Effect.gen(function*() {
        const time = DateTime.makeUnsafe("2040-02-29T12:00:00.123Z")
        const zoned = DateTime.makeZonedUnsafe(time, { timeZone: "Asia/Kathmandu" })
        for (const runAt of [time, zoned, DateTime.toDateUtc(time)]) {
          assert.strictEqual(
            (yield* Queue.add(Plain, { n: 1 }, { runAt })).runAt.epochMilliseconds,
            time.epochMilliseconds
          )
        }
        const { createdAt, runAt } = yield* Queue.add(Plain, { n: 1 }, { delay: "90 seconds" })
        assert.strictEqual(runAt.epochMilliseconds - createdAt.epochMilliseconds, 90_000)
      }))

    it.effect("whatever its schema can encode as JSON", () =>
      Effect.gen(function*() {
        const Visits = Task.make("visits", {
          payload: { visit: Visit, by: Schema.ReadonlyMap(Schema.String, Schema.BigInt), every: Schema.Duration }
        })
        const visit = new Visit({ at: new Date(0), ref: 12345678901234567890n })
        const job = yield* Queue.add(Visits, { visit, by: new Map([["a", 1n]]), every: Duration.seconds(5) })
        const decoded = yield* Schema.decodeUnknownEffect(Schema.toCodecJson(Visits.payloadSchema))(job.payload)
        assert.deepStrictEqual(decoded.visit, visit)
        assert.deepStrictEqual(decoded.by, new Map([["a", 1n]]))
        assert.strictEqual(Duration.toMillis(decoded.every), 5000)
      }))

    it.effect("an empty payload of a task without one, and null where that is a payload", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual((yield* Queue.add(Task.make("void"), undefined)).payload, {})
        const Nullable = Task.make("nullable", { payload: Schema.NullOr(Schema.Int) })
        assert.deepStrictEqual((yield* Queue.add(Nullable, null)).payload, null)
        const Optional = Task.make("optional", { payload: Schema.UndefinedOr(Schema.Int) })
        const { payload } = yield* Queue.add(Optional, undefined)
        const decode = Schema.decodeUnknownEffect(Schema.toCodecJson(Optional.payloadSchema))
        assert.strictEqual(yield* decode(payload), undefined)
      }))

    it.effect("what the constructor of its schema fills in", () =>
      Effect.gen(function*() {
        const Filled = Task.make("filled", {
          payload: { a: Schema.Int.pipe(Schema.withConstructorDefault(Effect.succeed(5))) }
        })
        assert.deepStrictEqual((yield* Queue.add(Filled, {})).payload, { a: 5 })
      }))
  })

  it.effect("takes what is left out from the task, also when it is given as undefined", () =>
    Effect.gen(function*() {
      const defaults = { queueName: "line", priority: 7, maxAttempts: 3 }
      assert.deepInclude(yield* Queue.add(Defaults, undefined), defaults)
      const none = {
        queueName: undefined,
        priority: undefined,
        maxAttempts: undefined,
        jobKey: undefined,
        runAt: undefined
      }
      assert.deepInclude(yield* Queue.add(Defaults, undefined, none), defaults)
      assert.deepInclude(
        yield* Queue.add(Defaults, undefined, { queueName: "other", priority: 0, maxAttempts: 1 }),
        { queueName: "other", priority: 0, maxAttempts: 1 }
      )
      const [many] = yield* Queue.addMany([Defaults.request(undefined, { priority: 1, maxAttempts: undefined })])
      assert.deepInclude(many, { queueName: "line", priority: 1, maxAttempts: 3 })
    }))

  it.effect("checks the task's defaults like options", () =>
    Effect.gen(function*() {
      const error = yield* refused(Queue.add(Task.make("bad", { maxAttempts: 0 }), undefined))
      assert.deepInclude(error, { field: "maxAttempts", actual: 0 })
    }))

  it.effect("adds jobs of several tasks in one call, in order", () =>
    Effect.gen(function*() {
      const jobs = yield* Queue.addMany([
        Plain.request({ n: 1 }),
        Text.request("two", { jobKey: "two" }),
        Plain.request({ n: 3 })
      ])
      assert.deepStrictEqual(jobs.map((job) => [job.task, job.payload]), [["plain", { n: 1 }], ["text", "two"], [
        "plain",
        { n: 3 }
      ]])
      assert.deepStrictEqual(yield* Queue.addMany([]), [])
      const generated = yield* Queue.addMany(new Set([Plain.request({ n: 4 })]))
      assert.lengthOf(generated, 1)
    }))

  it.effect("gets, lists, counts and removes by task, state, queue and key", () =>
    Effect.gen(function*() {
      const Mine = Task.make("mine")
      const Other = Task.make("mine too")
      const [a, b, c] = yield* Queue.addMany([
        Mine.request(undefined, { queueName: "mine" }),
        Mine.request(undefined, { delay: "1 hour", jobKey: "mine" }),
        Other.request(undefined)
      ])
      assert.deepStrictEqual(yield* Queue.get(a!.id), Option.some(a!))
      assert.deepStrictEqual(yield* Queue.list({ task: Mine }), [a!, b!])
      assert.deepStrictEqual(yield* Queue.list({ task: [Mine, Other], state: "ready" }), [a!, c!])
      assert.deepStrictEqual(yield* Queue.list({ task: [Mine, Other], state: ["scheduled", "failed"] }), [b!])
      assert.deepStrictEqual(yield* Queue.list({ queueName: "mine" }), [a!])
      assert.deepStrictEqual(yield* Queue.list({ key: "mine" }), [b!])
      assert.deepStrictEqual(yield* Queue.list({ task: [Mine, Other], limit: 1, after: a!.id }), [b!])
      assert.strictEqual(yield* Queue.count({ task: Mine }), 2)
      assert.strictEqual(yield* Queue.count({ task: [] }), 0)
      assert.isAbove(yield* Queue.count(), 3)
      assert.deepStrictEqual(yield* Queue.remove({ key: "mine" }), Option.some(b!))
      assert.deepStrictEqual(yield* Queue.remove(a!.id), Option.some(a!))
      assert.deepStrictEqual(yield* Queue.remove(a!.id), Option.none())
      assert.strictEqual(yield* Queue.count({ task: Mine }), 0)
    }))

  it.effect("lists 100 jobs unless told otherwise, at least one", () =>
    Effect.gen(function*() {
      const Many = Task.make("many")
      yield* Queue.addMany(Array.from({ length: 101 }, () => Many.request(undefined)))
      assert.lengthOf(yield* Queue.list({ task: Many }), 100)
      assert.lengthOf(yield* Queue.list({ task: Many, limit: 101 }), 101)
      assert.lengthOf(yield* Queue.list({ task: Many, limit: 0 }), 1)
      assert.lengthOf(yield* Queue.list({ task: Many, limit: 1_000_000 }), 101)
    }))

  it.effect("joins the transaction of its own client", () =>
    Effect.gen(function*() {
      const Outbox = Task.make("outbox")
      const sql = yield* PgClient.PgClient
      const exit = yield* Effect.exit(sql.withTransaction(Effect.gen(function*() {
        yield* Queue.add(Outbox, undefined)
        yield* Queue.addMany([Outbox.request(undefined)])
        assert.strictEqual(yield* Queue.count({ task: Outbox }), 2)
        return yield* Effect.fail("undone")
      })))
      assert.deepStrictEqual(exit, Exit.fail("undone"))
      assert.strictEqual(yield* Queue.count({ task: Outbox }), 0)
      yield* sql.withTransaction(Queue.add(Outbox, undefined))
      assert.strictEqual(yield* Queue.count({ task: Outbox }), 1)
    }))

  it.effect("leaves the transaction usable when it refuses a job", () =>
    Effect.gen(function*() {
      const Careful = Task.make("careful")
      const sql = yield* PgClient.PgClient
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* Effect.flip(Queue.add(Careful, undefined, { maxAttempts: 0 }))
        yield* Queue.add(Careful, undefined)
      }))
      assert.strictEqual(yield* Queue.count({ task: Careful }), 1)
    }))

  it.effect("refuses to write inside the transaction of another client", () =>
    Effect.gen(function*() {
      const Foreign = Task.make("foreign")
      const { config } = yield* Database.TestDatabase
      const other = yield* PgClient.make(config).pipe(Effect.provide(Reactivity.layer))
      const { id } = yield* Queue.add(Foreign, undefined)
      const writes = [Queue.add(Foreign, undefined), Queue.addMany([Foreign.request(undefined)]), Queue.remove(id)]
      for (const write of writes) {
        const error = yield* Effect.flip(other.withTransaction(write as Effect.Effect<unknown, unknown, Queue.Queue>))
        assert.deepNestedInclude(error, { "reason._tag": "OtherTransaction" })
      }
      assert.strictEqual(yield* Queue.count({ task: Foreign }), 1)
    }))
})

it.layer(Kong.layer({ maxPayloadBytes: 100 }))("Queue with a limit of its own", (it) => {
  it.effect("takes payloads up to it", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* Queue.add(Text, "x".repeat(98))).payload, "x".repeat(98))
      const error = yield* Effect.flip(Queue.add(Text, "x".repeat(99)))
      assert.deepInclude(error, { _tag: "InvalidJob", field: "payload", limit: 100, actual: 101 })
    }))
})

describe("Queue on the embedded database", () => {
  it.live("adds and joins transactions as well", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      yield* Effect.flip(sql.withTransaction(Effect.andThen(Queue.add(Plain, { n: 1 }), Effect.fail("undone"))))
      yield* sql.withTransaction(Queue.add(Plain, { n: 2 }))
      assert.deepStrictEqual((yield* Queue.list()).map((job) => job.payload), [{ n: 2 }])
    }).pipe(Effect.provide(KongTask.layerEmbedded())))
})
