/**
 * Workers whose clock is an hour from the database's.
 */
import type { PgClient } from "@effect/sql-pg"
import { describe, expect, it } from "@effect/vitest"
import { Clock, Duration, Effect, Layer, Option, type Scope } from "effect"
import type { SqlClient } from "effect/sql"
import { Job, Queue, Retry, Task, Worker } from "kongtask"
import { layer as databaseLayer } from "./support/database.ts"
import * as Lane from "./support/lane.ts"

type Services = Queue.Queue | Worker.Worker | PgClient.PgClient | SqlClient.SqlClient | Scope.Scope

const test = <E>(name: string, body: (lane: Lane.Lane) => Effect.Effect<unknown, E, Services>) =>
  it.live(name, () =>
    Effect.suspend(() => {
      const lane = Lane.make()
      return Effect.scoped(body(lane)).pipe(Effect.provide(Layer.provideMerge(lane.layer, databaseLayer())))
    }), 60_000)

const Step = Task.make("step")
const options = { tasks: [Step], useNodeTime: true } as const

/** Runs an effect on a clock that is so many hours ahead. */
const ahead = (hours: number) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(Clock.Clock, (real) => {
    const offset = Duration.toMillis(Duration.hours(hours))
    const currentTimeMillisUnsafe = () => real.currentTimeMillisUnsafe() + offset
    const currentTimeNanosUnsafe = () => real.currentTimeNanosUnsafe() + BigInt(offset) * 1_000_000n
    return Effect.provideService(effect, Clock.Clock, {
      currentTimeMillisUnsafe,
      currentTimeMillis: Effect.sync(currentTimeMillisUnsafe),
      currentTimeNanosUnsafe,
      currentTimeNanos: Effect.sync(currentTimeNanosUnsafe),
      monotonicTimeNanosUnsafe: () => real.monotonicTimeNanosUnsafe(),
      monotonicTimeNanos: real.monotonicTimeNanos,
      sleep: (duration) => real.sleep(duration)
    })
  })

const minutes = (count: number) => Duration.toMillis(Duration.minutes(count))

/** Jobs that are due so many minutes from now, by the real time. */
const add = (count: number, due: number, jobOptions?: Job.Options) =>
  Effect.flatMap(Clock.currentTimeMillis, (now) =>
    Queue.addMany(
      Array.from(
        { length: count },
        () => Step.request(undefined, { ...jobOptions, runAt: new Date(now + minutes(due)) })
      )
    ))

const handler = Step.toLayer(() => Effect.void)
const runOnce = (hours: number, useNodeTime = true) =>
  ahead(hours)(Worker.runOnce({ ...options, useNodeTime })).pipe(Effect.provide(handler))

const left = Effect.map(Queue.list(), (jobs) => jobs.map(({ id }) => id))

/** How much later than its last change a job is due, by the database. */
const putOff = (id: Job.JobId) =>
  Effect.map(Queue.get(id), (job) => {
    const { runAt, updatedAt } = Option.getOrThrow(job)
    return runAt.epochMilliseconds - updatedAt.epochMilliseconds
  })

describe("useNodeTime", () => {
  for (const queueName of [undefined, "queue"]) {
    const kind = queueName === undefined ? "jobs" : "jobs of a queue"

    test(`a worker that is ahead runs ${kind} that are due by its clock only`, () =>
      Effect.gen(function*() {
        yield* add(3, 30, { queueName })
        const later = yield* add(1, 90, { queueName })
        expect(yield* runOnce(1, false)).toMatchObject({ completed: 0 })
        expect(yield* runOnce(1)).toMatchObject({ completed: 3 })
        expect(yield* left).toEqual(later.map(({ id }) => id))
      }))

    test(`a worker that is behind leaves ${kind} that are due by the database's clock only`, () =>
      Effect.gen(function*() {
        yield* add(3, -90, { queueName })
        const later = yield* add(1, -30, { queueName })
        expect(yield* runOnce(-1)).toMatchObject({ completed: 3 })
        expect(yield* left).toEqual(later.map(({ id }) => id))
        expect(yield* runOnce(-1, false)).toMatchObject({ completed: 1 })
      }))
  }

  test("batches go by it too", (lane) =>
    Effect.gen(function*() {
      for (const hours of [1, -1]) {
        const opened = lane.requests.length
        yield* add(600, hours * 60 - 30)
        const later = yield* add(5, hours * 60 + 30)
        let batched = 0
        lane.begun = (_, jobs) => {
          batched += jobs.length
        }
        expect(yield* runOnce(hours)).toMatchObject({ completed: 600 })
        expect(batched).toBeGreaterThan(0)
        // From the beginning of a lane, and from where the batch before has ended.
        const places = lane.requests.slice(opened).map(({ after }) => after !== undefined)
        expect(new Set(places)).toEqual(new Set([true, false]))
        expect(yield* left).toEqual(later.map(({ id }) => id))
        yield* Effect.forEach(later, ({ id }) => Queue.cancel(id), { discard: true })
      }
    }))

  test("retries and snoozed jobs are due by it, of claims and of batches", (lane) =>
    Effect.gen(function*() {
      // The first of them are claimed one by one, some of the others are held in batches.
      yield* add(600, -90)
      const ended = new Map<Job.JobId, boolean>()
      const Failing = Step.toLayer((_, job) => {
        const isFirst = ended.size < 2
        const isHeld = lane.holds(job.id) && [...ended.values()].filter((wasHeld) => wasHeld).length < 2
        if (!isFirst && !isHeld) return Effect.void
        ended.set(job.id, isHeld)
        return ended.size % 2 === 0 ? Job.snooze("10 minutes") : Effect.die(new Error("not yet"))
      }, { retry: Retry.after("10 minutes") })
      const summary = yield* ahead(-1)(Worker.runOnce(options)).pipe(Effect.provide(Failing))
      expect(summary).toMatchObject({ completed: 596, retried: 2, snoozed: 2 })
      expect([...ended.values()]).toEqual([false, false, true, true])
      for (const id of yield* left) {
        const delay = yield* putOff(id)
        expect(delay).toBeLessThan(minutes(0))
        expect(delay).toBeGreaterThan(minutes(-60))
      }
      expect(yield* runOnce(-1)).toMatchObject({ completed: 0 })
      expect(yield* runOnce(-0.5)).toMatchObject({ completed: 4 })
    }))
})
