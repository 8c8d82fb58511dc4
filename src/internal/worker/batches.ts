/**
 * Short jobs many at a time: held by the row locks of one transaction, in which
 * their outcomes are written too.
 *
 * Two streams take turns, so that the database finds and deletes jobs while the
 * other stream's handlers run. A batch has little time: handlers that outlive it
 * go on with a claim of their own, written in the same transaction, and jobs that
 * have not started stay as they were.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { JobId } from "../../Job.ts"
import type { Batch, ClaimedJob, Place, Settlement, Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import { machineMillis, withMachineClock } from "../clock.ts"
import type { Runner } from "./attempt.ts"
import type * as Durations from "./durations.ts"
import type { Jobs } from "./jobs.ts"
import type { Outcome } from "./settler.ts"

/** How long a batch's transaction may take before its handlers are cut loose. */
const budgetMillis = 30

/** How long the streams go on before the other jobs get their claim: longer where a claim takes long. */
const minPhaseMillis = 100
const maxPhaseMillis = 1_000
const claimsPerPhase = 10

const maxBatch = 1_000
const streams = 2

export interface Batches {
  /** Whether jobs of some task are short enough, and slots are free. */
  readonly areWorthwhile: () => boolean
  /**
   * Runs batches for a while, or until there are not enough jobs for them; an interruption ends it after the running
   * ones. A claim comes before: the jobs that it found, which are the first in order, and how long it took.
   */
  readonly run: (claimed: ReadonlyArray<ClaimedJob>, claimMillis: number) => Effect.Effect<void>
}

export const make = (options: {
  readonly pool: string
  readonly store: Store
  readonly runners: ReadonlyMap<string, Runner>
  readonly jobs: Jobs
  readonly durations: Durations.Durations
  /** Whether new jobs were announced since the last claim. */
  readonly isWoken: () => boolean
  readonly scope: Scope.Scope
  readonly answered: <A, R>(statement: Effect.Effect<A, KongTaskError, R>) => Effect.Effect<A, KongTaskError, R>
  /** Told of each outcome that is recorded. */
  readonly onSettled: (outcome: Outcome) => void
  /** Takes outcomes that are not recorded yet. */
  readonly offer: (outcome: Outcome) => void
  readonly onUnavailable: (error: KongTaskError) => Effect.Effect<void>
  /** A commit that failed may have happened all the same. */
  readonly onDoubt: () => void
}): Effect.Effect<Batches> =>
  Effect.sync(() => {
    const {
      answered,
      durations,
      isWoken,
      jobs,
      offer,
      onDoubt,
      onSettled,
      onUnavailable,
      pool,
      runners,
      scope,
      store
    } = options
    const candidates = [...runners].filter(([, { mayBatch }]) => mayBatch).map(([task]) => task)
    const shortTasks = () => candidates.filter((task) => durations.short(task) !== undefined)

    /** As many jobs as half of the budget is enough for. */
    const sizeOf = (tasks: ReadonlyArray<string>, slots: number) => {
      const longest = tasks.reduce((longest, task) => Math.max(longest, durations.short(task) ?? 0), 0.001)
      return Math.max(1, Math.min(maxBatch, Math.floor(slots * budgetMillis / 2 / longest)))
    }

    // Where the last full batch ended: the next one need not walk over what that one has deleted. Only a hint: forgotten
    // when a claim finds a job before it, or any of another task or priority.
    let after: Place | undefined
    const isBehind = (place: Place) => (job: ClaimedJob) => {
      if (job.task !== place.task || job.priority !== place.priority) return false
      const later = job.runAt.epochMilliseconds - place.runAt
      return Math.abs(later) > 1
        ? later > 0
        : job.id.length > place.id.length || (job.id.length === place.id.length && job.id > place.id)
    }

    const runPhase = Effect.fnUntraced(function*(claimMillis: number) {
      const start = machineMillis()
      const end = start + Math.min(maxPhaseMillis, Math.max(minPhaseMillis, claimsPerPhase * claimMillis))
      const hasTime = () => {
        const now = machineMillis()
        return now < end && (now < start + minPhaseMillis || !isWoken())
      }
      const turn = yield* Semaphore.make(1)
      // The others have its hint.
      const firstOpened = yield* Latch.make(false)
      let isOver = false
      // Jobs that a batch has left are older than those of a batch that was opened beside it.
      let epoch = 0

      const stream = Effect.fnUntraced(function*(name: string) {
        while (!isOver && !isStopping && hasTime()) {
          const tasks = shortTasks()
          const slots = jobs.freeSlots()
          if (tasks.length === 0 || slots === 0) break
          const opened = epoch
          yield* Effect.scoped(Effect.gen(function*() {
            const openedAt = machineMillis()
            const hint = after
            const batch = yield* answered(
              store.batch({ pool, stream: name, tasks, limit: sizeOf(tasks, slots), after: hint })
            )
            after = batch.isFull ? batch.last : undefined
            firstOpened.openUnsafe()
            if (!batch.isFull && hint === undefined) isOver = true
            if (batch.jobs.length === 0) return
            const work = yield* turn.withPermit(Effect.suspend(() => {
              if (opened !== epoch) return Effect.undefined
              return Effect.map(runHandlers(batch, openedAt + budgetMillis), (work) => {
                if (work.left > 0) {
                  epoch++
                  after = undefined
                }
                return work
              })
            }))
            if (work !== undefined) yield* finish(batch, work, name)
          }))
        }
        isOver = true
        firstOpened.openUnsafe()
      })

      yield* Effect.forEach(
        Array.from({ length: streams }, (_, index) => `${pool}/${index + 1}`),
        (name, index) =>
          Effect.catch(index === 0 ? stream(name) : Effect.andThen(firstOpened.await, stream(name)), (error) => {
            isOver = true
            firstOpened.openUnsafe()
            return onUnavailable(error)
          }),
        { concurrency: "unbounded", discard: true }
      )
    })

    /** What the handlers of a batch have done so far, and what they are doing. */
    interface Work {
      readonly outcomes: Array<Outcome>
      readonly running: Map<JobId, { readonly job: ClaimedJob; readonly fiber: () => Fiber.Fiber<void> | undefined }>
      readonly left: number
      /** From now on outcomes do not belong to the batch. */
      readonly cutLoose: (to: (outcome: Outcome) => void) => void
    }

    const runHandlers = Effect.fnUntraced(function*(batch: Batch, deadline: number): Effect.fn.Return<Work> {
      const running: Work["running"] = new Map()
      const outcomes: Array<Outcome> = []
      let deliver = (outcome: Outcome): void => {
        outcomes.push(outcome)
      }
      let next = 0
      let isOpen = true
      const allDone = yield* Latch.make(false)
      let lanes = Math.min(jobs.freeSlots(), batch.jobs.length)

      const lane = (own: { fiber: Fiber.Fiber<void> | undefined }) =>
        Effect.gen(function*() {
          let at = machineMillis()
          while (isOpen && next < batch.jobs.length && at < deadline) {
            const job = batch.jobs[next++]!
            running.set(job.id, { job, fiber: () => own.fiber })
            jobs.begin(job)
            const exit = yield* Effect.exit(Effect.interruptible(runners.get(job.task)!.attempt(job, pool)))
            const now = machineMillis()
            durations.observe(job.task, now - at)
            running.delete(job.id)
            const outcome = yield* jobs.conclude(job, exit, now - at)
            if (outcome !== undefined) deliver(outcome)
            at = now
          }
          if (--lanes === 0) allDone.openUnsafe()
        })

      for (let index = lanes; index > 0; index--) {
        const own: { fiber: Fiber.Fiber<void> | undefined } = { fiber: undefined }
        own.fiber = jobs.inSlot(lane(own))
      }
      if (lanes > 0) {
        yield* Effect.timeoutOption(allDone.await, Duration.millis(Math.max(0, deadline - machineMillis())))
      }
      isOpen = false
      return {
        outcomes,
        running,
        left: batch.jobs.length - next,
        cutLoose: (to) => {
          deliver = to
        }
      }
    })

    /** Writes what has become of a batch, and cuts loose the handlers that are still running. */
    const finish = Effect.fnUntraced(function*(batch: Batch, work: Work, stream: string) {
      const loose = [...work.running.values()]
      const own = work.outcomes.splice(0)
      // What ends from now on waits for the commit, which decides where it belongs.
      const late: Array<Outcome> = []
      work.cutLoose((outcome) => void late.push(outcome))
      const promote = loose.length === 0 ? Effect.void : batch.promote(loose.map(({ job }) => job.id))
      const settlements = own.map(({ settlement }): Settlement => settlement)
      const committed = yield* Effect.exit(
        answered(Effect.andThen(promote, batch.settle(settlements)))
      )
      if (Exit.isSuccess(committed)) {
        own.forEach(onSettled)
        late.forEach(offer)
        work.cutLoose(offer)
        for (const { fiber, job } of loose) {
          const running = fiber()
          if (running !== undefined && work.running.has(job.id)) jobs.adopt(job.id, running)
        }
        return
      }
      onDoubt()
      const offerLate = (outcome: Outcome) => offer({ ...outcome, isLate: true })
      own.forEach(offerLate)
      late.forEach(offerLate)
      work.cutLoose(() => {})
      for (const { fiber } of loose) fiber()?.interruptUnsafe()
      yield* Effect.ignore(answered(store.forgetBatch(stream)))
      return yield* Exit.asVoid(committed)
    })

    let isStopping = false
    return {
      areWorthwhile: () => jobs.freeSlots() > 0 && candidates.some((task) => durations.short(task) !== undefined),
      run: (claimed, claimMillis) =>
        Effect.suspend(() => {
          if (after !== undefined && !claimed.every(isBehind(after))) after = undefined
          return Effect.forkIn(withMachineClock(runPhase(claimMillis)), scope, {
            startImmediately: true,
            uninterruptible: true
          })
        }).pipe(
          Effect.flatMap((fiber) =>
            Effect.onInterrupt(Fiber.join(fiber), () => {
              isStopping = true
              return Fiber.await(fiber)
            })
          )
        )
    }
  })
