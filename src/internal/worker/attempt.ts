/**
 * One attempt at one job, from the claimed row to its settlement:
 * decode the payload, run the handler, encode the result, decide.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import * as Job from "../../Job.ts"
import type { ClaimedJob, Kept, Settlement, Store } from "../../JobStore.ts"
import { isKongTaskError } from "../../KongTaskError.ts"
import * as Retry from "../../Retry.ts"
import type * as Task from "../../Task.ts"
import { carriedBy, spanOf, withoutCarried } from "../carried.ts"
import * as Retention from "../retention.ts"
import * as Failure from "./failure.ts"
import * as Reporter from "./reporter.ts"

const defaultTimeout = Duration.minutes(15)
const maxDelayMillis = Duration.toMillis(Duration.days(365_250))

/** A larger result is not kept. */
const maxResultBytes = 1024 * 1024

/** A registration made ready to run: codecs derived and options resolved once a worker, not once a job. */
export interface Runner {
  readonly attempt: (
    job: ClaimedJob,
    pool: string,
    /** The other jobs of its queue that the pool holds, when it ends. */
    held?: () => ReadonlyArray<Job.JobId>
  ) => Effect.Effect<Ending>
  /** How long an attempt may take, in milliseconds; whoever runs it interrupts it then. */
  readonly timeoutMillis: number
  /** The end of an attempt that was interrupted for that. */
  readonly timedOut: (job: ClaimedJob) => Effect.Effect<Ending>
  /** Whether its jobs may be run in batches that are held by row locks. */
  readonly mayBatch: boolean
  /** For how many milliseconds to keep a job that does not say so itself. */
  readonly retain: (job: ClaimedJob) => number | undefined
}

/** How an attempt ended, and whether that still has to be recorded. */
export interface Ending {
  readonly settlement: Settlement
  /** `undefined`: not yet. A transactional attempt knows: recorded, or never to be, as the job was taken away. */
  readonly isRecorded?: boolean | undefined
}

/** What a worker does around each attempt, its services provided. */
export interface Hooks {
  readonly before?: ((job: Job.Running) => Effect.Effect<void>) | undefined
  readonly after?: ((job: Job.Running, outcome: Job.Outcome) => Effect.Effect<void>) | undefined
  readonly around?: (<A, E, R>(attempt: Effect.Effect<A, E, R>, job: Job.Running) => Effect.Effect<A, E, R>) | undefined
}

export interface RunnerOptions {
  /** The context of the worker's fiber, in which handlers run. */
  readonly workerContext: Context.Context<never>
  readonly completeWith: Store["completeWith"]
  /** How long the commit of a transactional attempt may take. */
  readonly commitTimeout: Duration.Duration
  readonly hooks: Hooks
  readonly report: Store["report"]
  /** For how many milliseconds to keep jobs where neither they nor their task say so. */
  readonly retain: number | undefined
}

export const makeRunner = (
  { context, handler, options, task }: Task.Registration,
  { commitTimeout, completeWith, hooks, report, retain, workerContext }: RunnerOptions
): Runner => {
  const decodePayload = task.payloadSchema.ast._tag === "Void"
    ? () => Effect.undefined
    : Schema.decodeUnknownEffect(Schema.toCodecJson(task.payloadSchema))
  const encodeSuccess = task.successSchema.ast._tag === "Void"
    ? undefined
    : Schema.encodeUnknownEffect(Schema.toCodecJson(task.successSchema))
  const encodeError = Failure.makeEncoder(task.errorSchema)
  const timeout = Duration.fromInputUnsafe(options.timeout ?? defaultTimeout)
  const policy = Retry.toPolicy(options.retry ?? Retry.exponential())
  const onInvalidPayload = options.onInvalidPayload ?? "retry"
  const isTransactional = options.transactional === true
  const reporter = Reporter.make({ schema: task.progressSchema, context, report })

  const retainMillis = task.defaults.retain === undefined ? retain : Retention.retainMillis(task.defaults.retain)
  const retainOf = ({ details }: ClaimedJob) =>
    details?.retains === undefined && retainMillis! > 0 ? retainMillis : undefined

  const checkResult = (success: unknown): Effect.Effect<unknown, Failure.AttemptError, any> =>
    encodeSuccess === undefined
      ? Effect.undefined
      : Effect.mapError(encodeSuccess(success), (error) => new Failure.InvalidResult({ error }))

  /** The result as JSON text, for a job that keeps it. */
  const resultOf = (
    job: ClaimedJob,
    success: unknown
  ): Effect.Effect<string | undefined, Failure.AttemptError, any> => {
    const checked = checkResult(success)
    // A bundle keeps the results of its jobs for as long as it lives itself.
    const isKept = job.bundle !== undefined || (job.details?.retains ?? retainOf(job) !== undefined)
    if (encodeSuccess === undefined || !isKept) {
      return Effect.as(checked, undefined)
    }
    return Effect.flatMap(checked, (encoded) =>
      Effect.try({
        try: () => JSON.stringify(encoded) as string | undefined,
        catch: (cause) => new Failure.InvalidResult({ error: new Error(`it is not JSON: ${String(cause)}`) })
      })).pipe(Effect.flatMap((json) => {
        const bytes = Buffer.byteLength(json ?? "")
        return bytes <= maxResultBytes ? Effect.succeed(json) : Effect.as(
          Effect.logWarning(`A result of ${bytes} bytes is not kept; the limit is ${maxResultBytes}.`),
          undefined
        )
      }))
  }

  /** A batch's entries have each an exit of its own; the job fails when one of them has. */
  const checkBatch = Effect.fnUntraced(function*(entries: number, exits: ReadonlyArray<Exit.Exit<unknown, unknown>>) {
    if (!Array.isArray(exits) || exits.length !== entries) {
      const answered = Array.isArray(exits) ? `${exits.length} exits` : "no array of exits"
      return yield* Effect.die(
        new Error(`The handler of the batch task "${task.name}" answered ${answered} for ${entries} entries`)
      )
    }
    const checked = yield* Effect.forEach(
      exits,
      (exit) =>
        Effect.exit(Effect.flatMap(Effect.mapError(exit, (error) => new Failure.HandlerFailed({ error })), checkResult))
    )
    const failures = checked.flatMap((exit, index) => Exit.isFailure(exit) ? [{ index, cause: exit.cause }] : [])
    if (failures.length > 0) return yield* new Failure.BatchFailed({ entries, failures })
  })

  // A span costs more than all the rest of a short attempt, and without a tracer of the program's nobody sees it.
  const isTraced = Context.get(workerContext, Tracer.Tracer) !== Context.get(Context.empty(), Tracer.Tracer)
  const spanName = `kongtask ${task.name}`
  const base = withoutCarried(Context.merge(workerContext, context))
  const annotations = Context.get(base, References.CurrentLogAnnotations)

  /** Answers the result as JSON text, where it is kept. Calls the handler at once. */
  const handleNow = (job: ClaimedJob): Effect.Effect<string | undefined, Failure.AttemptError, any> =>
    Effect.flatMapEager(
      Effect.mapErrorEager(decodePayload(job.payload), (error) => new Failure.InvalidPayload({ error })),
      (payload): Effect.Effect<string | undefined, Failure.AttemptError, any> => {
        const handled = Effect.mapErrorEager(
          handler(payload, job as ClaimedJob & Job.Reporting<unknown>),
          (error) => new Failure.HandlerFailed({ error })
        )
        return task.isBatch
          ? Effect.as(
            Effect.flatMap(handled, (exits) => checkBatch((payload as ReadonlyArray<unknown>).length, exits)),
            undefined
          )
          : encodeSuccess === undefined
          ? handled
          : Effect.flatMap(handled, (success) => resultOf(job, success))
      }
    )

  const { around, before } = hooks
  const isBare = before === undefined && around === undefined && !isTraced
  const handle = (job: ClaimedJob): Effect.Effect<string | undefined, Failure.AttemptError, any> => {
    if (isBare) return handleNow(job)
    const attempt = Effect.suspend(() => handleNow(job))
    const hooked = before === undefined ? attempt : Effect.andThen(before(job), attempt)
    const wrapped = around === undefined ? hooked : around(hooked, job)
    return isTraced
      ? Effect.withSpan(wrapped, spanName, {
        attributes: { "job.id": job.id, "job.attempt": job.attempt },
        links: linksOf(job)
      })
      : wrapped
  }

  /** The handler with its scope, services and log annotations: what `Effect.scoped` and others do, in one step. */
  const run = (job: ClaimedJob, pool: string): Effect.Effect<string | undefined, Failure.AttemptError> =>
    Effect.withFiber((fiber) => {
      const { context: outer } = fiber
      const scope = Scope.makeUnsafe()
      if (reporter !== undefined) Object.assign(job, { report: reporter(pool, job.id, scope) })
      const log = { ...annotations, task: task.name, job: job.id, attempt: job.attempt }
      // The transaction is in the context that it was begun in.
      const services = isTransactional ? withoutCarried(Context.merge(outer, context)) : base
      const own = Context.add(Context.add(services, Scope.Scope, scope), References.CurrentLogAnnotations, log)
      // Set when the finalizer that sets it back is there, for an interruption may come in between.
      const attempt = Effect.suspend(() => {
        fiber.setContext(carriedBy(job, own) as Context.Context<never>)
        return handle(job)
      }) as Effect.Effect<string | undefined, Failure.AttemptError>
      return Effect.onExitPrimitive(attempt, (exit) => {
        const closing = Scope.closeUnsafe(scope, exit)
        if (closing !== undefined) return Effect.ensuring(closing, Effect.sync(() => fiber.setContext(outer)))
        fiber.setContext(outer)
        return undefined
      })
    })

  const ask = (job: ClaimedJob, error: unknown): Effect.Effect<Retry.Decision> =>
    Effect.suspend(() => policy({ error, attempt: job.attempt, maxAttempts: job.maxAttempts })).pipe(
      Effect.catchCause((defect) =>
        Effect.logError(`The retry policy of task "${task.name}" died; the default one decides.`, defect).pipe(
          Effect.andThen(Retry.exponential()({ error, attempt: job.attempt, maxAttempts: job.maxAttempts }))
        )
      )
    )

  /** The entries of a batch are retried together: when one of them is to be, and after the longest of their delays. */
  const decide = (job: ClaimedJob, cause: Cause.Cause<Failure.AttemptError>): Effect.Effect<Retry.Decision> => {
    if (job.isLastAttempt) return Effect.succeed(Retry.never)
    const failure = Failure.failureOf(cause)
    if (failure?._tag === "InvalidPayload" && onInvalidPayload === "fail") return Effect.succeed(Retry.never)
    if (failure?._tag !== "BatchFailed") return ask(job, Failure.handlerError(cause))
    return Effect.map(
      Effect.forEach(failure.failures, (entry) => ask(job, Failure.handlerError(entry.cause))),
      (decisions) => {
        const delays = decisions.flatMap(({ delay }) => delay === undefined ? [] : [delay])
        return delays.length === 0 ? Retry.never : Retry.after(delays.reduce(Duration.max))
      }
    )
  }

  const failed = Effect.fnUntraced(function*(
    job: ClaimedJob,
    cause: Cause.Cause<Failure.AttemptError>
  ): Effect.fn.Return<Settlement> {
    const control = yield* Effect.catchCause(Effect.sync(() => controlOf(cause)), () => Effect.undefined)
    if (control !== undefined) return settle(job, control, retainOf(job))
    const { delay } = yield* decide(job, cause)
    const { tag, text } = yield* Failure.describe(cause)
    yield* Failure.log(job, tag, delay)
    const failure = Failure.failureOf(cause)
    return {
      _tag: "Failed",
      id: job.id,
      error: text,
      retryIn: delay === undefined ? undefined : boundedMillis(delay),
      retain: retainOf(job),
      record: {
        attempt: job.attempt,
        tag,
        data: yield* Effect.provideContext(encodeError(cause), context) as Effect.Effect<string | undefined>
      },
      // What the others of a transactional batch wrote is rolled back.
      keep: failure?._tag === "BatchFailed" && !isTransactional ? failure.failures.map(({ index }) => index) : undefined
    }
  })

  /** A result of a void task is none, whatever its handler answers. */
  const keepOf = (job: ClaimedJob, result: string | undefined): Kept | undefined => {
    const retain = retainOf(job)
    const kept = encodeSuccess === undefined ? undefined : result
    return kept === undefined && retain === undefined ? undefined : { result: kept, retain }
  }

  const succeeded = (job: ClaimedJob, result: string | undefined): Ending => {
    const keep = keepOf(job, result)
    return {
      settlement: keep === undefined ? { _tag: "Completed", id: job.id } : { _tag: "Completed", id: job.id, keep }
    }
  }
  const hasFailed = (job: ClaimedJob, cause: Cause.Cause<Failure.AttemptError>): Effect.Effect<Ending> =>
    Effect.map(failed(job, cause), (settlement) => ({ settlement }))

  const attempt = (job: ClaimedJob, pool: string, held?: () => ReadonlyArray<Job.JobId>): Effect.Effect<Ending> =>
    isTransactional
      ? completeWith(pool, job.id, run(job, pool), commitTimeout, held, (result) => keepOf(job, result)).pipe(
        Effect.catchIf(isKongTaskError, (error) => Effect.fail(new Failure.TransactionFailed({ error }))),
        Effect.matchCauseEffect({
          onFailure: (cause) => hasFailed(job, cause),
          onSuccess: (value) =>
            Effect.succeed({ ...succeeded(job, Option.getOrUndefined(value)), isRecorded: Option.isSome(value) })
        })
      )
      : Effect.matchCauseEffect(run(job, pool), {
        onFailure: (cause) => hasFailed(job, cause),
        onSuccess: (result) => Effect.succeed(succeeded(job, result))
      })

  const { after } = hooks
  const told = (job: ClaimedJob, ending: Effect.Effect<Ending>): Effect.Effect<Ending> =>
    after === undefined ? ending : Effect.tap(ending, ({ settlement }) => {
      const outcome = outcomeOf(settlement)
      return outcome === undefined ? Effect.void : Effect.catchCause(
        Effect.suspend(() => after(job, outcome)),
        (cause) => Effect.logError(`The hook after job ${job.id} died.`, cause)
      )
    })

  return {
    attempt: (job, pool, held) => told(job, attempt(job, pool, held)),
    timeoutMillis: Duration.toMillis(timeout),
    timedOut: (job) => told(job, Effect.suspend(() => hasFailed(job, Cause.fail(new Failure.TimedOut({ timeout }))))),
    mayBatch: !isTransactional && options.delivery !== "durable",
    retain: retainOf
  }
}

/** To the span in which the job was added. */
const linksOf = ({ details }: ClaimedJob): ReadonlyArray<Tracer.SpanLink> => {
  const span = details?.trace === undefined ? undefined : spanOf(details.trace)
  return span === undefined ? [] : [{ span, attributes: {} }]
}

/** A settlement in the words of users; a release is no outcome. */
const outcomeOf = (settlement: Settlement): Job.Outcome | undefined => {
  switch (settlement._tag) {
    case "Completed":
      return { _tag: "Completed" }
    case "Failed":
      return {
        _tag: "Failed",
        error: settlement.error,
        retryIn: settlement.retryIn === undefined ? undefined : Duration.millis(settlement.retryIn)
      }
    case "Snoozed":
      return { _tag: "Snoozed", delay: Duration.millis(settlement.delay) }
    case "Cancelled":
      return { _tag: "Cancelled", reason: settlement.reason }
    case "Released":
      return undefined
  }
}

const isControl = Schema.is(Schema.Union([Job.Snoozed, Job.Cancelled]))

/** `Job.snooze` and `Job.cancel` travel as failures of the handler. */
const controlOf = (cause: Cause.Cause<Failure.AttemptError>): Job.Control | undefined => {
  const error = Failure.handlerError(cause)
  return isControl(error) ? error : undefined
}

const settle = (job: ClaimedJob, control: Job.Control, retain: number | undefined): Settlement =>
  control._tag === "Cancelled"
    ? {
      _tag: "Cancelled",
      id: job.id,
      reason: control.reason === undefined ? undefined : Failure.storable(control.reason),
      retain
    }
    : { _tag: "Snoozed", id: job.id, attempt: job.attempt, delay: boundedMillis(control.delay) }

/** What the database can add to a time; an infinite delay is a very long one. */
const boundedMillis = (delay: Duration.Duration): number => {
  const millis = Duration.toMillis(delay)
  return Number.isNaN(millis) ? 0 : Math.min(millis, maxDelayMillis)
}
