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
import * as Stream from "effect/Stream"
import type { JobId } from "../../Job.ts"
import type { ClaimedJob, Settlement, Store } from "../../JobStore.ts"
import { ConnectionFailed, KongTaskError } from "../../KongTaskError.ts"
import { WorkerEvent } from "../../WorkerEvent.ts"
import type { Runner } from "./attempt.ts"
import * as Jobs from "./jobs.ts"
import * as Lease from "./lease.ts"
import * as Settler from "./settler.ts"

export interface Settings {
  readonly concurrency: number
  readonly pollInterval: Duration.Duration
  readonly heartbeatInterval: Duration.Duration
  readonly lease: Duration.Duration
  readonly shutdownTimeout: Duration.Duration
  readonly listen: boolean
}

export interface PoolOptions {
  readonly id: string
  readonly store: Store
  readonly runners: ReadonlyMap<string, Runner>
  readonly settings: Settings
  /** What is not to be claimed; asked for before each claim. */
  readonly forbiddenFlags: Effect.Effect<ReadonlyArray<string>, KongTaskError>
  /** Stop when nothing is left to claim. */
  readonly once: boolean
  readonly publish: (event: WorkerEvent) => void
}

/** Why a pool ended by itself. */
export type End =
  | { readonly _tag: "Drained"; readonly completed: number; readonly failed: number }
  /** The pool is dead to the others: its handlers were interrupted, its id must not be used again. */
  | { readonly _tag: "Lost" }

/** How long a claim waits before it looks again for jobs that others were claiming. */
const contendedMillis = 50

/** However short the handlers' time, what they have done is worth some seconds to record. */
const minFlushTimeout = Duration.seconds(5)

const transientBackoff = Schedule.exponential("100 millis").pipe(
  (schedule) => Schedule.min([schedule, Schedule.spaced("5 seconds")]),
  Schedule.jittered
)

export const run = Effect.fnUntraced(function*(
  { forbiddenFlags, id, once, publish, runners, settings, store }: PoolOptions
): Effect.fn.Return<End, KongTaskError, Scope.Scope> {
  const scope = yield* Effect.scope
  const tasks = [...runners.keys()]
  const wake = yield* Latch.make(false)
  const ended = yield* Deferred.make<End, KongTaskError>()
  let completed = 0
  let failed = 0
  // A claim that failed may have been committed all the same, or may be yet, and leave jobs that nobody runs; a job that
  // was taken away may leave its queue. Then the next claim, and the end, look for what the pool holds unknowingly.
  let isInDoubt = false
  let wasInDoubt = false
  const doubt = Effect.sync(() => {
    isInDoubt = true
    wasInDoubt = true
  })
  // What the lease asks of those that are acquired after it.
  let hasUnsettled = () => false
  let running: () => ReadonlyArray<string> = () => []
  let cancel: Jobs.Jobs["cancel"] = () => Effect.void

  const unavailable = (error: KongTaskError) =>
    Effect.sync(() => publish(WorkerEvent.DatabaseUnavailable({ pool: id, error })))

  /** Tries again for as long as the database is away. */
  const retrying = <A>(effect: Effect.Effect<A, KongTaskError>): Effect.Effect<A, KongTaskError> =>
    effect.pipe(
      Effect.tapError(unavailable),
      Effect.retry({ while: (error) => error.isTransient, schedule: transientBackoff })
    )

  // A connection that is half open answers nothing for a quarter of an hour; half a lease is long enough to wait.
  const deadline = Duration.divideUnsafe(settings.lease, 2)
  const unanswered = Effect.suspend(() =>
    Effect.fail(
      new KongTaskError({
        reason: new ConnectionFailed({
          detail: `no answer within ${Duration.format(deadline)}`,
          cause: new Error("The statement was given up")
        })
      })
    )
  )

  const answered = <A>(statement: Effect.Effect<A, KongTaskError>): Effect.Effect<A, KongTaskError> =>
    Effect.timeoutOrElse(statement, { duration: deadline, orElse: () => unanswered })

  /** One statement: given up when it gets no answer, and tried again for as long as the database is away. */
  const persist = <A>(statement: Effect.Effect<A, KongTaskError>): Effect.Effect<A, KongTaskError> =>
    retrying(answered(statement))

  const onDied = (cause: Cause.Cause<never>) => Deferred.failCause(ended, cause)

  const { beatNow, isLost, lost } = yield* Lease.acquire({
    id,
    store,
    lease: settings.lease,
    heartbeatInterval: settings.heartbeatInterval,
    publish,
    persist,
    mayHold: () => wasInDoubt || hasUnsettled(),
    onDied,
    onLost: Effect.asVoid(Deferred.succeed(ended, { _tag: "Lost" })),
    running: () => running(),
    // A handler's finalizers may take their time; the heartbeat does not wait for them.
    onCancelled: (ids) => Effect.asVoid(Effect.forkIn(Effect.suspend(() => cancel(ids)), scope)),
    onReleased: Effect.asVoid(wake.open)
  })

  const onSettled = ({ job, settlement }: Settler.Outcome, isRecorded: boolean) =>
    Effect.suspend(() => {
      publish(settledEvent(id, job, settlement, isRecorded))
      if (settlement._tag === "Completed") completed++
      else if (settlement._tag === "Failed" && settlement.retryIn === undefined) failed++
      // A retry may be due before anything else; the next job of a queue is due now.
      const isNews = once || settlement._tag === "Failed" || settlement._tag === "Snoozed" ||
        job.queueName !== undefined
      return Effect.andThen(isRecorded ? Effect.void : doubt, isNews ? wake.open : Effect.void)
    })

  // A settle that is tried again and a claim exclude each other.
  const claims = yield* Semaphore.make(1)
  let holds: (id: JobId) => boolean = () => false

  const settler = yield* Settler.make({
    store,
    pool: id,
    answered,
    exclusively: claims.withPermit,
    isHeldAgain: (jobId) => holds(jobId),
    onUnavailable: unavailable,
    onDied,
    isLost,
    flushTimeout: Duration.max(settings.shutdownTimeout, minFlushTimeout),
    onSettled
  })

  hasUnsettled = () => settler.unsettled().length > 0

  const jobs = yield* Jobs.make({
    concurrency: settings.concurrency,
    shutdownTimeout: settings.shutdownTimeout,
    runners,
    isLost,
    lost,
    onStart: (job) => publish(WorkerEvent.JobStarted({ pool: id, job })),
    pool: id,
    onOutcome: settler.offer,
    onRecorded: (outcome, isRecorded) => Effect.asVoid(onSettled(outcome, isRecorded)),
    onStopping: (running) => publish(WorkerEvent.PoolStopping({ pool: id, running }))
  })

  holds = jobs.holds
  running = jobs.running
  cancel = jobs.cancel

  // While nobody listens, polling goes on.
  if (settings.listen && store.capabilities.notifications) {
    yield* store.notifications.pipe(
      Stream.runForEach((announcement) => {
        if (announcement._tag === "CancellationRequested") return announcement.pool === id ? beatNow : Effect.void
        if (announcement._tag === "Listening") publish(WorkerEvent.PoolListening({ pool: id }))
        return wake.open
      }),
      retrying,
      Effect.catch((error) => Effect.logWarning("No notifications from this database; polling only.", error)),
      Effect.forkScoped
    )
  }

  const claim = (forbiddenFlags: ReadonlyArray<string>) =>
    Effect.gen(function*() {
      if (isInDoubt) {
        yield* answered(store.releaseUnknown(id, [...jobs.ids(), ...settler.unsettled()]))
        isInDoubt = false
      }
      wake.closeUnsafe()
      const wanted = jobs.wanted()
      const claimed = yield* answered(store.claim({ pool: id, tasks, forbiddenFlags, ...wanted }))
      yield* jobs.accept(claimed.jobs)
      return { ...claimed, start: wanted.start }
    }).pipe(
      Effect.tapCause(() => doubt),
      // An interruption comes before a claim or after its jobs are accepted, never in between.
      Effect.uninterruptible,
      claims.withPermit,
      retrying
    )

  let contendedInARow = 0
  const idle = Effect.fnUntraced(function*(contended: boolean, nextDueIn: number | undefined) {
    publish(WorkerEvent.PoolIdle({ pool: id }))
    const jitter = 0.9 + 0.2 * (yield* Random.next)
    contendedInARow = contended ? contendedInARow + 1 : 0
    const wait = Math.min(
      Duration.toMillis(settings.pollInterval) * jitter,
      contended ? contendedMillis * 2 ** (contendedInARow - 1) * jitter : nextDueIn ?? Infinity,
      jobs.maxSleep()
    )
    yield* Effect.timeoutOption(wake.await, Duration.millis(Math.ceil(wait)))
  })

  yield* Effect.gen(function*() {
    while (true) {
      yield* jobs.demand
      yield* settler.keptUp
      const flags = yield* forbiddenFlags
      const wasDrained = once && jobs.isEmpty() && settler.unsettled().length === 0
      const { contended, jobs: claimed, nextDueIn, start } = yield* claim(flags)
      if (claimed.length > 0) {
        contendedInARow = 0
        continue
      }
      // Due, but not to be had for the buffer: jobs on their last attempt.
      if (contended && start === 0) {
        yield* jobs.pausePrefetch
        continue
      }
      if (wasDrained && !contended) return yield* Deferred.succeed(ended, { _tag: "Drained", completed, failed })
      yield* idle(contended, nextDueIn)
    }
  }).pipe(
    Effect.onError((cause) => Deferred.failCause(ended, cause)),
    Effect.forkScoped
  )

  return yield* Deferred.await(ended)
})

const settledEvent = (pool: string, job: ClaimedJob, settlement: Settlement, isRecorded: boolean): WorkerEvent => {
  if (!isRecorded) return WorkerEvent.JobLost({ pool, job })
  switch (settlement._tag) {
    case "Completed":
      return WorkerEvent.JobCompleted({ pool, job })
    case "Cancelled":
      return WorkerEvent.JobCancelled({ pool, job, reason: settlement.reason })
    case "Snoozed":
      return WorkerEvent.JobSnoozed({ pool, job, delay: Duration.millis(settlement.delay) })
    case "Released":
      return WorkerEvent.JobReleased({ pool, job })
    case "Failed":
      return WorkerEvent.JobFailed({
        pool,
        job,
        error: settlement.error,
        retryIn: settlement.retryIn === undefined ? undefined : Duration.millis(settlement.retryIn)
      })
  }
}
