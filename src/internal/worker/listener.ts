/**
 * Being told of new jobs and of cancellations. A connection that has gone
 * silent looks like one on which nothing happens, and a pooler may take a
 * LISTEN that it never serves: so each is probed, at its start and from then on.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Stream from "effect/Stream"
import type { Store } from "../../JobStore.ts"
import { ConnectionFailed, KongTaskError } from "../../KongTaskError.ts"
import { ListenConnecting, ListenFailed, PoolListening, type WorkerEvent } from "../../WorkerEvent.ts"
import { withMachineClock } from "../clock.ts"

const probeInterval = Duration.minutes(5)

/** How long a probe may be on its way. */
const probeTimeout = Duration.seconds(5)

const unheard = Effect.suspend(() =>
  Effect.fail(
    new KongTaskError({
      reason: new ConnectionFailed({
        detail: "notifications do not arrive (behind a transaction-mode pooler, turn `listen` off)",
        cause: undefined
      })
    })
  )
)

/** Listens for ever, or fails; to be run again, it connects anew. While nobody listens, polling goes on. */
export const make = ({ answered, id, onCancellation, onNews, publish, store }: {
  readonly id: string
  readonly store: Store
  readonly answered: <A>(statement: Effect.Effect<A, KongTaskError>) => Effect.Effect<A, KongTaskError>
  readonly publish: (event: WorkerEvent) => void
  readonly onNews: Effect.Effect<unknown>
  readonly onCancellation: Effect.Effect<void>
}): Effect.Effect<void, KongTaskError> => {
  let attempt = 0

  return Effect.gen(function*() {
    publish(new ListenConnecting({ pool: id, attempt: ++attempt }))
    const listens = yield* Latch.make(false)
    const heard = yield* Latch.make(false)

    const hear = Stream.runForEach(store.notifications, (announcement): Effect.Effect<unknown> => {
      switch (announcement._tag) {
        case "CancellationRequested":
          return announcement.pool === id ? onCancellation : Effect.void
        case "Probed":
          return announcement.pool === id ? heard.open : Effect.void
        case "Listening":
          return listens.open
        case "JobsAdded":
          return onNews
      }
    })

    const probe = Effect.gen(function*() {
      yield* listens.await
      while (true) {
        heard.closeUnsafe()
        yield* answered(store.probe(id))
        yield* Effect.timeoutOrElse(heard.await, { duration: probeTimeout, orElse: () => unheard })
        if (attempt > 0) {
          attempt = 0
          publish(new PoolListening({ pool: id }))
          yield* onNews
        }
        yield* Effect.sleep(probeInterval)
      }
    }).pipe(withMachineClock)

    yield* Effect.raceFirst(hear, probe)
  }).pipe(
    Effect.tapError((error) => {
      publish(new ListenFailed({ pool: id, error }))
      // Once for all the attempts in a row.
      return attempt === 1 ? Effect.logWarning("No notifications; polling goes on.", error) : Effect.void
    })
  )
}
