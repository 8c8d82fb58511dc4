/**
 * The handlers of a batch: they run in as many lanes as slots are free, one job
 * after the other in each, until all have ended or the batch's time is over.
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import type { ClaimedJob } from "../../JobStore.ts"
import { machineMillis } from "../clock.ts"
import type { Runner } from "./attempt.ts"
import type * as Durations from "./durations.ts"
import type { Jobs } from "./jobs.ts"
import type { Outcome } from "./settler.ts"

/** A lane: its fiber, and the job that it is running. */
interface Lane {
  fiber: Fiber.Fiber<void> | undefined
  job: ClaimedJob | undefined
}

export type RunningLane = Lane & { readonly job: ClaimedJob }

/** What the handlers of a batch have done so far, and what they are doing. */
export interface Work {
  readonly outcomes: Array<Outcome>
  /** Those of its lanes that are in the middle of a job. */
  readonly running: () => ReadonlyArray<RunningLane>
  /** How many jobs were not started. */
  readonly left: number
  /** From now on outcomes do not belong to the batch; nor does it when there is none. */
  readonly cutLoose: (to: (outcome: Outcome | undefined) => void) => void
}

export interface Handlers {
  readonly run: (batched: ReadonlyArray<ClaimedJob>, deadline: number) => Effect.Effect<Work>
  /** In how many slots batches run their handlers now. */
  readonly inUse: () => number
}

export const make = ({ durations, jobs, pool, runners }: {
  readonly durations: Durations.Durations
  readonly jobs: Jobs
  readonly pool: string
  /** Those that are replaced while a batch is held are still there. */
  readonly runners: ReadonlyMap<string, Runner>
}): Handlers => {
  let inUse = 0

  const run: Handlers["run"] = Effect.fnUntraced(function*(batched, deadline) {
    const outcomes: Array<Outcome> = []
    let deliver = (outcome: Outcome | undefined): void => {
      if (outcome !== undefined) outcomes.push(outcome)
    }
    let next = 0
    let isOpen = true
    const allDone = yield* Latch.make(false)
    const lanes: ReadonlyArray<Lane> = Array.from(
      { length: Math.min(jobs.freeSlots(), batched.length) },
      () => ({ fiber: undefined, job: undefined })
    )
    let working = lanes.length

    // One loop a lane, left only by an interruption or a defect, which costs one job its attempt and not the others theirs.
    const runLane = (own: Lane): Effect.Effect<void> => {
      let at = machineMillis()
      const ended = (job: ClaimedJob): number => {
        const now = machineMillis()
        const millis = now - at
        at = now
        own.job = undefined
        durations.observe(job.task, millis)
        return millis
      }
      const attempts = Effect.whileLoop({
        while: () => isOpen && next < batched.length && at < deadline,
        body: () => {
          const job = own.job = batched[next++]!
          jobs.begin(job, at)
          return runners.get(job.task)!.attempt(job, pool)
        },
        step: (ending) => {
          const job = own.job!
          deliver(jobs.concludeWith(job, ending, ended(job)))
        }
      })
      const all: Effect.Effect<void> = Effect.flatMap(Effect.exit(Effect.interruptible(attempts)), (exit) => {
        const { job } = own
        if (Exit.isSuccess(exit) || job === undefined) return Effect.void
        const concluded = jobs.conclude(job, Exit.failCause(exit.cause), ended(job))
        return Effect.flatMap(concluded, (outcome) => {
          deliver(outcome)
          return Cause.hasInterrupts(exit.cause) ? Effect.void : all
        })
      })
      const done = Effect.sync(() => {
        working--
        if (working === 0) allDone.openUnsafe()
      })
      return Effect.andThen(all, done)
    }

    inUse += lanes.length
    for (const lane of lanes) lane.fiber = jobs.inSlot(runLane(lane))
    if (lanes.length > 0) {
      yield* Effect.timeoutOption(allDone.await, Duration.millis(Math.max(0, deadline - machineMillis())))
    }
    isOpen = false
    inUse -= lanes.length
    return {
      outcomes,
      running: () => lanes.filter((lane): lane is RunningLane => lane.job !== undefined),
      left: batched.length - next,
      cutLoose: (to) => {
        deliver = to
      }
    }
  })

  return { run, inUse: () => inUse }
}
