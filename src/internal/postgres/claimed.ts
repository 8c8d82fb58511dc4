/** Claimed jobs, and those of a batch, from what the statements answer. */
import type * as DateTime from "effect/DateTime"
import type * as Job from "../../Job.ts"
import type { ClaimedJob, HandedDetails, Place } from "../../JobStore.ts"
import { type JobRow, toTime } from "./rows.ts"

/** A job as a claim answers it. */
export type ClaimedRow = Omit<JobRow, "state" | "updated_at" | "locked_at" | "locked_by"> & {
  readonly details: string | null
}

/** Jobs of one lane of a batch: `task` is the place of its name, the times are as the server sends them. */
export interface LaneRow {
  readonly task: number
  readonly priority: number
  /** Separated by commas. */
  readonly ids: string
  /** The members of a JSON array. */
  readonly payloads: string
  readonly run_at: Uint8Array
  readonly created_at: Uint8Array
  /** A JSON array of what is not as in most jobs, with the id of each such job; null when there is none. */
  readonly rests: string | null
}

/** The attempt is the one to come. */
type Rest = readonly [
  attempt: number,
  maxAttempts: number,
  key: string | null,
  revision: number,
  flags: Readonly<Record<string, boolean>> | null,
  lastError: string | null
]

const mostJobs: Rest = [1, 25, null, 0, null, null]

/** The times of jobs by their places in a row, in milliseconds since the epoch. */
interface Times {
  readonly runAt: (index: number) => number
  readonly createdAt: (index: number) => number
}

/** PostgreSQL counts from the year 2000, in microseconds. */
const postgresEpoch = 946_684_800_000

const timesOf = ({ created_at, run_at }: LaneRow): Times => {
  const reader = (bytes: Uint8Array) => {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    return (index: number) => postgresEpoch + Number(view.getBigInt64(index * 8)) / 1000
  }
  return { runAt: reader(run_at), createdAt: reader(created_at) }
}

/** A claimed job. Its times and flags are made when they are asked for, which most handlers do not. */
export class Claimed implements ClaimedJob {
  readonly id: Job.JobId
  readonly task: string
  readonly payload: unknown
  readonly queueName: string | undefined
  readonly priority: number
  readonly attempt: number
  readonly maxAttempts: number
  readonly key: string | undefined
  readonly revision: number
  readonly lastError: string | undefined
  declare details?: HandedDetails
  readonly #flags: Rest[4]
  readonly #times: Times
  readonly #index: number

  constructor(
    id: string,
    task: string,
    payload: unknown,
    queueName: string | undefined,
    priority: number,
    rest: Rest,
    times: Times,
    index: number
  ) {
    this.id = id as Job.JobId
    this.task = task
    this.payload = payload
    this.queueName = queueName
    this.priority = priority
    this.attempt = rest[0]
    this.maxAttempts = rest[1]
    this.key = rest[2] ?? undefined
    this.revision = rest[3]
    this.lastError = rest[5] ?? undefined
    this.#flags = rest[4]
    this.#times = times
    this.#index = index
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

  get origin(): string | undefined {
    return this.details?.origin
  }

  get bundle(): Job.BundleId | undefined {
    return this.details?.bundle as Job.BundleId | undefined
  }

  get isLastAttempt(): boolean {
    return this.attempt >= this.maxAttempts
  }

  get runAt(): DateTime.Utc {
    return toTime(this.#times.runAt(this.#index))
  }

  get createdAt(): DateTime.Utc {
    return toTime(this.#times.createdAt(this.#index))
  }

  get flags(): ReadonlyArray<string> {
    return this.#flags === null ? [] : Object.keys(this.#flags)
  }

  /** Where it stands in its lane. */
  get place(): Place {
    return { task: this.task, priority: this.priority, runAt: this.#times.runAt(this.#index), id: this.id }
  }

  /** The order of claims. */
  static compare(a: Claimed, b: Claimed): number {
    return a.priority - b.priority || a.#times.runAt(a.#index) - b.#times.runAt(b.#index) ||
      a.id.length - b.id.length ||
      (a.id < b.id ? -1 : 1)
  }
}

/** The jobs of a claim, in its order; `update … returning` has none of its own. */
export const toClaimed = (rows: ReadonlyArray<ClaimedRow>): ReadonlyArray<ClaimedJob> =>
  rows.map((row) =>
    new Claimed(
      row.id,
      row.task,
      JSON.parse(row.payload),
      row.queue_name ?? undefined,
      row.priority,
      [
        row.attempts,
        row.max_attempts,
        row.key,
        row.revision,
        row.flags === null ? null : JSON.parse(row.flags),
        row.last_error
      ],
      { runAt: () => row.run_at, createdAt: () => row.created_at },
      0
    ).handOver(row.details)
  ).toSorted(Claimed.compare)

/** The jobs of a row, in their order, in which the server reads them. */
const toLane = (row: LaneRow, task: string): ReadonlyArray<Claimed> => {
  const payloads: ReadonlyArray<unknown> = JSON.parse(`[${row.payloads}]`)
  const rests = row.rests === null ? undefined : new Map(
    (JSON.parse(row.rests) as ReadonlyArray<readonly [id: string, ...Rest]>).map((
      [id, ...rest]
    ): [string, Rest] => [id, rest])
  )
  const times = timesOf(row)
  return row.ids.split(",").map((id, index) =>
    new Claimed(id, task, payloads[index], undefined, row.priority, rests?.get(id) ?? mostJobs, times, index)
  )
}

/** The jobs of a batch, in the order of claims. */
export const toBatched = (rows: ReadonlyArray<LaneRow>, tasks: ReadonlyArray<string>): ReadonlyArray<Claimed> =>
  rows.flatMap((row) => toLane(row, tasks[row.task - 1]!)).toSorted(Claimed.compare)

/** The same of one lane, whose jobs are in order where they come in one row. */
export const toMore = (rows: ReadonlyArray<LaneRow>, task: string): ReadonlyArray<Claimed> =>
  rows.length === 1 ? toLane(rows[0]!, task) : toBatched(rows, [task])
