/**
 * Checks a task's name and payloads against tasks from disk, before anything is added.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { TaskLoaderError } from "../../TaskLoader.ts"
import { nearest } from "../configuration/nearest.ts"
import { notFound, type Problem } from "./problem.ts"

/** What is wrong with a payload; nothing is where it decodes. */
export type Check = (payload: Schema.Json) => Effect.Effect<void, string>

/** Any payload of any task. */
export const none: Check = () => Effect.void

/** The check of one task's payloads; fails where there is no task of that name. */
export const make = Effect.fnUntraced(function*(
  name: string,
  paths: ReadonlyArray<string>
): Effect.fn.Return<Check, Problem | TaskLoaderError, Scope.Scope> {
  const { load } = yield* Effect.promise(() => import("../../TaskLoader.ts"))
  const { tasks } = yield* load(paths)
  const task = tasks.find((task) => task.name === name)
  if (task === undefined) {
    const names = tasks.map((task) => task.name)
    const meant = nearest(name, names)
    return yield* notFound(
      `There is no task "${name}" in ${paths.join(", ")}.`,
      meant === undefined ? `The tasks there are ${names.join(", ")}.` : `Did you mean "${meant}"?`
    )
  }
  const decode = Schema.decodeUnknownEffect(
    Schema.toCodecJson(task.payloadSchema as Schema.Codec<unknown, unknown>)
  )
  return (payload) => Effect.mapError(Effect.asVoid(decode(payload)), ({ message }) => message)
})
