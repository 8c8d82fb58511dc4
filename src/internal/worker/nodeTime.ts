/**
 * A worker's store with Effect's Clock for due times: what is claimed, and when
 * a retry or a snoozed job is due. Leases and locks stay with the database's.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { Batch, Settlement, Store } from "../../JobStore.ts"

export const make = (store: Store, clock: Clock.Clock): Store => {
  const now = () => clock.currentTimeMillisUnsafe()
  const timed = (settlement: Settlement): Settlement =>
    settlement._tag === "Failed" || settlement._tag === "Snoozed" ? { ...settlement, since: now() } : settlement
  const timedBatch = (batch: Batch): Batch => ({
    ...batch,
    settle: (settlements, next) =>
      Effect.map(
        batch.settle(settlements.map(timed), next === undefined ? undefined : { ...next, dueAt: now() }),
        (settled) => ({ ...settled, next: settled.next === undefined ? undefined : timedBatch(settled.next) })
      )
  })
  return {
    ...store,
    claim: (request) => Effect.suspend(() => store.claim({ ...request, dueAt: now() })),
    settle: (pool, settlements, held) => Effect.suspend(() => store.settle(pool, settlements.map(timed), held)),
    settleLate: (pool, outcomes) =>
      Effect.suspend(() =>
        store.settleLate(pool, outcomes.map(({ job, settlement }) => ({ job, settlement: timed(settlement) })))
      ),
    batch: (request) => Effect.map(Effect.suspend(() => store.batch({ ...request, dueAt: now() })), timedBatch)
  }
}
