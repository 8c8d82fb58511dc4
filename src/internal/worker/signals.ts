import * as Effect from "effect/Effect"

const shutdownSignals = ["SIGTERM", "SIGINT"] as const

/**
 * Waits for the first signal that asks the process to stop. From then on, and
 * after interruption, the process treats these signals as it did before, so that
 * a second Ctrl-C ends it at once.
 */
export const awaitShutdownSignal: Effect.Effect<NodeJS.Signals> = Effect.callback<NodeJS.Signals>((resume) => {
  const listener = (signal: NodeJS.Signals) => {
    remove()
    resume(Effect.succeed(signal))
  }
  const remove = () => {
    for (const signal of shutdownSignals) process.off(signal, listener)
  }
  for (const signal of shutdownSignals) process.on(signal, listener)
  return Effect.sync(remove)
})
