/**
 * How fast one process drains no-op jobs.
 *
 *     DATABASE_URL=postgres://… npm run bench -- --jobs 20000 --concurrency 10
 *
 * Jobs are added first; the clock runs from the start of `Worker.runOnce` to its
 * end. Without DATABASE_URL it runs on the embedded database, in memory.
 */
import { NodeRuntime } from "@effect/platform-node"
import { NodeServices } from "@effect/platform-node"
import { Clock, Console, Effect, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import { KongTask, Queue, Task, Worker } from "kongtask"

const Noop = Task.make("bench_noop", { payload: { n: Schema.Int } })
const NoopLive = Noop.toLayer(() => Effect.void)

const drain = Command.make("drain", {
  jobs: Flag.Int("jobs").pipe(Flag.withDefault(20_000)),
  concurrency: Flag.Int("concurrency").pipe(Flag.withDefault(10)),
  rounds: Flag.Int("rounds").pipe(Flag.withDefault(3))
}, ({ concurrency, jobs, rounds }) =>
  Effect.gen(function*() {
    for (let round = 1; round <= rounds; round++) {
      for (let added = 0; added < jobs; added += 1_000) {
        yield* Queue.addMany(Array.from({ length: Math.min(1_000, jobs - added) }, (_, n) => Noop.request({ n })))
      }
      const start = yield* Clock.currentTimeMillis
      yield* Worker.runOnce({ tasks: [Noop], concurrency })
      const seconds = ((yield* Clock.currentTimeMillis) - start) / 1000
      yield* Console.log(`${jobs} jobs, concurrency ${concurrency}: ${Math.round(jobs / seconds)} jobs/s`)
    }
  }).pipe(
    Effect.provide([NoopLive, process.env.DATABASE_URL === undefined ? KongTask.layerEmbedded() : KongTask.layerConfig])
  ))

drain.pipe(Command.run({ version: "0" }), Effect.provide(NodeServices.layer), NodeRuntime.runMain)
