/**
 * Values that travel with jobs: what is in the context where a job is added is
 * there again in its handler. For what cuts across tasks: a tenant, a user, a
 * request's number.
 *
 * **Example**
 *
 * ```ts
 * const program = Queue.add(SendEmail, email).pipe(JobMetadata.annotate({ tenant: "acme" }))
 *
 * const SendEmailLive = SendEmail.toLayer(
 *   Effect.fn(function*(email) {
 *     const { tenant } = yield* JobMetadata.JobMetadata
 *     yield* send(email, String(tenant))
 *   })
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import type * as Schema from "effect/Schema"

/**
 * @category models
 * @since 0.1.0
 */
export interface Values extends Readonly<Record<string, Schema.Json>> {}

/**
 * The values of the jobs that are added here; in a handler, those of its job, so
 * that jobs which the handler adds have them too.
 *
 * **Details**
 *
 * At most 16 KiB of JSON in all; more, and values that are not JSON, are an
 * `InvalidJob`. A job has a row of its own for them, one write more. Jobs that
 * are added from SQL, and those of schedules, have none.
 *
 * @category references
 * @since 0.1.0
 */
export const JobMetadata: Context.Reference<Values> = Context.Reference<Values>("kongtask/JobMetadata", {
  defaultValue: () => ({})
})

/**
 * Adds values to those that are there, for the jobs that the effect adds.
 *
 * @category combinators
 * @since 0.1.0
 */
export const annotate: {
  (values: Values): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(effect: Effect.Effect<A, E, R>, values: Values): Effect.Effect<A, E, R>
} = dual(
  2,
  <A, E, R>(effect: Effect.Effect<A, E, R>, values: Values): Effect.Effect<A, E, R> =>
    Effect.updateContext(
      effect,
      (context: Context.Context<R>) =>
        Context.add(context, JobMetadata, { ...Context.get(context, JobMetadata), ...values })
    )
)
