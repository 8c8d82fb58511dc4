/**
 * Spans of a job from its adder to its handler, as a collector of OTLP gets them.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import { FetchHttpClient } from "effect/http"
import { Otlp } from "effect/observability"
import { Queue, Task, Worker } from "kongtask"
import { type CollectedSpan, makeCollector, showTrace } from "./support/collector.ts"
import { TestDatabase } from "./support/database.ts"
import * as Test from "./support/kongtask.ts"

const Greet = Task.make("greet", { payload: { name: Schema.String } })
const GreetLive = Greet.toLayer(
  Effect.fn("say hello")(function*({ name }) {
    yield* Effect.logDebug(name)
  })
)

/** Sends what this part of the program does under a service's name, and has sent all of it when it is left. */
const exported = (url: string, serviceName: string) =>
  Otlp.layerJson({ baseUrl: url, resource: { serviceName } }).pipe(Layer.provide(FetchHttpClient.layer))

const named = (spans: ReadonlyArray<CollectedSpan>, name: string) => spans.filter((span) => span.name === name)

describe("spans", () => {
  it.live("lead from whoever adds a job to its handler in another process, through the database", () =>
    Effect.gen(function*() {
      const collector = yield* makeCollector
      const database = yield* TestDatabase
      const job = yield* Queue.add(Greet, { name: "a secret" }).pipe(
        Effect.withSpan("POST /greetings"),
        Effect.provide(Layer.provideMerge(Test.layerOn(database.config), exported(collector.url, "shop")))
      )
      yield* Worker.runOnce({ tasks: [Greet] }).pipe(
        Effect.provide(
          Layer.provideMerge(Layer.merge(GreetLive, Test.layerOn(database.config)), exported(collector.url, "worker"))
        )
      )

      const spans = collector.spans()
      const [request] = named(spans, "POST /greetings")
      const [add] = named(spans, "Queue.add")
      const [run] = named(spans, "kongtask greet")
      const [handler] = named(spans, "say hello")
      console.log(showTrace(spans, request!))
      expect(add).toMatchObject({ service: "shop", parentSpanId: request!.spanId })
      expect(run).toMatchObject({
        service: "worker",
        attributes: { "job.id": job.id },
        links: [{ traceId: add!.traceId, spanId: add!.spanId }]
      })
      expect(handler).toMatchObject({ service: "worker", parentSpanId: run!.spanId })
      expect(named(spans, "kongtask claim")[0]).toMatchObject({
        service: "worker",
        attributes: { "kongtask.lane": "durable", "kongtask.pool": expect.stringMatching(/^kongtask-/) }
      })
      expect(named(spans, "kongtask settle")[0]).toMatchObject({ attributes: { "kongtask.jobs": 1 } })
      expect(collector.bodies("/v1/traces").join()).not.toContain("a secret")
    }).pipe(Effect.scoped, Effect.provide(Test.layer())))

  it.live("leave by OTLP, and so do metrics", () =>
    Effect.gen(function*() {
      const collector = yield* makeCollector
      const database = yield* TestDatabase
      yield* Queue.add(Greet, { name: "a" })
      yield* Worker.runOnce({ tasks: [Greet] }).pipe(
        Effect.provide(
          Layer.provideMerge(Layer.merge(GreetLive, Test.layerOn(database.config)), exported(collector.url, "worker"))
        )
      )
      expect(collector.bodies("/v1/metrics").join()).toContain("kongtask_processed_tasks_total")
    }).pipe(Effect.scoped, Effect.provide(Test.layer())))
})
