/**
 * graphile-worker and KongTask on one schema: each adds jobs that the other runs.
 * `DATABASE_URL=postgres://… npm run example examples/side-by-side/main.ts`;
 * graphile-worker needs a server. It ends when all four jobs are done.
 */
import { NodeRuntime } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { Config, Console, Deferred, Effect, Layer, Redacted, Schema } from "effect"
import * as Graphile from "graphile-worker"
import { KongTask, Queue, Task, Worker } from "kongtask"

const Resize = Task.make("resize", { payload: { image: Schema.String } })
/** A task that graphile-worker still runs: a contract is all that is needed to add its jobs. */
const Notify = Task.make("notify", { payload: { who: Schema.String } })

const DatabaseLive = PgClient.layerConfig({ url: Config.Redacted("DATABASE_URL") })

const program = Effect.gen(function*() {
  const connectionString = Redacted.value(yield* Config.Redacted("DATABASE_URL"))
  const done = yield* Deferred.make<void>()
  let left = 4
  const ran = (by: string, what: string) => {
    console.log(`${by}: ${what}`)
    if (--left === 0) Deferred.doneUnsafe(done, Effect.void)
  }

  const logger = new Graphile.Logger(() => () => {})
  const options = { connectionString, logger, noHandleSignals: true }
  yield* Effect.acquireRelease(
    Effect.promise(() =>
      Graphile.run({
        ...options,
        taskList: {
          notify: (payload) =>
            ran("graphile-worker", `notify ${Schema.decodeUnknownSync(Notify.payloadSchema)(payload).who}`)
        }
      })
    ),
    (runner) => Effect.promise(() => runner.stop())
  )
  const ResizeLive = Resize.toLayer(({ image }) => Effect.sync(() => ran("KongTask", `resize ${image}`)))
  yield* Effect.forkScoped(Effect.provide(Worker.run({ tasks: [Resize] }), ResizeLive))

  yield* Queue.add(Resize, { image: "a.png" })
  yield* Queue.add(Notify, { who: "ada" })
  const utils = yield* Effect.acquireRelease(
    Effect.promise(() => Graphile.makeWorkerUtils(options)),
    (utils) => Effect.promise(async () => utils.release())
  )
  yield* Effect.promise(() => utils.addJob("resize", { image: "b.png" }))
  yield* Effect.promise(() => utils.addJob("notify", { who: "bob" }))

  yield* Deferred.await(done)
  yield* Console.log("All done.")
})

program.pipe(
  Effect.scoped,
  // The indexes that graphile-worker's claims use, on a schema that KongTask makes.
  Effect.provide(Layer.provide(KongTask.layer({ interop: true }), DatabaseLive)),
  NodeRuntime.runMain
)
