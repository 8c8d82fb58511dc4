/**
 * Where the schedules of a program come from, and what is wrong with them.
 */
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Crontab from "../../Crontab.ts"
import { InvalidConfiguration, KongTaskError } from "../../KongTaskError.ts"
import type * as Task from "../../Task.ts"
import * as Item from "./item.ts"

/** A schedule of this program, and the text that tells one version of it from another. */
export interface Versioned {
  readonly item: Item.Item
  readonly version: string
}

/** Checks payloads by the tasks that the program knows. */
export interface Known {
  readonly isKnown: (task: string) => boolean
  /** What is wrong with the payload, where its task is known. */
  readonly payloadProblem: (item: Item.Item) => Effect.Effect<string | undefined>
}

const anInstant = 1_000_000_000_000

export const known = <R>(tasks: ReadonlyArray<Task.Any> | undefined, context: Context.Context<R>): Known => {
  const byName = new Map(tasks?.map((task) => [task.name, task]))
  return {
    isKnown: (task) => tasks === undefined || byName.has(task),
    payloadProblem: (item) => {
      const task = byName.get(item.task)
      if (task === undefined || task.payloadSchema.ast._tag === "Void") return Effect.undefined
      return Schema.decodeUnknownEffect(Schema.toCodecJson(task.payloadSchema))(
        Item.payloadAt(item.payload, anInstant, false)
      ).pipe(
        Effect.provideContext(context as Context.Context<any>),
        Effect.match({
          onSuccess: () => undefined,
          onFailure: (error) => `is refused by the schema of task "${item.task}": ${error.message}`
        })
      ) as Effect.Effect<string | undefined>
    }
  }
}

/** Reads a crontab, and checks its payloads where their tasks are known. */
export const fromCrontab = Effect.fnUntraced(function*(text: string, tasks: Known) {
  const entries = yield* Effect.fromResult(Crontab.parse(text))
  return yield* Effect.forEach(
    entries,
    Effect.fnUntraced(function*(entry) {
      const item = Item.fromEntry(entry)
      const problem = yield* tasks.payloadProblem(item)
      if (problem !== undefined) return yield* new Item.InvalidSchedule({ id: item.id, field: "payload", problem })
      return { item, version: Crontab.format([entry]) }
    })
  )
})

export const readFile = (path: string): Effect.Effect<string, KongTaskError> =>
  Effect.flatMap(FileSystem.FileSystem, (files) => files.readFileString(path)).pipe(
    Effect.mapError((error) =>
      new KongTaskError({
        reason: new InvalidConfiguration({ field: "crontabFile", problem: `cannot be read: ${error.message}` })
      })
    ),
    Effect.provide(NodeFileSystem.layer)
  )

/** No two schedules of a program have the same id. */
export const distinct = (items: ReadonlyArray<Versioned>): Result.Result<void, Item.InvalidSchedule> => {
  const seen = new Set<string>()
  for (const { item: { id } } of items) {
    if (seen.has(id)) {
      return Result.fail(new Item.InvalidSchedule({ id, field: "id", problem: "is that of another schedule, too" }))
    }
    seen.add(id)
  }
  return Result.succeed(undefined)
}
