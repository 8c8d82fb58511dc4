/**
 * A worker whose batches a test can watch and disturb: nothing else tells a job
 * that is held by a row lock from one that nobody holds.
 */
import type { PgClient } from "@effect/sql-pg"
import { Effect, Layer, type Scope } from "effect"
import type { SqlClient } from "effect/sql"
import { type Job, JobStore, type KongTaskError, Queue, Worker } from "kongtask"
import * as PostgresStore from "../../src/internal/postgres/store.ts"

export interface Lane {
  /** Whether a batch that is open now holds the job. */
  readonly holds: (id: Job.JobId) => boolean
  /** What was asked for so far. */
  readonly requests: ReadonlyArray<JobStore.BatchRequest>
  /** Replaced to disturb them: the opening of batches, each batch that was opened, and the settles of claimed jobs. */
  open: (
    batch: Effect.Effect<JobStore.Batch, KongTaskError.KongTaskError, Scope.Scope>
  ) => Effect.Effect<JobStore.Batch, KongTaskError.KongTaskError, Scope.Scope>
  opened: (batch: JobStore.Batch) => JobStore.Batch
  settle: (settle: JobStore.Store["settle"]) => JobStore.Store["settle"]
  /** Queue and worker on the database of the given client. */
  readonly layer: Layer.Layer<
    Queue.Queue | Worker.Worker,
    KongTaskError.KongTaskError,
    PgClient.PgClient | SqlClient.SqlClient
  >
}

export const make = (): Lane => {
  const held = new Map<Job.JobId, number>()
  const requests: Array<JobStore.BatchRequest> = []
  const count = (batch: JobStore.Batch, by: number) =>
    Effect.sync(() => {
      for (const { id } of batch.jobs) held.set(id, (held.get(id) ?? 0) + by)
    })
  const watched = (store: JobStore.Store): JobStore.Store => ({
    ...store,
    batch: (request) => {
      requests.push(request)
      return Effect.map(
        Effect.tap(
          Effect.suspend(() => lane.open(store.batch(request))),
          (batch) => Effect.acquireRelease(count(batch, 1), () => count(batch, -1))
        ),
        (batch) => lane.opened(batch)
      )
    },
    settle: (pool, settlements, held) => lane.settle(store.settle)(pool, settlements, held),
    dedicated: Effect.map(store.dedicated, watched)
  })
  const store = Layer.effect(
    JobStore.JobStore,
    Effect.map(PostgresStore.make({ schema: "graphile_worker" }), watched)
  )
  const lane: Lane = {
    holds: (id) => (held.get(id) ?? 0) > 0,
    requests,
    open: (batch) => batch,
    opened: (batch) => batch,
    settle: (settle) => settle,
    layer: Layer.provide(Layer.mergeAll(Queue.Queue.layer(), Layer.fresh(Worker.Worker.layer)), store)
  }
  return lane
}
