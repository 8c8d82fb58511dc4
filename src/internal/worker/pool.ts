/**
 * The life of one pool. Everything it needs is acquired in one scope, in the
 * order in which it must still be there at the end; closing that scope is the
 * shutdown, so it runs backwards:
 *
 *   registered ─▶ heartbeat ─▶ settler ─▶ jobs ─▶ listener ─▶ claim loop
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberMap from "effect/FiberMap"
import * as Latch from "effect/Latch"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { JobId } from "../../Job.ts"
import type { ClaimedJob, Settlement, Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import { WorkerEvent } from "../../WorkerEvent.ts"
import type { Runner } from "./attempt.ts"
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
const contendedDelay = Duration.millis(50)

/** A lease that could not be confirmed for this part of it is treated as lost, before others do. */
const leaseSafety = 0.8

const transientBackoff = Schedule.exponential("100 millis").pipe(
  (schedule) => Schedule.min([schedule, Schedule.spaced("5 seconds")]),
  Schedule.jittered
)

export const run = Effect.fnUntraced(function*(
  { id, once, publish, runners, settings, store }: PoolOptions
): Effect.fn.Return<End, KongTaskError, Scope.Scope> {
  const tasks = [...runners.keys()]
  const wake = yield* Latch.make(false)
  const freeSlot = yield* Latch.make(true)
  const ended = yield* Deferred.make<End, KongTaskError>()
  let isLost = false
  let completed = 0
  let failed = 0

  const unavailable = (error: KongTaskError) =>
    Effect.sync(() => publish(WorkerEvent.DatabaseUnavailable({ pool: id, error })))

  /** Tries again for as long as the database is away. */
  const persist = <A>(effect: Effect.Effect<A, KongTaskError>): Effect.Effect<A, KongTaskError> =>
    Effect.retry(Effect.tapError(effect, unavailable), {
      while: (error) => error.isTransient,
      schedule: transientBackoff
    })

  const lose = (reason: string) =>
    Effect.suspend(() => {
      isLost = true
      publish(WorkerEvent.PoolLost({ pool: id, reason }))
      return Deferred.succeed(ended, { _tag: "Lost" })
    })

  // Registered, from before the first claim until after the last outcome.
  yield* Effect.acquireRelease(
    persist(store.registerPool(id, settings.lease)),
    () =>
      isLost ? Effect.void : store.deregisterPool(id).pipe(
        Effect.catch((error) =>
          Effect.logWarning("The pool could not be deregistered; others will release it after its lease.", error)
        ),
        Effect.andThen(Effect.sync(() => publish(WorkerEvent.PoolStopped({ pool: id }))))
      )
  )
  publish(WorkerEvent.PoolStarted({ pool: id }))

  // Heartbeat: confirms the lease, and releases the pools whose lease has run out.
  let confirmedAt = yield* Clock.currentTimeMillis
  const beat = Effect.gen(function*() {
    const { deadPools, isAlive } = yield* store.heartbeat(id)
    if (!isAlive) return yield* lose("another pool declared it dead")
    confirmedAt = yield* Clock.currentTimeMillis
    if (deadPools.length > 0) {
      const recovery = yield* store.releasePools(deadPools)
      if (recovery.pools.length > 0) {
        yield* Effect.logWarning(
          `Released ${recovery.released} and failed ${recovery.failed} jobs of dead pools: ${recovery.pools.join(", ")}`
        )
        publish(WorkerEvent.PoolsReleased({ pool: id, recovery }))
        yield* wake.open
      }
    }
    return undefined
  }).pipe(
    Effect.catch((error) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) =>
        now - confirmedAt > Duration.toMillis(settings.lease) * leaseSafety
          ? lose(`its lease could not be confirmed: ${error.message}`)
          : unavailable(error))
    )
  )
  yield* Effect.forkScoped(Effect.forever(Effect.delay(beat, settings.heartbeatInterval)))

  // Settler: records outcomes; at the end, whatever is left.
  const settler: Settler.Settler = yield* Settler.make({
    store,
    pool: id,
    persist,
    onSettled: ({ job, settlement }, isRecorded) =>
      Effect.suspend(() => {
        publish(settledEvent(id, job, settlement, isRecorded))
        if (settlement._tag === "Completed") completed++
        else if (settlement._tag === "Failed" && settlement.retryIn === undefined) failed++
        // The retry may be due before anything else; the next job of the queue is due now.
        return once || settlement._tag === "Failed" || job.queueName !== undefined ? wake.open : Effect.void
      })
  })
  yield* Effect.addFinalizer(() =>
    isLost ? settler.discard : Effect.timeoutOrElse(settler.flush, {
      duration: settings.shutdownTimeout,
      orElse: () =>
        Effect.logError(
          `The database is away: ${settler.unsettled().length} outcomes are not recorded, and those jobs will run again.`
        ).pipe(Effect.andThen(settler.discard))
    })
  )

  // Jobs: one fiber each; at the end they get their time, then they are interrupted and given back.
  let isStopping = false
  let running = 0
  const jobs = yield* FiberMap.make<JobId, void, never>()
  const fork = yield* FiberMap.runtime(jobs)<never>()
  yield* Effect.addFinalizer(() =>
    Effect.gen(function*() {
      publish(WorkerEvent.PoolStopping({ pool: id, running }))
      if (!isLost) yield* Effect.timeoutOption(FiberMap.awaitEmpty(jobs), settings.shutdownTimeout)
      isStopping = !isLost
      yield* FiberMap.clear(jobs)
    })
  )

  const release = (job: ClaimedJob) =>
    settler.offer({ job, settlement: { _tag: "Released", id: job.id, attempt: job.attempt } })

  const runJob = (job: ClaimedJob, runner: Runner) =>
    Effect.map(Effect.exit(Effect.interruptible(runner.attempt(job))), (exit) => {
      running--
      freeSlot.openUnsafe()
      if (Exit.isSuccess(exit)) settler.offer({ job, settlement: exit.value })
      // Interrupted: at the shutdown it is given back; otherwise a newer claim of the same job took its place.
      else if (isStopping) release(job)
    })

  const start = (job: ClaimedJob) => {
    const runner = runners.get(job.task)
    if (runner === undefined) return release(job)
    running++
    publish(WorkerEvent.JobStarted({ pool: id, job }))
    // Uninterruptible but for the handler: an interruption before its first step must give the job back too.
    fork(job.id, runJob(job, runner), { uninterruptible: true })
  }

  // Listener: opens the latch; while there is none, polling goes on.
  if (settings.listen && store.capabilities.notifications) {
    yield* store.notifications.pipe(
      Stream.runForEach((count) => {
        if (count === 0) publish(WorkerEvent.PoolListening({ pool: id }))
        return wake.open
      }),
      persist,
      Effect.catch((error) => Effect.logWarning("No notifications from this database; polling only.", error)),
      Effect.forkScoped
    )
  }

  // A claim that may have been committed without our knowing leaves jobs that nobody runs.
  let isInDoubt = false
  const claim = Effect.fnUntraced(function*(limit: number) {
    if (isInDoubt) {
      yield* store.releaseUnknown(id, [...Array.from(jobs, ([jobId]) => jobId), ...settler.unsettled()])
      isInDoubt = false
    }
    return yield* store.claim({ pool: id, tasks, limit })
  }, Effect.tapError(() =>
    Effect.sync(() => {
      isInDoubt = true
    })
  ))

  // Claim loop. A claim and the start of its jobs are one step: an interruption comes before or after it.
  const claimAndStart = Effect.suspend(() => {
    wake.closeUnsafe()
    return claim(settings.concurrency - running)
  }).pipe(
    Effect.tap((claimed) =>
      Effect.sync(() => {
        for (const job of claimed.jobs) start(job)
      })
    ),
    Effect.uninterruptible,
    persist
  )

  const isDrained = () => once && running === 0 && settler.unsettled().length === 0

  const idle = Effect.fnUntraced(function*(contended: boolean, nextDueIn: number | undefined) {
    publish(WorkerEvent.PoolIdle({ pool: id }))
    const jitter = 0.9 + 0.2 * (yield* Random.next)
    const wait = contended
      ? Duration.toMillis(contendedDelay) * jitter
      : Math.min(Duration.toMillis(settings.pollInterval) * jitter, nextDueIn ?? Infinity)
    yield* Effect.timeoutOption(wake.await, Duration.millis(Math.ceil(wait)))
  })

  yield* Effect.gen(function*() {
    while (true) {
      if (running >= settings.concurrency) {
        freeSlot.closeUnsafe()
        yield* freeSlot.await
      }
      const wasDrained = isDrained()
      const { contended, jobs: claimed, nextDueIn } = yield* claimAndStart
      if (claimed.length > 0) continue
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
