/**
 * graphile-worker 0.16.6 with its defaults: the last version whose named queues are fast.
 */
import * as Effect from "effect/Effect"
import { Logger, run, runMigrations, type RunnerOptions, runOnce } from "graphile-worker-0.16"
import { setTimeout } from "node:timers/promises"
import { type Contestant, type Make, now, type Payload, type Work } from "../support/contestant.ts"

const logger = new Logger(() => () => {})

export const make: Make = (connectionString): Contestant => {
  const optionsOf = ({ concurrency, onStart, tasks }: Work): RunnerOptions => ({
    connectionString,
    logger,
    noHandleSignals: true,
    concurrency,
    maxPoolSize: Math.max(10, concurrency + 2),
    taskList: Object.fromEntries(
      Object.entries(tasks).map(([name, millis]) => [name, (payload) => {
        onStart((payload as Payload).n)
        return millis === 0 ? undefined : setTimeout(millis)
      }])
    )
  })

  return {
    configuration: ({ concurrency }) => ({ concurrency, maxPoolSize: Math.max(10, concurrency + 2) }),
    migrate: Effect.promise(() => runMigrations({ connectionString, logger })),
    drain: (work) =>
      Effect.promise(() => {
        const start = now()
        return runOnce(optionsOf(work)).then(() => ({ start, end: now() }))
      }),
    work: (work) =>
      Effect.asVoid(Effect.acquireRelease(
        Effect.promise(() => run(optionsOf(work))),
        (runner) => Effect.promise(() => runner.stop())
      )),
    producer: () => Effect.die(new Error("graphile-worker 0.16.6 is not asked to add jobs"))
  }
}
