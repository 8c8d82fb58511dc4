/**
 * Waiting for things to happen, on the real clock whatever clock a test runs
 * under.
 */
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"

/** The condition did not come true within the deadline. */
export class NotInTime extends Data.TaggedError("NotInTime")<{ readonly message: string }> {}

/** Real time, which a `TestClock` does not stop. */
export const pause = (duration: Duration.Input): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    const timer = setTimeout(() => resume(Effect.void), Duration.toMillis(duration))
    return Effect.sync(() => clearTimeout(timer))
  })

/** Fails with `NotInTime` when `effect` has not ended within that much real time. */
export const within = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  duration: Duration.Input,
  what: string
): Effect.Effect<A, E | NotInTime, R> =>
  Effect.raceFirst(
    effect,
    Effect.flatMap(pause(duration), () =>
      Effect.fail(
        new NotInTime({ message: `${what}: not within ${Duration.format(Duration.fromInputUnsafe(duration))}` })
      ))
  )

/** Options of `eventually`. */
export interface EventuallyOptions<A> {
  /** What is awaited, for the message; default "the condition". */
  readonly what?: string | undefined
  /** Which value ends the wait; by default any but `false`. */
  readonly until?: ((value: A) => boolean) | undefined
  /** Pause between two looks; default 20 ms. */
  readonly every?: Duration.Input | undefined
  /** Deadline; default 10 seconds. */
  readonly within?: Duration.Input | undefined
}

const show = (value: unknown): string => {
  const text = JSON.stringify(value, (_, part) => typeof part === "bigint" ? part.toString() : part)
  return text === undefined ? String(value) : text
}

/**
 * Looks again and again until the condition holds, and returns its value. A
 * look that fails, or dies of a failed assertion, counts as "not yet"; the last
 * one is told when the deadline passes.
 */
export const eventually = <A, E, R>(
  look: Effect.Effect<A, E, R>,
  options: EventuallyOptions<A> = {}
): Effect.Effect<A, NotInTime, R> =>
  Effect.suspend(() => {
    const holds = options.until ?? ((value: A) => (value as unknown) !== false)
    const allowed = Duration.fromInputUnsafe(options.within ?? "10 seconds")
    const deadline = performance.now() + Duration.toMillis(allowed)
    const timeLeft = Effect.suspend(() => pause(Math.max(1, deadline - performance.now())))
    let last = "the first look did not end"
    return Effect.gen(function*() {
      while (true) {
        const exit = yield* Effect.raceFirst(Effect.exit(look), Effect.as(timeLeft, undefined))
        if (exit !== undefined) {
          if (Exit.isSuccess(exit)) {
            if (holds(exit.value)) return exit.value
            last = `last seen: ${show(exit.value)}`
          } else if (Cause.hasInterrupts(exit.cause)) {
            return yield* Effect.interrupt
          } else {
            last = `last failure: ${Cause.pretty(exit.cause)}`
          }
        }
        if (performance.now() >= deadline) {
          const what = options.what ?? "the condition"
          return yield* new NotInTime({ message: `${what} did not hold within ${Duration.format(allowed)}; ${last}` })
        }
        yield* pause(options.every ?? "20 millis")
      }
    })
  })
