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
import * as Schedule from "effect/Schedule"
import * as Semaphore from "effect/Semaphore"
import type { JobId } from "../../Job.ts"
import type { Batch, BatchRequest, ClaimedJob, Place, Settlement, Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import { machineMillis, withMachineClock } from "../clock.ts"
import { answeredWithin } from "../deadline.ts"
import type { Runner } from "./attempt.ts"
import * as Handlers from "./batchHandlers.ts"
import type * as Durations from "./durations.ts"
import type { Jobs } from "./jobs.ts"
import type { Outcome } from "./settler.ts"

/** How long a batch's transaction may take before its handlers are cut loose. */
const budgetMillis = 30

/** How long the streams go on before the other jobs get their claim: longer where a claim takes long. */
const minPhaseMillis = 600
const maxPhaseMillis = 1_000
const claimsPerPhase = 20

/** How soon they end for jobs that are announced meanwhile. */
const wokenMillis = 100

const maxBatch = 4_000

/** How large the payloads of a batch may be together, in characters. */
const maxSize = 4 * 1024 * 1024

/** As many jobs as the first batch may have, for nothing is known of their payloads yet. */
const firstBatch = 200

/** How many batches a pool has open at most: one runs handlers while the other opens or commits. */
const streams = 2

/** The server ends a batch that it hears nothing of for so long: then others may have its jobs. */
const answeredInTime = answeredWithin(Duration.seconds(5))

/** How long the streams rest after a phase that ran nothing, and after failures, each time twice as long. */
const restMillis = 100
const maxRestMillis = 10_000

/** What is to be asked of the database, and when that was decided. */
interface Wanted extends Omit<BatchRequest, "pool" | "stream"> {
  readonly epoch: number
}

/** A batch that is held, and whose turn comes after the one before. */
interface Opened {
  readonly batch: Batch
  readonly epoch: number
  readonly turn: Effect.Effect<void>
  /** Gives the turn to the next batch; never before it has come. */
  readonly pass: Effect.Effect<unknown>
}

/** What is to be done when a batch's transaction is closed, unless another one was begun in its place. */
interface Finished {
  readonly afterwards: () => Effect.Effect<void, KongTaskError>
  readonly next?: Batch | undefined
  readonly opened?: Opened | undefined
}

const nothing = (): Effect.Effect<void, KongTaskError> => Effect.void
const unfinished: Finished = { afterwards: nothing }

const retrySchedule = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("2 seconds")])

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
  /** Whether outcomes of claimed jobs are still to be recorded. */
  readonly hasUnsettled: () => boolean
  /** Whether new jobs were announced since the last claim. */
  readonly isWoken: () => boolean
  readonly answered: <A, R>(statement: Effect.Effect<A, KongTaskError, R>) => Effect.Effect<A, KongTaskError, R>
  /** Told of each outcome that is recorded, or known never to be. */
  readonly onSettled: (outcome: Outcome, isRecorded: boolean) => void
  /** Takes outcomes that are not recorded yet. */
  readonly offer: (outcome: Outcome) => void
  readonly onUnavailable: (error: KongTaskError) => Effect.Effect<void>
  /** A commit that failed may have happened all the same. */
  readonly onDoubt: () => void
}): Effect.Effect<Batches> =>
  Effect.sync(() => {
    const { answered, durations, hasUnsettled, isWoken, jobs, offer, onDoubt, onSettled, onUnavailable } = options
    const { pool, runners, store } = options
    const shortTasks = () =>
      [...runners].filter(([task, { mayBatch }]) => mayBatch && durations.short(task) !== undefined).map(([task]) =>
        task
      )

    // The payload of a job in the last batches: the largest one at once, smaller ones step by step.
    let payloadSize = maxSize / firstBatch
    const weigh = ({ count, size }: Batch) => {
      if (count > 0) payloadSize = Math.max(size / count, payloadSize / 4)
    }
    // Milliseconds a job of the last batches, all lanes together.
    let pace: number | undefined
    const time = (count: number, millis: number) => {
      if (count === 0) return
      const latest = millis / count
      pace = pace === undefined ? latest : pace + (latest - pace) * (latest < pace ? 0.5 : 0.1)
    }

    /** As many jobs as half of the budget is enough for, and as are not too large to be held together. */
    const sizeOf = (tasks: ReadonlyArray<string>, slots: number) => {
      const longest = () => tasks.reduce((longest, task) => Math.max(longest, durations.short(task) ?? 0), 0.001)
      const ready = budgetMillis / 2 / (pace ?? longest() / slots)
      return Math.max(1, Math.floor(Math.min(maxBatch, maxSize / payloadSize, ready)))
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

    let restUntil = 0
    let failuresInARow = 0
    // Jobs that a batch leaves are older than those of a batch that was opened before they were free again.
    let epoch = 0
    let isBroken = false
    // What has ended in lost batches.
    const unrecorded: Array<Outcome> = []
    const handlers = Handlers.make({ durations, jobs, pool, runners })

    const runPhase = Effect.fnUntraced(function*(claimMillis: number) {
      const start = machineMillis()
      const end = start + Math.min(maxPhaseMillis, Math.max(minPhaseMillis, claimsPerPhase * claimMillis))
      const hasTime = () => {
        const now = machineMillis()
        return now < end && (now < start + wokenMillis || !isWoken())
      }
      // One batch is opened at a time, for its jobs come after those of the one before, and so do its handlers.
      const opening = yield* Semaphore.make(1)
      let lastTurn = yield* Latch.make(true)
      let isOver = false
      let ran = 0
      let hasFailed = false
      isBroken = false

      /** What the next batch is to be, if there is to be one. */
      const wanted = (): Wanted | undefined => {
        if (isOver || isBroken || isStopping || !hasTime()) return undefined
        const tasks = shortTasks()
        const slots = jobs.freeSlots() + handlers.inUse()
        return tasks.length === 0 || slots === 0 ? undefined : {
          tasks,
          limit: sizeOf(tasks, slots),
          payloadSize,
          after,
          epoch
        }
      }

      const opened = (batch: Batch, wanted: Wanted): Opened => {
        weigh(batch)
        if (!batch.isCrowded) after = batch.last
        if (!batch.isCrowded && batch.count < wanted.limit && wanted.after === undefined) isOver = true
        const before = lastTurn
        const own = lastTurn = Latch.makeUnsafe(false)
        return { batch, epoch: wanted.epoch, turn: before.await, pass: Effect.andThen(before.await, own.open) }
      }

      const stream = Effect.fnUntraced(function*(name: string) {
        const open = opening.withPermit(Effect.suspend(() => {
          const first = wanted()
          return first === undefined ? Effect.undefined : Effect.map(
            answeredInTime(store.batch({ pool, stream: name, ...first })),
            (batch) => opened(batch, first)
          )
        }))

        /** With the next batch in the same round trip, if nobody else is about to open one. */
        const finishAndGoOn = Effect.fnUntraced(function*(batch: Batch, work: Handlers.Work) {
          // Outcomes that wait for a session get this one.
          if (work.running().length > 0 || hasUnsettled() || !(yield* opening.takeIfAvailable(1))) {
            return yield* finish(batch, work, name)
          }
          return yield* Effect.ensuring(
            Effect.gen(function*() {
              const more = wanted()
              const finished = yield* finish(batch, work, name, more)
              return finished.next === undefined ? finished : { ...finished, opened: opened(finished.next, more!) }
            }),
            opening.release(1)
          )
        })

        const runBatch = Effect.fnUntraced(function*({ batch, pass, turn, ...opened }: Opened) {
          const work = yield* Effect.ensuring(
            Effect.gen(function*() {
              const batched = yield* answeredInTime(batch.start)
              // From when its jobs are held: the way to the database is not the handlers' time.
              const deadline = machineMillis() + budgetMillis
              yield* turn
              // Claims are to come first, or what has become of the other batch.
              if (batched.length < batch.count) {
                isBroken = true
                after = undefined
              }
              if (batched.length === 0 || isBroken) return unfinished
              if (opened.epoch !== epoch) {
                after = undefined
                return unfinished
              }
              const begun = machineMillis()
              const work = yield* handlers.run(batched, deadline)
              const ended = batched.length - work.left
              time(ended, machineMillis() - begun)
              ran += ended
              if (work.left === 0) return work
              return yield* Effect.ensuring(
                finish(batch, work, name),
                Effect.sync(() => {
                  epoch++
                  after = undefined
                })
              )
            }),
            pass
          )
          return "running" in work ? yield* finishAndGoOn(batch, work) : work
        })

        let isOpening = true
        while (isOpening) {
          const afterwards = yield* Effect.scoped(Effect.gen(function*() {
            let opened: Opened | undefined = yield* open
            isOpening = opened !== undefined
            let afterwards = nothing
            while (opened !== undefined) {
              const finished: Finished = yield* runBatch(opened)
              afterwards = finished.afterwards
              opened = finished.opened
            }
            return afterwards
          }))
          yield* afterwards()
        }
        isOver = true
      })

      yield* Effect.forEach(
        Array.from({ length: streams }, (_, index) => `${pool}/${index + 1}`),
        (name) =>
          Effect.catch(stream(name), (error) => {
            hasFailed = true
            isOver = true
            // What is too large to be answered together comes alone.
            payloadSize = maxSize
            return error.isTransient ? onUnavailable(error) : Effect.logWarning("A batch of jobs failed.", error)
          }),
        { concurrency: "unbounded", discard: true }
      )
      // No batch is open now that could hold their jobs.
      yield* settleLate(unrecorded.splice(0))
      failuresInARow = hasFailed ? failuresInARow + 1 : 0
      if (hasFailed || ran === 0) {
        restUntil = machineMillis() + Math.min(maxRestMillis, restMillis * 2 ** failuresInARow)
      }
    })

    /**
     * Whether a batch was committed although its answer was lost: its note is gone then. Waits for a commit that is still
     * in flight. Until the note is taken back, others would take its jobs for the cause of a crash.
     */
    const wasCommitted = (stream: string): Effect.Effect<boolean> => {
      let tries = 0
      return Effect.suspend(() => {
        tries++
        return answered(store.forgetBatch(stream))
      }).pipe(
        Effect.tapError((error) => error.isTransient ? onUnavailable(error) : Effect.void),
        Effect.retry({ while: (error) => error.isTransient && !isStopping, schedule: retrySchedule }),
        // An earlier try may have taken it back itself.
        Effect.map((wasNoted) => !wasNoted && tries === 1),
        Effect.orElseSucceed(() => false)
      )
    }

    /** What has ended in a lost batch is recorded before anybody claims its jobs again, as far as that can be. */
    const settleLate = (outcomes: ReadonlyArray<Outcome>) =>
      outcomes.length === 0 ? Effect.void : Effect.match(answered(store.settleLate(pool, outcomes)), {
        onSuccess: (recorded) => outcomes.forEach((outcome) => onSettled(outcome, recorded.has(outcome.job.id))),
        onFailure: () => outcomes.forEach((outcome) => offer({ ...outcome, isLate: true }))
      })

    /** Writes what has become of a batch, and cuts loose the handlers that are still running. */
    const finish = Effect.fnUntraced(function*(
      batch: Batch,
      work: Handlers.Work,
      stream: string,
      next?: Wanted
    ): Effect.fn.Return<Finished> {
      const loose = work.running().map((lane) => ({ lane, job: lane.job }))
      const own = work.outcomes.splice(0)
      // What ends from now on waits for the commit, which decides where it belongs.
      const late: Array<Outcome> = []
      work.cutLoose((outcome) => {
        if (outcome !== undefined) late.push(outcome)
      })
      /** From the batch to where the pool looks after its claimed jobs. */
      const adopt = (mayGoOn: (job: ClaimedJob) => boolean) => {
        for (const { job, lane: { fiber, job: running } } of loose) {
          if (fiber === undefined || running !== job) continue
          jobs.adopt(job.id, fiber)
          if (!mayGoOn(job)) fiber.interruptUnsafe()
        }
      }
      const promote = loose.length === 0
        ? Effect.succeed<ReadonlySet<JobId>>(new Set())
        : batch.promote(loose.map(({ job }) => job.id))
      const settlements = own.map(({ settlement }): Settlement => settlement)
      const committed = yield* Effect.exit(
        answeredInTime(Effect.all({ promoted: promote, settled: batch.settle(settlements, next) }))
      )
      if (Exit.isSuccess(committed)) {
        const { promoted, settled } = committed.value
        for (const outcome of own) {
          // What the database refuses for its content is for the settler to tell from the rest.
          if (settled.refused.has(outcome.job.id)) offer(outcome)
          else onSettled(outcome, true)
        }
        late.forEach(offer)
        work.cutLoose((outcome) => {
          if (outcome !== undefined) offer(outcome)
        })
        adopt((job) => promoted.has(job.id))
        return { afterwards: nothing, next: settled.next }
      }
      isBroken = true
      epoch++
      after = undefined
      adopt(() => false)
      const afterwards = Effect.fnUntraced(function*() {
        const isCommitted = yield* wasCommitted(stream)
        const route = (outcome: Outcome | undefined) => {
          if (isCommitted) onDoubt()
          if (outcome !== undefined) offer(isCommitted ? outcome : { ...outcome, isLate: true })
        }
        onDoubt()
        work.cutLoose(route)
        if (isCommitted) {
          own.forEach((outcome) => onSettled(outcome, true))
          late.forEach(route)
        } else {
          unrecorded.push(...own, ...late)
        }
        return yield* Exit.asVoid(committed)
      })
      return { afterwards }
    })

    let isStopping = false
    return {
      areWorthwhile: () =>
        jobs.freeSlots() > 0 && shortTasks().length > 0 &&
        machineMillis() >= restUntil,
      run: (claimed, claimMillis) =>
        Effect.uninterruptibleMask((restore) => {
          if (after !== undefined && !claimed.every(isBehind(after))) after = undefined
          // Of no scope, whose end would interrupt it before its time: it is awaited.
          return Effect.flatMap(
            Effect.forkDetach(withMachineClock(runPhase(claimMillis)), {
              startImmediately: true,
              uninterruptible: true
            }),
            (fiber) =>
              Effect.onInterrupt(restore(Fiber.join(fiber)), () => {
                isStopping = true
                return Fiber.await(fiber)
              })
          )
        })
    }
  })
