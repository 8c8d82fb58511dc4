/** The part of `JobStore` that listeners need. */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import type * as Job from "../Job.ts"
import type { KongTaskError } from "../KongTaskError.ts"

/**
 * Which jobs and bundles a listener is told of. All given conditions must hold.
 *
 * @category models
 * @since 0.1.0
 */
export interface ListenerFilter {
  /** The names of the jobs' tasks; a bundle has none. */
  readonly tasks?: ReadonlyArray<string> | undefined
  readonly bundle?: Job.BundleId | undefined
  /** The bundle's name; a job has none. */
  readonly bundleName?: string | undefined
  readonly origin?: string | undefined
}

/**
 * An event that is kept for a listener: JSON as `QueueEvent` reads it.
 *
 * @category models
 * @since 0.1.0
 */
export interface StoredEvent {
  readonly id: string
  readonly event: unknown
}

/**
 * What is told of jobs and bundles that have stopped.
 *
 * @category models
 * @since 0.1.0
 */
export type StopNews =
  | { readonly _tag: "Listening" }
  /** Events for listeners without a name, whatever their filters. */
  | { readonly _tag: "Stopped"; readonly events: ReadonlyArray<unknown> }
  | { readonly _tag: "BundleDone"; readonly bundle: Job.BundleId }
  /** There are events for these listeners. */
  | { readonly _tag: "Kept"; readonly names: ReadonlyArray<string> }

/**
 * Listeners, as a database keeps them.
 *
 * @category models
 * @since 0.1.0
 */
export interface Listening {
  /** Asks for events from now on, and answers the listener's id. Forgotten when it is not confirmed for two minutes. */
  readonly register: (filter: ListenerFilter) => Effect.Effect<string, KongTaskError>
  /** Answers whether it is still known. */
  readonly confirm: (id: string) => Effect.Effect<boolean, KongTaskError>
  readonly unregister: (id: string) => Effect.Effect<void, KongTaskError>
  /** Has events kept from now on; of a name that is known, only the filter is changed. */
  readonly subscribe: (name: string, filter: ListenerFilter) => Effect.Effect<void, KongTaskError>
  /** Ends a subscription and what is kept for it. Answers whether there was one. */
  readonly unsubscribe: (name: string) => Effect.Effect<boolean, KongTaskError>
  /** The names of subscriptions, and how many events wait for each. */
  readonly subscriptions: Effect.Effect<
    ReadonlyArray<{ readonly name: string; readonly waiting: number }>,
    KongTaskError
  >
  /** The oldest events that nobody else has taken; they are the caller's for so long. */
  readonly take: (
    name: string,
    limit: number,
    lease: Duration.Duration
  ) => Effect.Effect<ReadonlyArray<StoredEvent>, KongTaskError>
  /** Keeps taken events for so long again; zero gives them back. */
  readonly keep: (ids: ReadonlyArray<string>, lease: Duration.Duration) => Effect.Effect<void, KongTaskError>
  readonly acknowledge: (ids: ReadonlyArray<string>) => Effect.Effect<void, KongTaskError>
  /** On a connection of its own. Fails when that is lost; running it again connects anew. */
  readonly news: Stream.Stream<StopNews, KongTaskError>
}
