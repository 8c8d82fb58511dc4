/**
 * graphile-worker 0.18, in the configurations that its documentation gives:
 *
 * - `default`: its own defaults, with a connection for each of the jobs at once, as it asks for;
 * - `docs`: the recommended start for high rates (a local queue of concurrency + 1, batches of 250 ms);
 * - `best`: what its published figures were measured with (a local queue of 500, batches without delay).
 */
import * as Effect from "effect/Effect"
import {
  Logger,
  makeWorkerUtils,
  run,
  runMigrations,
  type RunnerOptions,
  runOnce,
  type TaskList
} from "graphile-worker"
import { setTimeout } from "node:timers/promises"
import { type Contestant, type Make, now, type Payload, type Work } from "../support/contestant.ts"

const logger = new Logger(() => () => {})

const taskListOf = ({ onStart, tasks }: Work): TaskList =>
  Object.fromEntries(
    Object.entries(tasks).map(([name, millis]) => [name, (payload: unknown) => {
      onStart((payload as Payload).n)
      return millis === 0 ? undefined : setTimeout(millis)
    }])
  )

const batching = (profile: string, concurrency: number) => {
  if (profile === "default") return {}
  return profile === "docs"
    ? { localQueue: { size: concurrency + 1 }, completeJobBatchDelay: 250, failJobBatchDelay: 250 }
    : { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 }
}

export const make: Make = (connectionString, profile): Contestant => {
  const configuration: Contestant["configuration"] = ({ concurrency, maxPoolSize }) => ({
    concurrentJobs: concurrency,
    maxPoolSize: maxPoolSize ?? Math.max(10, concurrency + 2),
    ...batching(profile, concurrency)
  })
  const optionsOf = (work: Work): RunnerOptions => ({
    connectionString,
    logger,
    noHandleSignals: true,
    taskList: taskListOf(work),
    preset: { worker: configuration(work) }
  })

  return {
    configuration,
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
    producer: (fibers) =>
      Effect.map(
        Effect.acquireRelease(
          Effect.promise(() => makeWorkerUtils({ connectionString, logger, maxPoolSize: Math.max(10, fibers + 2) })),
          (utils) => Effect.promise(() => Promise.resolve(utils.release()))
        ),
        (utils) => ({
          add: (payload, task = "bench") => Effect.promise(() => utils.addJob(task, payload)),
          addMany: (payloads) =>
            Effect.promise(() => utils.addJobs(payloads.map((payload) => ({ identifier: "bench", payload }))))
        })
      )
  }
}
