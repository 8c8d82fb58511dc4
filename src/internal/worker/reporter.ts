/**
 * What a handler tells of its job while it runs: the latest value is written
 * beside it, now and then.
 */
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Job from "../../Job.ts"
import type { Store } from "../../JobStore.ts"
import { withMachineClock } from "../clock.ts"

/** How long after one write the next one comes at the soonest. */
const interval = Duration.millis(500)

const maxBytes = 64 * 1024

export type Report = Job.Reporting<unknown>["report"]

/** Makes a job's `report`, which writes in that scope; `undefined` for a task that reports nothing. */
export const make = (
  { context, report, schema }: {
    readonly schema: Schema.Top
    readonly context: Context.Context<never>
    readonly report: Store["report"]
  }
): ((pool: string, id: Job.JobId, scope: Scope.Scope) => Report) | undefined => {
  if (schema.ast._tag === "Never") return undefined
  const encode: (progress: unknown) => Effect.Effect<unknown, Schema.SchemaError, any> = Schema.encodeUnknownEffect(
    Schema.toCodecJson(schema)
  )
  const toJson = (progress: unknown) =>
    encode(progress).pipe(
      Effect.provideContext(context as Context.Context<any>),
      Effect.map((encoded) => JSON.stringify(encoded)),
      Effect.tap((json) => {
        const bytes = Buffer.byteLength(json)
        return bytes > maxBytes
          ? Effect.die(new Error(`A job's progress must have at most ${maxBytes} bytes of JSON, not ${bytes}`))
          : Effect.void
      }),
      Effect.orDie
    )

  return (pool, id, scope) => {
    const news = Latch.makeUnsafe(false)
    let latest = ""
    let isWriting = false
    const write = Effect.gen(function*() {
      while (true) {
        yield* news.await
        news.closeUnsafe()
        // A job that is held by a batch has no place for it until it is claimed.
        const isHeld = yield* Effect.catch(
          report(pool, id, latest),
          (error) => Effect.as(Effect.logDebug(`The progress of job ${id} could not be written.`, error), false)
        )
        yield* Effect.sleep(interval)
        if (!isHeld) news.openUnsafe()
      }
    }).pipe(withMachineClock)

    return (progress) =>
      Effect.flatMap(toJson(progress), (json) =>
        Effect.suspend(() => {
          latest = json
          news.openUnsafe()
          if (isWriting) return Effect.void
          isWriting = true
          return Effect.asVoid(Effect.forkIn(write, scope))
        }))
  }
}
