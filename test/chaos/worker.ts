/**
 * A worker process of the suite. It runs until SIGTERM; a database that is away
 * when it starts is waited for.
 */
import { Effect, Layer, Schedule, Stream } from "effect"
import { KongTask, Worker } from "kongtask"
import * as Clocks from "./clocks.ts"
import { layer as handlers } from "./handlers.ts"
import * as Journal from "./journal.ts"
import { Ledger } from "./ledger.ts"
import * as Settings from "./settings.ts"
import { Run, Write } from "./tasks.ts"

const url = process.env["DATABASE_URL"] ?? ""

const services = handlers.pipe(
  Layer.provideMerge(Ledger.layer(url)),
  Layer.provideMerge(KongTask.layerConfig)
)

const worker = Effect.gen(function*() {
  const { events } = yield* Worker.Worker
  yield* events.pipe(
    Stream.runForEach((event) =>
      Effect.sync(() => {
        if (event._tag === "PoolStarted" || event._tag === "PoolLost") {
          Journal.write({ _tag: event._tag, pool: event.pool })
        }
        if (event._tag === "PoolsReleased") Journal.write({ _tag: event._tag, pools: event.recovery.pools })
      })
    ),
    Effect.forkChild({ startImmediately: true })
  )
  return yield* Worker.run({
    tasks: [Run, Write],
    concurrency: Settings.concurrency,
    lease: Settings.leaseMillis,
    heartbeatInterval: Settings.heartbeatMillis,
    shutdownTimeout: Settings.shutdownMillis
  })
}).pipe(
  Effect.provide(services),
  Effect.retry(Schedule.spaced("200 millis")),
  Effect.ensuring(Effect.sync(() => Journal.write({ _tag: "Closed" })))
)

const clock = process.env["CHAOS_CLOCK"]

Effect.runFork(clock === undefined ? worker : Clocks.jumping(clock as Clocks.Kind)(worker))
