import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as Bundle from "../../Bundle.ts"
import type * as Job from "../../Job.ts"
import type { JobSpec, Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import type { BundleFilter, CompletionSpec } from "../bundleStorage.ts"
import { type AddedRow, arraysOf, fromAddError, refusalOf } from "./adding.ts"
import { sqlState } from "./errors.ts"
import { toJob } from "./rows.ts"
import { quoteIdentifier } from "./schema.ts"

/** The functions are in `migrations/0016_bundles.sql`. */
const makeStatements = (schema: string) => ({
  /** $1 name, $2 origin, $3 retain in ms, $4 completions; $5 specs, $6 payloads and $7 details of the jobs. */
  add: `
    select added.place, added.refused, (added.bundle).id::text as bundle,
      ${schema}._private_kongtask_millis((added.bundle).created_at) as bundle_created_at, described.*
    from ${schema}._private_kongtask_add_bundle(
      $1::text, $2::text, $3::float8, $4::json, $5::json, $6::json, $7::json
    ) as added
    cross join lateral ${schema}._private_kongtask_describe(added.job) as described
    order by added.place`,

  /** $1 bundle, $2 to $4 as $5 to $7 above. One row without a job where there is no such bundle, or it is done. */
  addTo: `
    select added.place, added.refused, added.problem, (added.bundle).id::text as bundle, described.*
    from ${schema}._private_kongtask_add_to_bundle($1::text::int8, $2::json, $3::json, $4::json) as added
    cross join lateral ${schema}._private_kongtask_describe(added.job) as described
    order by added.place`,

  /** $1 ids, $2 name, $3 origin, $4 whether they are done, $5 after id, $6 limit. Primary key in order. */
  list: `
    select described.*
    from ${schema}._private_kongtask_bundles as bundle
    cross join lateral ${schema}._private_kongtask_describe_bundle(bundle) as described
    where ($1::text[] is null or bundle.id = any ($1::text[]::int8[]))
      and ($2::text is null or bundle.name = $2::text)
      and ($3::text is null or bundle.origin = $3::text)
      and ($4::bool is null or (bundle.done_at is not null) = $4::bool)
      and ($5::text is null or bundle.id > $5::text::int8)
    order by bundle.id limit $6::int`,

  /** $1 to $4 as above. Scans the bundles once; locks their jobs in the order of ids, then the bundles. */
  remove: `
    select described.*
    from ${schema}._private_kongtask_delete_bundles(array(
      select bundle.id from ${schema}._private_kongtask_bundles as bundle
      where ($1::text[] is null or bundle.id = any ($1::text[]::int8[]))
        and ($2::text is null or bundle.name = $2::text)
        and ($3::text is null or bundle.origin = $3::text)
        and ($4::bool is null or (bundle.done_at is not null) = $4::bool)
    )) as bundle
    cross join lateral ${schema}._private_kongtask_describe_bundle(bundle) as described
    order by bundle.id`,

  /** $1 bundle, $2 and $3 id and revision of the job after which to go on, $4 limit. Primary key in order. */
  outcomes: `
    select outcome.job_id::text as job, outcome.revision, ${schema}._private_kongtask_describe_outcome(outcome)::text as outcome
    from ${schema}._private_kongtask_bundle_outcomes as outcome
    where outcome.bundle_id = $1::text::int8
      and (outcome.job_id, outcome.revision) > (coalesce($2::text::int8, 0), coalesce($3::int, 0))
    order by outcome.job_id, outcome.revision limit $4::int`
})

interface BundleRow {
  readonly id: Bundle.BundleId
  readonly name: string | null
  readonly origin: string | null
  readonly jobs: number
  readonly completed: number
  readonly failed: number
  readonly cancelled: number
  readonly created_at: number
  readonly done_at: number | null
}

const toTime = (millis: number) => DateTime.makeUnsafe(Math.round(millis))

const toBundle = ({ created_at, done_at, name, origin, ...row }: BundleRow): Bundle.Bundle =>
  new Bundle.Bundle({
    ...row,
    name: name ?? undefined,
    origin: origin ?? undefined,
    state: done_at === null ? "open" : "done",
    createdAt: toTime(created_at),
    doneAt: done_at === null ? undefined : toTime(done_at)
  }, { disableChecks: true })

/** The data of a completion is JSON already. */
const toCompletion = ({ on, spec, tasks }: CompletionSpec): string => {
  const [specs] = arraysOf([spec])
  return `{"on":"${on}","tasks":${JSON.stringify(tasks ?? null)},"spec":${
    (specs as string).slice(1, -1)
  },"data":${spec.payload},` +
    `"details":${JSON.stringify(spec.details ?? null)}}`
}

const memberParams = (specs: ReadonlyArray<JobSpec>) => [
  ...arraysOf(specs),
  JSON.stringify(specs.map(({ details }) => details ?? {}))
]

/** A job of the bundle that was done between the look at it and the commit. */
const isTooLate = (error: SqlError): boolean => sqlState(error) === "KTBDN"

/** The part of the store for bundles. */
export const make = ({ joinsOnlyOwn, run, schema, sql }: {
  readonly sql: SqlClient.SqlClient
  readonly schema: string
  readonly run: <Row extends object>(
    operation: string,
    text: string,
    params: ReadonlyArray<unknown>
  ) => Effect.Effect<ReadonlyArray<Row>, KongTaskError>
  readonly joinsOnlyOwn: <A, E, R>(write: Effect.Effect<A, E, R>) => Effect.Effect<A, E | KongTaskError, R>
}): Store["bundling"] => {
  const statements = makeStatements(quoteIdentifier(schema))

  const toMember =
    (specs: ReadonlyArray<JobSpec>, bundle: Bundle.BundleId, origin: string | undefined) =>
    (row: AddedRow, index: number): Job.Job =>
      toJob({ ...row, bundle, origin: specs[index]?.details?.origin ?? origin ?? null })

  const filterParams = ({ ids, name, origin, state }: BundleFilter) => [
    ids ?? null,
    name ?? null,
    origin ?? null,
    state === undefined ? null : state === "done"
  ]

  return {
    add: ({ completions, jobs: specs, name, origin, retain }) =>
      sql.unsafe<AddedRow & { readonly bundle: Bundle.BundleId; readonly bundle_created_at: number }>(statements.add, [
        name ?? null,
        origin ?? null,
        retain ?? null,
        `[${completions.map(toCompletion).join(",")}]`,
        ...memberParams(specs)
      ]).pipe(
        Effect.flatMap((rows) => {
          const refusal = refusalOf(specs, rows)
          if (refusal !== undefined) return Effect.fail(refusal)
          const { bundle: id, bundle_created_at } = rows[0]!
          const bundle = toBundle({
            id,
            name: name ?? null,
            origin: origin ?? null,
            jobs: specs.length,
            completed: 0,
            failed: 0,
            cancelled: 0,
            created_at: bundle_created_at,
            done_at: null
          })
          return Effect.succeed({ bundle, jobs: rows.map(toMember(specs, id, origin)) })
        }),
        Effect.mapError(fromAddError(specs)),
        joinsOnlyOwn
      ),

    addTo: (id, specs) =>
      sql.unsafe<
        AddedRow & { readonly bundle: string | null; readonly id: string | null; readonly problem: string | null }
      >(
        statements.addTo,
        [id, ...memberParams(specs)]
      ).pipe(
        Effect.flatMap((rows): Effect.Effect<
          ReadonlyArray<Job.Job>,
          Bundle.BundleNotFound | Bundle.BundleDone | Bundle.InvalidBundle | Job.DuplicateJobKey
        > => {
          const [first] = rows
          if (first?.bundle == null) return Effect.fail(new Bundle.BundleNotFound({ bundle: id }))
          if (first.problem !== null) {
            return Effect.fail(new Bundle.InvalidBundle({ field: "jobs", problem: first.problem }))
          }
          if (first.id === null) return Effect.fail(new Bundle.BundleDone({ bundle: id }))
          const refusal = refusalOf(specs, rows as ReadonlyArray<AddedRow>)
          return refusal === undefined
            ? Effect.succeed((rows as ReadonlyArray<AddedRow>).map(toMember(specs, id, undefined)))
            : Effect.fail(refusal)
        }),
        Effect.mapError((error) =>
          error._tag !== "SqlError" && error._tag !== "DuplicateJobKey"
            ? error
            : error._tag === "SqlError" && isTooLate(error)
            ? new Bundle.BundleDone({ bundle: id })
            : fromAddError(specs)(error)
        ),
        joinsOnlyOwn
      ),

    get: (id) =>
      Effect.map(
        run<BundleRow>("get the bundle", statements.list, [...filterParams({ ids: [id] }), null, 1]),
        (rows) => Option.map(Option.fromNullishOr(rows[0]), toBundle)
      ),

    list: (filter, { after, limit }) =>
      Effect.map(
        run<BundleRow>("list bundles", statements.list, [...filterParams(filter), after ?? null, limit]),
        (rows) => rows.map(toBundle)
      ),

    remove: (filter) =>
      joinsOnlyOwn(Effect.map(
        run<BundleRow>("delete bundles", statements.remove, filterParams(filter)),
        (rows) => rows.map(toBundle)
      )),

    outcomes: (id, { after, limit }) =>
      Effect.map(
        run<{ readonly job: Job.JobId; readonly revision: number; readonly outcome: string }>(
          "get outcomes",
          statements.outcomes,
          [id, after?.job ?? null, after?.revision ?? null, limit]
        ),
        (rows) => rows.map(({ job, outcome, revision }) => ({ place: { job, revision }, outcome: JSON.parse(outcome) }))
      )
  }
}
