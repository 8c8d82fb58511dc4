/**
 * Clocks that jump by hours, back and forth, whenever the process gets SIGUSR2.
 */
import { Clock, Duration, Effect, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { pause } from "../support/events.ts"

/**
 * - `wall`: the time of day jumps, as when somebody sets it; elapsed time goes on as it does
 * - `test`: a `TestClock` that follows the real time between jumps; all timers jump with it
 */
export type Kind = "wall" | "test"

const jumpHours = [3, -5, 26, -24]

const onJump = (jump: (hours: number) => void): Effect.Effect<void, never, Scope.Scope> => {
  let next = 0
  const listener = () => jump(jumpHours[next++ % jumpHours.length]!)
  return Effect.acquireRelease(
    Effect.sync(() => void process.on("SIGUSR2", listener)),
    () => Effect.sync(() => void process.off("SIGUSR2", listener))
  )
}

const onWall = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const live = yield* Clock.Clock
    let offset = 0
    yield* onJump((hours) => {
      offset += Duration.toMillis(Duration.hours(hours))
    })
    const currentTimeMillisUnsafe = () => live.currentTimeMillisUnsafe() + offset
    const currentTimeNanosUnsafe = () => live.currentTimeNanosUnsafe() + BigInt(offset) * 1_000_000n
    const jumping: Clock.Clock = {
      currentTimeMillisUnsafe,
      currentTimeMillis: Effect.sync(currentTimeMillisUnsafe),
      currentTimeNanosUnsafe,
      currentTimeNanos: Effect.sync(currentTimeNanosUnsafe),
      monotonicTimeNanosUnsafe: () => live.monotonicTimeNanosUnsafe(),
      monotonicTimeNanos: live.monotonicTimeNanos,
      sleep: (duration) => live.sleep(duration)
    }
    return yield* Effect.provideService(effect, Clock.Clock, jumping)
  })

const follow = Effect.gen(function*() {
  let pending = 0
  yield* onJump((hours) => {
    pending += Duration.toMillis(Duration.hours(hours))
  })
  let last = performance.now()
  yield* Effect.gen(function*() {
    yield* pause("20 millis")
    const now = performance.now()
    const elapsed = Math.round(now - last)
    const jump = pending
    last += elapsed
    pending = 0
    if (jump >= 0) return yield* TestClock.adjust(elapsed + jump)
    yield* TestClock.adjust(elapsed)
    yield* TestClock.setTime((yield* Clock.currentTimeMillis) + jump)
  }).pipe(Effect.forever, Effect.forkScoped)
})

/** Runs an effect on a clock that jumps. */
export const jumping = (kind: Kind) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  kind === "wall"
    ? Effect.scoped(onWall(effect))
    : Effect.scoped(Effect.andThen(follow, effect)).pipe(Effect.provide(TestClock.layer()))
