/**
 * How long and how hard the suite runs, and what its random choices start from.
 */

const number = (name: string, fallback: number): number => {
  const given = process.env[name]
  return given === undefined || given === "" ? fallback : Number(given)
}

/** The long form: `npm run chaos`. */
export const isLong: boolean = process.env["CHAOS"] === "long"

/** How long the faults of one case go on. */
export const seconds: number = number("CHAOS_SECONDS", isLong ? 60 : 6)

/** How often each case runs, each time with choices of its own. */
export const rounds: number = number("CHAOS_ROUNDS", isLong ? 3 : 1)

/** The same seed makes the same choices; the machine's timing is not repeated. */
export const seed: number = number("CHAOS_SEED", Math.floor(Math.random() * 2 ** 31))

export const leaseMillis = 3_000
export const heartbeatMillis = 1_000

/** How long a running handler may go on after SIGTERM. */
export const shutdownMillis = 500

/** Worker processes of a case, and handlers of each. */
export const workers = 3
export const concurrency = 8

/** Jobs added before the first fault, and then by every tick of the producer. */
export const initialJobs = 300
export const tickMillis = 200
export const jobsPerTick = 24

/** Recovery must take seconds: a lease to be dead, another for the witnesses, and a loaded machine. */
export const maxRecoverySeconds: number = number("CHAOS_MAX_RECOVERY", 20)

/** How long the jobs that are left may take once the faults are over. */
export const drainSeconds: number = number("CHAOS_DRAIN_SECONDS", isLong ? 180 : 60)

/** How long one round of a case may take in all. */
export const caseTimeoutMillis: number = (seconds + drainSeconds + 60) * 1000
