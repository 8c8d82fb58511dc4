import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Job from "../../Job.ts"
import type { ClaimedJob, Counts, Depths, HandedDetails, Place, Stats } from "../../JobStore.ts"

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
}

/** A job as a claim answers it. */
export type ClaimedRow = Omit<JobRow, "state" | "updated_at" | "locked_at" | "locked_by"> & {
  readonly details: string | null
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
    flags: flagNames(row.flags)
  })

/** A job of a batch, the attempt to come counted: `task` is the place of its name, `rest` what is not as in most jobs. */
export interface BatchRow {
  readonly id: string
  readonly task: number
  readonly payload: string
  readonly run_at: number
  readonly created_at: number
  readonly rest: string | null
}

type Rest = readonly [
  attempt: number,
  maxAttempts: number,
  key: string | null,
  revision: number,
  flags: Readonly<Record<string, boolean>> | null,
  lastError: string | null,
  priority: number
]

const mostJobs: Rest = [1, 25, null, 0, null, null, 0]

/** A claimed job. Its times and flags are made when they are asked for, which most handlers do not. */
export class Claimed implements ClaimedJob {
  readonly id: Job.JobId
  readonly task: string
  readonly payload: unknown
  readonly attempt: number
  readonly maxAttempts: number
  readonly key: string | undefined
  readonly queueName: string | undefined
  readonly priority: number
  readonly revision: number
  readonly lastError: string | undefined
  declare details?: HandedDetails
  readonly #runAt: number
  readonly #createdAt: number
  readonly #flags: string | null

  constructor(
    row: Pick<ClaimedRow, "id" | "payload" | "run_at" | "created_at">,
    task: string,
    queueName: string | null,
    flags: string | null,
    [attempt, maxAttempts, key, revision, _flags, lastError, priority]: Rest
  ) {
    this.id = row.id as Job.JobId
    this.task = task
    this.payload = JSON.parse(row.payload)
    this.attempt = attempt
    this.maxAttempts = maxAttempts
    this.key = key ?? undefined
    this.queueName = queueName ?? undefined
    this.priority = priority
    this.revision = revision
    this.lastError = lastError ?? undefined
    this.#runAt = row.run_at
    this.#createdAt = row.created_at
    this.#flags = flags
  }

  /** Takes what the job has beyond the columns of every job. */
  handOver(details: string | null | undefined): this {
    if (details === null || details === undefined) return this
    const { bundle, metadata, origin, retains, trace } = JSON.parse(details)
    this.details = {
      retains: retains ?? undefined,
      origin: origin ?? undefined,
      metadata: metadata ?? undefined,
      trace: trace ?? undefined,
      bundle: bundle ?? undefined
    }
    return this
  }

  get isLastAttempt(): boolean {
    return this.attempt >= this.maxAttempts
  }

  get runAt(): DateTime.Utc {
    return toTime(this.#runAt)
  }

  get createdAt(): DateTime.Utc {
    return toTime(this.#createdAt)
  }

  get flags(): ReadonlyArray<string> {
    return flagNames(this.#flags)
  }

  /** Where it stands in its lane. */
  get place(): Place {
    return { task: this.task, priority: this.priority, runAt: this.#runAt, id: this.id }
  }

  /** The order of claims. */
  static compare(a: Claimed, b: Claimed): number {
    return a.priority - b.priority || a.#runAt - b.#runAt || a.id.length - b.id.length || (a.id < b.id ? -1 : 1)
  }
}

/** The jobs of a claim, in its order; `update … returning` has none of its own. */
export const toClaimed = (rows: ReadonlyArray<ClaimedRow>): ReadonlyArray<ClaimedJob> =>
  rows.map((row) =>
    new Claimed(row, row.task, row.queue_name, row.flags, [
      row.attempts,
      row.max_attempts,
      row.key,
      row.revision,
      null,
      row.last_error,
      row.priority
    ]).handOver(row.details)
  ).toSorted(Claimed.compare)

/** The jobs of a batch, in the order of claims; `attempt` is the one to come. */
export const toBatched = (rows: ReadonlyArray<BatchRow>, tasks: ReadonlyArray<string>): ReadonlyArray<Claimed> => {
  const jobs = rows.map((row) => {
    const task = tasks[row.task - 1]!
    if (row.rest === null) return new Claimed(row, task, null, null, mostJobs)
    const rest: Rest = JSON.parse(row.rest)
    return new Claimed(row, task, null, rest[4] === null ? null : JSON.stringify(rest[4]), rest)
  })
  const isInOrder = jobs.every((job, place) => place === 0 || Claimed.compare(jobs[place - 1]!, job) < 0)
  return isInOrder ? jobs : jobs.toSorted(Claimed.compare)
}

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
