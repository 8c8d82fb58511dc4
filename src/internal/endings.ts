/**
 * What became of a job, in the types of its task.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Job from "../Job.ts"
import type { Observation, Progress } from "../JobStore.ts"
import type * as Task from "../Task.ts"

type Decode = (value: unknown) => Effect.Effect<any, Schema.SchemaError, any>

interface Decoders {
  readonly success: Decode | undefined
  readonly error: Decode | undefined
  readonly progress: Decode | undefined
}

const known = new WeakMap<Task.Any, Decoders>()

/** Deriving a codec walks the whole schema, so each task's are kept. */
const decodersOf = (task: Task.Any): Decoders => {
  const found = known.get(task)
  if (found !== undefined) return found
  const decoder = (schema: Schema.Top, empty: string) =>
    schema.ast._tag === empty ? undefined : Schema.decodeUnknownEffect(Schema.toCodecJson(schema)) as Decode
  const decoders = {
    success: task.isBatch ? undefined : decoder(task.successSchema, "Void"),
    error: task.isBatch ? undefined : decoder(task.errorSchema, "Never"),
    progress: decoder(task.progressSchema, "Never")
  }
  known.set(task, decoders)
  return decoders
}

const decode = (
  task: Task.Any,
  job: Job.JobId,
  what: Job.UndecodableOutcome["what"],
  decoder: Decode,
  value: unknown
) =>
  Effect.mapError(
    decoder(value),
    (error) => new Job.UndecodableOutcome({ job, task: task.name, what, problem: error.message })
  )

/** Fails when the job is one of another task. */
export const checkTask = (
  task: Task.Any,
  job: Job.JobId,
  actual: string
): Effect.Effect<void, Job.JobNotFound> =>
  actual === task.name ? Effect.void : Effect.fail(new Job.JobNotFound({ job, task: task.name, actual }))

/** A job that waits or runs has no ending: `undefined`. */
export const ending = (
  task: Task.Any,
  job: Job.JobId,
  observation: Observation
): Effect.Effect<Effect.Effect<any, any, any> | undefined, Job.NoResult> => {
  switch (observation._tag) {
    case "Unknown":
      return Effect.fail(
        observation.existed
          ? new Job.ResultNotRetained({ job, state: undefined })
          : new Job.JobNotFound({ job, task: task.name, actual: undefined })
      )
    case "Live":
      return Effect.as(checkTask(task, job, observation.task), undefined)
    case "Stopped":
      return Effect.as(checkTask(task, job, observation.task), outcome(task, job, observation))
  }
}

const outcome = (
  task: Task.Any,
  job: Job.JobId,
  { attempts, error, isRetained, result, state }: Extract<Observation, { readonly _tag: "Stopped" }>
): Effect.Effect<any, any, any> => {
  const decoders = decodersOf(task)
  if (state === "cancelled") return Effect.fail(new Job.JobCancelled({ job, task: task.name, reason: error }))
  if (state === "failed") {
    const last = attempts.at(-1)
    // An error that somebody gave the job since is none of the task's.
    return last?.data !== undefined && last.message === error && decoders.error !== undefined
      ? Effect.flatMap(decode(task, job, "error", decoders.error, last.data), Effect.fail)
      : Effect.fail(new Job.JobFailed({ job, task: task.name, error: error ?? "", attempts }))
  }
  if (!isRetained || (decoders.success !== undefined && result === undefined)) {
    return Effect.fail(new Job.ResultNotRetained({ job, state }))
  }
  return decoders.success === undefined ? Effect.void : decode(task, job, "result", decoders.success, result)
}

/** What a job reported, by its task's schema. */
export const progress = (
  task: Task.Any,
  job: Job.JobId,
  { value }: Progress
): Effect.Effect<any, Job.UndecodableOutcome, any> => {
  const decoder = decodersOf(task).progress
  return decoder === undefined ? Effect.undefined : decode(task, job, "progress", decoder, value)
}
