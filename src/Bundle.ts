/**
 * Bundles: jobs of any tasks that belong together, and what is to be run when
 * each of them has stopped.
 *
 * A job of a bundle is a job like any other. It has *stopped* when it completed,
 * failed for good, or was cancelled: taken back, replaced by its key, deleted. A
 * bundle is *done* when all of its jobs have stopped; in the transaction in which
 * the last one does, whoever runs it, the bundle's completion jobs are added.
 * They get what became of the jobs, typed by the tasks' own schemas.
 *
 * **Example**
 *
 * ```ts
 * const ImportFile = Task.make("import_file", {
 *   payload: { path: Schema.String },
 *   success: Schema.Struct({ rows: Schema.Int })
 * })
 *
 * const ReportImport = Task.make("report_import", {
 *   payload: Bundle.payload({ tasks: [ImportFile], data: { to: Schema.String } })
 * })
 *
 * const program = Queue.addBundle(
 *   ["a.csv", "b.csv"].map((path) => ImportFile.request({ path })),
 *   { onComplete: Bundle.completion(ReportImport, { to: "ada@example.org" }) }
 * )
 *
 * const ReportImportLive = ReportImport.toLayer(({ data, outcomes }) =>
 *   Effect.log(data.to, outcomes.map((outcome) => outcome._tag === "Completed" ? outcome.result?.rows : outcome._tag))
 * )
 * ```
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import * as Job from "./Job.ts"
import type * as Task from "./Task.ts"

const CompletionTypeId = "~kongtask/Bundle/Completion" as const

/**
 * The number that the database gave a bundle, in decimal digits.
 *
 * @category schemas
 * @since 0.1.0
 */
export const BundleId = Job.BundleId

/**
 * @category models
 * @since 0.1.0
 */
export type BundleId = Job.BundleId

const counts = {
  /** How many jobs it has, stopped ones included. */
  jobs: Schema.Int,
  completed: Schema.Int,
  /** How many have failed for good. */
  failed: Schema.Int,
  /** How many were cancelled, removed, deleted, or replaced by their key. */
  cancelled: Schema.Int
}

/**
 * What a completion job is told of its bundle.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Summary = Schema.Struct({
  id: BundleId,
  name: Schema.UndefinedOr(Schema.String),
  origin: Schema.UndefinedOr(Schema.String),
  ...counts
})

/**
 * @category models
 * @since 0.1.0
 */
export type Summary = typeof Summary.Type

/**
 * A bundle as it stood in the database at one moment.
 *
 * @category models
 * @since 0.1.0
 */
export class Bundle extends Schema.Class<Bundle>("kongtask/Bundle")({
  ...Summary.fields,
  /** `done` when all of its jobs have stopped; it stays so, whatever becomes of a failed one later. */
  state: Schema.Literals(["open", "done"]),
  createdAt: Schema.DateTimeUtc,
  doneAt: Schema.UndefinedOr(Schema.DateTimeUtc)
}) {}

/**
 * What became of a job that has stopped.
 *
 * @category models
 * @since 0.1.0
 */
export type Outcome<T extends Task.Any> = T extends Task.Any ?
    | {
      readonly _tag: "Completed"
      readonly job: Job.JobId
      readonly task: T["name"]
      /** Left out where whoever completed the job told none: graphile-worker, `Queue.complete`, SQL. */
      readonly result?: Task.Success<T>
    }
    | {
      readonly _tag: "Failed"
      readonly job: Job.JobId
      readonly task: T["name"]
      /** What kind of failure it was: the `_tag` of a typed error, or as in `Job.FailedAttempt`. */
      readonly tag: string
      readonly message: string
      /** The last attempt's error, where it was one of the task's own. */
      readonly error?: Task.Error<T>
    }
    | {
      readonly _tag: "Cancelled"
      readonly job: Job.JobId
      readonly task: T["name"]
    }
  : never

/**
 * The schema of the outcomes of some tasks' jobs.
 *
 * @category models
 * @since 0.1.0
 */
export interface OutcomeSchema<T extends Task.Any> extends
  Schema.Codec<
    Outcome<T>,
    unknown,
    T["successSchema"]["DecodingServices"] | T["errorSchema"]["DecodingServices"],
    T["successSchema"]["EncodingServices"] | T["errorSchema"]["EncodingServices"]
  >
{}

/** The entries of a batch task have results and errors of their own, which its job has not. */
const outcomesOf = ({ errorSchema, isBatch, name, successSchema }: Task.Any) => {
  const of = { job: Job.JobId, task: Schema.Literal(name) }
  return [
    Schema.Struct({
      _tag: Schema.Literal("Completed"),
      ...of,
      ...(isBatch ? {} : { result: Schema.optionalKey(successSchema) })
    }),
    Schema.Struct({
      _tag: Schema.Literal("Failed"),
      ...of,
      tag: Schema.String,
      message: Schema.String,
      ...(isBatch ? {} : { error: Schema.optionalKey(errorSchema) })
    }),
    Schema.Struct({ _tag: Schema.Literal("Cancelled"), ...of })
  ]
}

/**
 * The schema of what became of these tasks' jobs.
 *
 * @category schemas
 * @since 0.1.0
 */
export const outcome = <const Tasks extends ReadonlyArray<Task.Any>>(tasks: Tasks): OutcomeSchema<Tasks[number]> =>
  Schema.Union(tasks.flatMap(outcomesOf)) as never

/**
 * The payload of a completion job.
 *
 * @category models
 * @since 0.1.0
 */
export interface Payload<Tasks extends ReadonlyArray<Task.Any>, Data extends Schema.Top> extends
  Schema.Struct<{
    readonly bundle: typeof Summary
    readonly data: Data
    readonly outcomes: Schema.$Array<OutcomeSchema<Tasks[number]>>
  }>
{
  readonly tasks: Tasks
  readonly dataSchema: Data
}

/**
 * The payload of a task that completes bundles: the bundle with its counts, the
 * `data` that the completion was given, and the `outcomes` of its jobs in the
 * order in which they were added.
 *
 * **Details**
 *
 * `tasks` are those whose jobs such a bundle may have, any subset of them; adding
 * a bundle with others does not compile, and fails with `InvalidBundle`. Without
 * `tasks` any bundle is fine, and `outcomes` is empty: for bundles whose results
 * are large or very many. `data` is a schema, or the fields of a struct. Outcomes
 * of more than 64 MiB of JSON in all are left out, and the payload then fails to
 * decode.
 *
 * @category schemas
 * @since 0.1.0
 */
export const payload = <
  const Tasks extends ReadonlyArray<Task.Any> = [],
  Data extends Schema.Top | Schema.Struct.Fields = Schema.Void
>(options?: {
  readonly tasks?: Tasks
  readonly data?: Data
}): Payload<Tasks, Data extends Schema.Struct.Fields ? Schema.Struct<Data> : Data> => {
  const { data, tasks = [] } = options ?? {}
  const dataSchema = data === undefined ? Schema.Void : Schema.isSchema(data) ? data : Schema.Struct(data)
  return Object.assign(
    Schema.Struct({ bundle: Summary, data: dataSchema, outcomes: Schema.Array(outcome(tasks)) }),
    { tasks, dataSchema }
  ) as never
}

/**
 * A task whose payload is a `Bundle.payload`.
 *
 * @category models
 * @since 0.1.0
 */
export interface CompletionTask extends Task.Any {
  readonly payloadSchema: Payload<ReadonlyArray<Task.Any>, Schema.Top>
}

/**
 * The tasks whose jobs a completion's bundle may have.
 *
 * @category utility types
 * @since 0.1.0
 */
export type Member<T extends CompletionTask> = T["payloadSchema"]["tasks"] extends readonly [] ? Task.Any
  : T["payloadSchema"]["tasks"][number]

/**
 * A job to add when a bundle is done; made by `completion`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Completion<in Members extends Task.Any, out R = never> {
  readonly [CompletionTypeId]: { readonly members: (members: Members) => void; readonly services: () => R }
  readonly task: CompletionTask
  readonly data: unknown
  readonly options: CompletionOptions | undefined
}

/**
 * The options of a completion job. It is added once a bundle, so that it needs no key.
 *
 * @category models
 * @since 0.1.0
 */
export interface CompletionOptions extends Omit<Job.Options, "jobKey" | "jobKeyMode" | "runAt" | "delay"> {}

/**
 * Describes the job that is to be added when a bundle is done.
 *
 * @category constructors
 * @since 0.1.0
 */
export const completion = <T extends CompletionTask>(
  task: T,
  ...[data, options]: undefined extends T["payloadSchema"]["dataSchema"]["~type.make.in"]
    ? [data?: T["payloadSchema"]["dataSchema"]["~type.make.in"], options?: CompletionOptions]
    : [data: T["payloadSchema"]["dataSchema"]["~type.make.in"], options?: CompletionOptions]
): Completion<Member<T>, T["payloadSchema"]["dataSchema"]["EncodingServices"]> =>
  ({ [CompletionTypeId]: undefined, task, data, options }) as never

/**
 * What `Queue.addBundle` takes beside the jobs.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<in Members extends Task.Any, out R = never> {
  /** Added when all jobs have stopped, whatever became of them. */
  readonly onComplete?: Completion<Members, R> | undefined
  /** Added when all jobs have completed. */
  readonly onSuccess?: Completion<Members, R> | undefined
  /** Added when all jobs have stopped, and one of them has failed or was cancelled. */
  readonly onFailure?: Completion<Members, R> | undefined
  /** What kind of bundle it is, for lists and listeners, 1 to 128 characters. Default: none. */
  readonly name?: string | undefined
  /** Who adds it, 1 to 128 characters; also that of its jobs which have none of their own. Default: none. */
  readonly origin?: string | undefined
  /**
   * How long it is kept, with the outcomes of its jobs, after it is done; `"Infinity"` until somebody deletes it.
   * Default: 1 day.
   */
  readonly retain?: Duration.Input | undefined
}

/**
 * A bundle that cannot be added as it is asked for. Nothing was written.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidBundle extends Schema.TaggedError<InvalidBundle>("kongtask/Bundle/InvalidBundle")("InvalidBundle", {
  /** The field at fault. */
  field: Schema.String,
  /** What is wrong with its value, and what the limit is. */
  problem: Schema.String
}) {
  override get message(): string {
    return `A bundle cannot be added: ${this.field} ${this.problem}.`
  }
}

/**
 * There is no such bundle, or it was deleted.
 *
 * @category errors
 * @since 0.1.0
 */
export class BundleNotFound extends Schema.TaggedError<BundleNotFound>("kongtask/Bundle/BundleNotFound")(
  "BundleNotFound",
  { bundle: BundleId }
) {
  override get message(): string {
    return `There is no bundle ${this.bundle}: it never was, was deleted, or was done longer ago than it is retained.`
  }
}

/**
 * All jobs of the bundle have stopped, so that none can be added to it. Nothing was written.
 *
 * @category errors
 * @since 0.1.0
 */
export class BundleDone extends Schema.TaggedError<BundleDone>("kongtask/Bundle/BundleDone")("BundleDone", {
  bundle: BundleId
}) {
  override get message(): string {
    return `Bundle ${this.bundle} is done: its completion jobs have been added. Add another bundle.`
  }
}
