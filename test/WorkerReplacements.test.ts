import { describe, expect, it } from "@effect/vitest"
import { Context, Deferred, Effect, Queue as Buffer, Schema, Stream } from "effect"
import { Queue, Task, Worker } from "kongtask"
import { eventually } from "./support/events.ts"
import * as Test from "./support/kongtask.ts"

const task = (name: string) => Task.make(name, { payload: { n: Schema.Int } })

const registration = (
  name: string,
  handler: (payload: { readonly n: number }) => Effect.Effect<void>
): Task.Registration => ({ task: task(name), handler, context: Context.empty(), options: {} })

const handlers = (...registrations: ReadonlyArray<Task.Registration>): Context.Context<Task.Handler<string>> =>
  Context.makeUnsafe(new Map(registrations.map((one) => [Task.handlerKey(one.task.name).key, one])))

/** Runs a worker of the first handlers, and answers what replaces them. */
const start = Effect.fnUntraced(function*(...first: ReadonlyArray<Task.Registration>) {
  const buffer = yield* Buffer.unbounded<ReadonlyArray<Task.Registration>>()
  const tasks: ReadonlyArray<Task.Any> = first.map(({ task }) => task)
  yield* Worker.run({ tasks, replacements: Stream.fromQueue(buffer), handleSignals: false }).pipe(
    Effect.provideContext(handlers(...first)),
    Effect.forkScoped
  )
  return (...next: ReadonlyArray<Task.Registration>) => Effect.asVoid(Buffer.offer(buffer, next))
})

describe("replacements of a worker's handlers", () => {
  it.live("neither lose nor repeat a job, whatever the load", () =>
    Effect.gen(function*() {
      const jobs = 4000
      const ran: Array<number> = []
      const versions = new Set<number>()
      const version = (number: number) =>
        ["a", "b"].map((name) =>
          registration(name, ({ n }) =>
            Effect.sync(() => {
              versions.add(number)
              ran.push(n)
            }))
        )
      const replace = yield* start(...version(0))
      yield* Queue.addMany(
        Array.from({ length: jobs }, (_, n) => task(n % 2 === 0 ? "a" : "b").request({ n }))
      )
      let next = 1
      yield* Effect.gen(function*() {
        // Now and then one of the two is not there.
        yield* replace(...(next % 3 === 0 ? version(next).slice(0, 1) : version(next)))
        next++
        yield* Effect.sleep("20 millis")
      }).pipe(Effect.repeat({ until: () => Effect.sync(() => ran.length >= jobs / 2) }))
      yield* replace(...version(next))
      yield* eventually(Queue.count(), { until: (count) => count === 0, within: "30 seconds" })
      expect(ran.toSorted((a, b) => a - b)).toEqual(Array.from({ length: jobs }, (_, n) => n))
      expect(versions.size).toBeGreaterThan(1)
    }).pipe(Effect.scoped, Effect.provide(Test.layer())), 60_000)

  it.live("leave the running attempt as it is, and claim what is new at once", () =>
    Effect.gen(function*() {
      const said: Array<string> = []
      const say = (text: string) => Effect.sync(() => void said.push(text))
      const go = yield* Deferred.make<void>()
      const running = yield* Deferred.make<void>()
      const replace = yield* start(
        registration("a", () =>
          Effect.andThen(Deferred.succeed(running, undefined), Effect.andThen(Deferred.await(go), say("old"))))
      )
      yield* Queue.add(task("b"), { n: 1 })
      yield* Queue.add(task("a"), { n: 1 })
      yield* Deferred.await(running)
      yield* replace(registration("b", () =>
        say("new")))
      yield* eventually(Effect.sync(() => said.includes("new")))
      yield* Deferred.succeed(go, undefined)
      yield* eventually(Queue.count(), { until: (count) => count === 0 })
      expect(said).toEqual(["new", "old"])
      yield* replace()
      const left = yield* Queue.add(task("b"), { n: 2 })
      yield* replace(registration("a", () => say("a again")))
      yield* Queue.add(task("a"), { n: 2 })
      yield* eventually(Effect.sync(() => said.includes("a again")))
      expect((yield* Queue.list()).filter(({ task }) => task === "b")).toMatchObject([{ id: left.id, attempts: 0 }])
    }).pipe(Effect.scoped, Effect.provide(Test.layer())))
})
