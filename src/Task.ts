/**
 * A typed task: the contract between those who add jobs and those who run them.
 *
 * `Task.make` defines the contract, which a producer can import without ever
 * seeing the handler; `.toLayer` implements it. A worker that is asked to run a
 * task requires the layer of its handler, so that a missing one does not compile.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Job from "./Job.ts"
import type * as Retry from "./Retry.ts"

const TypeId = "~kongtask/Task" as const

/**
 * The part of a job's options that a task may set for all its jobs.
 *
 * @category models
 * @since 0.1.0
 */
export type Defaults = Pick<Job.Options, "maxAttempts" | "priority" | "queueName" | "retain">

/**
 * One job to add: what `Queue.addMany` takes.
 *
 * @category models
 * @since 0.1.0
 */
export interface Request<out T extends Any> {
  readonly task: T
  readonly payload: T["payloadSchema"]["~type.make.in"]
  readonly options: Job.Options | undefined
}

/**
 * How a handler is run.
 *
 * @category models
 * @since 0.1.0
 */
export interface HandlerOptions<E> {
  /**
   * How long one attempt may take before it is interrupted and counts as failed;
   * `"Infinity"` for no limit. Default: 15 minutes.
   */
  readonly timeout?: Duration.Input | undefined
  /** What becomes of a failed attempt. Default: `Retry.exponential()`. */
  readonly retry?: Retry.Input<E> | undefined
  /**
   * Runs each attempt in a transaction of the queue's `PgClient`, in which the job completes too: what the handler
   * writes through that client and the completion happen together or not at all, exactly once, whatever crashes. The
   * attempt holds a connection of that client's pool all the time. Default: false.
   */
  readonly transactional?: boolean | undefined
  /**
   * How its jobs are held while they run. `"durable"`: each is claimed by a committed write before its handler starts, so
   * that a crash is charged to the jobs that ran. `"auto"`: so too, until the handler has proved to take a few
   * milliseconds at most; then jobs on their first attempt are held by row locks alone, up to 1,000 in one transaction,
   * which is several times faster. A crash then lets up to two such batches run again, a lost connection what was
   * running. Default: `"auto"`.
   */
  readonly delivery?: "auto" | "durable" | undefined
  /**
   * Whether a payload that does not decode is retried like any failure (a newer
   * worker may understand it) or fails the job for good. Default: `"retry"`.
   */
  readonly onInvalidPayload?: "retry" | "fail" | undefined
}

/**
 * Runs one job of a task. `Scope` is provided for each attempt. Beside the
 * task's own errors it may fail with `Job.snooze` and `Job.cancel`.
 *
 * @category models
 * @since 0.1.0
 */
export type HandlerFn<Payload, Success, Error, R, Progress = never> = (
  payload: Payload,
  job: Job.Handled<Progress>
) => Effect.Effect<Success, Error | Job.Control, R>

/**
 * The service that a task's handler is: `task.toLayer` provides it, a worker
 * requires it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Handler<in out Name extends string> {
  readonly _: unique symbol
  readonly name: Name
}

/**
 * What a `Handler` is at run time.
 *
 * @category models
 * @since 0.1.0
 */
export interface Registration {
  readonly task: Any
  readonly handler: HandlerFn<any, any, any, any, any>
  readonly context: Context.Context<never>
  readonly options: HandlerOptions<any>
}

/**
 * A task whose types are not known.
 *
 * @category models
 * @since 0.1.0
 */
export interface Any {
  readonly [TypeId]: typeof TypeId
  readonly name: string
  readonly payloadSchema: Schema.Top
  readonly successSchema: Schema.Top
  readonly errorSchema: Schema.Top
  /** What its handler reports while it runs; `Schema.Never` for nothing. */
  readonly progressSchema: Schema.Top
  /** Whether the payload is an array whose entries succeed and fail each for itself. */
  readonly isBatch: boolean
  readonly defaults: Defaults
}

/**
 * @category guards
 * @since 0.1.0
 */
export const isTask = (u: unknown): u is Any => Predicate.hasProperty(u, TypeId)

/**
 * A named, typed task.
 *
 * @category models
 * @since 0.1.0
 */
export interface Task<
  in out Name extends string,
  in out Payload extends Schema.Top,
  in out Success extends Schema.Top,
  in out Error extends Schema.Top,
  in out Progress extends Schema.Top = Schema.Never
> extends Any {
  readonly name: Name
  readonly payloadSchema: Payload
  readonly successSchema: Success
  readonly errorSchema: Error
  readonly progressSchema: Progress

  /** Describes a job of this task, for `Queue.addMany`; adds nothing yet. */
  readonly request: (
    payload: Payload["~type.make.in"],
    options?: Job.Options
  ) => Request<this>

  /**
   * Implements the task.
   *
   * **Details**
   *
   * The handler is a function, or an effect that makes one (run once, when the
   * layer is built). Its services come from the layer's context; a typed error
   * goes to the `retry` policy; a defect, a timeout or a payload that does not
   * decode is a failed attempt too. It may run more than once for one job.
   */
  readonly toLayer: <R, EX = never, RX = never>(
    handler:
      | HandlerFn<Payload["Type"], Success["Type"], Error["Type"], R, Progress["Type"]>
      | Effect.Effect<HandlerFn<Payload["Type"], Success["Type"], Error["Type"], R, Progress["Type"]>, EX, RX>,
    options?: HandlerOptions<Error["Type"]>
  ) => Layer.Layer<
    Handler<Name>,
    EX,
    | Exclude<R, Scope.Scope>
    | Exclude<RX, Scope.Scope>
    | Payload["DecodingServices"]
    | Success["EncodingServices"]
    | Error["EncodingServices"]
    | Progress["EncodingServices"]
  >
}

/**
 * Runs the entries of one job of a batch task, and answers one exit for each, in their order.
 *
 * @category models
 * @since 0.1.0
 */
export type BatchHandlerFn<Entry, Success, Error, R> = (
  entries: ReadonlyArray<Entry>,
  job: Job.Running
) => Effect.Effect<ReadonlyArray<Exit.Exit<Success, Error>>, Error | Job.Control, R>

/**
 * A task whose payload is an array of entries that succeed and fail each for itself.
 *
 * @category models
 * @since 0.1.0
 */
export interface Batch<
  in out Name extends string,
  in out Entry extends Schema.Top,
  in out Success extends Schema.Top,
  in out Error extends Schema.Top
> extends Any {
  readonly name: Name
  readonly payloadSchema: Schema.$Array<Entry>
  readonly successSchema: Success
  readonly errorSchema: Error
  readonly progressSchema: Schema.Never
  readonly isBatch: true

  /** Describes a job of this task, for `Queue.addMany`; adds nothing yet. */
  readonly request: (
    payload: Schema.$Array<Entry>["~type.make.in"],
    options?: Job.Options
  ) => Request<this>

  /**
   * Implements the task: as `Task.toLayer`, for all entries at once.
   *
   * **Details**
   *
   * The job completes when every exit is a success. Otherwise it fails, its
   * payload keeps only the entries whose exit is a failure (or whose success does
   * not encode), and the `retry` policy is asked about each of these: they are
   * retried together, after the longest of the delays, if one of them is to be
   * retried, and fail for good if none is. When the handler itself fails, all
   * entries have; so they have when a `transactional` handler answers a failure,
   * because that rolls back what the others wrote. A number of exits other than
   * that of the entries is a defect.
   *
   * Adding a job with the key of a waiting one appends the entries to those that
   * wait.
   */
  readonly toLayer: <R, EX = never, RX = never>(
    handler:
      | BatchHandlerFn<Entry["Type"], Success["Type"], Error["Type"], R>
      | Effect.Effect<BatchHandlerFn<Entry["Type"], Success["Type"], Error["Type"], R>, EX, RX>,
    options?: HandlerOptions<Error["Type"]>
  ) => Layer.Layer<
    Handler<Name>,
    EX,
    | Exclude<R, Scope.Scope>
    | Exclude<RX, Scope.Scope>
    | Entry["DecodingServices"]
    | Success["EncodingServices"]
    | Error["EncodingServices"]
  >
}

/**
 * What waiting for a job of this task answers. The entries of a batch task have results of their own, which are not kept.
 *
 * @category utility types
 * @since 0.1.0
 */
export type Success<T extends Any> = T["isBatch"] extends true ? void : T["successSchema"]["Type"]

/**
 * The typed error that waiting for a job of this task fails with.
 *
 * @category utility types
 * @since 0.1.0
 */
export type Error<T extends Any> = T["isBatch"] extends true ? never : T["errorSchema"]["Type"]

/**
 * The handlers that running these tasks requires.
 *
 * @category utility types
 * @since 0.1.0
 */
export type ToHandler<T extends Any> = T extends Any ? Handler<T["name"]> : never

const Proto = {
  [TypeId]: TypeId,
  request(this: Any, payload: unknown, options?: Job.Options): Request<Any> {
    return { task: this, payload, options }
  },
  toLayer(
    this: Any,
    build: HandlerFn<any, any, any, any, any> | Effect.Effect<HandlerFn<any, any, any, any, any>, any, any>,
    options?: HandlerOptions<any>
  ) {
    return Layer.effect(
      handlerKey(this.name),
      Effect.map(
        Effect.all([Effect.context<never>(), Effect.isEffect(build) ? build : Effect.succeed(build)]),
        ([context, handler]): Registration => ({ task: this, handler, context, options: options ?? {} })
      )
    )
  }
}

/**
 * The key under which a task's handler is found in a context.
 *
 * @category services
 * @since 0.1.0
 */
export const handlerKey = <Name extends string>(name: Name): Context.Service<Handler<Name>, Registration> =>
  Context.Service<Handler<Name>, Registration>(`kongtask/Task/${name}`)

/**
 * Defines a task.
 *
 * **Details**
 *
 * `payload` is a schema or the fields of a struct; payload, success, error and
 * progress (what the handler tells by `job.report` while it runs) travel as JSON, through `Schema.toCodecJson`, so that dates, bigints and
 * classes may stand in them. The name is 1 to 128 characters; it is checked when
 * a job is added or a worker starts.
 *
 * **Example**
 *
 * ```ts
 * const SendEmail = Task.make("send_email", {
 *   payload: { to: Schema.String, subject: Schema.String },
 *   success: Schema.Struct({ messageId: Schema.String })
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <
  const Name extends string,
  Payload extends Schema.Top | Schema.Struct.Fields = Schema.Void,
  Success extends Schema.Top = Schema.Void,
  Error extends Schema.Top = Schema.Never,
  Progress extends Schema.Top = Schema.Never
>(
  name: Name,
  options?: {
    readonly payload?: Payload
    readonly success?: Success
    readonly error?: Error
    readonly progress?: Progress
  } & Defaults
): Task<Name, Payload extends Schema.Struct.Fields ? Schema.Struct<Payload> : Payload, Success, Error, Progress> =>
  define(name, schemaOf(options?.payload), false, options)

/**
 * Defines a batch task: the payload is an array of entries, which succeed and
 * fail each for itself; only those that failed are retried. `entry` is a schema
 * or the fields of a struct, `success` and `error` are those of one entry.
 *
 * **Details**
 *
 * On the wire as graphile-worker has it: a payload that is a JSON array.
 *
 * **Example**
 *
 * ```ts
 * const SendEmails = Task.batch("send_emails", { entry: { to: Schema.String }, error: Bounced })
 *
 * const SendEmailsLive = SendEmails.toLayer((entries) =>
 *   Effect.forEach(entries, ({ to }) => Effect.exit(send(to)), { concurrency: 10 })
 * )
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const batch = <
  const Name extends string,
  Entry extends Schema.Top | Schema.Struct.Fields,
  Success extends Schema.Top = Schema.Void,
  Error extends Schema.Top = Schema.Never
>(
  name: Name,
  options: {
    readonly entry: Entry
    readonly success?: Success
    readonly error?: Error
  } & Defaults
): Batch<Name, Entry extends Schema.Struct.Fields ? Schema.Struct<Entry> : Entry, Success, Error> =>
  define(name, Schema.Array(schemaOf(options.entry)), true, options)

const schemaOf = (input: Schema.Top | Schema.Struct.Fields | undefined): Schema.Top =>
  input === undefined ? Schema.Void : Schema.isSchema(input) ? input : Schema.Struct(input)

const define = (
  name: string,
  payloadSchema: Schema.Top,
  isBatch: boolean,
  options:
    | { readonly success?: Schema.Top; readonly error?: Schema.Top; readonly progress?: Schema.Top } & Defaults
    | undefined
) =>
  Object.assign(Object.create(Proto), {
    name,
    payloadSchema,
    successSchema: options?.success ?? Schema.Void,
    errorSchema: options?.error ?? Schema.Never,
    progressSchema: options?.progress ?? Schema.Never,
    isBatch,
    defaults: {
      maxAttempts: options?.maxAttempts,
      priority: options?.priority,
      queueName: options?.queueName,
      retain: options?.retain
    } satisfies Defaults
  })
