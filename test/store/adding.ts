/** Adding jobs: what is stored, what is refused. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { InvalidJob } from "../../src/Job.ts"
import type { JobSpec } from "../../src/JobStore.ts"
import { all, found, Harness, ids, type It, millis, scene, spec, specs, unique } from "./harness.ts"

/** Texts that some layer between here and the disk might read as its own. */
const awkward = [
  "ünïcödé ✓ 漢字 🦍",
  "quote ' double \" back\\slash",
  "{braces}, [brackets], (parens), null",
  "\t tab \n newline \u0001 control \u007f",
  "$1 ${2} %s :schema $$ $body$",
  "\ud83d\ude00 pair"
]

/** Payload strings that JSON can say and a text column cannot hold. */
const unstorable = { "nul": "a\u0000b", "high": "\ud800", "low": "x\udc00", "key \u0000": ["\u0000", "\udfff\ud800"] }

const baseMillis = Date.UTC(2031, 4, 6, 7, 8, 9, 0)

export const adding = (it: It) => {
  it.effect("answers the job as it is stored, with the defaults", () =>
    Effect.gen(function*() {
      const { store, task } = yield* scene
      const job = yield* store.add(spec(task))
      assert.match(job.id, /^[1-9][0-9]*$/)
      assert.strictEqual(job.task, task)
      assert.strictEqual(job.state, "ready")
      assert.deepStrictEqual(job.payload, {})
      assert.strictEqual(job.queueName, undefined)
      assert.strictEqual(job.priority, 0)
      assert.strictEqual(job.attempts, 0)
      assert.strictEqual(job.maxAttempts, 25)
      assert.strictEqual(job.lastError, undefined)
      assert.strictEqual(job.key, undefined)
      assert.strictEqual(job.lockedAt, undefined)
      assert.strictEqual(job.lockedBy, undefined)
      assert.strictEqual(job.revision, 0)
      assert.deepStrictEqual(job.flags, [])
      assert.strictEqual(millis(job.runAt), millis(job.createdAt))
      assert.strictEqual(millis(job.updatedAt), millis(job.createdAt))
      assert.deepStrictEqual(yield* found(store, job.id), job)
    }))

  it.effect("stores every option, one by one and many at once", () =>
    Effect.gen(function*() {
      const { store } = yield* scene
      const full = (): JobSpec => ({
        task: unique("task"),
        payload: "{\"a\":[1,2.5,null,true,{\"b\":\"c\"}]}",
        queueName: unique("queue"),
        runAt: baseMillis,
        delay: undefined,
        maxAttempts: 32_767,
        priority: -32_768,
        key: unique("key"),
        keyMode: "preserve_run_at",
        flags: ["b", "a", "b"]
      })
      const given = [full(), full()]
      const added = [yield* store.add(given[0]!), ...(yield* store.addMany([given[1]!]))]
      for (const [place, job] of added.entries()) {
        const { key, queueName, task } = given[place]!
        assert.deepInclude(job, { task, queueName, key, state: "scheduled", maxAttempts: 32_767, priority: -32_768 })
        assert.deepStrictEqual(job.payload, { a: [1, 2.5, null, true, { b: "c" }] })
        assert.strictEqual(millis(job.runAt), baseMillis)
        assert.deepStrictEqual(job.flags.toSorted(), ["a", "b"])
        assert.deepStrictEqual(yield* found(store, job.id), job)
      }
    }))

  it.effect("counts a delay from the moment of adding", () =>
    Effect.gen(function*() {
      const { store, task } = yield* scene
      const jobs = [
        yield* store.add(spec(task, { delay: 90_000 })),
        ...(yield* store.addMany(specs(task, 1, { delay: 90_000 })))
      ]
      for (const job of jobs) {
        assert.strictEqual(millis(job.runAt) - millis(job.createdAt), 90_000)
        assert.strictEqual(job.state, "scheduled")
      }
    }))

  it.effect("keeps a time to the millisecond", () =>
    Effect.gen(function*() {
      const { store, task } = yield* scene
      const times = Array.from({ length: 1000 }, (_, n) => baseMillis + n * 50_331_653)
      const jobs = yield* store.addMany(times.map((runAt) => spec(task, { runAt })))
      assert.deepStrictEqual(jobs.map((job) => millis(job.runAt)), times)
      const one = yield* store.add(spec(task, { runAt: baseMillis + 123 }))
      assert.strictEqual(millis(one.runAt), baseMillis + 123)
    }))

  it.effect("takes times from the first year to the last", () =>
    Effect.gen(function*() {
      const { store, task } = yield* scene
      const times = ["0001-01-01T00:00:00.000Z", "1969-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"].map(Date.parse)
      const jobs = yield* store.addMany(times.map((runAt) => spec(task, { runAt })))
      assert.deepStrictEqual(jobs.map((job) => millis(job.runAt)), times)
      assert.deepStrictEqual(jobs.map((job) => job.state), ["ready", "ready", "scheduled"])
    }))

  it.effect("adds many in the given order, whatever their tasks, queues and keys", () =>
    Effect.gen(function*() {
      const { store } = yield* scene
      const [a, b] = [unique("task"), unique("task")]
      const queue = unique("queue")
      const given = Array.from({ length: 60 }, (_, place) =>
        spec(place % 2 === 0 ? a : b, {
          payload: String(place),
          queueName: place % 3 === 0 ? queue : undefined,
          key: place % 5 === 0 ? unique(`key-${60 - place}`) : undefined
        }))
      const jobs = yield* store.addMany(given)
      assert.deepStrictEqual(jobs.map((job) => job.payload), given.map((_, place) => place))
      assert.deepStrictEqual(jobs.map((job) => job.task), given.map((given) => given.task))
      assert.deepStrictEqual(jobs.map((job) => job.queueName), given.map((given) => given.queueName))
      assert.deepStrictEqual(jobs.map((job) => job.key), given.map((given) => given.key))
      const stored = yield* store.list({ tasks: [a, b] }, { limit: 100 })
      assert.deepStrictEqual(stored, jobs)
    }))

  it.effect("adds nothing for an empty list", () =>
    Effect.gen(function*() {
      const { store } = yield* Harness
      assert.deepStrictEqual(yield* store.addMany([]), [])
    }))

  it.effect("adds all or none", () =>
    Effect.gen(function*() {
      const { store, task } = yield* scene
      const error = yield* Effect.flip(store.addMany([...specs(task, 5), spec(task, { maxAttempts: 0 }), spec(task)]))
      assert.instanceOf(error, InvalidJob)
      assert.strictEqual(yield* store.count({ tasks: [task] }), 0)
      assert.lengthOf(yield* store.addMany(specs(task, 2)), 2)
    }))

  it.effect("says which field of a bad job is at fault", () =>
    Effect.gen(function*() {
      const { store, task } = yield* scene
      const bad: ReadonlyArray<readonly [field: string, code: string, spec: JobSpec]> = [
        ["task", "GWBID", spec("x".repeat(129))],
        ["queueName", "GWBQN", spec(task, { queueName: "x".repeat(129) })],
        ["jobKey", "GWBJK", spec(task, { key: "x".repeat(513) })],
        ["maxAttempts", "GWBMA", spec(task, { maxAttempts: 0 })],
        ["maxAttempts", "GWBMA", spec(task, { maxAttempts: 32_768 })],
        ["jobKeyMode", "GWBKM", spec(task, { key: unique("key"), keyMode: "whatever" as never })]
      ]
      for (const [field, code, spec] of bad) {
        for (const adding of [store.add(spec), store.addMany([spec])]) {
          const error = yield* Effect.flip(adding as Effect.Effect<unknown, unknown>)
          assert.instanceOf(error, InvalidJob)
          assert.deepInclude(error, { task: spec.task, field, code })
        }
      }
      assert.strictEqual(yield* store.count({ tasks: [task] }), 0)
    }))

  it.effect("keeps any text as it is", () =>
    Effect.gen(function*() {
      const { pool, store } = yield* scene
      const given = awkward.map((text) =>
        spec(unique(text), {
          payload: JSON.stringify({ [text]: text }),
          queueName: unique(text),
          key: unique(text),
          flags: [text]
        })
      )
      const jobs = [...(yield* store.addMany(given.slice(1))), yield* store.add(given[0]!)]
      const expected = [...given.slice(1), given[0]!]
      for (const [place, job] of jobs.entries()) {
        const { flags, key, payload, queueName, task } = expected[place]!
        assert.deepInclude(job, { task, queueName, key })
        assert.deepStrictEqual(job.flags, flags)
        assert.deepStrictEqual(job.payload, JSON.parse(payload))
        assert.deepStrictEqual(ids(yield* store.list({ tasks: [task], queueName, key }, { limit: 2 })), [job.id])
        const { jobs: [claimed] } = yield* store.claim({ pool, tasks: [task], limit: 1 })
        assert.deepInclude(claimed, { id: job.id, task, queueName, key, payload: job.payload })
      }
    }))

  it.effect("keeps NUL and lone surrogates in payload strings", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const payload = JSON.stringify(unstorable)
      const jobs = [
        yield* store.add(spec(task, { payload })),
        ...(yield* store.addMany(specs(task, 2, { payload, flags: ["f"] })))
      ]
      for (const job of jobs) assert.deepStrictEqual(job.payload, JSON.parse(payload))
      assert.deepStrictEqual(yield* all(store, task), jobs)
      const claim = yield* store.claim({ pool, tasks: [task], limit: 3 })
      assert.deepStrictEqual(claim.jobs.map((job) => job.payload), [unstorable, unstorable, unstorable])
    }))

  it.effect("keeps payloads that are not objects", () =>
    Effect.gen(function*() {
      const { store, task } = yield* scene
      const payloads = [null, true, 0, -1.5e300, "text", "", [], [null], {}]
      const many = yield* store.addMany(payloads.map((payload) => spec(task, { payload: JSON.stringify(payload) })))
      assert.deepStrictEqual(many.map((job) => job.payload), payloads)
      for (const payload of payloads) {
        assert.deepStrictEqual((yield* store.add(spec(task, { payload: JSON.stringify(payload) }))).payload, payload)
      }
    }))

  it.effect("takes a payload of a megabyte", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const text = "0123456789abcdé\n".repeat(65_536)
      const payload = JSON.stringify({ text })
      const jobs = [yield* store.add(spec(task, { payload })), ...(yield* store.addMany([spec(task, { payload })]))]
      for (const job of jobs) assert.isTrue((job.payload as { text: string }).text === text)
      const claim = yield* store.claim({ pool, tasks: [task], limit: 2 })
      assert.isTrue(
        claim.jobs.length === 2 && claim.jobs.every((job) => (job.payload as { text: string }).text === text)
      )
    }))

  it.effect("adds 5,000 jobs in one call", () =>
    Effect.gen(function*() {
      const { store, task } = yield* scene
      const jobs = yield* store.addMany(specs(task, 5000))
      assert.isTrue(jobs.every((job, place) => job.payload === place))
      assert.strictEqual(yield* store.count({ tasks: [task] }), 5000)
      assert.isTrue((yield* all(store, task)).every((job, place) => job.id === jobs[place]?.id))
    }))

  it.effect("keeps a job that two stores add under one key as one", () =>
    Effect.gen(function*() {
      const { other, store, task } = yield* scene
      const key = unique("key")
      const jobs = yield* Effect.forEach(
        Array.from({ length: 40 }, (_, n) => n % 2 === 0 ? store : other),
        (store) => store.add(spec(task, { key })),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(new Set(ids(jobs)).size, 1)
      assert.deepStrictEqual(jobs.map((job) => job.revision).toSorted((a, b) => a - b), jobs.map((_, n) => n))
    }))

  it.effect("gives each of many callers its own job", () =>
    Effect.gen(function*() {
      const { store, task } = yield* scene
      const given = Array.from({ length: 1200 }, (_, n) =>
        spec(n % 7 === 0 ? `${task}-${n % 3}` : task, {
          payload: String(n),
          queueName: n % 5 === 0 ? `${task}-${n % 2}` : undefined,
          runAt: n % 4 === 0 ? baseMillis + n : undefined,
          priority: n % 3 === 0 ? n : undefined,
          maxAttempts: n % 11 === 0 ? n + 1 : undefined,
          flags: n % 6 === 0 ? ["b", "aa", "a", "b"] : undefined
        }))
      const jobs = yield* Effect.forEach(given, store.add, { concurrency: "unbounded" })
      for (const [n, job] of jobs.entries()) {
        const { maxAttempts, payload, priority, queueName, task } = given[n]!
        assert.deepInclude(job, { task, queueName, priority: priority ?? 0, maxAttempts: maxAttempts ?? 25 })
        assert.strictEqual(String(job.payload), payload)
      }
      const stored = new Map((yield* store.list({}, { limit: 100_000 })).map((job) => [job.id, job]))
      for (const job of jobs) assert.deepStrictEqual(stored.get(job.id), job)
      assert.strictEqual(new Set(ids(jobs)).size, jobs.length)
    }))

  it.effect("refuses only the bad one of those that are added at the same moment", () =>
    Effect.gen(function*() {
      const { store, task } = yield* scene
      yield* store.add(spec(task))
      const bad = { maxAttempts: 0 }
      const answers = yield* Effect.forEach(
        Array.from({ length: 60 }, (_, n) => spec(task, n % 20 === 13 ? bad : {})),
        (spec) => Effect.result(store.add(spec)),
        { concurrency: "unbounded" }
      )
      for (const [n, answer] of answers.entries()) {
        assert.strictEqual(answer._tag, n % 20 === 13 ? "Failure" : "Success")
        if (answer._tag === "Failure") assert.deepInclude(answer.failure, { _tag: "InvalidJob", field: "maxAttempts" })
      }
      assert.strictEqual(yield* store.count({ tasks: [task] }), 58)
    }))

  it.effect("adds for the others when one caller is interrupted", () =>
    Effect.gen(function*() {
      const { store, task } = yield* scene
      yield* store.add(spec(task))
      const fibers = yield* Effect.forEach(
        Array.from({ length: 50 }, (_, n) => spec(task, { payload: String(n) })),
        (spec) => Effect.forkChild(store.add(spec), { startImmediately: true })
      )
      yield* Effect.forEach(fibers.filter((_, n) => n % 2 === 0), Fiber.interrupt, { concurrency: "unbounded" })
      const jobs = yield* Effect.forEach(fibers.filter((_, n) => n % 2 === 1), Fiber.join)
      assert.deepStrictEqual(jobs.map((job) => job.payload), jobs.map((_, n) => 2 * n + 1))
      const stored = new Set(ids(yield* all(store, task)))
      assert.isTrue(jobs.every((job) => stored.has(job.id)))
    }))

  it.effect("adds the same keys from both ends, in any mode, beside those who remove them", () =>
    Effect.gen(function*() {
      const { other, store, task } = yield* scene
      const keys = Array.from({ length: 20 }, (_, n) => unique(`key-${n}`))
      const modes = [undefined, "preserve_run_at", "unsafe_dedupe", "dedupe"] as const
      yield* Effect.forEach(
        Array.from({ length: 120 }, (_, n) => n),
        (n) => {
          const from = n % 2 === 0 ? store : other
          if (n % 6 === 5) return Effect.forEach(keys, (key) => from.remove({ key }), { discard: true })
          const given = keys.map((key, place) =>
            spec(`${task}-${place % 3}`, { key, keyMode: modes[(n + place) % 4], queueName: `${task}-${place % 4}` })
          )
          return Effect.map(from.addMany(n % 4 < 2 ? given : given.toReversed()), (jobs) => {
            assert.deepStrictEqual(jobs.map((job) => job.key), n % 4 < 2 ? keys : keys.toReversed())
          })
        },
        { concurrency: 8, discard: true }
      )
      for (const key of keys) assert.isAtMost((yield* store.list({ key }, { limit: 5 })).length, 1)
    }))

  it.effect("numbers the jobs of one call in its order, and only new ones", () =>
    Effect.gen(function*() {
      const { store, task } = yield* scene
      const [taken, ...fresh] = [unique("key"), unique("z"), unique("a")]
      const first = yield* store.add(spec(task, { key: taken }))
      const bare = yield* store.addMany(specs(task, 3))
      const same = yield* store.addMany([spec(task, { key: taken }), spec(task, { key: taken, keyMode: "dedupe" })])
      const mixed = yield* store.addMany([
        spec(task, { key: fresh[0] }),
        spec(task),
        spec(task, { key: fresh[1] }),
        spec(task, { key: taken }),
        spec(task, { key: fresh[0] }),
        spec(task)
      ])
      const [a, b, c, d] = [0, 1, 2, 5].map((place) => mixed[place]!.id)
      assert.deepStrictEqual(ids(same), [first.id, first.id])
      assert.deepStrictEqual([mixed[3]!.id, mixed[4]!.id], [first.id, a])
      const numbers = [first.id, ...ids(bare), a, b, c, d].map(Number)
      assert.deepStrictEqual(numbers, numbers.map((_, n) => numbers[0]! + n))
    }))

  it.effect("replaces many waiting jobs at once, and keeps what an unlucky one of them had", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const keys = Array.from({ length: 30 }, (_, n) => unique(`key-${30 - n}`))
      const given = (options: Partial<JobSpec>) =>
        keys.map((key, n) => spec(task, { key, payload: `[${n}]`, ...options }))
      const old = yield* store.addMany(given({ runAt: baseMillis }))
      const renamed = yield* store.addMany([
        spec(task),
        ...given({ task: `${task}-new`, queueName: `${task}-queue`, keyMode: "preserve_run_at", flags: ["f"] })
      ])
      for (const [n, job] of renamed.slice(1).entries()) {
        assert.deepInclude(job, { id: old[n]!.id, task: `${task}-new`, queueName: `${task}-queue`, revision: 1 })
        assert.deepStrictEqual(job.payload, [n, n])
        assert.strictEqual(millis(job.runAt), baseMillis)
        assert.deepStrictEqual(job.flags, ["f"])
        assert.deepStrictEqual(yield* found(store, job.id), job)
      }
      const again = yield* store.addMany(given({ priority: 3 }))
      assert.deepStrictEqual(ids(again), ids(old))
      assert.deepStrictEqual(again.map((job) => [job.revision, job.priority]), again.map(() => [2, 3]))
      const { jobs: [claimed] } = yield* store.claim({ pool, tasks: [task], limit: 1 })
      assert.deepInclude(claimed, { id: renamed[0]!.id })
      const { jobs: running } = yield* store.claim({ pool, tasks: [task], limit: 1 })
      const last = yield* store.addMany(given({}))
      assert.deepStrictEqual(last.map((job) => job.revision), last.map((_, n) => old[n]!.id === running[0]!.id ? 0 : 3))
      assert.deepInclude(yield* found(store, running[0]!.id), { key: undefined, state: "running" })
    }))
}
