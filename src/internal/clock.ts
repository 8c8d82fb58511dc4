import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"

/** The machine's clock, whatever a test has put in its place: leases and deadlines are about a database's real time. */
const machineClock: Clock.Clock = Context.get(Context.empty(), Clock.Clock)

/** Whether times of this clock and of `machineMillis` may be compared. */
export const isMachineClock = (clock: Clock.Clock): boolean => clock === machineClock

export const withMachineClock = Effect.provideService(Clock.Clock, machineClock)

/** Milliseconds that pass whatever becomes of the time of day. */
export const machineMillis = (): number => Number(machineClock.monotonicTimeNanosUnsafe()) / 1_000_000

/** The machine's time of day, in milliseconds since the epoch. */
export const machineTime = (): number => machineClock.currentTimeMillisUnsafe()
