/**
 * What `Queue.events` tells: jobs and bundles that have stopped, in whatever
 * process they ran.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { Summary } from "./Bundle.ts"
import * as Job from "./Job.ts"

/**
 * A job has stopped for good.
 *
 * @category jobs
 * @since 0.1.0
 */
export class JobStopped extends Schema.TaggedClass<JobStopped>("kongtask/QueueEvent/JobStopped")("JobStopped", {
  job: Job.JobId,
  /** The name of its task. */
  task: Schema.String,
  state: Schema.Literals(["completed", "failed", "cancelled"]),
  bundle: Schema.UndefinedOr(Job.BundleId),
  origin: Schema.UndefinedOr(Schema.String)
}) {}

/**
 * All jobs of a bundle have stopped, and its completion jobs are added.
 *
 * @category bundles
 * @since 0.1.0
 */
export class BundleDone extends Schema.TaggedClass<BundleDone>("kongtask/QueueEvent/BundleDone")("BundleDone", {
  bundle: Summary
}) {}

/**
 * @category schemas
 * @since 0.1.0
 */
export const QueueEvent = Schema.Union([JobStopped, BundleDone])

/**
 * @category models
 * @since 0.1.0
 */
export type QueueEvent = typeof QueueEvent.Type
