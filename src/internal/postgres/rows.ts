import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Job from "../../Job.ts"
import type { Counts, Depths, Stats } from "../../JobStore.ts"

/** A job as the statements answer it. */
export interface JobRow {
  readonly id: string
  readonly task: string
  readonly state: Job.State
  readonly payload: string
  readonly queue_name: string | null
  readonly priority: number
  readonly run_at: number
  readonly attempts: number
  readonly max_attempts: number
  readonly last_error: string | null
  readonly created_at: number
  readonly updated_at: number
  readonly key: string | null
  readonly locked_at: number | null
  readonly locked_by: string | null
  readonly revision: number
  readonly flags: string | null
  readonly origin?: string | null
  readonly bundle?: string | null
}

export const flagNames = (flags: string | null): ReadonlyArray<string> =>
  flags === null ? [] : Object.keys(JSON.parse(flags))

/** Milliseconds come as floating point numbers that may be off in their last digits. */
export const toTime = (millis: number): DateTime.Utc => DateTime.makeUnsafe(Math.round(millis))

/** The constructor would look through the whole payload of what the database answers. */
export const makeJob = (fields: { readonly [Field in keyof Job.Job]: Job.Job[Field] }): Job.Job =>
  Object.assign(Object.create(Job.Job.prototype), fields)

export const toJob = (row: JobRow): Job.Job =>
  makeJob({
    id: row.id as Job.JobId,
    task: row.task,
    state: row.state,
    payload: JSON.parse(row.payload),
    queueName: row.queue_name ?? undefined,
    priority: row.priority,
    runAt: toTime(row.run_at),
    attempts: row.attempts,
    maxAttempts: row.max_attempts,
    lastError: row.last_error ?? undefined,
    createdAt: toTime(row.created_at),
    updatedAt: toTime(row.updated_at),
    key: row.key ?? undefined,
    lockedAt: row.locked_at === null ? undefined : toTime(row.locked_at),
    lockedBy: row.locked_by ?? undefined,
    revision: row.revision,
    flags: flagNames(row.flags),
    origin: row.origin ?? undefined,
    bundle: (row.bundle ?? undefined) as Job.BundleId | undefined
  })

/** A failed attempt as it is recorded. */
export interface FailedAttemptRow {
  readonly attempt: number
  readonly failed_at: number
  readonly tag: string
  readonly message: string
  readonly data: string | null
}

export const toFailedAttempt = (row: FailedAttemptRow): Job.FailedAttempt =>
  new Job.FailedAttempt({
    attempt: row.attempt,
    failedAt: toTime(row.failed_at),
    tag: row.tag,
    message: row.message,
    data: row.data === null ? undefined : JSON.parse(row.data)
  }, { disableChecks: true })

/** One group of the statement `stats`. */
export interface StatsRow {
  readonly state: Job.State
  readonly of_task: boolean
  readonly task: string | null
  readonly of_queue: boolean
  readonly queue_name: string | null
  readonly count: number
}

type Writable = { -readonly [State in Job.State]: Counts[State] }

const noJobs = (): Writable => ({
  scheduled: 0,
  ready: 0,
  running: 0,
  retrying: 0,
  completed: 0,
  failed: 0,
  cancelled: 0
})

export const toStats = (rows: ReadonlyArray<StatsRow>): Stats => {
  const all = noJobs()
  const tasks = new Map<string, Writable>()
  const queues = new Map<string, Writable>()
  const countsOf = (map: Map<string, Writable>, name: string): Writable => {
    const counts = map.get(name) ?? noJobs()
    map.set(name, counts)
    return counts
  }
  for (const row of rows) {
    if (row.of_task) countsOf(tasks, row.task!)[row.state] = row.count
    else if (!row.of_queue) all[row.state] = row.count
    // The group without a name is that of the jobs without a queue.
    else if (row.queue_name !== null) countsOf(queues, row.queue_name)[row.state] = row.count
  }
  return { all, tasks, queues }
}

export interface DepthRow {
  readonly task: string | null
  readonly state: Job.State | null
  readonly count: number
  /** Milliseconds since the oldest of them was due. */
  readonly oldest: number | null
}

/** The row without a state counts what was read. */
export const toDepths = (rows: ReadonlyArray<DepthRow>, limit: number): Depths => ({
  jobs: rows.flatMap(({ count, state, task }) => state === null || task === null ? [] : [{ task, state, count }]),
  oldestReady: new Map(
    rows.flatMap(({ oldest, state, task }) =>
      state === "ready" && task !== null && oldest !== null ? [[task, Duration.millis(Math.max(0, oldest))]] : []
    )
  ),
  isPartial: rows.some(({ count, state }) => state === null && count >= limit)
})
