/**
 * Retry policies: what becomes of a job whose attempt failed.
 *
 * A policy looks at the failure and answers with a decision: try again after
 * some time, or never. It decides only while attempts are left; a job that has
 * used all of them has failed, whatever its policy says.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Pull from "effect/Pull"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"

const DecisionTypeId = "~kongtask/Retry/Decision" as const

/**
 * What to do after a failed attempt: try again after `delay`, or fail for good
 * (`delay` is `undefined`).
 *
 * @category models
 * @since 0.1.0
 */
export interface Decision {
  readonly [DecisionTypeId]: typeof DecisionTypeId
  readonly delay: Duration.Duration | undefined
}

/**
 * A failed attempt, as a policy sees it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Failure<out E> {
  /** The handler's typed error; `undefined` for a defect, a timeout or an undecodable payload. */
  readonly error: E | undefined
  /** The attempt that failed, 1 for the first. */
  readonly attempt: number
  readonly maxAttempts: number
}

/**
 * Decides what becomes of a failed attempt.
 *
 * @category models
 * @since 0.1.0
 */
export type Policy<E> = (failure: Failure<E>) => Effect.Effect<Decision>

/**
 * What a handler's `retry` option takes: a policy, or one decision for all failures.
 *
 * @category models
 * @since 0.1.0
 */
export type Input<E> = Policy<E> | Decision

const decision = (delay: Duration.Duration | undefined): Decision => ({ [DecisionTypeId]: DecisionTypeId, delay })

/**
 * @category guards
 * @since 0.1.0
 */
export const isDecision = (u: unknown): u is Decision => Predicate.hasProperty(u, DecisionTypeId)

/**
 * Fails the job for good; its attempts count as used up.
 *
 * @category decisions
 * @since 0.1.0
 */
export const never: Decision = decision(undefined)

/**
 * Tries again after exactly this long; negative durations count as zero.
 *
 * @category decisions
 * @since 0.1.0
 */
export const after = (delay: Duration.Input): Decision =>
  decision(Duration.max(Duration.fromInputUnsafe(delay), Duration.zero))

/**
 * Turns a `Policy` or a `Decision` into a `Policy`.
 *
 * @category conversions
 * @since 0.1.0
 */
export const toPolicy = <E>(input: Input<E>): Policy<E> => isDecision(input) ? () => Effect.succeed(input) : input

const jittered = (delay: Duration.Duration, jitter: number): Effect.Effect<Decision> =>
  jitter === 0
    ? Effect.succeed(decision(delay))
    : Effect.map(
      Random.next,
      (random) => decision(Duration.millis(Duration.toMillis(delay) * (1 - jitter + 2 * jitter * random)))
    )

/**
 * Options that all the computed policies share.
 *
 * @category models
 * @since 0.1.0
 */
export interface JitterOptions {
  /** How far the delay may differ from the computed one, as a part of it: 0 to 1. Default: 0.1. */
  readonly jitter?: number | undefined
}

const defaultJitter = 0.1

/**
 * Waits longer after each attempt: `base · factor^(attempt − 1)`, at most `max`.
 *
 * **Details**
 *
 * The defaults give `e^min(attempt, 10)` seconds, which is graphile-worker's
 * backoff: 2.7 s, 7.4 s, 20 s, 55 s, 2.5 min, 6.7 min, 18 min, 50 min, 2.25 h,
 * then 6.1 h each; 25 attempts take about four days.
 *
 * @category policies
 * @since 0.1.0
 */
export const exponential = (
  options?: {
    /** The delay after the first attempt. Default: e seconds. */
    readonly base?: Duration.Input | undefined
    /** Default: e. */
    readonly factor?: number | undefined
    /** The longest delay. Default: e^10 seconds, which is 6.1 hours. */
    readonly max?: Duration.Input | undefined
  } & JitterOptions
): Policy<unknown> => {
  const base = Duration.toMillis(options?.base ?? Duration.millis(Math.E * 1000))
  const factor = options?.factor ?? Math.E
  const max = Duration.toMillis(options?.max ?? Duration.millis(Math.exp(10) * 1000))
  const jitter = options?.jitter ?? defaultJitter
  return ({ attempt }) => jittered(Duration.millis(Math.min(base * Math.pow(factor, attempt - 1), max)), jitter)
}

/**
 * Waits equally long after each attempt.
 *
 * @category policies
 * @since 0.1.0
 */
export const fixed = (delay: Duration.Input, options?: JitterOptions): Policy<unknown> => {
  const duration = Duration.fromInputUnsafe(delay)
  return () => jittered(duration, options?.jitter ?? defaultJitter)
}

/**
 * Waits for the first duration after the first attempt, and so on; the last one
 * repeats.
 *
 * @category policies
 * @since 0.1.0
 */
export const steps = (
  delays: readonly [Duration.Input, ...ReadonlyArray<Duration.Input>],
  options?: JitterOptions
): Policy<unknown> => {
  const durations = delays.map((delay) => Duration.fromInputUnsafe(delay))
  return ({ attempt }) =>
    jittered(durations[Math.min(attempt, durations.length) - 1] ?? Duration.zero, options?.jitter ?? defaultJitter)
}

/**
 * Waits 1, 2, 3, 5, 8, … units, at most `max`.
 *
 * @category policies
 * @since 0.1.0
 */
export const fibonacci = (
  options?: {
    /** Default: one minute. */
    readonly unit?: Duration.Input | undefined
    /** The longest delay. Default: 6 hours. */
    readonly max?: Duration.Input | undefined
  } & JitterOptions
): Policy<unknown> => {
  const unit = Duration.toMillis(options?.unit ?? "1 minute")
  const max = Duration.toMillis(options?.max ?? "6 hours")
  const jitter = options?.jitter ?? defaultJitter
  return ({ attempt }) => {
    let previous = 1
    let current = 1
    for (let i = 1; i < attempt && current * unit < max; i++) {
      const next = previous + current
      previous = current
      current = next
    }
    return jittered(Duration.millis(Math.min(current * unit, max)), jitter)
  }
}

/**
 * Takes the delays from an Effect `Schedule`; the job fails for good when the
 * schedule is done.
 *
 * **Details**
 *
 * Attempts run in different processes, so the schedule's state cannot be kept:
 * it is replayed from its start at each failure, its elapsed time being the sum
 * of its delays. Its input is this attempt's error at every step.
 *
 * @category policies
 * @since 0.1.0
 */
export const fromSchedule = <E>(schedule: Schedule.Schedule<unknown, E | undefined>): Policy<E> =>
  Effect.fnUntraced(function*({ attempt, error }) {
    const step = yield* Schedule.toStep(schedule)
    let now = 0
    let delay = Duration.zero
    for (let i = 0; i < attempt; i++) {
      const next = yield* Pull.catchDone(step(now, error), () => Effect.undefined)
      if (next === undefined) return never
      delay = next[1]
      now += Duration.toMillis(delay)
    }
    return after(delay)
  })

/**
 * Decides by the tag of the handler's typed error; other failures go to
 * `fallback`.
 *
 * **Example**
 *
 * ```ts
 * Retry.byTag({
 *   RateLimited: (error) => Retry.after(error.retryAfter),
 *   InvalidAddress: () => Retry.never
 * })
 * ```
 *
 * @category policies
 * @since 0.1.0
 */
export const byTag = <E>(
  cases: {
    readonly [Tag in Extract<E, { readonly _tag: string }>["_tag"]]?:
      | ((error: Extract<E, { readonly _tag: Tag }>) => Decision)
      | undefined
  },
  /** Default: `exponential()`. */
  fallback?: Input<E> | undefined
): Policy<E> => {
  const otherwise = toPolicy(fallback ?? exponential())
  const table = cases as Record<string, ((error: E | undefined) => Decision) | undefined>
  return (failure) => {
    const tag = Predicate.hasProperty(failure.error, "_tag") ? failure.error._tag : undefined
    const decide = typeof tag === "string" && Object.hasOwn(table, tag) ? table[tag] : undefined
    return decide === undefined ? otherwise(failure) : Effect.succeed(decide(failure.error))
  }
}
