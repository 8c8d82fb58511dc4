/**
 * A pool's lease: it is registered before its first claim, confirmed by
 * heartbeats, and given up after its last outcome. A pool that cannot confirm
 * it treats it as lost before others do. Each heartbeat also looks for pools
 * whose lease has run out, and releases their jobs.
 */
import type * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { JobId } from "../../Job.ts"
import type { Heartbeat, Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import {
  DatabaseUnavailable,
  PoolBlocked,
  PoolLost,
  PoolsReleased,
  PoolStarted,
  PoolStopped,
  type WorkerEvent
} from "../../WorkerEvent.ts"
import { machineMillis, withMachineClock } from "../clock.ts"

/** A lease that could not be confirmed for this part of it is lost. */
const safety = 0.8

/** How long the end waits for the pool to be deregistered. */
const farewellTimeout = Duration.seconds(5)

export interface Lease {
  readonly isLost: () => boolean
  /** Waits until the lease is lost. */
  readonly lost: Effect.Effect<void>
  /** Sends the next heartbeat now: it has news. */
  readonly beatNow: Effect.Effect<void>
  /** Whether the next heartbeat is due within this time, so that a statement that is sent anyway may carry it. */
  readonly isDueWithin: (millis: number) => boolean
  /** Takes note of a heartbeat that another statement has carried. */
  readonly heard: (heartbeat: Heartbeat, sentAt: number) => Effect.Effect<void>
}

export const acquire = Effect.fnUntraced(function*(options: {
  readonly id: string
  readonly store: Store
  readonly lease: Duration.Duration
  readonly heartbeatInterval: Duration.Duration
  readonly tasks: ReadonlyArray<string>
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
  /** The fibers that keep the lease have died of a defect. */
  readonly onDied: (cause: Cause.Cause<never>) => Effect.Effect<unknown>
}): Effect.fn.Return<Lease, KongTaskError, Scope.Scope> {
  const { heartbeatInterval, id, lease, mayHold, onCancelled, onDied, onLost, onReleased, persist, publish } = options
  const { running, store, tasks } = options
  const scope = yield* Effect.scope
  const lost = yield* Deferred.make<void>()
  const leaseMillis = Duration.toMillis(lease)
  const heartbeatMillis = Duration.toMillis(heartbeatInterval)
  let isLost = false

  // Interruptible: a row that was written all the same is that of a pool that never claims, and soon of a dead one.
  yield* Effect.acquireRelease(
    persist(store.registerPool(id, lease)),
    () =>
      isLost ? Effect.void : Effect.suspend(() => store.deregisterPool(id, mayHold())).pipe(
        Effect.timeoutOrElse({
          duration: farewellTimeout,
          orElse: () =>
            Effect.logWarning("The database does not answer; others will release this pool after its lease.")
        }),
        Effect.catch((error) =>
          Effect.logWarning("The pool could not be deregistered; others will release it after its lease.", error)
        ),
        Effect.andThen(Effect.sync(() => publish(new PoolStopped({ pool: id }))))
      ),
    { interruptible: true }
  )
  let confirmedAt = machineMillis()
  let beatAt = confirmedAt
  publish(new PoolStarted({ pool: id, tasks }))

  const lose = (reason: string) =>
    Effect.suspend(() => {
      if (isLost) return Effect.void
      isLost = true
      publish(new PoolLost({ pool: id, reason }))
      return Effect.andThen(Deferred.succeed(lost, undefined), onLost)
    })

  // A row lock on a job of a dead pool may keep this waiting, which must not keep the heartbeat from going on.
  let isReleasing = false
  const releaseDead = (pools: ReadonlyArray<string>) =>
    Effect.gen(function*() {
      const recovery = yield* store.releasePools(pools)
      if (recovery.pools.length === 0) return
      yield* Effect.logWarning(
        `Released ${recovery.released} and failed ${recovery.failed} jobs of dead pools: ${recovery.pools.join(", ")}`
      )
      publish(new PoolsReleased({ pool: id, recovery }))
      yield* onReleased
    }).pipe(
      Effect.catch((error) => Effect.sync(() => publish(new DatabaseUnavailable({ pool: id, error })))),
      Effect.ensuring(Effect.sync(() => {
        isReleasing = false
      }))
    )

  const heard = Effect.fnUntraced(function*({ cancelled, deadPools, isAlive }: Heartbeat, sentAt: number) {
    if (!isAlive) return yield* lose("another pool declared it dead")
    confirmedAt = Math.max(confirmedAt, sentAt)
    beatAt = Math.max(beatAt, sentAt)
    if (cancelled.length > 0) yield* onCancelled(cancelled)
    if (deadPools.length > 0 && !isReleasing) {
      isReleasing = true
      yield* Effect.forkIn(releaseDead(deadPools), scope)
    }
  })

  const beat = Effect.gen(function*() {
    const sentAt = machineMillis()
    beatAt = sentAt
    const heartbeat = yield* Effect.timeoutOption(store.heartbeat(id), heartbeatInterval)
    if (Option.isSome(heartbeat)) yield* heard(heartbeat.value, sentAt)
  }).pipe(
    Effect.catch((error) => Effect.sync(() => publish(new DatabaseUnavailable({ pool: id, error }))))
  )

  // On its own clock, whatever a heartbeat is waiting for.
  const watch = Effect.gen(function*() {
    while (!isLost) {
      const left = confirmedAt + leaseMillis * safety - machineMillis()
      if (left <= 0) return yield* lose("its lease could not be confirmed in time")
      yield* Effect.sleep(Duration.millis(left))
    }
  })

  const poke = yield* Latch.make(false)

  // A sleep that ends far too late means that the event loop was blocked, and with it everything that keeps the lease.
  const watchedSleep = Effect.fnUntraced(function*(millis: number) {
    const asleepAt = machineMillis()
    const poked = Option.isSome(yield* Effect.timeoutOption(poke.await, Duration.millis(millis)))
    poke.closeUnsafe()
    const late = machineMillis() - asleepAt - millis
    if (late > leaseMillis / 4) {
      const blocked = Duration.format(Duration.millis(Math.round(late)))
      yield* Effect.logWarning(
        `The event loop was blocked for ${blocked}, and the lease is ${Duration.format(lease)}. Running: ${
          running().join(", ") || "nothing"
        }.`
      )
      publish(new PoolBlocked({ pool: id, blocked: Duration.millis(late) }))
    }
    return poked
  })

  const watchedBeat = Effect.gen(function*() {
    while (true) {
      const left = beatAt + heartbeatMillis - machineMillis()
      if (left <= 0 || (yield* watchedSleep(left))) return yield* beat
    }
  })
  yield* Effect.forkScoped(Effect.onError(Effect.forever(watchedBeat), onDied))
  yield* Effect.forkScoped(Effect.onError(watch, onDied))
  return {
    isLost: () => isLost,
    lost: Deferred.await(lost),
    beatNow: Effect.asVoid(poke.open),
    isDueWithin: (millis) => beatAt + heartbeatMillis - machineMillis() <= millis,
    heard
  }
}, withMachineClock)
