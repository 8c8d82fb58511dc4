/**
 * Flags and arguments that choose jobs.
 */
import * as Argument from "effect/cli/Argument"
import * as Flag from "effect/cli/Flag"
import type * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Job from "../../Job.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import * as Queue from "../../Queue.ts"
import * as Task from "../../Task.ts"
import { orUndefined, time, toggle } from "./flags.ts"
import { type Problem, usage } from "./problem.ts"

const text = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description), orUndefined)

const when = (name: string, description: string) => time(name).pipe(Flag.withDescription(description), orUndefined)

const maxId = 2n ** 63n - 1n

const toId = (id: string): Job.JobId => Job.JobId.make(id)

const isId = (id: string): boolean => /^[1-9][0-9]{0,18}$/.test(id) && BigInt(id) <= maxId

/** The ids of jobs, checked. */
export const ids = (given: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<Job.JobId>, Problem> => {
  const bad = given.find((id) => !isId(id))
  return bad === undefined
    ? Effect.succeed([...new Set(given)].map(toId))
    : Effect.fail(usage(`"${bad}" is no id of a job.`, "Ids are whole numbers; `kongtask jobs list` shows them."))
}

export const filterFlags = {
  task: Flag.String("task").pipe(
    Flag.withAlias("t"),
    Flag.withMetavar("name"),
    Flag.withDescription("Jobs of this task; may be given several times"),
    Flag.atLeast(0)
  ),
  state: Flag.Literals("state", Job.State.literals).pipe(
    Flag.withDescription("Jobs in this state; may be given several times"),
    Flag.withMetavar("state"),
    Flag.atLeast(0)
  ),
  queue: text("queue", "name", "Jobs of this named queue"),
  key: text("key", "key", "The job with this job key"),
  flag: text("flag", "flag", "Jobs that have this flag"),
  addedAfter: when("added-after", "Jobs added at this time or later"),
  addedBefore: when("added-before", "Jobs added before this time"),
  runAfter: when("run-after", "Jobs that are due at this time or later"),
  runBefore: when("run-before", "Jobs that are due before this time")
}

export interface FilterInput {
  readonly task: ReadonlyArray<string>
  readonly state: ReadonlyArray<Job.State>
  readonly queue: string | undefined
  readonly key: string | undefined
  readonly flag: string | undefined
  readonly addedAfter: DateTime.Utc | undefined
  readonly addedBefore: DateTime.Utc | undefined
  readonly runAfter: DateTime.Utc | undefined
  readonly runBefore: DateTime.Utc | undefined
}

export const toFilter = (input: FilterInput): Queue.Filter => ({
  task: input.task.length === 0 ? undefined : input.task.map((name) => Task.make(name)),
  state: input.state.length === 0 ? undefined : input.state,
  queueName: input.queue,
  key: input.key,
  flag: input.flag,
  addedAfter: input.addedAfter,
  addedBefore: input.addedBefore,
  runAfter: input.runAfter,
  runBefore: input.runBefore
})

const isEmpty = (filter: Queue.Filter): boolean => Object.values(filter).every((value) => value === undefined)

/** Jobs by their ids, or by what they are like. */
export const selection = {
  ids: Argument.String("id").pipe(Argument.withDescription("Ids of jobs"), Argument.variadic()),
  ...filterFlags,
  all: toggle("all").pipe(Flag.withDescription("All jobs, or all that the other flags leave")),
  dryRun: toggle("dry-run").pipe(Flag.withDescription("Only say how many jobs it would be"))
}

export interface SelectionInput extends FilterInput {
  readonly ids: ReadonlyArray<string>
  readonly all: boolean
  readonly dryRun: boolean
}

export interface Selection {
  readonly isById: boolean
  readonly count: number
  /** In groups of a size that one statement takes. */
  readonly chunks: Stream.Stream<ReadonlyArray<Job.JobId>, KongTaskError, Queue.Queue>
}

const chunkSize = 500

/** What was chosen: ids, or what jobs are like. */
export type Choice =
  | { readonly _tag: "Ids"; readonly ids: ReadonlyArray<Job.JobId> }
  | { readonly _tag: "Filter"; readonly filter: Queue.Filter }

/** Checks what was chosen, without looking at the database. */
export const choose = Effect.fnUntraced(function*(input: SelectionInput): Effect.fn.Return<Choice, Problem> {
  const filter = toFilter(input)
  if (input.ids.length > 0) {
    if (!isEmpty(filter) || input.all) return yield* usage("Choose jobs either by ids or by flags, not by both.")
    return { _tag: "Ids", ids: yield* ids(input.ids) }
  }
  if (!isEmpty(filter) || input.all) return { _tag: "Filter", filter }
  return yield* usage(
    "Which jobs?",
    "Give their ids, or flags such as --task, --state and --queue, or --all; --dry-run says how many they are."
  )
})

/** The jobs that were chosen; `states` where no state is named. */
export const select = Effect.fnUntraced(function*(
  choice: Choice,
  states?: ReadonlyArray<Job.State>
): Effect.fn.Return<Selection, KongTaskError, Queue.Queue> {
  if (choice._tag === "Ids") {
    const { ids } = choice
    return { isById: true, count: ids.length, chunks: Stream.grouped(Stream.fromIterable(ids), chunkSize) }
  }
  const whole = { ...choice.filter, state: choice.filter.state ?? states }
  return {
    isById: false,
    count: yield* Queue.count(whole),
    chunks: Queue.stream(whole).pipe(Stream.map(({ id }) => id), Stream.grouped(chunkSize))
  }
})
