/**
 * Group commit of outcomes: while one settle statement is in flight, further
 * outcomes gather, and go together with the next one. An idle settler sends an
 * outcome at once.
 */
import type * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import type { JobId } from "../../Job.ts"
import type { ClaimedJob, Settlement, Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"

/** The largest settle statement; beyond it a larger one saves nothing. */
const maxBatch = 500

export interface Outcome {
  readonly job: ClaimedJob
  readonly settlement: Settlement
}

export interface Settler {
  readonly offer: (outcome: Outcome) => void
  /** The jobs whose outcome is known but not yet recorded. */
  readonly unsettled: () => ReadonlyArray<JobId>
}

export const make = Effect.fnUntraced(function*(options: {
  readonly store: Store
  readonly pool: string
  /** Tries again for as long as the failure is transient. */
  readonly persist: <A>(effect: Effect.Effect<A, KongTaskError>) => Effect.Effect<A, KongTaskError>
  /** Whether the jobs are this pool's no more: then what is left is dropped at the end. */
  readonly isLost: () => boolean
  /** How long the end waits for what is left to be recorded. */
  readonly flushTimeout: Duration.Duration
  /** Told of each outcome once it is recorded, or known never to be. */
  readonly onSettled: (outcome: Outcome, isRecorded: boolean) => Effect.Effect<void>
}): Effect.fn.Return<Settler, never, Scope.Scope> {
  const { flushTimeout, isLost, onSettled, persist, pool, store } = options
  const queue = yield* Queue.make<Outcome, Cause.Done>()
  const unsettled = new Map<JobId, number>()

  const forget = ({ job }: Outcome) => {
    const left = (unsettled.get(job.id) ?? 1) - 1
    if (left === 0) unsettled.delete(job.id)
    else unsettled.set(job.id, left)
  }

  const settle = (outcomes: ReadonlyArray<Outcome>): Effect.Effect<void> =>
    persist(store.settle(pool, outcomes.map((outcome) => outcome.settlement))).pipe(
      Effect.flatMap((recorded) =>
        Effect.forEach(outcomes, (outcome) => {
          forget(outcome)
          return onSettled(outcome, recorded.has(outcome.job.id))
        }, { discard: true })
      ),
      Effect.catch((error) => isolate(outcomes, error))
    )

  // What the server refuses for its content must not keep the others from being recorded.
  const isolate = (outcomes: ReadonlyArray<Outcome>, error: KongTaskError): Effect.Effect<void> => {
    const [only] = outcomes
    if (outcomes.length > 1) {
      const half = Math.ceil(outcomes.length / 2)
      return Effect.andThen(settle(outcomes.slice(0, half)), settle(outcomes.slice(half)))
    }
    if (only === undefined) return Effect.void
    if (only.settlement._tag === "Failed" && only.settlement.error !== unrecordable) {
      return settle([{ job: only.job, settlement: { ...only.settlement, error: unrecordable, retryIn: undefined } }])
    }
    forget(only)
    return Effect.andThen(
      Effect.logError(`The outcome of job ${only.job.id} could not be recorded.`, error),
      onSettled(only, false)
    )
  }

  const fiber = yield* Queue.takeBetween(queue, 1, maxBatch).pipe(
    Effect.flatMap(settle),
    Effect.forever,
    Effect.ignore,
    Effect.forkScoped
  )

  yield* Effect.addFinalizer(() =>
    isLost() ? Effect.void : Queue.end(queue).pipe(
      Effect.andThen(Fiber.await(fiber)),
      Effect.timeoutOrElse({
        duration: flushTimeout,
        orElse: () =>
          Effect.logError(
            `The database is away: the outcomes of ${unsettled.size} jobs are not recorded, and those jobs will run again.`
          )
      })
    )
  )

  return {
    offer: (outcome) => {
      unsettled.set(outcome.job.id, (unsettled.get(outcome.job.id) ?? 0) + 1)
      Queue.offerUnsafe(queue, outcome)
    },
    unsettled: () => [...unsettled.keys()]
  }
})

const unrecordable = "The attempt failed with an error that the database refused to record."
