/**
 * Where the examples keep their jobs: on the server of `DATABASE_URL`, or on
 * PostgreSQL inside the process.
 */
import { Config, Effect, Layer, Option } from "effect"
import { KongTask } from "kongtask"

export const QueueLive = Layer.unwrap(Effect.gen(function*() {
  const url = yield* Config.option(Config.Redacted("DATABASE_URL"))
  return Option.isSome(url) ? KongTask.layerConfig : KongTask.layerEmbedded()
}))
