/**
 * KongTask, from this repository's sources, with its defaults.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { make as makeStore } from "../../src/internal/postgres/store.ts"
import * as KongTask from "../../src/KongTask.ts"
import * as Queue from "../../src/Queue.ts"
import * as Task from "../../src/Task.ts"
import * as Worker from "../../src/Worker.ts"
import { type Contestant, type Make, now, type Payload, type Work } from "../support/contestant.ts"

const makeTask = (name: string) =>
  Task.make(name, { payload: { n: Schema.Int, pad: Schema.optionalKey(Schema.String) } })
type BenchTask = ReturnType<typeof makeTask>

const bench = makeTask("bench")
const load = makeTask("load")
const pool = "kongtask-bench"

/** The tasks, and the layer of their handlers. */
const handlersOf = ({ onStart, tasks }: Work) => {
  const all: ReadonlyArray<BenchTask> = Object.keys(tasks).map(makeTask)
  const layers = all.map((task) => {
    const millis = tasks[task.name] ?? 0
    const started = ({ n }: Payload) => Effect.sync(() => onStart(n))
    return task.toLayer((payload) =>
      millis === 0 ? started(payload) : Effect.andThen(started(payload), Effect.sleep(millis))
    )
  })
  return { all, layer: layers.reduce((merged, layer) => Layer.merge(merged, layer)) }
}

export const make: Make = (url, profile): Contestant => {
  const options = profile === "interop" ? { interop: true } : {}
  const client = PgClient.layer({ url: Redacted.make(url) })
  const services = Layer.provideMerge(KongTask.layer(options), client)

  return {
    configuration: ({ concurrency }) => ({ concurrency, ...options }),
    migrate: Effect.void.pipe(Effect.provide(services), Effect.orDie),
    drain: (work) =>
      Effect.suspend(() => {
        const { all, layer } = handlersOf(work)
        const start = now()
        return Worker.runOnce({ tasks: all, concurrency: work.concurrency }).pipe(
          Effect.provide(Layer.merge(layer, services)),
          Effect.map(() => ({ start, end: now() })),
          Effect.orDie
        )
      }),
    work: (work) =>
      Effect.suspend(() => {
        const { all, layer } = handlersOf(work)
        return Layer.build(
          Layer.provide(Worker.layer({ tasks: all, concurrency: work.concurrency }), Layer.merge(layer, services))
        ).pipe(Effect.asVoid, Effect.orDie)
      }),
    producer: () =>
      Effect.map(Effect.orDie(Layer.build(services)), (context) => ({
        add: (payload, task) =>
          Queue.add(task === undefined ? bench : load, payload).pipe(
            Effect.asVoid,
            Effect.provideContext(context),
            Effect.orDie
          ),
        addMany: (payloads) =>
          Queue.addMany(payloads.map((payload) => bench.request(payload))).pipe(
            Effect.asVoid,
            Effect.provideContext(context),
            Effect.orDie
          )
      })),
    claims: (count) =>
      Effect.gen(function*() {
        const store = yield* makeStore({ schema: "graphile_worker" })
        yield* store.registerPool(pool, Duration.minutes(10))
        const times: Array<number> = []
        for (let n = 0; n < count; n++) {
          const start = now()
          yield* store.claim({ pool, tasks: ["bench"], limit: 500 })
          times.push(now() - start)
        }
        return times
      }).pipe(Effect.scoped, Effect.provide(client), Effect.orDie)
  }
}
