/**
 * A pool's lease: it is registered before its first claim, confirmed by
 * heartbeats, and given up after its last outcome. A pool that cannot confirm
 * it treats it as lost before others do. Each heartbeat also looks for pools
 * whose lease has run out, and releases their jobs.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Heartbeat, Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import { WorkerEvent } from "../../WorkerEvent.ts"

/** A lease that could not be confirmed for this part of it is lost. */
const safety = 0.8

export interface Lease {
  readonly isLost: () => boolean
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
  /** Jobs of dead pools are available again. */
  readonly onReleased: Effect.Effect<void>
}): Effect.fn.Return<Lease, KongTaskError, Scope.Scope> {
  const { heartbeatInterval, id, lease, mayHold, onLost, onReleased, persist, publish, store } = options
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
  let confirmedAt = yield* Clock.currentTimeMillis
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
    const heartbeat = yield* store.heartbeat(id)
    if (!heartbeat.isAlive) return yield* lose("another pool declared it dead")
    confirmedAt = yield* Clock.currentTimeMillis
    return yield* releaseDead(heartbeat)
  }).pipe(
    // A heartbeat that hangs must not keep the pool from knowing that its lease runs out.
    Effect.timeoutOption(heartbeatInterval),
    Effect.catch((error) => Effect.sync(() => publish(WorkerEvent.DatabaseUnavailable({ pool: id, error })))),
    Effect.andThen(Clock.currentTimeMillis),
    Effect.flatMap((now) =>
      !isLost && now - confirmedAt > Duration.toMillis(lease) * safety
        ? lose("its lease could not be confirmed in time")
        : Effect.void
    )
  )

  yield* Effect.forkScoped(Effect.forever(Effect.delay(beat, heartbeatInterval)))
  return { isLost: () => isLost }
})
