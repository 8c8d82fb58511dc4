/**
 * Every metric, by its name, and the making of its series. A series is made
 * with its labels once, and kept by whoever updates it: looking labels up at
 * each update would cost more than the update.
 */
import * as Metric from "effect/Metric"

type Labels = Readonly<Record<string, string>>

const counter = (name: string, description: string) => (labels?: Labels): Metric.Counter<number> =>
  Metric.counter(name, { description, incremental: true, attributes: labels })

const gauge = (name: string, description: string) => (labels?: Labels): Metric.Gauge<number> =>
  Metric.gauge(name, { description, attributes: labels })

const histogram =
  (name: string, description: string, boundaries: ReadonlyArray<number>) =>
  (labels?: Labels): Metric.Histogram<number> => Metric.histogram(name, { description, boundaries, attributes: labels })

const durations = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 30, 300]

export const processedTasks = counter(
  "kongtask_processed_tasks_total",
  "Attempts that have ended, by task and outcome."
)

export const processingDuration = histogram(
  "kongtask_task_processing_duration_seconds",
  "How long attempts took, from the start of the handler to its outcome.",
  durations
)

export const retryAttempts = histogram(
  "kongtask_task_retry_attempts",
  "Which attempt it was, of those that failed and are to be repeated.",
  [1, 2, 3, 5, 10, 15, 20, 30, 50]
)

export const payloadSize = histogram(
  "kongtask_task_payload_size_bytes",
  "The payloads of added jobs, as JSON.",
  [100, 500, 1_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000]
)

export const payloadDecodeErrors = counter(
  "kongtask_payload_decode_errors_total",
  "Attempts that failed because the payload did not fit the task's schema."
)

export const workersCount = gauge(
  "kongtask_processors_workers_count",
  "How many handlers may run at once in this process: the concurrency of its running pools, for each of their tasks."
)

export const operations = counter(
  "kongtask_operations_total",
  "Statements of the workers' own, by kind and whether they succeeded."
)

export const operationDuration = histogram(
  "kongtask_operation_duration_seconds",
  "How long the workers' own statements took.",
  durations
)

export const claimSize = histogram(
  "kongtask_claim_size",
  "How many jobs a claim that found some has got, by the lane that they go.",
  [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000]
)

export const pools = gauge("kongtask_pools", "Workers of this process, by what they are about.")

export const lastHeartbeat = gauge(
  "kongtask_last_heartbeat_timestamp_seconds",
  "When each pool has last confirmed its lease, in seconds since the epoch."
)

export const lease = gauge("kongtask_lease_seconds", "How long each pool may be silent before it counts as dead.")

export const trouble = counter(
  "kongtask_pool_trouble_total",
  "What has gone wrong for pools of this process: database, listen, lost, blocked."
)

export const recoveredJobs = counter(
  "kongtask_recovered_jobs_total",
  "Jobs that this process took from dead holders: released to run again, or failed."
)

export const queueDepth = gauge("kongtask_queue_depth", "Jobs in the database, by task and state.")

export const oldestReady = gauge(
  "kongtask_oldest_ready_job_age_seconds",
  "For how long the oldest job of a task that could run has been due."
)

export const depthMeasured = gauge(
  "kongtask_queue_measured_timestamp_seconds",
  "When the depth of queues was last measured by this process, in seconds since the epoch."
)

export const depthIsPartial = gauge(
  "kongtask_queue_depth_is_partial",
  "1 when there were more jobs than one measurement reads, so that the depths are lower bounds."
)

/** All of them, for the documentation and whoever checks it. */
export const all = [
  processedTasks,
  processingDuration,
  retryAttempts,
  payloadSize,
  payloadDecodeErrors,
  workersCount,
  operations,
  operationDuration,
  claimSize,
  pools,
  lastHeartbeat,
  lease,
  trouble,
  recoveredJobs,
  queueDepth,
  oldestReady,
  depthMeasured,
  depthIsPartial
]
