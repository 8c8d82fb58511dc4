/**
 * The jobs of a case: plain and transactional ones, some that fail first, some
 * that fail for good, some in named queues; added before and all through the
 * faults.
 */
import { DateTime, Effect, Schedule } from "effect"
import { Queue } from "kongtask"
import { pause } from "../support/events.ts"
import type { Job } from "./observation.ts"
import type { Random } from "./random.ts"
import * as Settings from "./settings.ts"
import { Run, Write } from "./tasks.ts"

const queues = ["alpha", "beta", "gamma", "delta", "epsilon"]

/** How many attempts a job has that is meant to fail for good. */
const doomedAttempts = 3

const choose = (random: Random): Omit<Job, "id" | "runAt"> => {
  const chance = random.next()
  const transactional = random.next() < 0.3
  if (chance < 0.03) {
    return { queue: undefined, transactional, failures: doomedAttempts, maxAttempts: doomedAttempts }
  }
  const maxAttempts = 1_000
  if (chance < 0.18) return { queue: undefined, transactional, failures: random.between(1, 2), maxAttempts }
  return { queue: chance < 0.28 ? random.pick(queues) : undefined, transactional, failures: 0, maxAttempts }
}

/** Most are quick; some are likely to be running whenever a fault comes. */
const duration = (random: Random, queue: string | undefined): number => {
  if (queue !== undefined) return random.between(2, 25)
  return random.next() < 0.1 ? random.between(200, 600) : random.between(2, 60)
}

export interface Load {
  /** The jobs whose `add` was acknowledged. */
  readonly jobs: ReadonlyArray<Job>
  /** Adds some; tries again while the database is away. */
  readonly add: (count: number) => Effect.Effect<void, never, Queue.Queue>
  /** Adds one that goes before the others, and answers its id. */
  readonly addOne: (
    payload: { readonly millis: number; readonly blocks: number }
  ) => Effect.Effect<string, never, Queue.Queue>
  /** Adds jobs at the suite's pace, until interrupted. */
  readonly goOn: Effect.Effect<never, never, Queue.Queue>
}

export const make = (random: Random): Load => {
  const jobs: Array<Job> = []
  const persist = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    effect.pipe(Effect.timeout("3 seconds"), Effect.retry(Schedule.spaced("200 millis")), Effect.orDie)

  const add = Effect.fnUntraced(function*(count: number) {
    const chosen = Array.from({ length: count }, () => choose(random))
    const requests = chosen.map((job) =>
      (job.transactional ? Write : Run).request(
        { millis: duration(random, job.queue), failures: job.failures, blocks: 0 },
        {
          queueName: job.queue,
          maxAttempts: job.maxAttempts,
          delay: random.next() < 0.1 ? random.between(1, 1_500) : 0
        }
      )
    )
    const added = yield* persist(Queue.addMany(requests))
    for (const [place, { id, runAt }] of added.entries()) {
      jobs.push({ id, runAt: DateTime.toEpochMillis(runAt), ...chosen[place]! })
    }
  })

  const addOne = Effect.fnUntraced(function*(payload: { readonly millis: number; readonly blocks: number }) {
    const { id, maxAttempts, runAt } = yield* persist(
      Queue.add(Run, { failures: 0, ...payload }, { priority: -1 })
    )
    jobs.push({
      id,
      queue: undefined,
      transactional: false,
      failures: 0,
      maxAttempts,
      runAt: DateTime.toEpochMillis(runAt)
    })
    return id
  })

  return {
    jobs,
    add,
    addOne,
    goOn: Effect.forever(Effect.andThen(pause(Settings.tickMillis), add(Settings.jobsPerTick)))
  }
}
