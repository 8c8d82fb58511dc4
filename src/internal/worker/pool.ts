/**
 * The life of one pool. Everything it needs is acquired in one scope, in the
 * order in which it must still be there at the end; closing that scope is the
 * shutdown, so it runs backwards:
 *
 *   lease ─▶ settler ─▶ jobs ─▶ listener ─▶ claim loop
 */
import type * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { JobId } from "../../Job.ts"
import type { ClaimedJob, Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import * as WorkerEvent from "../../WorkerEvent.ts"
import { machineMillis } from "../clock.ts"
import { answeredWithin } from "../deadline.ts"
import * as Batches from "./batches.ts"
import * as Durations from "./durations.ts"
import * as Housekeeping from "./housekeeping.ts"
import * as Jobs from "./jobs.ts"
import * as Lease from "./lease.ts"
import * as Listener from "./listener.ts"
import type { Runners } from "./runners.ts"
import * as Settler from "./settler.ts"

export interface Settings {
  readonly concurrency: number
  readonly pollInterval: Duration.Duration
  readonly heartbeatInterval: Duration.Duration
  readonly lease: Duration.Duration
  readonly shutdownTimeout: Duration.Duration
  readonly listen: boolean
  readonly mayBatch: boolean
}

export interface PoolOptions {
  readonly id: string
  readonly store: Store
  /** By task; they may be replaced at any time. */
  readonly runners: Runners
  readonly settings: Settings
  /** What is not to be claimed; asked for before each claim. */
  readonly forbiddenFlags: Effect.Effect<ReadonlyArray<string>, KongTaskError>
  /** Stop when nothing is left to claim. */
  readonly once: boolean
  /** Cuts short the time that handlers have to end at the shutdown. */
  readonly hurry: Effect.Effect<void>
  readonly publish: (event: WorkerEvent.WorkerEvent) => void
  /** Whether anybody is told of events now; those of single jobs are made for them alone. */
  readonly isHeard: () => boolean
  /** Outcomes that a lost pool of this worker could not record; what this one cannot goes there again. */
  readonly legacy: Array<Settler.Outcome>
  /** Told of every outcome. */
  readonly tally: (outcome: Settler.Outcome, isRecorded: boolean) => void
}

/** Why a pool ended by itself. */
export type End =
  | "Drained"
  /** The pool is dead to the others: its handlers were interrupted, its id must not be used again. */
  | "Lost"

/** How long a claim waits before it looks again for jobs that others were claiming. */
const contendedMillis = 50

/** How long a claim waits for the end of a run when there was nothing else to claim. */
const runMillis = 10

/** However short the handlers' time, what they have done is worth some seconds to record. */
const minFlushTimeout = Duration.seconds(5)

/** Polls are that much longer apart at most: many workers that were started together do not stay so. */
const maxJitter = 1.2

const transientBackoff = Schedule.exponential("100 millis").pipe(
  (schedule) => Schedule.min([schedule, Schedule.spaced("5 seconds")]),
  Schedule.jittered
)

const retryingWhileTransient = <A>(effect: Effect.Effect<A, KongTaskError>): Effect.Effect<A, KongTaskError> =>
  Effect.retry(effect, { while: (error) => error.isTransient, schedule: transientBackoff })

export const run = Effect.fnUntraced(function*(
  { forbiddenFlags, hurry, id, isHeard, legacy, once, publish, runners, settings, store, tally }: PoolOptions
): Effect.fn.Return<End, KongTaskError, Scope.Scope> {
  const scope = yield* Effect.scope
  const tasks = () => [...runners.keys()]
  const wake = yield* Latch.make(false)
  runners.onReplaced = () => wake.openUnsafe()
  const ended = yield* Deferred.make<End, KongTaskError>()
  // A claim that failed may have been committed all the same, or may be yet, and leave jobs that nobody runs; a job that
  // was taken away may leave its queue. Then the next claim, and the end, look for what the pool holds unknowingly.
  let isInDoubt = false
  let wasInDoubt = false
  const doubtNow = () => {
    isInDoubt = true
    wasInDoubt = true
  }
  // What the lease asks of those that are acquired after it.
  let hasUnsettled = () => false
  let running: () => ReadonlyArray<string> = () => []
  let cancel: Jobs.Jobs["cancel"] = () => Effect.void
  let beside: Jobs.Jobs["beside"] = () => []

  const unavailable = (error: KongTaskError) =>
    Effect.sync(() => publish(new WorkerEvent.DatabaseUnavailable({ pool: id, error })))

  /** Tries again for as long as the database is away. */
  const retrying = <A>(effect: Effect.Effect<A, KongTaskError>): Effect.Effect<A, KongTaskError> =>
    retryingWhileTransient(Effect.tapError(effect, unavailable))

  // A connection that is half open answers nothing for a quarter of an hour; half a lease is long enough to wait.
  const deadline = Duration.divideUnsafe(settings.lease, 2)
  const answered: <A, R>(statement: Effect.Effect<A, KongTaskError, R>) => Effect.Effect<A, KongTaskError, R> =
    answeredWithin(deadline)

  /** One statement: given up when it gets no answer, and tried again for as long as the database is away. */
  const persist = <A>(statement: Effect.Effect<A, KongTaskError>): Effect.Effect<A, KongTaskError> =>
    retrying(answered(statement))

  const onDied = (cause: Cause.Cause<never>) => Deferred.failCause(ended, cause)

  const lease = yield* Lease.acquire({
    id,
    store,
    tasks: tasks(),
    lease: settings.lease,
    heartbeatInterval: settings.heartbeatInterval,
    publish,
    persist,
    mayHold: () => wasInDoubt || hasUnsettled(),
    onDied,
    onLost: Effect.asVoid(Deferred.succeed<End, KongTaskError>(ended, "Lost")),
    running: () => running(),
    // A handler's finalizers may take their time; the heartbeat does not wait for them.
    onCancelled: (ids) => Effect.asVoid(Effect.forkIn(Effect.suspend(() => cancel(ids)), scope)),
    onReleased: Effect.asVoid(wake.open)
  })
  const { isLost, lost } = lease

  const onSettled = (outcome: Settler.Outcome, isRecorded: boolean) => {
    const { job, settlement } = outcome
    tally(outcome, isRecorded)
    if (isHeard()) publish(settledEvent(id, outcome, isRecorded))
    // Two outcomes of a queue that are recorded at the same moment may each leave it to the other.
    const isFreed = jobs.forget(job)
    if (!isRecorded || !isFreed) doubtNow()
    // A retry may be due before anything else; the next job of a queue that is free now is due.
    const isNews = once || settlement._tag === "Failed" || settlement._tag === "Snoozed" ||
      (job.queueName !== undefined && !jobs.holdsQueue(job.queueName))
    if (isNews) wake.openUnsafe()
  }

  // A settle that is tried again and a claim exclude each other.
  const claims = yield* Semaphore.make(1)
  let holds: (id: JobId) => boolean = () => false

  const settler = yield* Settler.make({
    store,
    pool: id,
    answered,
    beside: (settling) => beside(settling),
    exclusively: claims.withPermit,
    isHeldAgain: (jobId) => holds(jobId),
    onUnavailable: unavailable,
    onDied,
    isLost,
    handOn: (outcomes) => {
      const formerHeld = beside(outcomes.map(({ job }) => job))
      legacy.push(...outcomes.map((outcome) => ({ formerPool: id, formerHeld, ...outcome })))
    },
    flushTimeout: Duration.max(settings.shutdownTimeout, minFlushTimeout),
    onSettled,
    onDoubt: doubtNow
  })

  const durations = Durations.make()
  hasUnsettled = () => settler.unsettled().length > 0

  const jobs = yield* Jobs.make({
    concurrency: settings.concurrency,
    shutdownTimeout: settings.shutdownTimeout,
    runners,
    isLost,
    lost,
    durations,
    onStart: (job) => {
      if (isHeard()) publish(new WorkerEvent.JobStarted({ pool: id, job }))
    },
    pool: id,
    onOutcome: settler.offer,
    onRecorded: onSettled,
    onStopping: (running) => publish(new WorkerEvent.PoolStopping({ pool: id, running })),
    onInterrupting: (running) => publish(new WorkerEvent.PoolInterrupting({ pool: id, running })),
    hurry
  })

  holds = jobs.holds
  running = jobs.running
  cancel = jobs.cancel
  beside = jobs.beside
  for (const outcome of legacy.splice(0)) settler.offer(outcome)

  const batches = store.capabilities.batch && settings.mayBatch
    ? yield* Batches.make({
      pool: id,
      store,
      runners,
      jobs,
      durations,
      hasUnsettled: () => hasUnsettled(),
      // Each outcome opens it when the end of all work is waited for.
      isWoken: () => !once && wake.isOpen(),
      answered,
      onSettled,
      offer: settler.offer,
      onUnavailable: unavailable,
      onDoubt: doubtNow
    })
    : undefined

  yield* Effect.forkScoped(Housekeeping.run({
    id,
    store,
    lease: settings.lease,
    answered,
    runningLong: () => jobs.runningFor(Housekeeping.longMillis),
    publish,
    onReleased: Effect.asVoid(wake.open),
    onUnavailable: unavailable
  }))

  if (settings.listen && store.capabilities.notifications) {
    yield* Listener.make({
      id,
      store,
      answered,
      publish,
      onNews: wake.open,
      onCancellation: lease.beatNow
    }).pipe(
      retryingWhileTransient,
      Effect.catch((error) => Effect.logWarning("No notifications from this database; polling only.", error)),
      Effect.forkScoped
    )
  }

  const pollMillis = Duration.toMillis(settings.pollInterval)
  // Batches are for jobs without a queue; where there are none of these, they are no reason not to prefetch.
  let foundOnlyQueued = false
  const mayPrefetch = () => foundOnlyQueued || batches?.areWorthwhile() !== true
  const claim = (forbiddenFlags: ReadonlyArray<string>, wasIdle: boolean) =>
    Effect.gen(function*() {
      if (isInDoubt) {
        yield* answered(store.releaseUnknown(id, [...jobs.ids(), ...settler.unsettled()]))
        isInDoubt = false
      }
      wake.closeUnsafe()
      // Not before: what ends earlier has opened it in vain.
      const wasDrained = once && jobs.isEmpty() && settler.unsettled().length === 0
      const wanted = jobs.wanted(mayPrefetch())
      // An idle pool sends one statement a poll interval, its heartbeats included.
      const beat = wasIdle && lease.isDueWithin(pollMillis * maxJitter)
      const sentAt = machineMillis()
      publish(new WorkerEvent.ClaimStarted({ pool: id, limit: wanted.limit }))
      const claimed = yield* answered(store.claim({ pool: id, tasks: tasks(), forbiddenFlags, beat, ...wanted }))
      yield* jobs.accept(claimed.jobs)
      if (claimed.heartbeat !== undefined) yield* lease.heard(claimed.heartbeat, sentAt)
      return { ...claimed, ...wanted, wasDrained, millis: machineMillis() - sentAt }
    }).pipe(
      Effect.tapCause(() => Effect.sync(doubtNow)),
      // An interruption comes before a claim or after its jobs are accepted, never in between.
      Effect.uninterruptible,
      claims.withPermit,
      retrying
    )

  let contendedInARow = 0
  const idle = Effect.fnUntraced(function*(contended: boolean, nextDueIn: number | undefined) {
    publish(new WorkerEvent.PoolIdle({ pool: id }))
    const jitter = 1 + (maxJitter - 1) * (yield* Random.next)
    contendedInARow = contended ? contendedInARow + 1 : 0
    const wait = Math.min(
      pollMillis * jitter,
      contended ? contendedMillis * 1.5 ** (contendedInARow - 1) * jitter : nextDueIn ?? Infinity,
      jobs.maxSleep()
    )
    yield* Effect.timeoutOption(wake.await, Duration.millis(Math.ceil(wait)))
  })

  yield* Effect.gen(function*() {
    let wasIdle = false
    let lastFull: { readonly jobs: ReadonlyArray<ClaimedJob>; readonly millis: number } | undefined
    while (true) {
      yield* jobs.demand
      yield* settler.keptUp
      const flags = yield* forbiddenFlags
      if (lastFull !== undefined && flags.length === 0 && batches?.areWorthwhile() === true) {
        yield* batches.run(lastFull.jobs, lastFull.millis)
      }
      const { contended, jobs: claimed, limit, millis, nextDueIn, start, wasDrained } = yield* claim(flags, wasIdle)
      wasIdle = false
      foundOnlyQueued = claimed.length > 0 && claimed.every((job) => job.queueName !== undefined)
      lastFull = claimed.length >= limit && !foundOnlyQueued ? { jobs: claimed, millis } : undefined
      if (claimed.length > 0) {
        publish(new WorkerEvent.JobsClaimed({ pool: id, count: claimed.length }))
        contendedInARow = 0
        const hasAll = foundOnlyQueued && new Set(claimed.map((job) => job.queueName)).size < limit
        if (hasAll) yield* Effect.timeoutOption(wake.await, Duration.millis(runMillis))
        continue
      }
      // Due, but not to be had for the buffer: jobs on their last attempt.
      if (contended && start === 0) {
        yield* jobs.pausePrefetch
        continue
      }
      if (wasDrained && !contended) return yield* Deferred.succeed<End, KongTaskError>(ended, "Drained")
      yield* idle(contended, nextDueIn)
      wasIdle = true
    }
  }).pipe(
    Effect.onError((cause) => Deferred.failCause(ended, cause)),
    Effect.forkScoped
  )

  return yield* Deferred.await(ended)
})

const settledEvent = (
  pool: string,
  { job, millis, settlement }: Settler.Outcome,
  isRecorded: boolean
): WorkerEvent.WorkerEvent => {
  if (!isRecorded) return new WorkerEvent.JobLost({ pool, job })
  const duration = Duration.millis(millis)
  switch (settlement._tag) {
    case "Completed":
      return new WorkerEvent.JobCompleted({ pool, job, duration })
    case "Cancelled":
      return new WorkerEvent.JobCancelled({ pool, job, duration, reason: settlement.reason })
    case "Snoozed":
      return new WorkerEvent.JobSnoozed({ pool, job, duration, delay: Duration.millis(settlement.delay) })
    case "Released":
      return new WorkerEvent.JobReleased({ pool, job })
    case "Failed":
      return new WorkerEvent.JobFailed({
        pool,
        job,
        duration,
        error: settlement.error,
        retryIn: settlement.retryIn === undefined ? undefined : Duration.millis(settlement.retryIn)
      })
  }
}
