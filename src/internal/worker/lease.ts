/**
 * A pool's lease: it is registered before its first claim, confirmed by
 * heartbeats, and given up after its last outcome. A pool that cannot confirm
 * it treats it as lost before others do. Each heartbeat also looks for pools
 * whose lease has run out, and releases their jobs.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { JobId } from "../../Job.ts"
import type { Heartbeat, Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import { WorkerEvent } from "../../WorkerEvent.ts"

/** A lease that could not be confirmed for this part of it is lost. */
const safety = 0.8

/** Milliseconds that pass whatever becomes of the wall clock. */
const monotonicMillis = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos / 1_000_000n))

export interface Lease {
  readonly isLost: () => boolean
  /** Sends the next heartbeat now: it has news. */
  readonly beatNow: Effect.Effect<void>
}

export const acquire = Effect.fnUntraced(function*(options: {
  readonly id: string
  readonly store: Store
  readonly lease: Duration.Duration
  readonly heartbeatInterval: Duration.Duration
  readonly publish: (event: WorkerEvent) => void
  /** Tries again for as long as the failure is transient. */
  readonly persist: <A>(effect: Effect.Effect<A, KongTaskError>) => Effect.Effect<A, KongTaskError>
  readonly onLost: Effect.Effect<void>
  /** Whether the pool may still hold jobs at its end, which costs a scan of them all to find out. */
  readonly mayHold: () => boolean
  /** What is running, for the warning that names it. */
  readonly running: () => ReadonlyArray<string>
  /** Jobs of this pool that somebody wants to end. */
  readonly onCancelled: (ids: ReadonlyArray<JobId>) => Effect.Effect<void>
  /** Jobs of dead pools are available again. */
  readonly onReleased: Effect.Effect<void>
}): Effect.fn.Return<Lease, KongTaskError, Scope.Scope> {
  const { heartbeatInterval, id, lease, mayHold, onCancelled, onLost, onReleased, persist, publish, running, store } =
    options
  let isLost = false

  yield* Effect.acquireRelease(
    persist(store.registerPool(id, lease)),
    () =>
      isLost ? Effect.void : Effect.suspend(() => store.deregisterPool(id, mayHold())).pipe(
        Effect.catch((error) =>
          Effect.logWarning("The pool could not be deregistered; others will release it after its lease.", error)
        ),
        Effect.andThen(Effect.sync(() => publish(WorkerEvent.PoolStopped({ pool: id }))))
      )
  )
  let confirmedAt = yield* monotonicMillis
  publish(WorkerEvent.PoolStarted({ pool: id }))

  const lose = (reason: string) =>
    Effect.suspend(() => {
      isLost = true
      publish(WorkerEvent.PoolLost({ pool: id, reason }))
      return onLost
    })

  const releaseDead = Effect.fnUntraced(function*({ deadPools }: Heartbeat) {
    if (deadPools.length === 0) return
    const recovery = yield* store.releasePools(deadPools)
    if (recovery.pools.length === 0) return
    yield* Effect.logWarning(
      `Released ${recovery.released} and failed ${recovery.failed} jobs of dead pools: ${recovery.pools.join(", ")}`
    )
    publish(WorkerEvent.PoolsReleased({ pool: id, recovery }))
    yield* onReleased
  })

  const beat = Effect.gen(function*() {
    // A heartbeat that hangs must not keep the pool from knowing that its lease runs out.
    const heartbeat = yield* Effect.timeoutOption(store.heartbeat(id), heartbeatInterval)
    if (Option.isNone(heartbeat)) return
    if (!heartbeat.value.isAlive) return yield* lose("another pool declared it dead")
    confirmedAt = yield* monotonicMillis
    if (heartbeat.value.cancelled.length > 0) yield* onCancelled(heartbeat.value.cancelled)
    yield* releaseDead(heartbeat.value)
  }).pipe(
    Effect.catch((error) => Effect.sync(() => publish(WorkerEvent.DatabaseUnavailable({ pool: id, error })))),
    Effect.andThen(monotonicMillis),
    Effect.flatMap((now) =>
      !isLost && now - confirmedAt > Duration.toMillis(lease) * safety
        ? lose("its lease could not be confirmed in time")
        : Effect.void
    )
  )

  const poke = yield* Latch.make(false)

  // A beat that comes far too late means that the event loop was blocked, and with it everything that keeps the lease.
  const watchedBeat = Effect.gen(function*() {
    const asleepAt = yield* monotonicMillis
    yield* Effect.timeoutOption(poke.await, heartbeatInterval)
    poke.closeUnsafe()
    const late = (yield* monotonicMillis) - asleepAt - Duration.toMillis(heartbeatInterval)
    if (late > Duration.toMillis(lease) / 4) {
      const blocked = Duration.format(Duration.millis(Math.round(late)))
      yield* Effect.logWarning(
        `The event loop was blocked for ${blocked}, and the lease is ${Duration.format(lease)}. Running: ${
          running().join(", ") || "nothing"
        }.`
      )
      publish(WorkerEvent.PoolBlocked({ pool: id, blocked: Duration.millis(late) }))
    }
    yield* beat
  })
  yield* Effect.forkScoped(Effect.forever(watchedBeat))
  return { isLost: () => isLost, beatNow: Effect.asVoid(poke.open) }
})
