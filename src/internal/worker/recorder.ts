/**
 * What workers do, as metrics, and which of them are alive: told by events, by
 * outcomes, and by a store that takes the time of its statements. Nothing of it
 * is done for a single job but the update of two series that are kept ready.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import * as Tracer from "effect/Tracer"
import type { Batch, Store, Swept } from "../../JobStore.ts"
import type { PoolStatus } from "../../Worker.ts"
import type { WorkerEvent } from "../../WorkerEvent.ts"
import { machineMillis, machineTime } from "../clock.ts"
import * as Metrics from "../metrics.ts"
import type { Outcome } from "./settler.ts"

type Status =
  | "completed"
  | "failed"
  | "retried"
  | "snoozed"
  | "cancelled"
  | "released"
  | "lost"

/** The series of one task, each made when it is first used. */
interface TaskSeries {
  readonly statuses: Partial<Record<Status, Metric.Counter<number>>>
  readonly duration: Metric.Histogram<number>
  readonly retryAttempts: Metric.Histogram<number>
  readonly decodeErrors: Metric.Counter<number>
}

const makeSeries = (task: string): TaskSeries => ({
  statuses: {},
  duration: Metrics.processingDuration({ task_type: task, operation: "processing" }),
  retryAttempts: Metrics.retryAttempts({ task_type: task }),
  decodeErrors: Metrics.payloadDecodeErrors({ task_type: task })
})

type Operation = "claim" | "settle" | "heartbeat" | "sweep" | "release"

interface PoolRecord extends Omit<PoolStatus, "silent"> {
  state: PoolStatus["state"]
  isListening: boolean
  confirmedAt: number
  readonly heartbeat: Metric.Gauge<number>
  readonly leaseSeconds: Metric.Gauge<number>
  readonly slots: ReadonlyArray<Metric.Gauge<number>>
  readonly concurrency: number
}

/** What the recorder has to know of a worker's settings. */
export interface PoolSettings {
  readonly concurrency: number
  readonly lease: Duration.Duration
}

export interface Recorder {
  /** Takes note of the outcome of an attempt. */
  readonly settled: (outcome: Outcome, isRecorded: boolean) => void
  /** Takes note of what a pool tells. */
  readonly told: (event: WorkerEvent, settings: PoolSettings) => void
  /** The same store, its statements timed, and traced where somebody wants to see spans. */
  readonly observe: (store: Store, workerContext: Context.Context<never>) => Store
  readonly statuses: () => ReadonlyArray<PoolStatus>
}

const statusOf = ({ settlement }: Outcome, isRecorded: boolean): Status => {
  if (!isRecorded) return "lost"
  switch (settlement._tag) {
    case "Completed":
      return "completed"
    case "Failed":
      return settlement.retryIn === undefined ? "failed" : "retried"
    case "Snoozed":
      return "snoozed"
    case "Cancelled":
      return "cancelled"
    case "Released":
      return "released"
  }
}

/** Updates the metrics of the registry in this context. */
export const make = (context: Context.Context<never>): Recorder => {
  const tasks = new Map<string, TaskSeries>()
  const seriesOf = (task: string): TaskSeries => {
    const series = makeSeries(task)
    tasks.set(task, series)
    return series
  }

  const settled: Recorder["settled"] = (outcome, isRecorded) => {
    const { job, millis, settlement } = outcome
    const series = tasks.get(job.task) ?? seriesOf(job.task)
    const status = statusOf(outcome, isRecorded)
    const counter = series.statuses[status] ??= Metrics.processedTasks({ task_type: job.task, status })
    counter.updateUnsafe(1, context)
    if (status !== "released") series.duration.updateUnsafe(millis / 1_000, context)
    if (settlement._tag !== "Failed" || !isRecorded) return
    if (status === "retried") series.retryAttempts.updateUnsafe(job.attempt, context)
    if (settlement.record?.tag === "InvalidPayload") series.decodeErrors.updateUnsafe(1, context)
  }

  const pools = new Map<string, PoolRecord>()
  const states = { running: Metrics.pools({ state: "running" }), stopping: Metrics.pools({ state: "stopping" }) }
  const listening = Metrics.pools({ state: "listening" })
  for (const series of [states.running, states.stopping, listening]) series.modifyUnsafe(0, context)

  const start = (id: string, tasks: ReadonlyArray<string>, { concurrency, lease }: PoolSettings) => {
    const pool: PoolRecord = {
      id,
      tasks,
      concurrency,
      lease,
      state: "running",
      isListening: false,
      confirmedAt: machineMillis(),
      heartbeat: Metrics.lastHeartbeat({ pool: id }),
      leaseSeconds: Metrics.lease({ pool: id }),
      slots: tasks.map((task) => Metrics.workersCount({ task_type: task }))
    }
    pools.set(id, pool)
    states.running.modifyUnsafe(1, context)
    pool.heartbeat.updateUnsafe(machineTime() / 1_000, context)
    pool.leaseSeconds.updateUnsafe(Duration.toSeconds(lease), context)
    for (const slots of pool.slots) slots.modifyUnsafe(concurrency, context)
  }

  const listen = (pool: PoolRecord, isListening: boolean) => {
    if (pool.isListening !== isListening) listening.modifyUnsafe(isListening ? 1 : -1, context)
    pool.isListening = isListening
  }

  const stop = (pool: PoolRecord) => {
    if (pool.state === "stopping") return
    pool.state = "stopping"
    states.running.modifyUnsafe(-1, context)
    states.stopping.modifyUnsafe(1, context)
    for (const slots of pool.slots) slots.modifyUnsafe(-pool.concurrency, context)
  }

  const end = (pool: PoolRecord) => {
    stop(pool)
    listen(pool, false)
    pools.delete(pool.id)
    states.stopping.modifyUnsafe(-1, context)
    Metric.removeUnsafe(pool.heartbeat, context)
    Metric.removeUnsafe(pool.leaseSeconds, context)
  }

  const troubles = {
    DatabaseUnavailable: Metrics.trouble({ kind: "database" }),
    ListenFailed: Metrics.trouble({ kind: "listen" }),
    PoolLost: Metrics.trouble({ kind: "lost" }),
    PoolBlocked: Metrics.trouble({ kind: "blocked" })
  }
  for (const series of Object.values(troubles)) series.updateUnsafe(0, context)
  const recovered = {
    released: Metrics.recoveredJobs({ result: "released" }),
    failed: Metrics.recoveredJobs({ result: "failed" })
  }
  for (const series of Object.values(recovered)) series.updateUnsafe(0, context)
  const recover = ({ failed, released }: Swept) => {
    recovered.released.updateUnsafe(released, context)
    recovered.failed.updateUnsafe(failed, context)
  }

  const told: Recorder["told"] = (event, settings) => {
    const pool = pools.get(event.pool)
    switch (event._tag) {
      case "PoolStarted":
        return start(event.pool, event.tasks, settings)
      case "PoolListening":
        return pool && listen(pool, true)
      case "PoolStopping":
        return pool && stop(pool)
      case "PoolStopped":
        return pool && end(pool)
      case "ListenFailed":
        if (pool !== undefined) listen(pool, false)
        return troubles.ListenFailed.updateUnsafe(1, context)
      case "PoolLost":
        if (pool !== undefined) end(pool)
        return troubles.PoolLost.updateUnsafe(1, context)
      case "DatabaseUnavailable":
      case "PoolBlocked":
        return troubles[event._tag].updateUnsafe(1, context)
      case "PoolsReleased":
        return recover(event.recovery)
      case "LocksSwept":
        return recover(event.swept)
    }
  }

  const beat = (id: string) => {
    const pool = pools.get(id)
    if (pool === undefined) return
    pool.confirmedAt = machineMillis()
    pool.heartbeat.updateUnsafe(machineTime() / 1_000, context)
  }

  return {
    settled,
    told,
    observe: (store, workerContext) => observe(store, workerContext, context, beat),
    statuses: () =>
      Array.from(pools.values(), ({ confirmedAt, id, isListening, lease, state, tasks }) => ({
        id,
        tasks,
        state,
        isListening,
        lease,
        silent: Duration.millis(machineMillis() - confirmedAt)
      }))
  }
}

const observe = (
  store: Store,
  workerContext: Context.Context<never>,
  context: Context.Context<never>,
  beat: (pool: string) => void
): Store => {
  // A span that nobody sees costs as much as one that somebody does.
  const isTraced = Context.get(workerContext, Tracer.Tracer) !== Context.get(Context.empty(), Tracer.Tracer)

  const series = (operation: Operation) => ({
    success: Metrics.operations({ operation, status: "success" }),
    failure: Metrics.operations({ operation, status: "failure" }),
    duration: Metrics.operationDuration({ operation })
  })
  const all: Record<Operation, ReturnType<typeof series>> = {
    claim: series("claim"),
    settle: series("settle"),
    heartbeat: series("heartbeat"),
    sweep: series("sweep"),
    release: series("release")
  }

  const timed = <A, E, R>(operation: Operation, statement: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.suspend(() => {
      const startedAt = machineMillis()
      const { duration, failure, success } = all[operation]
      return Effect.onExit(statement, (exit) => {
        if (Exit.isSuccess(exit) || !Cause.hasInterruptsOnly(exit.cause)) {
          duration.updateUnsafe((machineMillis() - startedAt) / 1_000, context)
          const counter = Exit.isSuccess(exit) ? success : failure
          counter.updateUnsafe(1, context)
        }
        return Effect.void
      })
    })

  const traced = <A, E, R>(
    name: string,
    attributes: Readonly<Record<string, unknown>>,
    statement: Effect.Effect<A, E, R>
  ): Effect.Effect<A, E, R> =>
    isTraced
      ? Effect.withSpan(statement, name, { kind: "client", attributes }) as Effect.Effect<A, E, R>
      : statement

  const sizes = { durable: Metrics.claimSize({ lane: "durable" }), fast: Metrics.claimSize({ lane: "fast" }) }
  const took = (lane: keyof typeof sizes, jobs: number): Effect.Effect<void> => {
    if (jobs > 0) sizes[lane].updateUnsafe(jobs, context)
    return isTraced ? Effect.annotateCurrentSpan("kongtask.jobs", jobs) : Effect.void
  }

  const batchOf = (pool: string, batch: Batch): Batch => ({
    ...batch,
    settle: (settlements, next) =>
      traced(
        "kongtask settle",
        { "kongtask.pool": pool, "kongtask.lane": "fast", "kongtask.jobs": settlements.length },
        Effect.map(timed("settle", batch.settle(settlements, next)), (settled) => {
          if (settled.next === undefined) return settled
          if (settled.next.count > 0) sizes.fast.updateUnsafe(settled.next.count, context)
          return { ...settled, next: batchOf(pool, settled.next) }
        })
      )
  })

  return {
    ...store,
    claim: (request) =>
      traced(
        "kongtask claim",
        { "kongtask.pool": request.pool, "kongtask.lane": "durable" },
        Effect.tap(timed("claim", store.claim(request)), ({ heartbeat, jobs }) => {
          if (heartbeat?.isAlive === true) beat(request.pool)
          return took("durable", jobs.length)
        })
      ),
    batch: (request) =>
      traced(
        "kongtask claim",
        { "kongtask.pool": request.pool, "kongtask.lane": "fast" },
        Effect.tap(timed("claim", store.batch(request)), ({ count }) => took("fast", count))
      ).pipe(Effect.map((batch) => batchOf(request.pool, batch))),
    settle: (pool, settlements, held) =>
      traced(
        "kongtask settle",
        { "kongtask.pool": pool, "kongtask.lane": "durable", "kongtask.jobs": settlements.length },
        timed("settle", store.settle(pool, settlements, held))
      ),
    heartbeat: (pool) =>
      Effect.tap(timed("heartbeat", store.heartbeat(pool)), ({ isAlive }) => {
        if (isAlive) beat(pool)
        return Effect.void
      }),
    sweep: (lease) => timed("sweep", store.sweep(lease)),
    releasePools: (pools) => timed("release", store.releasePools(pools))
  }
}
