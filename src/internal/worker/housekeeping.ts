/**
 * What is looked after every few minutes, whether the pool is busy or not: the
 * locks of jobs that run for hours, those that nobody holds any more, and the
 * history of jobs whose time is over.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type { JobId } from "../../Job.ts"
import type { Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import { LocksSwept, type WorkerEvent } from "../../WorkerEvent.ts"

/** All pools together sweep no more often than that. */
const intervalMillis = Duration.toMillis(Duration.minutes(5))
const maxFirstMillis = Duration.toMillis(Duration.minutes(1))

/** Locks are renewed once they are an hour old. */
export const longMillis = Duration.toMillis(Duration.hours(1))

/** How many jobs of the history one statement deletes: some tens of milliseconds. */
const expiredAtOnce = 1_000
const pause = Duration.millis(20)

/** For ever; failures are told, and another time does. */
export const run = (options: {
  readonly id: string
  readonly store: Store
  readonly lease: Duration.Duration
  readonly answered: <A>(statement: Effect.Effect<A, KongTaskError>) => Effect.Effect<A, KongTaskError>
  /** The jobs that have run for `longMillis`. */
  readonly runningLong: () => ReadonlyArray<JobId>
  readonly publish: (event: WorkerEvent) => void
  readonly onReleased: Effect.Effect<void>
  readonly onUnavailable: (error: KongTaskError) => Effect.Effect<void>
}): Effect.Effect<never> => {
  const { answered, id, lease, onReleased, onUnavailable, publish, runningLong, store } = options

  // Many pools share the work, and each of them makes way for its own claims between two statements.
  const expireHistory = Effect.gen(function*() {
    while ((yield* answered(store.expire(expiredAtOnce))) === expiredAtOnce) yield* Effect.sleep(pause)
  }).pipe(Effect.catch(onUnavailable))

  const keepHouse = Effect.gen(function*() {
    const long = runningLong()
    if (long.length > 0) yield* answered(store.renew(id, long))
    const swept = yield* answered(store.sweep(lease))
    if (swept === undefined) return
    publish(new LocksSwept({ pool: id, swept }))
    if (swept.released + swept.failed === 0) return
    yield* Effect.logWarning(
      `Released ${swept.released} and failed ${swept.failed} jobs whose holders are not there any more.`
    )
    yield* onReleased
  }).pipe(Effect.catch(onUnavailable))

  return Effect.gen(function*() {
    yield* Effect.sleep(Duration.millis(maxFirstMillis * (yield* Random.next)))
    while (true) {
      yield* keepHouse
      yield* expireHistory
      yield* Effect.sleep(Duration.millis(intervalMillis * (1 + 0.1 * (yield* Random.next))))
    }
  })
}
