/** Adds of many callers in one statement: who shares one, and what becomes of the others when one of them goes wrong. */
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import * as PostgresStore from "../../src/internal/postgres/store.ts"
import type { JobSpec, Store } from "../../src/JobStore.ts"
import * as Database from "../support/database.ts"
import { eventually, within } from "../support/events.ts"
import { ids, spec, specs } from "./harness.ts"

/** A store, its client, and a client of somebody else. */
const scene = Effect.gen(function*() {
  const database = yield* Database.freshDatabase()
  const clientOf = (config: PgClient.PgPoolConfig) => PgClient.make(config).pipe(Effect.provide(Reactivity.layer))
  const sql = yield* clientOf({ ...database.config, applicationName: "adder" })
  const outside = yield* clientOf(database.config)
  const store = yield* Effect.provideService(
    PostgresStore.make({ schema: "graphile_worker" }),
    PgClient.PgClient,
    sql
  )
  yield* store.add(spec("task"))
  yield* outside`truncate graphile_worker._private_jobs`
  const waiting = Effect.map(
    outside<{ count: number }>`
      select count(*)::int as count from pg_stat_activity
      where datname = current_database() and application_name = 'adder' and wait_event_type = 'Lock'`,
    ([row]) => row!.count
  )
  return {
    database,
    sql,
    outside,
    store,
    waitFor: (count: number) => eventually(waiting, { until: (n) => n === count })
  }
})

/** Runs an effect while nobody can write a job, but not in the transaction that sees to it. */
const locked = (sql: PgClient.PgClient) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.scoped(Effect.gen(function*() {
    const session = yield* sql.reserve
    const run = (statement: string) => session.executeUnprepared(statement, [], undefined)
    yield* run("begin")
    yield* run("lock table graphile_worker._private_jobs in share mode")
    return yield* Effect.ensuring(effect, Effect.orDie(run("commit")))
  }))

const start = <A, E>(effect: Effect.Effect<A, E>) => Effect.forkDetach(effect, { startImmediately: true })

const startAll = (store: Store, specs: ReadonlyArray<JobSpec>) =>
  Effect.forEach(specs, (spec) => start(store.add(spec)))

/** Of two adds, the first one goes alone; the second one waits for it. */
const startBehind = Effect.fnUntraced(function*(
  { store, waitFor }: { readonly store: Store; readonly waitFor: (count: number) => Effect.Effect<unknown, unknown> },
  specs: ReadonlyArray<JobSpec>
) {
  const first = yield* start(store.add(spec("first")))
  yield* waitFor(1)
  return { fibers: yield* startAll(store, specs), send: Effect.andThen(Fiber.interrupt(first), waitFor(1)) }
})

it.live("adds that meet go together: one statement, one notification", () =>
  Effect.gen(function*() {
    const { outside, store, waitFor } = yield* scene
    const messages = yield* outside.listen("jobs:insert")
    const fibers = yield* locked(outside)(
      Effect.tap(startAll(store, specs("task", 300)), waitFor(1))
    )
    const jobs = yield* Effect.forEach(fibers, Fiber.join)
    assert.deepStrictEqual(jobs.map((job) => job.payload), jobs.map((_, n) => n))
    yield* outside.notify("jobs:insert", "end")
    const counts: Array<number> = []
    while (true) {
      const { payload } = yield* within(Queue.take(messages), "5 seconds", "a notification")
      if (payload === "end") break
      counts.push((JSON.parse(payload) as { count: number }).count)
    }
    assert.deepStrictEqual(counts, [1, 299])
  }))

it.live("one statement has at most 500 jobs, and a megabyte of payloads", () =>
  Effect.gen(function*() {
    const { outside, store, waitFor } = yield* scene
    const messages = yield* outside.listen("jobs:insert")
    const large = (kilobytes: number) => spec("task", { payload: JSON.stringify("x".repeat(kilobytes * 1024)) })
    const given = [spec("task"), ...specs("task", 501), large(600), large(600), spec("task")]
    const fibers = yield* locked(outside)(Effect.tap(startAll(store, given), waitFor(1)))
    assert.strictEqual(new Set(ids(yield* Effect.forEach(fibers, Fiber.join))).size, given.length)
    const counts: Array<number> = []
    while (counts.reduce((a, b) => a + b, 0) < given.length) {
      const { payload } = yield* within(Queue.take(messages), "5 seconds", "a notification")
      counts.push((JSON.parse(payload) as { count: number }).count)
    }
    assert.deepStrictEqual(counts, [1, 500, 2, 2])
  }))

it.live("adds inside a transaction are never shared, and nobody waits for their transaction", () =>
  Effect.gen(function*() {
    const { outside, sql, store } = yield* scene
    const added = yield* Deferred.make<void>()
    const end = yield* Deferred.make<void>()
    const inside = yield* start(Effect.exit(sql.withTransaction(Effect.gen(function*() {
      yield* Effect.forEach(specs("task", 10), store.add, { concurrency: "unbounded" })
      yield* store.add(spec("new"))
      yield* store.add(spec("task", { key: "key" }))
      yield* Deferred.succeed(added, undefined)
      yield* Deferred.await(end)
      return yield* Effect.fail("undone")
    }))))
    yield* Deferred.await(added)
    const sameName = yield* start(store.add(spec("new")))
    const sameKey = yield* start(store.add(spec("task", { key: "key" })))
    const others = Effect.forEach(specs("task", 100), store.add, { concurrency: "unbounded" })
    assert.lengthOf(yield* within(others, "5 seconds", "the others"), 100)
    assert.strictEqual(sameName.pollUnsafe(), undefined)
    assert.strictEqual(sameKey.pollUnsafe(), undefined)
    assert.lengthOf(yield* outside`select from graphile_worker._private_jobs`, 100)
    yield* Deferred.succeed(end, undefined)
    assert.deepStrictEqual(yield* Fiber.join(inside), Exit.fail("undone"))
    assert.strictEqual((yield* Fiber.join(sameName)).task, "new")
    assert.strictEqual((yield* Fiber.join(sameKey)).key, "key")
    assert.strictEqual(yield* store.count({}), 102)
  }))

it.live("a caller that is interrupted before its statement was sent adds nothing, one after that may have", () =>
  Effect.gen(function*() {
    const { outside, store, waitFor } = yield* scene
    const [early, late, other] = yield* locked(outside)(Effect.gen(function*() {
      const { fibers: [early, late, other], send } = yield* startBehind({ store, waitFor }, specs("task", 3))
      yield* within(Fiber.interrupt(early!), "1 second", "the interruption of one that waits")
      yield* send
      yield* within(Fiber.interrupt(late!), "1 second", "the interruption of one in flight")
      return [early!, late!, other!]
    }))
    assert.isTrue(Exit.isFailure(yield* Fiber.await(early!)))
    assert.isTrue(Exit.isFailure(yield* Fiber.await(late!)))
    assert.strictEqual((yield* Fiber.join(other!)).payload, 2)
    const payloads = (yield* store.list({}, { limit: 10 })).map((job) => job.payload)
    assert.deepStrictEqual(payloads, [1, 2])
  }))

it.live("a lost connection fails all whose answer it lost, and nobody's job is added twice", () =>
  Effect.gen(function*() {
    const { database, outside, store, waitFor } = yield* scene
    const fibers = yield* locked(outside)(Effect.gen(function*() {
      const { fibers, send } = yield* startBehind({ store, waitFor }, specs("task", 20))
      yield* send
      yield* Database.terminateBackends("adder").pipe(Effect.provideService(Database.TestDatabase, database))
      return fibers
    }))
    for (const fiber of fibers) {
      const error = yield* Effect.flip(Fiber.join(fiber))
      assert.deepNestedInclude(error, { _tag: "KongTaskError", "reason._tag": "ConnectionFailed" })
    }
    assert.strictEqual(yield* store.count({}), 0)
    yield* Effect.forEach(specs("task", 20), store.add, { concurrency: "unbounded" })
    assert.strictEqual(yield* store.count({}), 20)
  }))

it.live("adds are finished before the store's scope is closed", () =>
  Effect.gen(function*() {
    const { database, outside, waitFor } = yield* scene
    const scope = yield* Scope.make()
    const store = yield* PgClient.make({ ...database.config, applicationName: "adder" }).pipe(
      Effect.provide(Reactivity.layer),
      Effect.flatMap((sql) =>
        Effect.provideService(PostgresStore.make({ schema: "graphile_worker" }), PgClient.PgClient, sql)
      ),
      Scope.provide(scope)
    )
    const { closing, fibers } = yield* locked(outside)(Effect.gen(function*() {
      const { fibers, send } = yield* startBehind({ store, waitFor }, specs("task", 20))
      yield* send
      return { fibers, closing: yield* start(Scope.close(scope, Exit.void)) }
    }))
    assert.lengthOf(yield* Effect.forEach(fibers, Fiber.join), 20)
    yield* Fiber.join(closing)
  }))

it.live("a shared statement is in nobody's trace, and links to those of its callers", () => {
  const spans: Array<Tracer.Span> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  return Effect.gen(function*() {
    const { outside, store, waitFor } = yield* scene
    const fibers = yield* locked(outside)(Effect.tap(
      Effect.forEach(specs("task", 3), (spec, n) => start(Effect.withSpan(store.add(spec), `caller ${n}`))),
      waitFor(1)
    ))
    yield* Effect.forEach(fibers, Fiber.join)
    const callers = [0, 1, 2].map((n) => spans.find((span) => span.name === `caller ${n}`)!)
    const shared = spans.filter((span) => span.name === "JobStore.addShared")
    assert.lengthOf(shared, 1)
    assert.strictEqual(shared[0]!.parent._tag, "None")
    assert.deepStrictEqual(shared[0]!.links.map(({ span }) => span.spanId), callers.slice(1).map((span) => span.spanId))
    assert.strictEqual(shared[0]!.attributes.get("jobs"), 2)
    const children = (parent: Tracer.Span) =>
      spans.filter((span) => span.parent._tag === "Some" && span.parent.value.spanId === parent.spanId).length
    assert.deepStrictEqual([...callers, shared[0]!].map(children), [1, 0, 0, 1])
  }).pipe(Effect.withSpan("program"), Effect.withTracer(tracer))
})
