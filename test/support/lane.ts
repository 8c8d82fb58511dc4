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
  /** Replaced to disturb them: the opening of batches, each batch that was opened, claims, and settles of claimed jobs. */
  open: (
    batch: Effect.Effect<JobStore.Batch, KongTaskError.KongTaskError, Scope.Scope>
  ) => Effect.Effect<JobStore.Batch, KongTaskError.KongTaskError, Scope.Scope>
  opened: (batch: JobStore.Batch) => JobStore.Batch
  /** Told of each batch by its number: when its jobs may be run, and when it is over. */
  begun: (batch: number, jobs: ReadonlyArray<JobStore.ClaimedJob>) => void
  over: (batch: number) => void
  claim: (claim: JobStore.Store["claim"]) => JobStore.Store["claim"]
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
  let batches = 0

  /** The batches of one scope, one after the other. */
  const watch = Effect.fnUntraced(function*(request: JobStore.BatchRequest, first: JobStore.Batch) {
    let end = () => {}
    yield* Effect.addFinalizer(() => Effect.sync(() => end()))
    const watchedBatch = (inner: JobStore.Batch): JobStore.Batch => {
      const batch = lane.opened(inner)
      return {
        ...batch,
        start: Effect.tap(batch.start, (jobs) =>
          Effect.sync(() => {
            const number = ++batches
            for (const { id } of jobs) held.set(id, (held.get(id) ?? 0) + 1)
            lane.begun(number, jobs)
            end = () => {
              end = () => {}
              for (const { id } of jobs) held.set(id, held.get(id)! - 1)
              lane.over(number)
            }
          })),
        settle: (settlements, next) =>
          Effect.map(batch.settle(settlements, next), (settled) => {
            end()
            if (settled.next === undefined) return settled
            requests.push({ ...request, ...next })
            return { ...settled, next: watchedBatch(settled.next) }
          })
      }
    }
    return watchedBatch(first)
  })
  const watched = (store: JobStore.Store): JobStore.Store => ({
    ...store,
    batch: (request) => {
      requests.push(request)
      return Effect.flatMap(Effect.suspend(() => lane.open(store.batch(request))), (batch) => watch(request, batch))
    },
    claim: (request) => lane.claim(store.claim)(request),
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
    begun: () => {},
    over: () => {},
    claim: (claim) => claim,
    settle: (settle) => settle,
    layer: Layer.provide(Layer.mergeAll(Queue.Queue.layer(), Layer.fresh(Worker.Worker.layer)), store)
  }
  return lane
}
