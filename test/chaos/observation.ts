/**
 * What a case has seen, as plain data: the checks look at nothing else. All
 * times are milliseconds since the epoch, by the clock of the one machine that
 * everything runs on.
 */
import type { Outcome } from "./journal.ts"

/** A job whose `add` was acknowledged, or whose traces were found. */
export interface Job {
  readonly id: string
  readonly queue: string | undefined
  readonly transactional: boolean
  /** How many attempts fail before one succeeds. */
  readonly failures: number
  readonly maxAttempts: number
  /** When it was due, by the database's clock; `undefined` for one whose `add` was not acknowledged. */
  readonly runAt: number | undefined
}

/** One run of a handler. */
export interface Attempt {
  readonly job: string
  readonly queue: string | undefined
  readonly attempt: number
  readonly pool: string
  readonly startedAt: number
  /** When it ended, or its process did; `Infinity` when neither is known. */
  readonly endedAt: number
  /** `undefined`: its process ended first. */
  readonly outcome: Outcome | undefined
}

/** A change of a job's holder, in the order in which they were made. */
export interface Hold {
  readonly job: string
  readonly at: number
  readonly was: string | undefined
  readonly isNow: string | undefined
  readonly deleted: boolean
  readonly attemptsWere: number
  readonly attemptsAre: number
  /** The error that was recorded with it. */
  readonly failedWith: string | undefined
}

/** A registration or a confirmed heartbeat. */
export interface Beat {
  readonly pool: string
  readonly at: number
}

/** A job that is still there at the end. */
export interface Row {
  readonly job: string
  readonly attempts: number
  readonly maxAttempts: number
  readonly lockedBy: string | undefined
  readonly lastError: string | undefined
}

export interface Fault {
  readonly kind: string
  readonly at: number
  readonly until: number
  /** The pools that it hit; left out when it hit the database. */
  readonly pools?: ReadonlyArray<string> | undefined
}

export interface Observation {
  readonly leaseMillis: number
  readonly jobs: ReadonlyArray<Job>
  readonly attempts: ReadonlyArray<Attempt>
  readonly holds: ReadonlyArray<Hold>
  readonly beats: ReadonlyArray<Beat>
  readonly rows: ReadonlyArray<Row>
  /** The job of each committed effect of a transactional handler. */
  readonly effects: ReadonlyArray<string>
  /** The pools of the workers whose clocks jump, by the kind of the clock. */
  readonly poolsByClock: ReadonlyMap<string, ReadonlyArray<string>>
  /** What workers have released of others. */
  readonly released: ReadonlyArray<string>
  /** Rows of queues and pools that somebody still holds at the end. */
  readonly heldQueues: number
  readonly pools: ReadonlyArray<string>
  readonly faults: ReadonlyArray<Fault>
}
