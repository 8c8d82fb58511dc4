import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"

const shutdownSignals = ["SIGTERM", "SIGINT"] as const

export interface ShutdownSignals {
  /** Waits for the signal that asks the process to stop. */
  readonly first: Effect.Effect<NodeJS.Signals>
  /** Waits for the one that says that it takes too long. */
  readonly second: Effect.Effect<void>
}

/**
 * Listens for SIGTERM and SIGINT. After the second one, and after the scope, the
 * process treats them as it did before, so that a third one ends it at once.
 */
export const listen: Effect.Effect<ShutdownSignals, never, Scope.Scope> = Effect.gen(function*() {
  const first = yield* Deferred.make<NodeJS.Signals>()
  const second = yield* Deferred.make<void>()
  const listener = (signal: NodeJS.Signals) => {
    if (Deferred.doneUnsafe(first, Exit.succeed(signal))) return
    remove()
    Deferred.doneUnsafe(second, Exit.void)
  }
  const remove = () => {
    for (const signal of shutdownSignals) process.off(signal, listener)
  }
  yield* Effect.acquireRelease(
    Effect.sync(() => {
      for (const signal of shutdownSignals) process.on(signal, listener)
    }),
    () => Effect.sync(remove)
  )
  return { first: Deferred.await(first), second: Deferred.await(second) }
})
