/** The part of `JobStore` that bundles need. */
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Bundle from "../Bundle.ts"
import type * as Job from "../Job.ts"
import type { JobSpec } from "../JobStore.ts"
import type { KongTaskError } from "../KongTaskError.ts"

type AddError = Job.InvalidJob | Job.DuplicateJobKey | KongTaskError

/**
 * A job to add when a bundle is done. Its payload is made by the store: `{"bundle": summary, "data": …, "outcomes": […]}`,
 * as `Bundle.payload` reads it.
 *
 * @category models
 * @since 0.1.0
 */
export interface CompletionSpec {
  readonly on: "complete" | "success" | "failure"
  /** Its payload is the data, JSON text. */
  readonly spec: JobSpec
  /** The names of the tasks whose outcomes it takes; `undefined` when it gets an empty array. */
  readonly tasks: ReadonlyArray<string> | undefined
}

/**
 * A bundle to add, checked and encoded.
 *
 * @category models
 * @since 0.1.0
 */
export interface BundleSpec {
  readonly name: string | undefined
  readonly origin: string | undefined
  /** For how many milliseconds it is kept when it is done; `undefined` for ever. */
  readonly retain: number | undefined
  readonly completions: ReadonlyArray<CompletionSpec>
  /** One or more, with different keys, each of which is added, whoever has its key, or refused. */
  readonly jobs: ReadonlyArray<JobSpec>
}

/**
 * Which bundles to look at. All given conditions must hold.
 *
 * @category models
 * @since 0.1.0
 */
export interface BundleFilter {
  readonly ids?: ReadonlyArray<Bundle.BundleId> | undefined
  readonly name?: string | undefined
  readonly origin?: string | undefined
  readonly state?: "open" | "done" | undefined
}

/**
 * What became of a job of a bundle: JSON as `Bundle.outcome` reads it, and its place among the others.
 *
 * @category models
 * @since 0.1.0
 */
export interface StoredOutcome {
  readonly place: OutcomePlace
  readonly outcome: unknown
}

/**
 * @category models
 * @since 0.1.0
 */
export interface OutcomePlace {
  readonly job: Job.JobId
  readonly revision: number
}

/**
 * Bundles, as a database keeps them. Whoever ends a job of one, another system and statements by hand included, counts it
 * in the same transaction; the last one adds the completion jobs.
 *
 * @category models
 * @since 0.1.0
 */
export interface Bundling {
  /** Joins the caller's transaction, which a `DuplicateJobKey` leaves usable. One statement. */
  readonly add: (
    spec: BundleSpec
  ) => Effect.Effect<{ readonly bundle: Bundle.Bundle; readonly jobs: ReadonlyArray<Job.Job> }, AddError>
  /** The same for jobs of a bundle that is there. */
  readonly addTo: (
    id: Bundle.BundleId,
    jobs: ReadonlyArray<JobSpec>
  ) => Effect.Effect<
    ReadonlyArray<Job.Job>,
    Bundle.BundleNotFound | Bundle.BundleDone | Bundle.InvalidBundle | AddError
  >
  readonly get: (id: Bundle.BundleId) => Effect.Effect<Option.Option<Bundle.Bundle>, KongTaskError>
  /** In the order of ids, those after `after`. */
  readonly list: (
    filter: BundleFilter,
    page: { readonly limit: number; readonly after?: Bundle.BundleId | undefined }
  ) => Effect.Effect<ReadonlyArray<Bundle.Bundle>, KongTaskError>
  /** Deletes bundles, their outcomes, and their jobs; those that run are told to end. Joins the caller's transaction. */
  readonly remove: (filter: BundleFilter) => Effect.Effect<ReadonlyArray<Bundle.Bundle>, KongTaskError>
  /** What became of the jobs that have stopped, in their order, those after `after`. */
  readonly outcomes: (
    id: Bundle.BundleId,
    page: { readonly limit: number; readonly after?: OutcomePlace | undefined }
  ) => Effect.Effect<ReadonlyArray<StoredOutcome>, KongTaskError>
}
