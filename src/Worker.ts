/**
 * Running jobs: a worker is a scoped fiber that claims jobs of its tasks and
 * runs their handlers; interrupting it is the graceful shutdown.
 *
 * **Shutdown**
 *
 * On interruption it stops claiming, waits for running handlers up to
 * `shutdownTimeout`, interrupts those that are left (their finalizers run) and
 * gives their jobs back uncharged, records every outcome, and takes its leave.
 *
 * **Delivery**
 *
 * At least once. A job is claimed by a committed write before its handler starts,
 * so that after a crash at most the jobs that were running, not yet recorded, or
 * claimed ahead (about 100 ms of work, none on its last attempt) run again, each
 * charged one attempt. Jobs of tasks that take a few milliseconds at most run in
 * batches that are held by row locks instead (`delivery`): after a crash up to two
 * batches, of 1,000 jobs each at most, run again.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { randomBytes } from "node:crypto"
import { isBadFlag, taskNameProblem } from "./internal/jobSpec.ts"
import { retainMillis, retainProblem } from "./internal/retention.ts"
import * as Attempt from "./internal/worker/attempt.ts"
import * as NodeTime from "./internal/worker/nodeTime.ts"
import * as Pool from "./internal/worker/pool.ts"
import * as Recorder from "./internal/worker/recorder.ts"
import { Runners } from "./internal/worker/runners.ts"
import * as Signals from "./internal/worker/signals.ts"
import type * as Job from "./Job.ts"
import * as JobStore from "./JobStore.ts"
import { InvalidConfiguration, KongTaskError } from "./KongTaskError.ts"
import * as Task from "./Task.ts"
import type { WorkerEvent } from "./WorkerEvent.ts"

/**
 * @category models
 * @since 0.1.0
 */
export interface Options<T extends Task.Any, R = never> {
  /** The tasks whose jobs it runs, each with its handler's layer provided. */
  readonly tasks: ReadonlyArray<T>
  /**
   * Handlers that take the place of all others, those of `tasks` included, each time it has some: the tasks that are
   * claimed and the handlers of attempts that begin from then on. Attempts that run end as they are. For what
   * `TaskLoader.watch` loads. Default: none.
   */
  readonly replacements?: Stream.Stream<ReadonlyArray<Task.Registration>, never, R> | undefined
  /** How many handlers run at once, 1 to 10,000. Default: 10. */
  readonly concurrency?: number | undefined
  /** How often to look for jobs when nothing announces them; up to a fifth longer, at random. 10 ms or more. Default: 2 seconds. */
  readonly pollInterval?: Duration.Input | undefined
  /** How long running handlers may go on after the interruption. Default: 20 seconds. */
  readonly shutdownTimeout?: Duration.Input | undefined
  /** How often the pool confirms that it is alive. At most a third of `lease`. Default: 10 seconds. */
  readonly heartbeatInterval?: Duration.Input | undefined
  /** How long the pool may be silent before others release its jobs. Default: 60 seconds. */
  readonly lease?: Duration.Input | undefined
  /** Whether to be told of new jobs (LISTEN). Turn it off behind a transaction-mode pooler. Default: true. */
  readonly listen?: boolean | undefined
  /**
   * Jobs with one of these flags are left for others. An effect is evaluated before a claim, and what it answers is kept
   * for `forbiddenFlagsTtl`. A claim looks past 1,000 forbidden jobs of each task and priority from the oldest on,
   * past as many from a place that it draws anew, and past 500 of each named queue: jobs behind more of them have to wait
   * for several claims. Default: none.
   */
  readonly forbiddenFlags?: ReadonlyArray<string> | Effect.Effect<ReadonlyArray<string>, never, R> | undefined
  /** How long the answer of an effect `forbiddenFlags` is good for; 0 evaluates it before each claim. Default: 1 second. */
  readonly forbiddenFlagsTtl?: Duration.Input | undefined
  /**
   * How the jobs of its tasks are held while they run: `"durable"` turns batches off for all of them; see
   * `Task.HandlerOptions`. Forbidden flags turn them off too. Default: `"auto"`.
   */
  readonly delivery?: "auto" | "durable" | undefined
  /**
   * For how long the history keeps jobs that it ends, with their results, where neither they nor their task say so; at
   * most 1,000 years, which an infinite duration stands for. Default: not at all.
   */
  readonly retain?: Duration.Input | undefined
  /**
   * Whether due times go by Effect's Clock, that of the process or a test's, instead of the database's: which jobs it claims,
   * and when retries and snoozed jobs are due. Leases and locks, what `Queue` adds and the states that it answers stay
   * with the database's clock. Costs no statement. Default: false.
   */
  readonly useNodeTime?: boolean | undefined
  /** What is done around each attempt. Default: nothing. */
  readonly hooks?: Hooks<R> | undefined
  /**
   * Whether `run` turns SIGTERM and SIGINT into its own interruption. A second signal ends the time that running handlers
   * have, a third one the process (not under `NodeRuntime.runMain`, which goes on listening). Default: true.
   */
  readonly handleSignals?: boolean | undefined
}

/**
 * What a worker does around each attempt of its jobs, whatever their task.
 *
 * **Details**
 *
 * They run in the attempt's fiber, one after the other with its handler, and may be
 * interrupted with it. To watch without any influence, there are `Worker.events`.
 *
 * **Example**
 *
 * ```ts
 * const timed: Worker.Hooks = {
 *   around: (attempt, job) => Effect.annotateLogs(attempt, "queue", job.queueName ?? "none")
 * }
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export interface Hooks<R = never> {
  /** Before the payload is decoded. A defect fails the attempt, and its handler does not start. */
  readonly before?: ((job: Job.Running) => Effect.Effect<void, never, R>) | undefined
  /**
   * When the attempt has ended by itself, before its outcome is recorded (after it where the handler is transactional and
   * has succeeded); not when it was interrupted by a shutdown, a lost lease or `Queue.cancel`. A defect is logged and changes nothing.
   */
  readonly after?: ((job: Job.Running, outcome: Job.Outcome) => Effect.Effect<void, never, R>) | undefined
  /** Wraps `before`, the decoding and the handler; what it fails with is the attempt's failure. */
  readonly around?:
    | (<A, E, R2>(attempt: Effect.Effect<A, E, R2>, job: Job.Running) => Effect.Effect<A, E, R2 | R>)
    | undefined
}

/**
 * What a `runOnce` did.
 *
 * @category models
 * @since 0.1.0
 */
export interface Summary {
  /** Jobs that completed. */
  readonly completed: number
  /** Jobs that failed for good. */
  readonly failed: number
  /** Failed attempts whose job is tried again. */
  readonly retried: number
  readonly snoozed: number
  readonly cancelled: number
  /** Attempts whose outcome was not recorded, because the job had been taken away. */
  readonly lost: number
}

/**
 * A running worker, as its process sees it.
 *
 * @category models
 * @since 0.1.0
 */
export interface PoolStatus {
  readonly id: string
  readonly tasks: ReadonlyArray<string>
  /** `running` from when it is registered until it is asked to stop. */
  readonly state: "running" | "stopping"
  /** Whether it is told of new jobs; otherwise it polls. */
  readonly isListening: boolean
  readonly lease: Duration.Duration
  /** How long ago it has confirmed its lease. */
  readonly silent: Duration.Duration
}

type Counter = { -readonly [Outcome in keyof Summary]: Summary[Outcome] }

const count = (counter: Counter, settlement: JobStore.Settlement, isRecorded: boolean) => {
  if (!isRecorded) counter.lost++
  else if (settlement._tag === "Completed") counter.completed++
  else if (settlement._tag === "Snoozed") counter.snoozed++
  else if (settlement._tag === "Cancelled") counter.cancelled++
  else if (settlement._tag === "Failed" && settlement.retryIn === undefined) counter.failed++
  else if (settlement._tag === "Failed") counter.retried++
}

/** Events that nobody reads fast enough are dropped, the oldest first. */
const eventBuffer = 16_384

const invalid = (field: string, problem: string) =>
  new KongTaskError({ reason: new InvalidConfiguration({ field, problem }) })

const duration = Effect.fnUntraced(
  function*(field: string, input: Duration.Input | undefined, fallback: Duration.Duration, minimum = Duration.zero) {
    const value = input === undefined ? fallback : Duration.fromInput(input)
    const decoded = Duration.isDuration(value) ? value : value._tag === "Some" ? value.value : undefined
    return decoded !== undefined && Duration.isFinite(decoded) && !Duration.isLessThan(decoded, minimum)
      ? decoded
      : yield* invalid(field, `must be a finite duration of at least ${Duration.format(minimum)}`)
  }
)

const checkFlags = Effect.fnUntraced(function*(flags: ReadonlyArray<string>) {
  return Array.isArray(flags) && !flags.some(isBadFlag)
    ? flags
    : yield* invalid("forbiddenFlags", "must be strings of at least one character, without NUL or half surrogate pairs")
})

/** The flags that a claim is to pass over, asked for as seldom as the options allow. */
const makeForbiddenFlags = Effect.fnUntraced(function*<R>(options: Options<Task.Any, R>) {
  const ttl = yield* duration("forbiddenFlagsTtl", options.forbiddenFlagsTtl, Duration.seconds(1))
  const given = options.forbiddenFlags ?? []
  const context = yield* Effect.context<R>()
  const flags = Effect.isEffect(given) ? Effect.provideContext(given, context) : Effect.succeed(given)
  return yield* Effect.cachedWithTTL(Effect.flatMap(flags, checkFlags), ttl)
})

const settings = Effect.fnUntraced(function*<R>(options: Options<Task.Any, R>) {
  const concurrency = options.concurrency ?? 10
  if (!Number.isInteger(concurrency) || concurrency < 1 || concurrency > 10_000) {
    return yield* invalid("concurrency", `must be a whole number from 1 to 10000, not ${concurrency}`)
  }
  if (options.tasks.length === 0) return yield* invalid("tasks", "must name at least one task")
  const names = new Set<string>()
  for (const { name } of options.tasks) {
    const problem = taskNameProblem(name)
    if (problem !== undefined) return yield* invalid("tasks", `has the name "${name}", which ${problem.problem}`)
    if (names.has(name)) return yield* invalid("tasks", `names the task "${name}" twice`)
    names.add(name)
  }
  const lease = yield* duration("lease", options.lease, Duration.seconds(60), Duration.seconds(1))
  const heartbeatInterval = yield* duration(
    "heartbeatInterval",
    options.heartbeatInterval,
    Duration.millis(
      Math.min(10_000, Duration.toMillis(lease) / 3)
    ),
    Duration.millis(100)
  )
  if (Duration.toMillis(heartbeatInterval) * 3 > Duration.toMillis(lease)) {
    return yield* invalid("heartbeatInterval", `must be at most a third of the lease of ${Duration.format(lease)}`)
  }
  return {
    concurrency,
    lease,
    heartbeatInterval,
    pollInterval: yield* duration("pollInterval", options.pollInterval, Duration.seconds(2), Duration.millis(10)),
    shutdownTimeout: yield* duration("shutdownTimeout", options.shutdownTimeout, Duration.seconds(20)),
    listen: options.listen ?? true,
    mayBatch: options.delivery !== "durable"
  } satisfies Pool.Settings
})

const retainOf = Effect.fnUntraced(function*({ retain, tasks }: Pick<Options<Task.Any>, "retain" | "tasks">) {
  for (const given of [retain, ...tasks.map(({ defaults }) => defaults.retain)]) {
    const problem = retainProblem(given)
    if (problem !== undefined) return yield* invalid("retain", problem.problem)
  }
  return retain === undefined ? undefined : retainMillis(retain)
})

/** The prefix says that the pool is one of ours, with a heartbeat; graphile-worker's pools have none. */
const makePoolId = Effect.sync(() => `kongtask-${randomBytes(9).toString("hex")}`)

/**
 * @category services
 * @since 0.1.0
 */
export class Worker extends Context.Service<Worker, {
  /**
   * Claims and runs jobs until interrupted.
   *
   * **Details**
   *
   * Opens up to 4 connections of its own, derived from the `PgClient` that the
   * queue was built from; handlers never see them. While the database is away it
   * waits and keeps the outcomes; it fails only for what waiting does not cure,
   * such as a missing schema or a lost privilege.
   */
  readonly run: <T extends Task.Any, R = never>(
    options: Options<T, R>
  ) => Effect.Effect<never, KongTaskError, Task.ToHandler<T> | R>

  /**
   * Runs jobs until none is due and none is running, then counts the outcomes.
   *
   * **Details**
   *
   * Jobs whose time comes later, retries among them, are left for another run.
   */
  readonly runOnce: <T extends Task.Any, R = never>(
    options: Options<T, R>
  ) => Effect.Effect<Summary, KongTaskError, Task.ToHandler<T> | R>

  /**
   * What all workers of this service do, from the moment of subscription on; a
   * reader that falls behind by 16,384 events misses the oldest.
   */
  readonly events: Stream.Stream<WorkerEvent>

  /** The workers of this service that run now, and how long ago each has confirmed its lease. Asks no database. */
  readonly pools: Effect.Effect<ReadonlyArray<PoolStatus>>

  /**
   * Counts the jobs of each task and state, unless any process has done so within `unlessWithin`: then it answers `None`
   * after one small statement. Reads a million jobs at most.
   */
  readonly measure: (unlessWithin: Duration.Duration) => Effect.Effect<Option.Option<JobStore.Depths>, KongTaskError>
}>()("kongtask/Worker") {
  static readonly layer: Layer.Layer<Worker, never, JobStore.JobStore> = Layer.effect(
    Worker,
    Effect.gen(function*() {
      const store = yield* JobStore.JobStore
      const events = yield* PubSub.sliding<WorkerEvent>(eventBuffer)
      const recorder = Recorder.make(yield* Effect.context<never>())
      const runPool = Effect.fnUntraced(function*<T extends Task.Any, R>(
        options: Options<T, R>,
        once: boolean,
        hurry: Effect.Effect<void>
      ) {
        const resolved = yield* settings(options)
        const retain = yield* retainOf(options)
        const clock = options.useNodeTime === true ? yield* Clock.Clock : undefined
        const own = yield* store.dedicated
        const dedicated = clock === undefined ? own : NodeTime.make(own, clock)
        const context = yield* Effect.context<Task.ToHandler<T> | R>()
        const hooks = provideHooks(options.hooks ?? {}, context)
        let registrations: ReadonlyArray<Task.Registration> = options.tasks.map((task) =>
          Context.getUnsafe(context, Task.handlerKey(task.name) as never)
        )
        let replace = () => {}
        if (options.replacements !== undefined && !once) {
          yield* options.replacements.pipe(
            Stream.runForEach((next) =>
              Effect.sync(() => {
                registrations = next
                replace()
              })
            ),
            Effect.forkScoped
          )
        }
        const makeRunners = (workerContext: Context.Context<never>) => {
          const runners = new Runners()
          replace = () =>
            runners.replace(registrations.map((registration) => [
              registration.task.name,
              Attempt.makeRunner(registration, {
                completeWith: store.completeWith,
                commitTimeout: Duration.divideUnsafe(resolved.lease, 2),
                hooks,
                report: dedicated.report,
                retain,
                workerContext
              })
            ]))
          replace()
          return runners
        }
        const forbiddenFlags = yield* makeForbiddenFlags(options)
        const legacy: Pool.PoolOptions["legacy"] = []
        const summary: Counter = { completed: 0, failed: 0, retried: 0, snoozed: 0, cancelled: 0, lost: 0 }
        while (true) {
          const id = yield* makePoolId
          const end = yield* Effect.contextWith((workerContext: Context.Context<never>) =>
            Pool.run({
              id,
              store: recorder.observe(dedicated, workerContext),
              runners: makeRunners(workerContext),
              settings: resolved,
              forbiddenFlags,
              once,
              hurry,
              legacy,
              publish: (event) => {
                recorder.told(event, resolved)
                PubSub.publishUnsafe(events, event)
              },
              isHeard: () => events.subscribers.size > 0,
              tally: (outcome, isRecorded) => {
                count(summary, outcome.settlement, isRecorded)
                recorder.settled(outcome, isRecorded)
              }
            })
          ).pipe(
            Effect.annotateLogs({ pool: id }),
            Effect.scoped
          )
          if (end === "Drained") return summary
        }
      }, Effect.scoped)

      return Worker.of({
        run: (options) =>
          options.handleSignals === false
            ? Effect.andThen(runPool(options, false, Effect.never), Effect.never)
            : interruptedBySignals((hurry) => Effect.andThen(runPool(options, false, hurry), Effect.never)),
        runOnce: (options) => runPool(options, true, Effect.never),
        events: Stream.fromPubSub(events),
        pools: Effect.sync(recorder.statuses),
        measure: store.measure
      })
    })
  )
}

const provideHooks = <R>({ after, around, before }: Hooks<R>, context: Context.Context<R>): Attempt.Hooks => ({
  before: before === undefined ? undefined : (job) => Effect.provideContext(before(job), context),
  after: after === undefined ? undefined : (job, outcome) => Effect.provideContext(after(job, outcome), context),
  around: around === undefined
    ? undefined
    : (attempt, job) =>
      Effect.contextWith((inner) => Effect.provideContext(around(attempt, job), Context.merge(context, inner)))
})

/** What `self` gets is the second signal. */
const interruptedBySignals = <E, R>(
  self: (hurry: Effect.Effect<void>) => Effect.Effect<never, E, R>
): Effect.Effect<never, E, R> =>
  Effect.withFiber<never, E, R | Scope.Scope>((fiber) =>
    Effect.gen(function*() {
      const signals = yield* Signals.listen
      yield* signals.first.pipe(
        Effect.tap((signal) => Effect.logInfo(`Received ${signal}: finishing the running jobs.`)),
        Effect.andThen(Effect.sync(() => fiber.interruptUnsafe())),
        Effect.forkScoped({ startImmediately: true })
      )
      return yield* self(signals.second)
    })
  ).pipe(Effect.scoped)

/**
 * Runs a worker until it is interrupted: `Worker.run` of the service.
 *
 * **Example**
 *
 * ```ts
 * const worker = Worker.run({ tasks: [SendEmail], concurrency: 10 }).pipe(
 *   Effect.provide([SendEmailLive, KongTaskLive])
 * )
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const run = <T extends Task.Any, R = never>(
  options: Options<T, R>
): Effect.Effect<never, KongTaskError, Worker | Task.ToHandler<T> | R> =>
  Effect.flatMap(Worker, (worker) => worker.run(options))

/**
 * Runs what is due and stops: `Worker.runOnce` of the service.
 *
 * @category accessors
 * @since 0.1.0
 */
export const runOnce = <T extends Task.Any, R = never>(
  options: Options<T, R>
): Effect.Effect<Summary, KongTaskError, Worker | Task.ToHandler<T> | R> =>
  Effect.flatMap(Worker, (worker) => worker.runOnce(options))

/**
 * A worker for as long as the layer lives, beside the rest of a program.
 *
 * **Gotchas**
 *
 * A worker that fails after its start cannot fail the layer any more; it is
 * logged as an error. Signals are the program's own matter here.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <T extends Task.Any, R = never>(
  options: Omit<Options<T, R>, "handleSignals">
): Layer.Layer<never, never, Worker | Task.ToHandler<T> | R> =>
  run({ ...options, handleSignals: false }).pipe(
    Effect.tapCause((cause) => Effect.logError("The worker has stopped.", cause)),
    Effect.forkScoped,
    Layer.effectDiscard
  )
