/**
 * What this process's worker does, from its events.
 */
import { Clock, Effect, Stream } from "effect"
import { Worker } from "kongtask"

export interface Activity {
  /** The ids under which it claims jobs: a worker that loses its lease goes on under a new one. */
  readonly pools: ReadonlySet<string>
  /** How many jobs it has finished, and when it finished the last. */
  readonly finished: number
  readonly lastFinishedAt: number
  /** Why the database does not answer at the moment. */
  readonly trouble: string | undefined
}

/** Follows the worker's events for as long as the scope is open. */
export const follow = Effect.gen(function*() {
  const { events } = yield* Worker.Worker
  const pools = new Set<string>()
  const activity = {
    pools,
    finished: 0,
    lastFinishedAt: yield* Clock.currentTimeMillis,
    trouble: undefined as string | undefined
  }
  yield* events.pipe(
    Stream.runForEach(Effect.fnUntraced(function*(event) {
      activity.trouble = event._tag === "DatabaseUnavailable" ? event.error.message : undefined
      if (event._tag === "PoolStarted") pools.add(event.pool)
      const isFinal = event._tag === "JobCompleted" || (event._tag === "JobFailed" && event.retryIn === undefined)
      if (!isFinal) return
      activity.finished++
      activity.lastFinishedAt = yield* Clock.currentTimeMillis
    })),
    Effect.forkScoped({ startImmediately: true })
  )
  return activity as Activity
})
