/**
 * What must hold after any fault: each check names its violations.
 */
import type { Attempt, Fault, Hold, Job, Observation } from "./observation.ts"

export type Check = (observation: Observation) => ReadonlyArray<string>

const groupBy = <A>(items: ReadonlyArray<A>, key: (item: A) => string): ReadonlyMap<string, ReadonlyArray<A>> => {
  const groups = new Map<string, Array<A>>()
  for (const item of items) {
    const group = groups.get(key(item))
    if (group === undefined) groups.set(key(item), [item])
    else group.push(item)
  }
  return groups
}

const isDoomed = (job: Job): boolean => job.failures >= job.maxAttempts

/** The last deletion of each job. */
const deletions = ({ holds }: Observation): ReadonlyMap<string, Hold> =>
  new Map(holds.filter((hold) => hold.deleted).map((hold) => [hold.job, hold]))

/** Whether a pool had been silent for its whole lease: only then may others take what it holds. */
const makeLapsed = ({ beats, leaseMillis }: Observation) => {
  const ofPool = groupBy(beats, ({ pool }) => pool)
  return (pool: string, at: number): boolean =>
    !(ofPool.get(pool) ?? []).some((beat) => beat.at <= at && beat.at > at - leaseMillis)
}

/** Each job has completed, or has failed because it was meant to, and is there as a failed one. */
export const lost: Check = (observation) => {
  const gone = deletions(observation)
  const rows = new Map(observation.rows.map((row) => [row.job, row]))
  return observation.jobs.flatMap((job) => {
    const row = rows.get(job.id)
    if (row !== undefined) {
      if (row.attempts < row.maxAttempts) return [`job ${job.id} is still there, not run to its end`]
      if (!isDoomed(job)) return [`job ${job.id} has failed for good: ${row.lastError}`]
      return row.lastError === undefined ? [`job ${job.id} has failed without an error`] : []
    }
    if (!gone.has(job.id)) return [`job ${job.id} is gone without a trace`]
    return isDoomed(job) ? [`job ${job.id} was to fail, and is gone`] : []
  })
}

/** A job is deleted by the pool that holds it, after a handler of that very pool has succeeded. */
export const wronglyRecorded: Check = (observation) => {
  const attempts = groupBy(observation.attempts, ({ job }) => job)
  return observation.holds.filter((hold) => hold.deleted).flatMap((hold) => {
    const succeeded = (attempts.get(hold.job) ?? []).some((attempt) =>
      attempt.pool === hold.was && attempt.outcome === "ok" && attempt.endedAt <= hold.at + 1
    )
    return succeeded
      ? []
      : [`job ${hold.job} was recorded as completed, but its holder ${hold.was} has not completed it`]
  })
}

/** Pairs of attempts that ran at the same time although the first one's holder was within its lease. */
const overlaps = (
  attempts: ReadonlyArray<Attempt>,
  lapsed: (pool: string, at: number) => boolean
): ReadonlyArray<readonly [Attempt, Attempt]> => {
  const pairs: Array<readonly [Attempt, Attempt]> = []
  let open: Array<Attempt> = []
  for (const attempt of attempts.toSorted((a, b) => a.startedAt - b.startedAt)) {
    open = open.filter((other) => other.endedAt > attempt.startedAt)
    for (const other of open) {
      if (!lapsed(other.pool, attempt.startedAt)) pairs.push([other, attempt])
    }
    open.push(attempt)
  }
  return pairs
}

/** No job runs twice at the same time while the first holder is within its lease. */
export const overlapping: Check = (observation) => {
  const lapsed = makeLapsed(observation)
  return [...groupBy(observation.attempts, ({ job }) => job).values()].flatMap((attempts) =>
    overlaps(attempts, lapsed).map(([first, second]) =>
      `job ${first.job} ran in ${second.pool} while ${first.pool} ran it within its lease`
    )
  )
}

/** No two jobs of one named queue run at the same time, on the same condition. */
export const queueOverlapping: Check = (observation) => {
  const lapsed = makeLapsed(observation)
  const queued = observation.attempts.filter(({ queue }) => queue !== undefined)
  return [...groupBy(queued, ({ queue }) => queue!)].flatMap(([queue, attempts]) =>
    overlaps(attempts, lapsed).map(([first, second]) =>
      `queue ${queue}: job ${second.job} began in ${second.pool} while ${first.pool} ran job ${first.job}`
    )
  )
}

/** A handler has failed because its payload says so: not without having run. */
const isRefusal = ({ failedWith }: Hold): boolean => failedWith?.startsWith("Refused") === true

/**
 * An attempt stays charged only where it was made and failed with one of the case's errors, or where its holder had
 * been silent for its lease. Each claim charges one.
 */
export const wronglyCharged = (errors: RegExp): Check => (observation) => {
  const lapsed = makeLapsed(observation)
  const attemptsOf = groupBy(observation.attempts, ({ job }) => job)
  const refused = (hold: Hold) =>
    (attemptsOf.get(hold.job) ?? []).some((attempt) =>
      attempt.pool === hold.was && attempt.attempt === hold.attemptsWere && attempt.outcome === "failed"
    )
  return observation.holds.flatMap((hold) => {
    if (hold.deleted) return []
    const claimed = hold.was === undefined && hold.isNow !== undefined
    if (claimed) {
      return hold.attemptsAre === hold.attemptsWere + 1
        ? []
        : [`job ${hold.job}: a claim changed its attempts from ${hold.attemptsWere} to ${hold.attemptsAre}`]
    }
    if (hold.was === undefined || hold.attemptsAre < hold.attemptsWere) return []
    if (hold.failedWith !== undefined && errors.test(hold.failedWith) && (!isRefusal(hold) || refused(hold))) return []
    return lapsed(hold.was, hold.at) ? [] : [
      `job ${hold.job}: ${hold.was} was charged for attempt ${hold.attemptsWere} without running it to its end` +
      (hold.failedWith === undefined ? "" : `: ${hold.failedWith}`)
    ]
  })
}

/** A job's holder changes only by its own hand, or after its lease. */
export const wronglyTaken: Check = (observation) => {
  const lapsed = makeLapsed(observation)
  return observation.holds.flatMap((hold) =>
    hold.was !== undefined && hold.isNow !== undefined && !lapsed(hold.was, hold.at)
      ? [`job ${hold.job} was taken from ${hold.was} by ${hold.isNow} within its lease`]
      : []
  )
}

/** Each completed job of a transactional handler has its effect once; each other none. */
export const effects: Check = (observation) => {
  const gone = deletions(observation)
  const counts = groupBy(observation.effects, (job) => job)
  const transactional = observation.jobs.filter((job) => job.transactional).map(({ id }) => id)
  return [...new Set([...transactional, ...counts.keys()])].flatMap((job) => {
    const expected = gone.has(job) ? 1 : 0
    const count = counts.get(job)?.length ?? 0
    return count === expected ? [] : [`job ${job} has ${count} committed effects instead of ${expected}`]
  })
}

/** No job begins before it is due, by the database's clock. */
export const early: Check = (observation) => {
  const dueAt = new Map(observation.jobs.map((job) => [job.id, job.runAt]))
  return observation.attempts.flatMap((attempt) => {
    const due = dueAt.get(attempt.job)
    return due !== undefined && attempt.startedAt < due
      ? [`job ${attempt.job} began ${due - attempt.startedAt} ms before it was due`]
      : []
  })
}

/** Once all workers have stopped, nobody holds anything. */
export const leftovers: Check = (observation) => [
  ...observation.rows.flatMap((row) => row.lockedBy === undefined ? [] : [`job ${row.job} is held by ${row.lockedBy}`]),
  ...(observation.heldQueues > 0 ? [`${observation.heldQueues} queues are held`] : []),
  ...observation.pools.map((pool) => `the pool ${pool} is registered`)
]

/** No pool had to release what another one left. */
export const swept: Check = ({ released }) => released.map((pool) => `the pool ${pool} was released by another`)

/** Attempts beyond those that a job's payload asks for. */
export const rerun = (observation: Observation): number => {
  const ofJob = groupBy(observation.attempts, ({ job }) => job)
  return observation.jobs.reduce((count, job) => {
    const needed = Math.min(job.failures + 1, job.maxAttempts)
    return count + Math.max(0, (ofJob.get(job.id)?.length ?? 0) - needed)
  }, 0)
}

/** It is completed, has failed, or is in somebody's hands again. */
const isDealtWith = (hold: Hold): boolean => hold.deleted || hold.failedWith !== undefined || hold.isNow !== undefined

/**
 * The longest time to recovery in milliseconds: what a pool held when it was hit is settled or claimed again; after a
 * fault of the database, some job completes.
 */
export const recovery = (observation: Observation): number =>
  Math.max(0, ...recoveries(observation).map(([, millis]) => millis))

const recoveries = (observation: Observation): ReadonlyArray<readonly [Fault, number]> => {
  const ofJob = [...groupBy(observation.holds, ({ job }) => job).values()]
  const completed = observation.holds.filter((hold) => hold.deleted).map((hold) => hold.at)
  return observation.faults.flatMap((fault): ReadonlyArray<readonly [Fault, number]> => {
    const { pools } = fault
    if (pools === undefined) {
      const next = completed.find((at) => at > fault.until)
      return next === undefined ? [] : [[fault, next - fault.until]]
    }
    return ofJob.flatMap((holds) => {
      const before = holds.findLast((hold) => hold.at <= fault.at)
      if (before?.isNow === undefined || !pools.includes(before.isNow)) return []
      const again = holds.find((hold) => hold.at > fault.at && isDealtWith(hold))
      return again === undefined ? [] : [[fault, again.at - fault.at] as const]
    })
  })
}

/** The time to recovery is one of seconds. */
export const slow = (maxMillis: number): Check => (observation) =>
  recoveries(observation).flatMap(([fault, millis]) =>
    millis > maxMillis ? [`${fault.kind}: recovered only after ${Math.round(millis)} ms`] : []
  )
