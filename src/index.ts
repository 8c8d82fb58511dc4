/**
 * A PostgreSQL job queue for Effect programs.
 *
 * @since 0.1.0
 */
export * as Bundle from "./Bundle.ts"
export * as Crontab from "./Crontab.ts"
export * as Doctor from "./Doctor.ts"
export * as Job from "./Job.ts"
export * as JobMetadata from "./JobMetadata.ts"
export * as JobStore from "./JobStore.ts"
export * as KongTask from "./KongTask.ts"
export { KongTaskLive } from "./KongTask.ts"
export * as KongTaskError from "./KongTaskError.ts"
export * as KongTaskMetrics from "./KongTaskMetrics.ts"
export * as Migrator from "./Migrator.ts"
export * as Queue from "./Queue.ts"
export * as QueueEvent from "./QueueEvent.ts"
export * as Retry from "./Retry.ts"
export * as Scheduler from "./Scheduler.ts"
export * as SchedulerEvent from "./SchedulerEvent.ts"
export * as Task from "./Task.ts"
export * as TaskLoader from "./TaskLoader.ts"
export * as Worker from "./Worker.ts"
export * as WorkerEvent from "./WorkerEvent.ts"
