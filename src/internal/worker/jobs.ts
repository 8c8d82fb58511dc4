/**
 * The jobs that a pool has claimed: the running ones, one fiber each, and a
 * small buffer of those that start as soon as a handler ends.
 *
 * Jobs of a named queue come in runs: the next one of a run starts when the one
 * before it has ended, in the same slot.
 *
 * The buffer adapts: it holds what the pool has lately finished in 100 ms, so
 * that quick handlers never wait for a claim and slow ones hoard nothing. What
 * is not started in time goes back.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberMap from "effect/FiberMap"
import * as FiberSet from "effect/FiberSet"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { JobId } from "../../Job.ts"
import type { ClaimedJob, Settlement } from "../../JobStore.ts"
import { isMachineClock } from "../clock.ts"
import type { Ending, Runner } from "./attempt.ts"
import type * as Durations from "./durations.ts"
import * as Runs from "./runs.ts"
import type { Outcome } from "./settler.ts"

/** How much work may wait in the buffer, in milliseconds of the pool's measured pace, and in jobs. */
const prefetchMillis = 100
const maxPrefetch = 500
const maxRun = 200

/** How long a job may wait in the buffer before it goes back. */
const maxWaitMillis = 500

/** Timers are set anew at least this often. */
const maxWatchMillis = 3_600_000

export interface Jobs {
  /**
   * How many jobs the next claim should ask for, some of them to wait if asked for, how many could start at once, and how
   * long a run may be, of each runner.
   */
  readonly wanted: (mayPrefetch: boolean) => {
    readonly start: number
    readonly limit: number
    readonly runs: ReadonlyArray<number>
  }
  /** The jobs that keep their queues when these are recorded. */
  readonly beside: (jobs: ReadonlyArray<ClaimedJob>) => ReadonlyArray<JobId>
  /** Takes note that a job's outcome is recorded, or never will be. Answers false when its queue may be held for nothing. */
  readonly forget: (job: ClaimedJob) => boolean
  /** Whether outcomes of the queue are still to be recorded. */
  readonly holdsQueue: (queueName: string) => boolean
  /** Buffers nothing until a handler has ended: what is left to claim must not wait. */
  readonly pausePrefetch: Effect.Effect<void>
  /** Waits until the next claim is worth while. Gives stale jobs back in the meantime. */
  readonly demand: Effect.Effect<void>
  /** Takes over claimed jobs: starts as many as can, and buffers the others. */
  readonly accept: (jobs: ReadonlyArray<ClaimedJob>) => Effect.Effect<void>
  /** How many handlers could start now. */
  readonly freeSlots: () => number
  /** Takes a free slot for jobs that are held by a batch, for as long as the effect runs them, uninterruptibly. */
  readonly inSlot: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  /** Takes note of a batch's job that starts in such a slot, at this time of the machine's clock. */
  readonly begin: (job: ClaimedJob, machineAt: number) => void
  /** The outcome of such a job; none if it is nobody's business. */
  readonly conclude: (
    job: ClaimedJob,
    exit: Exit.Exit<Ending>,
    millis: number
  ) => Effect.Effect<Outcome | undefined>
  /** The same of a job that has ended by itself. */
  readonly concludeWith: (job: ClaimedJob, ending: Ending, millis: number) => Outcome
  /** Treats the fiber that runs such a job as any other, from when the job is claimed. */
  readonly adopt: (id: JobId, fiber: Fiber.Fiber<void>) => void
  /** Interrupts these jobs, waits for their finalizers, and settles them as cancelled. */
  readonly cancel: (ids: ReadonlyArray<JobId>) => Effect.Effect<void>
  /** Whether the job waits in the buffer or runs. */
  readonly holds: (id: JobId) => boolean
  /** How long the claim loop may sleep, in milliseconds: what waits in the buffer must be looked after. */
  readonly maxSleep: () => number
  /** Every job that this pool knows it holds, but for its unsettled outcomes. */
  readonly ids: () => ReadonlyArray<JobId>
  /** The running jobs, each as its task and id. */
  readonly running: () => ReadonlyArray<string>
  /** The jobs that have run for so many milliseconds. */
  readonly runningFor: (millis: number) => ReadonlyArray<JobId>
  readonly isEmpty: () => boolean
}

export const make = Effect.fnUntraced(function*(options: {
  readonly concurrency: number
  readonly shutdownTimeout: Duration.Duration
  readonly runners: ReadonlyMap<string, Runner>
  readonly onStart: (job: ClaimedJob) => void
  readonly onOutcome: (outcome: Outcome) => void
  /** Told of an outcome that is recorded already, or known never to be. */
  readonly onRecorded: (outcome: Outcome, isRecorded: boolean) => void
  readonly durations: Durations.Durations
  readonly pool: string
  /** Told when the shutdown begins. */
  readonly onStopping: (running: number) => void
  /** Told when the handlers' time to end is over. */
  readonly onInterrupting: (running: number) => void
  /** Ends that time early. */
  readonly hurry: Effect.Effect<void>
  /** Whether the jobs are this pool's no more: then their outcomes are nobody's business. */
  readonly isLost: () => boolean
  readonly lost: Effect.Effect<void>
}): Effect.fn.Return<Jobs, never, Scope.Scope> {
  const { concurrency, hurry, isLost, lost, onInterrupting, onOutcome, onRecorded, onStart, onStopping, pool } = options
  const { durations, runners, shutdownTimeout } = options
  const clock = yield* Clock.Clock
  const nowMillis = () => Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000
  const hasDemand = yield* Latch.make(true)
  let buffer: Array<Runs.Waiting> = []
  let running = 0
  let isStopping = false

  // The pace: jobs finished in 100 ms, averaged over the last claims.
  let pace = 0
  let finished = 0
  let measuredAt = nowMillis()
  const measure = () => {
    const now = nowMillis()
    const elapsed = now - measuredAt
    if (elapsed < 5) return
    pace = 0.5 * pace + 0.5 * Math.min(maxPrefetch, finished * prefetchMillis / elapsed)
    finished = 0
    measuredAt = now
  }

  interface Started {
    readonly task: string
    readonly at: number
    readonly deadline: number
    /** Which may have been replaced since. */
    readonly runner: Runner | undefined
  }
  const started = new Map<JobId, Started>()
  const runs = Runs.make((id) => started.has(id))
  const fibers = yield* FiberMap.make<JobId, void, never>()
  const fork = yield* FiberMap.runtime(fibers)<never>()

  // One watch for all timeouts: a timer and a fiber for each attempt would cost more than many an attempt itself.
  let nextDeadline = Infinity
  const hasEarlier = yield* Latch.make(false)
  const outliving = new Set<JobId>()
  yield* Effect.gen(function*() {
    while (true) {
      const wait = nextDeadline - nowMillis()
      if (wait > 0) yield* Effect.timeoutOption(hasEarlier.await, Duration.millis(Math.min(wait, maxWatchMillis)))
      hasEarlier.closeUnsafe()
      const now = nowMillis()
      nextDeadline = Infinity
      for (const [id, { deadline }] of started) {
        if (deadline > now) {
          nextDeadline = Math.min(nextDeadline, deadline)
        } else if (!outliving.has(id)) {
          outliving.add(id)
          Option.map(FiberMap.getUnsafe(fibers, id), (fiber) => fiber.interruptUnsafe())
        }
      }
    }
  }).pipe(Effect.forkScoped)

  // Open for longer than the handlers' time to end, which the finalizer below gives them.
  const forkInSlot = yield* FiberSet.runtime(yield* FiberSet.make<void>())<never>()

  const release = (job: ClaimedJob) =>
    onOutcome({ job, settlement: { _tag: "Released", id: job.id, attempt: job.attempt }, millis: 0 })

  const cancelling = new Set<JobId>()
  const cancellation = (job: ClaimedJob): Settlement => ({
    _tag: "Cancelled",
    id: job.id,
    reason: undefined,
    retain: runners.get(job.task)?.retain(job)
  })
  const cancelled = (job: ClaimedJob, millis: number) => onOutcome({ job, settlement: cancellation(job), millis })

  const target = () => Math.floor(pace)
  const waiting = () => buffer.length + runs.waiting()
  const hasRoom = () => running < concurrency || waiting() * 2 < target()

  const runLength = (task: string) =>
    Math.floor(Math.max(1, Math.min(maxRun, prefetchMillis / (durations.average(task) ?? prefetchMillis))))

  /** Puts the next job of the queue, if one waits, where it starts first. */
  const goOn = (job: ClaimedJob) => {
    const next = runs.next(job)
    if (next !== undefined) buffer.unshift(next)
  }

  const run = (job: ClaimedJob, runner: Runner) =>
    Effect.flatMap(Effect.exit(Effect.interruptible(runner.attempt(job, pool, () => runs.beside([job])))), (exit) => {
      running--
      finished++
      const now = nowMillis()
      const millis = now - (started.get(job.id)?.at ?? now)
      durations.observe(job.task, millis)
      const ended = Effect.flatMap(conclude(job, exit, millis), (outcome): Effect.Effect<void> => {
        if (outcome === undefined) {
          runs.forget(job)
          return Effect.void
        }
        const isRecorded = Exit.isSuccess(exit) ? exit.value.isRecorded : undefined
        if (isRecorded === undefined) onOutcome(outcome)
        else onRecorded(outcome, isRecorded)
        return Effect.void
      })
      goOn(job)
      fill()
      return ended
    })

  const concludeWith = (job: ClaimedJob, { settlement }: Ending, millis: number): Outcome => {
    started.delete(job.id)
    if (outliving.size > 0) outliving.delete(job.id)
    if (cancelling.size > 0) cancelling.delete(job.id)
    return { job, settlement, millis }
  }

  const conclude = (job: ClaimedJob, exit: Exit.Exit<Ending>, millis: number): Effect.Effect<Outcome | undefined> => {
    if (Exit.isSuccess(exit)) return Effect.succeed(concludeWith(job, exit.value, millis))
    const runner = started.get(job.id)?.runner
    started.delete(job.id)
    const isLate = outliving.delete(job.id)
    const isCancelled = cancelling.delete(job.id)
    if (isLate && runner !== undefined) {
      return Effect.map(runner.timedOut(job), ({ settlement }) => ({ job, settlement, millis }))
    }
    const settlement: Settlement | undefined = isCancelled
      ? cancellation(job)
      : isLost()
      ? undefined
      : !Cause.hasInterruptsOnly(exit.cause)
      ? { _tag: "Failed", id: job.id, error: Cause.pretty(exit.cause), retryIn: 0 }
      : isStopping
      ? { _tag: "Released", id: job.id, attempt: job.attempt }
      // A newer claim of the same job took its place.
      : undefined
    return Effect.succeed(settlement === undefined ? undefined : { job, settlement, millis })
  }

  const begin = (job: ClaimedJob, machineAt?: number) => {
    const at = machineAt === undefined || !isMachineClock(clock) ? nowMillis() : machineAt
    const runner = runners.get(job.task)
    const deadline = at + (runner?.timeoutMillis ?? Infinity)
    started.set(job.id, { task: job.task, at, deadline, runner })
    if (deadline < nextDeadline) {
      nextDeadline = deadline
      hasEarlier.openUnsafe()
    }
    onStart(job)
  }

  const start = (job: ClaimedJob) => {
    const runner = runners.get(job.task)
    if (runner === undefined) {
      release(job)
      return goOn(job)
    }
    running++
    begin(job)
    // Uninterruptible but for the handler: an interruption before its first step must give the job back too.
    fork(job.id, run(job, runner), { uninterruptible: true })
  }

  // A handler may end before `start` returns, and fill again: the outer call does it.
  let isFilling = false
  const fill = () => {
    if (!isFilling && !isStopping && !isLost()) {
      isFilling = true
      while (running < concurrency && buffer.length > 0) start(buffer.shift()!.job)
      isFilling = false
    }
    if (hasRoom()) hasDemand.openUnsafe()
  }

  const isAheadOf = (job: ClaimedJob) => (other: ClaimedJob) => other.queueName === job.queueName

  const giveBackStale = Effect.sync(() => {
    const now = nowMillis()
    const fresh = buffer.findIndex((entry) => now - entry.since < maxWaitMillis)
    const count = fresh === -1 ? buffer.length : fresh
    const stale = buffer.slice(0, count).map(({ job }) => job)
    buffer = buffer.slice(count)
    const behind = runs.withdraw(({ job, since }) => now - since >= maxWaitMillis || stale.some(isAheadOf(job)))
    if (stale.length + behind.length === 0) return
    stale.forEach(runs.next)
    for (const job of [...stale, ...behind]) release(job)
    pace = 0
  })

  // At the end: the waiting jobs go back, the running ones get their time, then they are interrupted and go back too.
  yield* Effect.addFinalizer(() =>
    Effect.gen(function*() {
      isStopping = true
      onStopping(running)
      if (isLost()) return
      for (const job of [...buffer.map(({ job }) => job), ...runs.withdraw(() => true)]) release(job)
      buffer = []
      const ended = Effect.raceFirst(FiberMap.awaitEmpty(fibers), Effect.raceFirst(lost, hurry))
      yield* Effect.timeoutOption(ended, shutdownTimeout)
      if (running > 0 && !isLost()) onInterrupting(running)
      yield* FiberMap.clear(fibers)
    })
  )

  return {
    wanted: (mayPrefetch) => {
      measure()
      const start = Math.max(0, concurrency - running)
      const ahead = Math.max(0, (mayPrefetch ? target() : 0) - waiting())
      return { start, limit: Math.max(1, start + ahead), runs: Array.from(runners.keys(), runLength) }
    },
    beside: runs.beside,
    forget: runs.forget,
    holdsQueue: runs.holds,
    freeSlots: () => buffer.length > 0 ? 0 : Math.max(0, concurrency - running),
    inSlot: (effect) => {
      running++
      const inSlot = Effect.andThen(
        effect,
        Effect.sync(() => {
          running--
          fill()
        })
      )
      return forkInSlot(inSlot, { uninterruptible: true })
    },
    begin,
    conclude,
    concludeWith,
    adopt: (id, fiber) => {
      FiberMap.setUnsafe(fibers, id, fiber)
      if (outliving.has(id)) fiber.interruptUnsafe()
    },
    demand: Effect.gen(function*() {
      yield* giveBackStale
      while (!hasRoom()) {
        hasDemand.closeUnsafe()
        yield* waiting() === 0
          ? hasDemand.await
          : Effect.andThen(Effect.timeoutOption(hasDemand.await, Duration.millis(maxWaitMillis)), giveBackStale)
      }
    }),
    pausePrefetch: Effect.sync(() => {
      pace = 0
    }),
    accept: (jobs) =>
      Effect.sync(() => {
        const since = nowMillis()
        buffer = buffer.concat(jobs.map((job) => ({ job, since })).filter(runs.accept))
        fill()
      }),
    cancel: (ids) =>
      Effect.forEach(ids, (id) => {
        const ready = buffer.find((entry) => entry.job.id === id)
        if (ready !== undefined) {
          buffer = buffer.filter((entry) => entry !== ready)
          return Effect.sync(() => {
            cancelled(ready.job, 0)
            goOn(ready.job)
            fill()
          })
        }
        const [behind] = runs.withdraw(({ job }) => job.id === id)
        if (behind !== undefined) return Effect.sync(() => cancelled(behind, 0))
        if (!FiberMap.hasUnsafe(fibers, id)) return Effect.void
        cancelling.add(id)
        return Effect.andThen(FiberMap.remove(fibers, id), Effect.sync(() => void cancelling.delete(id)))
      }, { concurrency: "unbounded", discard: true }),
    holds: (id) => started.has(id) || buffer.some(({ job }) => job.id === id) || runs.waitingIds().includes(id),
    maxSleep: () => waiting() === 0 ? Infinity : maxWaitMillis,
    ids: () => [...Array.from(fibers, ([id]) => id), ...buffer.map(({ job }) => job.id), ...runs.waitingIds()],
    running: () => Array.from(started, ([id, { task }]) => `${task} ${id}`),
    runningFor: (millis) => {
      const latest = nowMillis() - millis
      return Array.from(started).flatMap(([id, { at }]) => at <= latest ? [id] : [])
    },
    isEmpty: () => running === 0 && waiting() === 0
  }
})
