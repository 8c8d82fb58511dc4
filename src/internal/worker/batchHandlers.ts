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
import type { JobId } from "../../Job.ts"
import type { ClaimedJob } from "../../JobStore.ts"
import { machineMillis } from "../clock.ts"
import type { Runner } from "./attempt.ts"
import type * as Durations from "./durations.ts"
import type { Jobs } from "./jobs.ts"
import type { Outcome } from "./settler.ts"

/** What the handlers of a batch have done so far, and what they are doing. */
export interface Work {
  readonly outcomes: Array<Outcome>
  readonly running: Map<JobId, { readonly job: ClaimedJob; readonly fiber: () => Fiber.Fiber<void> | undefined }>
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
    const running: Work["running"] = new Map()
    const outcomes: Array<Outcome> = []
    let deliver = (outcome: Outcome | undefined): void => {
      if (outcome !== undefined) outcomes.push(outcome)
    }
    let next = 0
    let isOpen = true
    const allDone = yield* Latch.make(false)
    const lanes = Math.min(jobs.freeSlots(), batched.length)
    let working = lanes

    // One loop a lane, left only by an interruption or a defect, which costs one job its attempt and not the others theirs.
    const lane = (own: { fiber: Fiber.Fiber<void> | undefined }): Effect.Effect<void> => {
      let at = machineMillis()
      let current: ClaimedJob | undefined
      const ended = (job: ClaimedJob): number => {
        const now = machineMillis()
        const millis = now - at
        at = now
        current = undefined
        durations.observe(job.task, millis)
        running.delete(job.id)
        return millis
      }
      const attempts = Effect.whileLoop({
        while: () => isOpen && next < batched.length && at < deadline,
        body: () => {
          const job = current = batched[next++]!
          running.set(job.id, { job, fiber: () => own.fiber })
          jobs.begin(job)
          return runners.get(job.task)!.attempt(job, pool)
        },
        step: (ending) => {
          const job = current!
          deliver(jobs.concludeWith(job, ending, ended(job)))
        }
      })
      const all: Effect.Effect<void> = Effect.flatMap(Effect.exit(Effect.interruptible(attempts)), (exit) => {
        if (Exit.isSuccess(exit) || current === undefined) return Effect.void
        const concluded = jobs.conclude(current, Exit.failCause(exit.cause), ended(current))
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

    inUse += lanes
    for (let index = lanes; index > 0; index--) {
      const own: { fiber: Fiber.Fiber<void> | undefined } = { fiber: undefined }
      own.fiber = jobs.inSlot(lane(own))
    }
    if (lanes > 0) {
      yield* Effect.timeoutOption(allDone.await, Duration.millis(Math.max(0, deadline - machineMillis())))
    }
    isOpen = false
    inUse -= lanes
    return {
      outcomes,
      running,
      left: batched.length - next,
      cutLoose: (to) => {
        deliver = to
      }
    }
  })

  return { run, inUse: () => inUse }
}
