/** Checks of what bundles are asked for. */
import * as Effect from "effect/Effect"
import * as Bundle from "../Bundle.ts"
import * as Job from "../Job.ts"
import type { BundleSpec, CompletionSpec, JobSpec } from "../JobStore.ts"
import type * as Task from "../Task.ts"
import * as Spec from "./jobSpec.ts"
import { retainMillis, retainProblem } from "./retention.ts"

const maxJobs = 100_000
const defaultRetain = "1 day"

type Limits = Parameters<typeof Spec.make>[1]

const invalid = (field: string, problem: string) => new Bundle.InvalidBundle({ field, problem })

/** The data of a completion is encoded as the payload of a task of its own. */
const dataTasks = new WeakMap<Bundle.CompletionTask, Task.Any>()

const dataTaskOf = (task: Bundle.CompletionTask): Task.Any => {
  const known = dataTasks.get(task)
  if (known !== undefined) return known
  const made: Task.Any = Object.create(task, { payloadSchema: { value: task.payloadSchema.dataSchema } })
  dataTasks.set(task, made)
  return made
}

const isCompletion = (completion: Bundle.Completion<never, unknown>): boolean =>
  Array.isArray((completion.task?.payloadSchema as Partial<Bundle.CompletionTask["payloadSchema"]> | undefined)?.tasks)

const completionSpec = Effect.fnUntraced(function*(
  on: CompletionSpec["on"],
  field: string,
  completion: Bundle.Completion<never, unknown>,
  jobs: ReadonlyArray<JobSpec>,
  limits: Limits
): Effect.fn.Return<CompletionSpec, Bundle.InvalidBundle | Job.InvalidJob, any> {
  if (!isCompletion(completion)) {
    return yield* invalid(field, "must be made by Bundle.completion, of a task whose payload is a Bundle.payload")
  }
  const { data, options, task } = completion
  const tasks = task.payloadSchema.tasks.map(({ name }) => name)
  const missing = jobs.find((job) => !tasks.includes(job.task))
  if (tasks.length > 0 && missing !== undefined) {
    const problem = `takes no outcomes of task "${missing.task}": name it in the payload of task "${task.name}"`
    return yield* invalid(field, problem)
  }
  const spec = yield* Spec.make({ task: dataTaskOf(task), payload: data, options }, limits, undefined)
  const isVoid = task.payloadSchema.dataSchema.ast._tag === "Void"
  return { on, tasks: tasks.length === 0 ? undefined : tasks, spec: isVoid ? { ...spec, payload: "null" } : spec }
})

/** The jobs of a bundle, each of which has to be one of its own. */
export const members = Effect.fnUntraced(function*<R extends Task.Request<Task.Any>>(
  requests: Iterable<R>,
  limits: Limits
): Effect.fn.Return<
  ReadonlyArray<JobSpec>,
  Bundle.InvalidBundle | Job.InvalidJob,
  R["task"]["payloadSchema"]["EncodingServices"]
> {
  const jobs = yield* Spec.makeMany(requests, limits)
  if (jobs.length === 0) return yield* invalid("jobs", "must be at least one")
  if (jobs.length > maxJobs) return yield* invalid("jobs", `must be at most ${maxJobs}, not ${jobs.length}`)
  const first = new Map<string, number>()
  for (const [index, { key, keyMode, task }] of jobs.entries()) {
    if (key === undefined) continue
    if (keyMode === "dedupe" || keyMode === "unsafe_dedupe") {
      const problem = `is ${keyMode}; in a bundle it must be replace, preserve_run_at or reject, which add the job`
      return yield* new Job.InvalidJob({ task, field: "jobKeyMode", problem, index })
    }
    const earlier = first.get(key)
    if (earlier !== undefined) {
      const problem = `is the key of job ${earlier} of the same call`
      return yield* new Job.InvalidJob({ task, field: "jobKey", problem, index })
    }
    first.set(key, index)
  }
  return jobs
})

export const spec = Effect.fnUntraced(function*<R extends Task.Request<Task.Any>>(
  requests: Iterable<R>,
  options: Bundle.Options<never, unknown>,
  limits: Limits
): Effect.fn.Return<BundleSpec, Bundle.InvalidBundle | Job.InvalidJob, any> {
  const { name, onComplete, onFailure, onSuccess, origin, retain = defaultRetain } = options
  for (const [field, text] of Object.entries({ name, origin })) {
    const problem = text === undefined ? undefined : Spec.textProblem(text, 128, "")
    if (problem !== undefined) return yield* invalid(field, problem.problem)
  }
  const problem = retainProblem(retain)
  if (problem !== undefined) return yield* invalid("retain", problem.problem)
  const jobs = yield* members(requests, limits)
  const completions: Array<CompletionSpec> = []
  if (onComplete !== undefined) {
    completions.push(yield* completionSpec("complete", "onComplete", onComplete, jobs, limits))
  }
  if (onSuccess !== undefined) completions.push(yield* completionSpec("success", "onSuccess", onSuccess, jobs, limits))
  if (onFailure !== undefined) completions.push(yield* completionSpec("failure", "onFailure", onFailure, jobs, limits))
  return { name, origin, retain: retainMillis(retain), completions, jobs }
})
