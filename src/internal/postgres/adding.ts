/**
 * Adding jobs on PostgreSQL: one by one, many at once, and for many callers at
 * once.
 */
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as Job from "../../Job.ts"
import type { JobSpec, Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import { fromSqlError, sqlState } from "./errors.ts"
import { flagNames, type JobRow, makeJob, toJob } from "./rows.ts"
import * as SharedAdds from "./sharedAdds.ts"
import type * as Statements from "./statements.ts"

type AddError = Job.InvalidJob | Job.DuplicateJobKey | KongTaskError

/** What the SQL functions raise for a bad job; everything else is the database's trouble. */
const invalidJobFields: Readonly<Record<string, string>> = {
  GWBID: "task",
  GWBQN: "queueName",
  GWBJK: "jobKey",
  GWBMA: "maxAttempts",
  GWBKM: "jobKeyMode"
}

export const fromAddError = (specs: ReadonlyArray<JobSpec>) => (error: SqlError | Job.DuplicateJobKey): AddError => {
  if (error._tag === "DuplicateJobKey") return error
  const code = sqlState(error)
  const field = code === undefined ? undefined : invalidJobFields[code]
  return field === undefined
    ? fromSqlError("add")(error)
    : new Job.InvalidJob({ task: specs[0]?.task ?? "", field, problem: `is refused: ${error.reason.message}`, code })
}

/** Whether a job is added in a key mode that the SQL function `add_job` does not have. */
const isOurs = ({ key, keyMode }: JobSpec): boolean =>
  key !== undefined && (keyMode === "dedupe" || keyMode === "reject")

const payloadsOf = (specs: ReadonlyArray<JobSpec>): string => `[${specs.map((spec) => spec.payload).join(",")}]`

/** The first two parameters of `addJobs`. */
export const arraysOf = (specs: ReadonlyArray<JobSpec>): ReadonlyArray<unknown> => [
  JSON.stringify(specs.map((spec) => [
    spec.task,
    spec.queueName ?? null,
    spec.runAt ?? null,
    spec.delay ?? null,
    spec.maxAttempts ?? null,
    spec.key ?? null,
    spec.priority ?? null,
    spec.flags ?? null,
    spec.keyMode ?? "replace"
  ])),
  payloadsOf(specs)
]

/** Most jobs of one call differ by their payloads only. */
const differ = (a: JobSpec, b: JobSpec): boolean =>
  a.task !== b.task || a.queueName !== b.queueName || a.runAt !== b.runAt || a.delay !== b.delay ||
  a.maxAttempts !== b.maxAttempts || a.priority !== b.priority || a.flags !== b.flags

/** What the specs have beside their payloads, each once, and which one is each spec's, counted from 1; null: the first. */
const distinct = (specs: ReadonlyArray<JobSpec>) => {
  const places = new Map<string, number>()
  let last: JobSpec | undefined
  let place = 0
  const placeOf = specs.map((spec) => {
    if (last === undefined || differ(spec, last)) {
      const { delay, flags, maxAttempts, priority, queueName, runAt, task } = spec
      const text = JSON.stringify([task, queueName, runAt, delay, maxAttempts, priority, flags])
      place = places.get(text) ?? places.size + 1
      places.set(text, place)
    }
    last = spec
    return place
  })
  return { texts: `[${[...places.keys()].join(",")}]`, placeOf: places.size === 1 ? null : placeOf }
}

/** The details of jobs in turn, for `_private_kongtask_put_details`; null where none has any. */
const detailsOf = (specs: ReadonlyArray<JobSpec>): string | null =>
  specs.some((spec) => spec.details !== undefined) ? JSON.stringify(specs.map((spec) => spec.details ?? null)) : null

/** What `insertJobs` answers: `specs_added` has the run_at, the state and the flags of each distinct spec. */
interface InsertedRow {
  readonly ids: string
  readonly created_at: number
  readonly specs_added: string
}

const insertedJobs = (
  specs: ReadonlyArray<JobSpec>,
  payloads: string,
  placeOf: ReadonlyArray<number> | null,
  { created_at, ids, specs_added }: InsertedRow
): ReadonlyArray<Job.Job> => {
  const payloadOf: ReadonlyArray<unknown> = JSON.parse(payloads)
  const createdAt = DateTime.makeUnsafe(Math.round(created_at))
  const shared = (JSON.parse(specs_added) as ReadonlyArray<readonly [number, Job.State, string | null]>).map(
    ([runAt, state, flags]) => ({ runAt: DateTime.makeUnsafe(Math.round(runAt)), state, flags: flagNames(flags) })
  )
  const idOf = ids.split(",")
  return specs.map((spec, index) =>
    makeJob({
      id: idOf[index] as Job.JobId,
      task: spec.task,
      payload: payloadOf[index] as Job.Job["payload"],
      queueName: spec.queueName,
      priority: spec.priority ?? 0,
      attempts: 0,
      maxAttempts: spec.maxAttempts ?? 25,
      lastError: undefined,
      createdAt,
      updatedAt: createdAt,
      key: undefined,
      lockedAt: undefined,
      lockedBy: undefined,
      revision: 0,
      origin: spec.details?.origin,
      bundle: undefined,
      ...shared[placeOf === null ? 0 : placeOf[index]! - 1]!
    })
  )
}

/** A job that was added, or the one that refused it. */
export interface AddedRow extends JobRow {
  /** The place of its spec, from 1. */
  readonly place: number
  readonly refused: boolean
}

export const refusalOf = (
  specs: ReadonlyArray<JobSpec>,
  rows: ReadonlyArray<AddedRow>
): Job.DuplicateJobKey | undefined => {
  const refusal = rows.find((row) => row.refused)
  return refusal === undefined ? undefined : new Job.DuplicateJobKey({
    task: specs[refusal.place - 1]!.task,
    key: refusal.key!,
    existing: refusal.id as Job.JobId,
    state: refusal.state,
    ...(specs.length === 1 ? {} : { index: refusal.place - 1 })
  })
}

export const make = Effect.fnUntraced(function*({ sql, statements }: {
  readonly sql: SqlClient.SqlClient
  readonly statements: ReturnType<typeof Statements.make>
}): Effect.fn.Return<Pick<Store, "add" | "addMany">, never, Scope.Scope> {
  const insert = Effect.fnUntraced(function*(specs: ReadonlyArray<JobSpec>, mayWait: boolean) {
    const { placeOf, texts } = distinct(specs)
    const details = detailsOf(specs)
    const payloads = payloadsOf(specs)
    const params = [texts, placeOf, payloads, mayWait]
    const rows = yield* details === null
      ? sql.unsafe<InsertedRow>(statements.insertJobs, params)
      : sql.unsafe<InsertedRow>(statements.insertDetailedJobs, [...params, details])
    return rows[0] === undefined ? undefined : insertedJobs(specs, payloads, placeOf, rows[0])
  })

  const shared = yield* SharedAdds.make((specs) => insert(specs, false))

  const insertOne = Effect.fnUntraced(function*(spec: JobSpec) {
    const isInTransaction = (yield* Effect.serviceOption(sql.transactionService))._tag === "Some"
    const job = isInTransaction ? undefined : yield* shared.add(spec)
    return job ?? (yield* insert([spec], true))![0]!
  })

  const addInAnyMode = Effect.fnUntraced(function*(specs: ReadonlyArray<JobSpec>) {
    const rows = yield* sql.unsafe<AddedRow>(
      statements.addJobs,
      [...arraysOf(specs), true, detailsOf(specs)]
    )
    const refusal = refusalOf(specs, rows)
    if (refusal === undefined) {
      return rows.map((row, index) => toJob({ ...row, origin: specs[index]?.details?.origin ?? null }))
    }
    return yield* refusal
  })

  const add = Effect.fnUntraced(function*(spec: JobSpec) {
    if (spec.key === undefined) return yield* insertOne(spec)
    if (isOurs(spec) || spec.details !== undefined) return (yield* addInAnyMode([spec]))[0]!
    const rows = yield* sql.unsafe<JobRow>(statements.add, [
      spec.task,
      spec.payload,
      spec.queueName ?? null,
      spec.runAt ?? null,
      spec.delay ?? null,
      spec.maxAttempts ?? null,
      spec.key ?? null,
      spec.priority ?? null,
      spec.flags === undefined ? null : JSON.stringify(spec.flags),
      spec.keyMode ?? "replace"
    ])
    return toJob(rows[0]!)
  }, (effect, spec) => Effect.mapError(effect, fromAddError([spec])))

  const addMany = Effect.fnUntraced(function*(specs: ReadonlyArray<JobSpec>) {
    if (specs.length === 0) return []
    if (specs.every((spec) => spec.key === undefined)) return (yield* insert(specs, true)) ?? []
    return yield* addInAnyMode(specs)
  }, (effect, specs) => Effect.mapError(effect, fromAddError(specs)))

  return { add, addMany }
})
