import * as Effect from "effect/Effect"
import type { JobId } from "../../Job.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import type { DueRun, RunOutcome, Scheduling, StoredRow } from "../scheduler/storage.ts"
import { quoteIdentifier } from "./schema.ts"

/** The functions are in `migrations/0011_schedules.sql`. */
const makeStatements = (schema: string) => ({
  /** $1 items, $2 payloads. Locks the known crontabs against writers, a row each. */
  schedule: `select place, outcome, job_id from ${schema}._private_kongtask_schedule($1::json, $2::json)`,

  /** $1 scheduler, $2 now ms, $3 lease ms, $4 ids, $5 items and $6 payloads to run first. Locks as above. */
  register: `
    select identifier, known_since, last_execution, alive_since, job_id
    from ${schema}._private_kongtask_register_scheduler(
      $1::text, $2::float8, $3::float8, $4::text[], $5::json, $6::json
    )`,

  /** $1 scheduler. */
  deregister: `delete from ${schema}._private_kongtask_schedulers where id = $1::text`,

  /** $1 scheduler. Writes once in ten seconds. */
  poll: `
    with seen as (
      update ${schema}._private_kongtask_schedulers set seen_at = now()
      where id = $1::text and seen_at < now() - interval '10 seconds'
    )
    select change.revision::float8 as revision,
      exists (select from ${schema}._private_kongtask_schedulers where id = $1::text) as is_registered
    from ${schema}._private_kongtask_schedule_changes as change`,

  /** $1 id or null. Primary keys. */
  stored: `
    select schedule.id, schedule.definition::text as definition, schedule.is_paused,
      schedule.revision::float8 as revision, ${schema}._private_kongtask_millis(schedule.since) as since,
      ${schema}._private_kongtask_millis(schedule.created_at) as created_at,
      ${schema}._private_kongtask_millis(schedule.updated_at) as updated_at,
      ${schema}._private_kongtask_millis(known.last_execution) as last_execution,
      ${schema}._private_kongtask_millis(run.instant) as instant,
      ${schema}._private_kongtask_millis(run.added_at) as added_at, run.job_id::text as job_id
    from ${schema}._private_kongtask_schedules as schedule
    left join ${schema}._private_known_crontabs as known on known.identifier = schedule.id
    left join ${schema}._private_kongtask_schedule_runs as run on run.identifier = schedule.id
    where $1::text is null or schedule.id = $1::text
    order by schedule.id`,

  /** $1 id, $2 now ms, $3 definition. Other changes of schedules wait for the end of the transaction. */
  put: `select ${schema}._private_kongtask_put_schedule($1::text, $2::float8, $3::json) as done`,

  /** $1 id, $2 now ms, $3 what. Other changes of schedules wait for the end of the transaction. */
  change: `select ${schema}._private_kongtask_change_schedule($1::text, $2::float8, $3::text) as done`
})

interface RegisteredRow {
  readonly identifier: string
  readonly known_since: number
  readonly last_execution: number | null
  readonly alive_since: number | null
  readonly job_id: JobId | null
}

interface ScheduleRow {
  readonly id: string
  readonly definition: string
  readonly is_paused: boolean
  readonly revision: number
  readonly since: number
  readonly created_at: number
  readonly updated_at: number
  readonly last_execution: number | null
  readonly instant: number | null
  readonly added_at: number | null
  readonly job_id: JobId | null
}

interface OutcomeRow {
  readonly place: number
  readonly outcome: RunOutcome["outcome"]
  readonly job_id: JobId | null
}

const itemsOf = (runs: ReadonlyArray<DueRun>): string =>
  JSON.stringify(runs.map(({ how, id, instant, job, revision, skipsOverlap }) => [
    id,
    instant,
    how,
    skipsOverlap,
    revision ?? null,
    [
      job.task,
      job.queueName ?? null,
      job.runAt ?? null,
      job.delay ?? null,
      job.maxAttempts ?? null,
      job.key ?? null,
      job.priority ?? null,
      job.flags ?? null,
      job.keyMode ?? "replace"
    ]
  ]))

const payloadsOf = (runs: ReadonlyArray<DueRun>): string => `[${runs.map(({ job }) => job.payload).join(",")}]`

/** Milliseconds come as floating point numbers that may be off in their last digits. */
const millis = (value: number | null): number | undefined => value === null ? undefined : Math.round(value)

const toStored = (row: ScheduleRow): StoredRow => ({
  id: row.id,
  definition: row.definition,
  isPaused: row.is_paused,
  revision: row.revision,
  since: Math.round(row.since),
  createdAt: Math.round(row.created_at),
  updatedAt: Math.round(row.updated_at),
  lastExecution: millis(row.last_execution),
  lastRun: row.instant === null || row.added_at === null || row.job_id === null
    ? undefined
    : { instant: Math.round(row.instant), addedAt: Math.round(row.added_at), jobId: row.job_id }
})

/** The part of the store that schedules need. */
export const make = ({ joinsOnlyOwn, run, schema }: {
  readonly schema: string
  readonly run: <Row extends object>(
    operation: string,
    text: string,
    params: ReadonlyArray<unknown>
  ) => Effect.Effect<ReadonlyArray<Row>, KongTaskError>
  readonly joinsOnlyOwn: <A, E, R>(write: Effect.Effect<A, E, R>) => Effect.Effect<A, E | KongTaskError, R>
}): Scheduling => {
  const statements = makeStatements(quoteIdentifier(schema))

  const schedule = Effect.fnUntraced(function*(runs: ReadonlyArray<DueRun>) {
    const rows = yield* run<OutcomeRow>("schedule", statements.schedule, [itemsOf(runs), payloadsOf(runs)])
    const outcomes: Array<RunOutcome> = []
    for (const { job_id, outcome, place } of rows) outcomes[place - 1] = { outcome, jobId: job_id ?? undefined }
    return outcomes
  })

  const done = (rows: ReadonlyArray<{ readonly done: boolean }>) => rows[0]!.done

  return {
    schedule,
    runNow: (due) => joinsOnlyOwn(Effect.map(schedule([due]), ([outcome]) => outcome!)),
    register: ({ ids, lease, now, onStart, scheduler }) =>
      Effect.map(
        run<RegisteredRow>("register the scheduler", statements.register, [
          scheduler,
          now,
          lease,
          ids,
          itemsOf(onStart),
          payloadsOf(onStart)
        ]),
        (rows) =>
          new Map(rows.map((row) => [row.identifier, {
            knownSince: Math.round(row.known_since),
            lastExecution: millis(row.last_execution),
            aliveSince: millis(row.alive_since),
            startedJob: row.job_id ?? undefined
          }]))
      ),
    deregister: (scheduler) => Effect.asVoid(run("deregister the scheduler", statements.deregister, [scheduler])),
    poll: (scheduler) =>
      Effect.map(
        run<{ readonly revision: number; readonly is_registered: boolean }>("look for schedules", statements.poll, [
          scheduler
        ]),
        ([row]) => ({ revision: row!.revision, isRegistered: row!.is_registered })
      ),
    stored: (id) =>
      Effect.map(run<ScheduleRow>("list schedules", statements.stored, [id ?? null]), (rows) => rows.map(toStored)),
    put: (id, now, definition) =>
      joinsOnlyOwn(
        Effect.map(run<{ readonly done: boolean }>("put a schedule", statements.put, [id, now, definition]), done)
      ),
    change: (id, now, change) =>
      joinsOnlyOwn(
        Effect.map(
          run<{ readonly done: boolean }>(`${change} a schedule`, statements.change, [id, now, change]),
          done
        )
      )
  }
}
