/**
 * Waiting for jobs: one connection listens for all who wait in a process, for
 * as long as somebody does, and everybody looks again now and then as well.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Random from "effect/Random"
import * as RcRef from "effect/RcRef"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { JobId } from "../Job.ts"
import type { Observation, Store } from "../JobStore.ts"

/** How long the connection is kept when nobody waits any more. */
const idleTimeToLive = Duration.seconds(10)

/** Who waits looks so often where nothing is told, a fifth more at most, and sooner at first. */
const pollMillis = 2_000
const firstPollMillis = 100
const maxJitter = 1.2

const backoff = Schedule.exponential("100 millis").pipe(
  (schedule) => Schedule.min([schedule, Schedule.spaced("5 seconds")]),
  Schedule.jittered
)

export interface Waits {
  /**
   * Looks at a job, asked for at a revision, whenever there is news of it, until `step` answers something. Waits for the
   * database while that is away. The first look asks for news, unless the job was added so.
   */
  readonly until: <A, E, R>(
    job: { readonly id: JobId; readonly revision: number | undefined; readonly isAnnounced: boolean },
    step: (observation: Observation) => Effect.Effect<A | undefined, E, R>
  ) => Effect.Effect<A, E | Effect.Error<ReturnType<Store["observe"]>>, R>
}

export const make = Effect.fnUntraced(function*(store: Store): Effect.fn.Return<Waits, never, Scope.Scope> {
  const waiting = new Map<JobId, Set<Latch.Latch>>()

  const wake = (ids: Iterable<JobId>) => {
    for (const id of ids) waiting.get(id)?.forEach((news) => news.openUnsafe())
  }

  const listen = Effect.suspend(() => {
    let isTold = false
    return Stream.runForEach(store.watched, (ids) =>
      Effect.sync(() => {
        isTold = false
        wake(ids.length === 0 ? waiting.keys() : ids)
      })).pipe(
        Effect.tapError((error) => {
          if (isTold) return Effect.void
          isTold = true
          return Effect.logWarning("Nothing is told of jobs that are waited for; polling goes on.", error)
        }),
        Effect.retry(backoff),
        Effect.ignore
      )
  })

  const listening = yield* RcRef.make({ acquire: Effect.forkScoped(listen), idleTimeToLive })

  const newsOf = (id: JobId) =>
    Effect.acquireRelease(
      Effect.map(Latch.make(false), (news) => {
        const others = waiting.get(id)
        if (others === undefined) waiting.set(id, new Set([news]))
        else others.add(news)
        return news
      }),
      (news) =>
        Effect.sync(() => {
          const all = waiting.get(id)
          all?.delete(news)
          if (all?.size === 0) waiting.delete(id)
        })
    )

  return {
    until: ({ id, isAnnounced, revision }, step) =>
      Effect.scoped(Effect.gen(function*() {
        yield* store.mayWait
        const news = yield* newsOf(id)
        yield* RcRef.get(listening)
        let announce = !isAnnounced
        let wait = isAnnounced ? pollMillis : firstPollMillis
        while (true) {
          news.closeUnsafe()
          const observation = yield* Effect.retry(store.observe(id, revision, announce), {
            while: (error) => error._tag === "KongTaskError" && error.isTransient,
            schedule: backoff
          })
          const answer = yield* step(observation)
          if (answer !== undefined) return answer
          announce = false
          const jitter = 1 + (maxJitter - 1) * (yield* Random.next)
          yield* Effect.timeoutOption(news.await, Duration.millis(wait * jitter))
          wait = Math.min(pollMillis, wait * 2)
        }
      }))
  }
})
