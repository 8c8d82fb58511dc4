/**
 * Being told of jobs and bundles that have stopped: one connection listens for
 * all who want to know in a process, for as long as somebody does.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import * as RcRef from "effect/RcRef"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type Bundle, BundleNotFound } from "../Bundle.ts"
import type * as Job from "../Job.ts"
import type { ListenerFilter, StopNews, Store, StoredEvent } from "../JobStore.ts"
import type { KongTaskError } from "../KongTaskError.ts"
import * as QueueEvent from "../QueueEvent.ts"

/** How long the connection is kept when nobody listens any more. */
const idleTimeToLive = Duration.seconds(10)

/** How often somebody looks where nothing is told. */
const pollInterval = Duration.seconds(2)

/** How often a listener says that it is there: it is forgotten after two minutes. */
const confirmInterval = Duration.seconds(30)

/** Events of a subscription that are taken at once, for how long, and how often that is extended. */
const takenAtOnce = 50
const lease = Duration.seconds(60)
const renewInterval = Duration.seconds(20)

/** Who doesn't keep up with so many messages misses some. */
const maxMessages = 4096

const backoff = Schedule.exponential("100 millis").pipe(
  (schedule) => Schedule.min([schedule, Schedule.spaced("5 seconds")]),
  Schedule.jittered
)

const decode = Schema.decodeUnknownOption(Schema.toCodecJson(QueueEvent.QueueEvent))

/** The events that can be read: another version of KongTask may write others. */
const decoded = (events: ReadonlyArray<unknown>): ReadonlyArray<QueueEvent.QueueEvent> =>
  events.flatMap((event) => Option.toArray(decode(event)))

const fits = ({ bundle, bundleName, origin, tasks }: ListenerFilter) => (event: QueueEvent.QueueEvent): boolean => {
  const isJob = event._tag === "JobStopped"
  return (tasks === undefined || (isJob && tasks.includes(event.task)))
    && (bundle === undefined || bundle === (isJob ? event.bundle : event.bundle.id))
    && (bundleName === undefined || (!isJob && event.bundle.name === bundleName))
    && (origin === undefined || origin === (isJob ? event.origin : event.bundle.origin))
}

export interface Stops {
  /** Waits until a bundle is done. */
  readonly awaitBundle: (
    id: Job.BundleId
  ) => Effect.Effect<Bundle, BundleNotFound | Job.AwaitedInTransaction | KongTaskError>
  /** What stops while the stream runs. */
  readonly live: (filter: ListenerFilter) => Stream.Stream<QueueEvent.QueueEvent, KongTaskError>
  /** What stops from the first use of the name on, each until the one after it is asked for. */
  readonly kept: (name: string, filter: ListenerFilter) => Stream.Stream<QueueEvent.QueueEvent, KongTaskError>
}

export const make = Effect.fnUntraced(function*(store: Store): Effect.fn.Return<Stops, never, Scope.Scope> {
  const { bundling, listening } = store

  const patiently = <A>(statement: Effect.Effect<A, KongTaskError>): Effect.Effect<A, KongTaskError> =>
    Effect.retry(statement, { while: (error) => error.isTransient, schedule: backoff })

  const hub = Effect.gen(function*() {
    const news = yield* PubSub.sliding<StopNews>(maxMessages)
    const listens = yield* Latch.make(false)
    let isTold = false
    yield* Stream.runForEach(listening.news, (message) => {
      if (message._tag === "Listening") {
        isTold = false
        listens.openUnsafe()
      }
      return PubSub.publish(news, message)
    }).pipe(
      Effect.tapError((error) => {
        listens.closeUnsafe()
        if (isTold) return Effect.void
        isTold = true
        return Effect.logWarning("Nothing is told of jobs and bundles that stop.", error)
      }),
      Effect.retry(backoff),
      Effect.ignore,
      Effect.forkScoped
    )
    return { news, listens }
  })

  const shared = yield* RcRef.make({ acquire: hub, idleTimeToLive })

  const awaitBundle: Stops["awaitBundle"] = (id) =>
    Effect.scoped(Effect.gen(function*() {
      yield* store.mayWait
      const { news } = yield* RcRef.get(shared)
      const messages = yield* PubSub.subscribe(news)
      const told = Effect.gen(function*() {
        while (true) {
          const message = yield* PubSub.take(messages)
          if (message._tag === "Listening" || (message._tag === "BundleDone" && message.bundle === id)) return
        }
      })
      while (true) {
        const found = yield* patiently(bundling.get(id))
        if (Option.isNone(found)) return yield* new BundleNotFound({ bundle: id })
        if (found.value.state === "done") return found.value
        yield* Effect.timeoutOption(told, pollInterval)
      }
    }))

  const live: Stops["live"] = (filter) =>
    Stream.unwrap(Effect.gen(function*() {
      const { listens, news } = yield* RcRef.get(shared)
      const messages = yield* PubSub.subscribe(news)
      yield* listens.await
      let id = ""
      yield* Effect.acquireRelease(
        Effect.map(patiently(listening.register(filter)), (registered) => {
          id = registered
        }),
        () => Effect.ignore(Effect.suspend(() => listening.unregister(id)))
      )
      yield* Effect.gen(function*() {
        yield* Effect.sleep(confirmInterval)
        if (!(yield* patiently(listening.confirm(id)))) id = yield* patiently(listening.register(filter))
      }).pipe(Effect.forever, Effect.ignore({ log: true }), Effect.forkScoped)
      return Stream.fromSubscription(messages).pipe(
        Stream.map((message) => message._tag === "Stopped" ? decoded(message.events).filter(fits(filter)) : []),
        Stream.flattenIterable
      )
    }))

  const kept: Stops["kept"] = (name, filter) =>
    Stream.unwrap(Effect.gen(function*() {
      yield* patiently(listening.subscribe(name, filter))
      const { news } = yield* RcRef.get(shared)
      const messages = yield* PubSub.subscribe(news)
      const told = Effect.gen(function*() {
        while (true) {
          const message = yield* PubSub.take(messages)
          if (message._tag === "Listening" || (message._tag === "Kept" && message.names.includes(name))) return
        }
      })

      let taken: ReadonlyArray<StoredEvent> = []
      // How many of them the consumer was given; all but the last of those are dealt with, until it asks for more.
      let given = 0
      const idsOf = (events: ReadonlyArray<StoredEvent>) => events.map(({ id }) => id)

      yield* Effect.addFinalizer(() => {
        const handled = idsOf(taken.slice(0, Math.max(0, given - 1)))
        const others = idsOf(taken.slice(Math.max(0, given - 1)))
        return Effect.ignore(Effect.andThen(
          handled.length === 0 ? Effect.void : listening.acknowledge(handled),
          others.length === 0 ? Effect.void : listening.keep(others, Duration.zero)
        ))
      })
      yield* Effect.suspend(() => taken.length === 0 ? Effect.void : patiently(listening.keep(idsOf(taken), lease)))
        .pipe(
          Effect.delay(renewInterval),
          Effect.forever,
          Effect.ignore({ log: true }),
          Effect.forkScoped
        )

      const next = Effect.gen(function*() {
        if (given === taken.length && taken.length > 0) {
          yield* patiently(listening.acknowledge(idsOf(taken)))
          taken = []
          given = 0
        }
        while (given === taken.length) {
          taken = yield* patiently(listening.take(name, takenAtOnce, lease))
          if (taken.length === 0) yield* Effect.timeoutOption(told, pollInterval)
        }
        return decoded([taken[given++]!.event])
      })
      return Stream.paginate(undefined, () => Effect.map(next, (events) => [events, Option.some(undefined)] as const))
    }))

  return { awaitBundle, live, kept }
})
