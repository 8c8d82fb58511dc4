/**
 * Group commit of outcomes: while one settle statement is in flight, further
 * outcomes gather, and go together with the next one. An idle settler sends an
 * outcome at once.
 */
import type * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { JobId } from "../../Job.ts"
import type { ClaimedJob, Settlement, Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import { isUnanswered } from "../deadline.ts"

/** The largest settle statement; beyond it a larger one saves nothing. */
const maxBatch = 500

export interface Outcome {
  readonly job: ClaimedJob
  readonly settlement: Settlement
  /** How long the attempt took, in milliseconds. */
  readonly millis: number
  /** Whether it belongs to a batch whose transaction was lost. */
  readonly isLate?: boolean | undefined
  /** The pool that claimed the job, when that was lost before it had recorded the outcome. */
  readonly formerPool?: string | undefined
  /** The jobs that still keep that pool's queues. */
  readonly formerHeld?: ReadonlyArray<JobId> | undefined
}

export interface Settler {
  readonly offer: (outcome: Outcome) => void
  /** The jobs whose outcome is known but not yet recorded. */
  readonly unsettled: () => ReadonlyArray<JobId>
  /** Waits while too many outcomes are not recorded: there is no use in claiming more. */
  readonly keptUp: Effect.Effect<void>
}

/** How many unrecorded outcomes stop the claims. */
const maxUnsettled = 2_000

export const make = Effect.fnUntraced(function*(options: {
  readonly store: Store
  readonly pool: string
  /** Gives a statement up that gets no answer. */
  readonly answered: <A>(statement: Effect.Effect<A, KongTaskError>) => Effect.Effect<A, KongTaskError>
  /** The jobs that keep their queues when these are recorded. */
  readonly beside: (jobs: ReadonlyArray<ClaimedJob>) => ReadonlyArray<JobId>
  /** Excludes claims in the meantime. */
  readonly exclusively: <A, E>(effect: Effect.Effect<A, E>) => Effect.Effect<A, E>
  /** Whether this pool has claimed the job again since its outcome was known. */
  readonly isHeldAgain: (id: JobId) => boolean
  readonly onUnavailable: (error: KongTaskError) => Effect.Effect<void>
  /** Whether the pool must not go on: then what is left at the end is handed on. */
  readonly isLost: () => boolean
  /** Takes what is left, to be recorded as long as nobody has released those jobs. */
  readonly handOn: (outcomes: ReadonlyArray<Outcome>) => void
  /** How long the end waits for what is left to be recorded. */
  readonly flushTimeout: Duration.Duration
  /** Told of each outcome once it is recorded, or known never to be. */
  readonly onSettled: (outcome: Outcome, isRecorded: boolean) => void
  /** The pool may hold jobs without knowing. */
  readonly onDoubt: () => void
  readonly onDied: (cause: Cause.Cause<never>) => Effect.Effect<unknown>
}): Effect.fn.Return<Settler, never, Scope.Scope> {
  const { answered, beside, exclusively, flushTimeout, handOn, isHeldAgain, isLost, onDied, onDoubt } = options
  const { onSettled, onUnavailable, pool, store } = options
  const queue = yield* Queue.make<Outcome, Cause.Done>()
  const keptUp = yield* Latch.make(true)
  const unsettled = new Map<JobId, number>()
  const open = new Set<Outcome>()

  // A lost batch's jobs are anybody's until its outcomes are recorded: this pool must not claim them again before.
  let late = 0

  const forget = (outcome: Outcome) => {
    const { isLate, job } = outcome
    open.delete(outcome)
    const left = (unsettled.get(job.id) ?? 1) - 1
    if (left === 0) unsettled.delete(job.id)
    else unsettled.set(job.id, left)
    if (isLate === true) late--
    if (unsettled.size < maxUnsettled && late === 0) keptUp.openUnsafe()
  }

  const tell = (outcomes: ReadonlyArray<Outcome>, isRecorded: (outcome: Outcome) => boolean) =>
    Effect.sync(() => {
      for (const outcome of outcomes) {
        forget(outcome)
        onSettled(outcome, isRecorded(outcome))
      }
    })

  const write = (outcomes: ReadonlyArray<Outcome>) =>
    answered(
      outcomes[0]?.isLate === true
        ? store.settleLate(pool, outcomes)
        : store.settle(
          outcomes[0]?.formerPool ?? pool,
          outcomes.map(({ settlement }) => settlement),
          outcomes[0]?.formerHeld ?? beside(outcomes.map(({ job }) => job))
        )
    )

  const settle = (outcomes: ReadonlyArray<Outcome>): Effect.Effect<void> =>
    outcomes.length === 0 ? Effect.void : write(outcomes).pipe(
      Effect.flatMap((recorded) => tell(outcomes, (outcome) => recorded.has(outcome.job.id) || hasEnded(outcome))),
      Effect.catch((error) => error.isTransient ? settleAgain(outcomes, error, 0) : isolate(outcomes, error))
    )

  // The statement may have been committed although its answer was lost. A job that this pool has claimed again since
  // proves it, and must not be touched; whatever else it does not find any more was recorded by it.
  const settleAgain = (
    outcomes: ReadonlyArray<Outcome>,
    error: KongTaskError,
    tries: number
  ): Effect.Effect<void> =>
    Effect.gen(function*() {
      yield* onUnavailable(error)
      const backoff = Math.min(5_000, 100 * 2 ** tries) * (0.8 + 0.4 * (yield* Random.next))
      yield* Effect.sleep(Duration.millis(backoff))
      const again = yield* Effect.result(exclusively(Effect.suspend(() => {
        return write(outcomes.filter(({ job }) => !isHeldAgain(job.id)))
      })))
      if (Result.isSuccess(again)) {
        const recorded = again.success
        yield* tell(outcomes, (outcome) => outcome.isLate !== true || recorded.has(outcome.job.id) || hasEnded(outcome))
        // A claim whose answer was lost may have found one free: then this pool holds it unknowingly.
        if (recorded.size < outcomes.length) onDoubt()
        return
      }
      if (!again.failure.isTransient) {
        return yield* isolate(outcomes, again.failure)
      }
      // One row that somebody has locked keeps all the others waiting; a database that is away does not.
      if (outcomes.length > 1 && tries > 0 && isUnanswered(again.failure)) {
        return yield* halves(outcomes, (half) => settleAgain(half, again.failure, 0))
      }
      return yield* settleAgain(outcomes, again.failure, tries + 1)
    })

  const halves = (
    outcomes: ReadonlyArray<Outcome>,
    settleHalf: (half: ReadonlyArray<Outcome>) => Effect.Effect<void>
  ) => {
    const half = Math.ceil(outcomes.length / 2)
    return Effect.andThen(settleHalf(outcomes.slice(0, half)), settleHalf(outcomes.slice(half)))
  }

  // What the server refuses for its content must not keep the others from being recorded.
  const isolate = (outcomes: ReadonlyArray<Outcome>, error: KongTaskError): Effect.Effect<void> => {
    const [only] = outcomes
    if (outcomes.length > 1) return halves(outcomes, settle)
    if (only === undefined) return Effect.void
    if (only.settlement._tag === "Failed" && only.settlement.error !== unrecordable) {
      const { attempt } = only.job
      const replaced: Outcome = {
        ...only,
        settlement: {
          _tag: "Failed",
          id: only.job.id,
          error: unrecordable,
          retryIn: undefined,
          record: { attempt, tag: "Error", data: undefined }
        }
      }
      open.delete(only)
      open.add(replaced)
      return settle([replaced])
    }
    return Effect.andThen(
      Effect.logError(`The outcome of job ${only.job.id} could not be recorded.`, error),
      tell([only], () => false)
    )
  }

  const fiber = yield* Queue.takeBetween(queue, 1, maxBatch).pipe(
    Effect.flatMap((outcomes) => Effect.forEach(groups(outcomes), settle, { discard: true })),
    Effect.forever,
    Effect.ignore,
    Effect.onError(onDied),
    Effect.forkScoped
  )

  yield* Effect.addFinalizer(() =>
    isLost() ? Effect.andThen(Fiber.interrupt(fiber), Effect.sync(() => handOn([...open]))) : Queue.end(queue).pipe(
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
      open.add(outcome)
      if (outcome.isLate === true) late++
      if (unsettled.size >= maxUnsettled || late > 0) keptUp.closeUnsafe()
      Queue.offerUnsafe(queue, outcome)
    },
    keptUp: Effect.asVoid(keptUp.await),
    unsettled: () => [...unsettled.keys()]
  }
})

/** The commit of a lost batch may have happened: a job that is gone has most likely ended in it. */
const hasEnded = ({ isLate, settlement }: Outcome): boolean =>
  isLate === true && (settlement._tag === "Completed" || settlement._tag === "Cancelled")

/** What one statement can record: outcomes of one pool, of claims or of a lost batch. */
const groups = (outcomes: ReadonlyArray<Outcome>): Iterable<ReadonlyArray<Outcome>> => {
  if (outcomes.every(({ formerPool, isLate }) => formerPool === undefined && isLate !== true)) return [outcomes]
  return Map.groupBy(outcomes, ({ formerPool, isLate }) => isLate === true ? "late" : formerPool ?? "").values()
}

const unrecordable = "The attempt failed with an error that the database refused to record."
