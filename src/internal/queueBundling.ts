import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Bundle from "../Bundle.ts"
import type * as Job from "../Job.ts"
import type { JobSpec, OutcomePlace, Store } from "../JobStore.ts"
import type * as Task from "../Task.ts"
import * as Bundles from "./bundles.ts"
import type { QueueBundles } from "./queueBundles.ts"
import * as Input from "./queueInput.ts"
import * as Stops from "./stops.ts"

const pageSize = 1000

/** The part of the queue for bundles and listeners. */
export const make = Effect.fnUntraced(function*({ limits, store, weigh }: {
  readonly store: Store
  readonly limits: Parameters<typeof Bundles.members>[1]
  readonly weigh: (specs: ReadonlyArray<JobSpec>) => Effect.Effect<void>
}): Effect.fn.Return<QueueBundles, never, Scope.Scope> {
  const { bundling, listening } = store
  const stops = yield* Stops.make(store)

  const outcomes = <T extends Task.Any>(id: Bundle.BundleId, tasks: ReadonlyArray<T>) => {
    const decode = Schema.decodeUnknownEffect(Schema.toCodecJson(Schema.Array(Bundle.outcome(tasks))))
    return Stream.paginate(
      undefined as OutcomePlace | undefined,
      Effect.fnUntraced(function*(after) {
        const found = yield* bundling.outcomes(id, { limit: pageSize, after })
        const page = yield* decode(found.map(({ outcome }) => outcome))
        return [
          page as ReadonlyArray<Bundle.Outcome<T>>,
          found.length < pageSize ? Option.none() : Option.some(found.at(-1)!.place)
        ] as const
      })
    )
  }

  const removeMany = Effect.fn("Queue.removeMany")(function*(filter: Input.Filter) {
    const checked = yield* Input.filter(filter)
    let after: Job.JobId | undefined
    let removed = 0
    while (true) {
      const { count, last } = yield* store.removeMany(checked, { limit: pageSize, after })
      removed += count
      if (last === undefined) return removed
      after = last
    }
  })

  return {
    addBundle: Effect.fn("Queue.addBundle")(function*(requests, options) {
      const spec = yield* Bundles.spec(requests, (options ?? {}) as Bundle.Options<never, unknown>, limits)
      const added = yield* bundling.add(spec)
      yield* weigh(spec.jobs)
      return added
    }) as QueueBundles["addBundle"],
    addToBundle: Effect.fn("Queue.addToBundle")(function*<R extends Task.Request<Task.Any>>(
      bundle: Bundle.BundleId,
      requests: Iterable<R>
    ) {
      const specs = yield* Bundles.members(requests, limits)
      const jobs = yield* bundling.addTo(yield* Input.bundle(bundle), specs)
      yield* weigh(specs)
      return jobs
    }),
    bundle: Effect.fn("Queue.bundle")(function*(id) {
      return yield* bundling.get(yield* Input.bundle(id))
    }),
    bundles: Effect.fn("Queue.bundles")(function*(options) {
      return yield* bundling.list(
        yield* Input.bundleFilter(options ?? {}),
        yield* Input.bundlePage(options ?? {})
      )
    }),
    bundleOutcomes: (bundle, tasks) =>
      Stream.unwrap(Effect.map(Input.bundle(bundle), (id) => outcomes(id, tasks))) as never,
    awaitBundle: Effect.fn("Queue.awaitBundle")(function*(id) {
      return yield* stops.awaitBundle(yield* Input.bundle(id))
    }),
    deleteBundle: Effect.fn("Queue.deleteBundle")(function*(id) {
      const [deleted] = yield* bundling.remove({ ids: [yield* Input.bundle(id)] })
      return Option.fromNullishOr(deleted)
    }),
    deleteBundles: Effect.fn("Queue.deleteBundles")(function*(filter) {
      return (yield* bundling.remove(yield* Input.bundleFilter(filter))).length
    }),
    removeMany,
    events: (options = {}) =>
      Stream.unwrap(
        Effect.map(Input.events(options), ({ filter, name }) =>
          name === undefined ? stops.live(filter) : stops.kept(name, filter))
      ),
    unsubscribe: Effect.fn("Queue.unsubscribe")(function*(name) {
      return yield* listening.unsubscribe(yield* Input.subscription(name))
    }),
    subscriptions: listening.subscriptions
  } satisfies QueueBundles as QueueBundles
})
