/**
 * What workers do, as metrics, and which of them are alive: told by events, by
 * outcomes, and by a store that takes the time of its statements. Nothing of it
 * is done for a single job but the update of two series that are kept ready.
 */
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Metric from "effect/Metric"
import type { Store, Swept } from "../../JobStore.ts"
import type { PoolStatus } from "../../Worker.ts"
import type { WorkerEvent } from "../../WorkerEvent.ts"
import { machineMillis, machineTime } from "../clock.ts"
import * as Metrics from "../metrics.ts"
import * as Observed from "./observed.ts"
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

/** Counts outcomes, by task. */
const makeOutcomes = (context: Context.Context<never>): Recorder["settled"] => {
  const tasks = new Map<string, TaskSeries>()
  const seriesOf = (task: string): TaskSeries => {
    const series = makeSeries(task)
    tasks.set(task, series)
    return series
  }

  return (outcome, isRecorded) => {
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
}

/** Which pools are running. */
const makePools = (context: Context.Context<never>) => {
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

  const beat = (id: string) => {
    const pool = pools.get(id)
    if (pool === undefined) return
    pool.confirmedAt = machineMillis()
    pool.heartbeat.updateUnsafe(machineTime() / 1_000, context)
  }

  const statuses = (): ReadonlyArray<PoolStatus> =>
    Array.from(pools.values(), ({ confirmedAt, id, isListening, lease, state, tasks }) => ({
      id,
      tasks,
      state,
      isListening,
      lease,
      silent: Duration.millis(machineMillis() - confirmedAt)
    }))

  return { start, listen, stop, end, beat, statuses, find: (id: string) => pools.get(id) }
}

/** What goes wrong, and what is done about it. */
const makeTroubles = (context: Context.Context<never>) => {
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

  return { troubles, recover }
}

/** Updates the metrics of the registry in this context. */
export const make = (context: Context.Context<never>): Recorder => {
  const pools = makePools(context)
  const { recover, troubles } = makeTroubles(context)

  const told: Recorder["told"] = (event, settings) => {
    const pool = pools.find(event.pool)
    switch (event._tag) {
      case "PoolStarted":
        return pools.start(event.pool, event.tasks, settings)
      case "PoolListening":
        return pool && pools.listen(pool, true)
      case "PoolStopping":
        return pool && pools.stop(pool)
      case "PoolStopped":
        return pool && pools.end(pool)
      case "ListenFailed":
        if (pool !== undefined) pools.listen(pool, false)
        return troubles.ListenFailed.updateUnsafe(1, context)
      case "PoolLost":
        if (pool !== undefined) pools.end(pool)
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

  return {
    settled: makeOutcomes(context),
    told,
    observe: (store, workerContext) => Observed.make({ store, workerContext, context, onBeat: pools.beat }),
    statuses: pools.statuses
  }
}
