/**
 * A clock that runs so many times as fast as the real one, the same in every
 * process that is told where it begins.
 */
import { Clock, Duration, Effect, Layer } from "effect"

export interface FastClock {
  /** Real milliseconds since the epoch at which the clock shows `start`. */
  readonly base: number
  readonly start: number
  readonly rate: number
}

export const millisAt = ({ base, rate, start }: FastClock): number => start + (Date.now() - base) * rate

const make = (clock: FastClock): Clock.Clock => {
  const real = Clock.Clock.defaultValue()
  const millis = () => Math.floor(millisAt(clock))
  const nanos = () => BigInt(millis()) * 1_000_000n
  return {
    currentTimeMillisUnsafe: millis,
    currentTimeMillis: Effect.sync(millis),
    currentTimeNanosUnsafe: nanos,
    currentTimeNanos: Effect.sync(nanos),
    monotonicTimeNanosUnsafe: nanos,
    monotonicTimeNanos: Effect.sync(nanos),
    sleep: (duration) => real.sleep(Duration.millis(Duration.toMillis(duration) / clock.rate))
  }
}

export const layer = (clock: FastClock): Layer.Layer<never> => Layer.succeed(Clock.Clock, make(clock))
