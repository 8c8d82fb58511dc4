/**
 * KongTask on a fresh database, and its events in the order in which they happen.
 */
import { PgClient } from "@effect/sql-pg"
import { type Duration, Effect, Layer, Queue as Buffer, type Scope, Stream } from "effect"
import type { SqlClient } from "effect/sql"
import { KongTask, type KongTaskError, Worker, type WorkerEvent } from "kongtask"
import { layer as databaseLayer, type TestDatabase } from "./database.ts"
import { within } from "./events.ts"

/** Queue, worker and migrator on a database of the test's own. */
export const layer = (
  options?: KongTask.Options
): Layer.Layer<
  KongTask.Services | PgClient.PgClient | SqlClient.SqlClient | TestDatabase,
  KongTaskError.KongTaskError
> => Layer.provideMerge(KongTask.layer(options), Layer.orDie(databaseLayer()))

/** The same on the database of the given connection, such as a dedicated server. */
export const layerOn = (
  config: PgClient.PgPoolConfig
): Layer.Layer<KongTask.Services | PgClient.PgClient | SqlClient.SqlClient, KongTaskError.KongTaskError> =>
  Layer.provideMerge(KongTask.layer(), Layer.orDie(PgClient.layer(config)))

type Tag = WorkerEvent.WorkerEvent["_tag"]
type Event<T extends Tag> = Extract<WorkerEvent.WorkerEvent, { readonly _tag: T }>

/** A worker's events from now on. */
export interface Watch {
  /** Takes events up to the first of that tag that fits, and answers it. */
  readonly next: <T extends Tag>(
    tag: T,
    fits?: (event: Event<T>) => boolean,
    deadline?: Duration.Input
  ) => Effect.Effect<Event<T>>
  /** `next` so many times. */
  readonly many: <T extends Tag>(tag: T, count: number) => Effect.Effect<ReadonlyArray<Event<T>>>
  /** Takes events up to the first that ends the wait. */
  readonly until: (ends: (event: WorkerEvent.WorkerEvent) => boolean) => Effect.Effect<WorkerEvent.WorkerEvent>
  /** What has happened and was not taken yet. */
  readonly rest: Effect.Effect<ReadonlyArray<WorkerEvent.WorkerEvent>>
}

export const watch: Effect.Effect<Watch, never, Worker.Worker | Scope.Scope> = Effect.gen(function*() {
  const worker = yield* Worker.Worker
  const events = yield* Buffer.unbounded<WorkerEvent.WorkerEvent>()
  yield* worker.events.pipe(
    Stream.runForEach((event) => Buffer.offer(events, event)),
    Effect.forkScoped({ startImmediately: true })
  )
  const take = (
    what: string,
    ends: (event: WorkerEvent.WorkerEvent) => boolean,
    deadline: Duration.Input = "20 seconds"
  ) =>
    Effect.gen(function*() {
      while (true) {
        const event = yield* Buffer.take(events)
        if (ends(event)) return event
      }
    }).pipe((taking) => within(taking, deadline, what), Effect.orDie)
  const next: Watch["next"] = (tag, fits, deadline) =>
    take(
      `the event ${tag}`,
      (event) => event._tag === tag && (fits === undefined || fits(event as never)),
      deadline
    ) as Effect.Effect<never>
  return {
    next,
    many: (tag, count) => Effect.forEach(Array.from({ length: count }), () => next(tag)),
    until: (ends) => take("the event", ends),
    rest: Effect.suspend(() => Buffer.clear(events))
  }
})
