/**
 * A worker's store with its statements timed and counted, and traced where the
 * program has a tracer.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Tracer from "effect/Tracer"
import type { Batch, Store } from "../../JobStore.ts"
import { machineMillis } from "../clock.ts"
import * as Metrics from "../metrics.ts"

const operations = ["claim", "settle", "heartbeat", "sweep", "release"] as const

type Operation = typeof operations[number]

/** Takes the time of statements, and counts them by whether they succeeded; those that were interrupted are none. */
const makeTimed = (context: Context.Context<never>) => {
  const series = Object.fromEntries(operations.map((operation) => [operation, {
    success: Metrics.operations({ operation, status: "success" }),
    failure: Metrics.operations({ operation, status: "failure" }),
    duration: Metrics.operationDuration({ operation })
  }])) as Record<Operation, {
    readonly success: ReturnType<typeof Metrics.operations>
    readonly failure: ReturnType<typeof Metrics.operations>
    readonly duration: ReturnType<typeof Metrics.operationDuration>
  }>
  return <A, E, R>(operation: Operation, statement: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.suspend(() => {
      const startedAt = machineMillis()
      const { duration, failure, success } = series[operation]
      return Effect.onExit(statement, (exit) => {
        if (Exit.isSuccess(exit) || !Cause.hasInterruptsOnly(exit.cause)) {
          duration.updateUnsafe((machineMillis() - startedAt) / 1_000, context)
          const counter = Exit.isSuccess(exit) ? success : failure
          counter.updateUnsafe(1, context)
        }
        return Effect.void
      })
    })
}

/** A span that nobody sees costs as much as one that somebody does. */
const makeTraced = (workerContext: Context.Context<never>) => {
  const isTraced = Context.get(workerContext, Tracer.Tracer) !== Context.get(Context.empty(), Tracer.Tracer)
  const traced = <A, E, R>(
    name: string,
    attributes: Readonly<Record<string, unknown>>,
    statement: Effect.Effect<A, E, R>
  ): Effect.Effect<A, E, R> =>
    isTraced ? Effect.withSpan(statement, name, { kind: "client", attributes }) as Effect.Effect<A, E, R> : statement
  return { isTraced, traced }
}

export const make = (options: {
  readonly store: Store
  /** The context of the worker's fiber, whose tracer it is. */
  readonly workerContext: Context.Context<never>
  /** Whose registry has the metrics. */
  readonly context: Context.Context<never>
  /** Told of a pool that has confirmed its lease. */
  readonly onBeat: (pool: string) => void
}): Store => {
  const { context, onBeat, store, workerContext } = options
  const timed = makeTimed(context)
  const { isTraced, traced } = makeTraced(workerContext)

  const sizes = { durable: Metrics.claimSize({ lane: "durable" }), fast: Metrics.claimSize({ lane: "fast" }) }
  const took = (lane: keyof typeof sizes, jobs: number): Effect.Effect<void> => {
    if (jobs > 0) sizes[lane].updateUnsafe(jobs, context)
    return isTraced ? Effect.annotateCurrentSpan("kongtask.jobs", jobs) : Effect.void
  }

  const batchOf = (pool: string, batch: Batch): Batch => ({
    ...batch,
    settle: (settlements, next) =>
      traced(
        "kongtask settle",
        { "kongtask.pool": pool, "kongtask.lane": "fast", "kongtask.jobs": settlements.length },
        Effect.map(timed("settle", batch.settle(settlements, next)), (settled) => {
          if (settled.next === undefined) return settled
          if (settled.next.count > 0) sizes.fast.updateUnsafe(settled.next.count, context)
          return { ...settled, next: batchOf(pool, settled.next) }
        })
      )
  })

  return {
    ...store,
    claim: (request) =>
      traced(
        "kongtask claim",
        { "kongtask.pool": request.pool, "kongtask.lane": "durable" },
        Effect.tap(timed("claim", store.claim(request)), ({ heartbeat, jobs }) => {
          if (heartbeat?.isAlive === true) onBeat(request.pool)
          return took("durable", jobs.length)
        })
      ),
    batch: (request) =>
      traced(
        "kongtask claim",
        { "kongtask.pool": request.pool, "kongtask.lane": "fast" },
        Effect.tap(timed("claim", store.batch(request)), ({ count }) => took("fast", count))
      ).pipe(Effect.map((batch) => batchOf(request.pool, batch))),
    settle: (pool, settlements, held) =>
      traced(
        "kongtask settle",
        { "kongtask.pool": pool, "kongtask.lane": "durable", "kongtask.jobs": settlements.length },
        timed("settle", store.settle(pool, settlements, held))
      ),
    heartbeat: (pool) =>
      Effect.tap(timed("heartbeat", store.heartbeat(pool)), ({ isAlive }) => {
        if (isAlive) onBeat(pool)
        return Effect.void
      }),
    sweep: (lease) => timed("sweep", store.sweep(lease)),
    releasePools: (pools) => timed("release", store.releasePools(pools))
  }
}
