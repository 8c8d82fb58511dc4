/**
 * One version of all tasks: found, imported, and checked against each other.
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type * as Task from "../../Task.ts"
import { handlerKey } from "../../Task.ts"
import type { Issue, Loaded } from "../../TaskLoader.ts"
import { taskNameProblem } from "../jobSpec.ts"
import { importModule } from "../modules.ts"
import * as Exports from "./exports.ts"
import { type Candidate, scan } from "./scan.ts"

export interface LoadOptions {
  readonly paths: ReadonlyArray<string>
  readonly executableTimeout: Duration.Input
  readonly scope: Scope.Scope
  /** Makes modules others than those that were imported before. */
  readonly query?: string | undefined
}

const readModule = Effect.fnUntraced(function*(candidate: Candidate, memo: Layer.MemoMap, options: LoadOptions) {
  const module = yield* Effect.result(importModule(candidate.file, options.query))
  if (module._tag === "Success") return yield* Exports.read(candidate, module.success, memo, options.scope)
  const { at, problem } = module.failure
  return {
    found: [],
    issues: [{ reason: "ImportFailed", file: candidate.file, ...at, problem }]
  } satisfies Exports.Read
})

const readExecutable = ({ file, name }: Candidate, { executableTimeout }: LoadOptions): Effect.Effect<Exports.Read> =>
  Effect.map(Effect.promise(() => import("./executable.ts")), ({ toRegistration }) => ({
    found: [{ registration: toRegistration(name, file, executableTimeout), file, export: "default" }],
    issues: []
  }))

const badNames = (found: ReadonlyArray<Exports.Found>): ReadonlyArray<Issue> =>
  found.flatMap(({ export: key, file, registration }) => {
    const problem = taskNameProblem(registration.task.name)?.problem
    return problem === undefined
      ? []
      : [{ reason: "InvalidName", file, problem: `exports a task, as ${key}, whose name ${problem}` } satisfies Issue]
  })

/** Tasks of one name in two files. */
const duplicates = (found: ReadonlyArray<Exports.Found>): ReadonlyArray<Issue> =>
  found.flatMap(({ file, registration }, index) => {
    const { name } = registration.task
    const first = found.findIndex((other) => other.registration.task.name === name)
    return first === index ? [] : [
      {
        reason: "DuplicateTask",
        file,
        task: name,
        problem: `is the task "${name}", which ${found[first]!.file} is too. Keep one of them, or rename one`
      } satisfies Issue
    ]
  })

export const toLoaded = (
  registrations: ReadonlyArray<Task.Registration>,
  files: ReadonlyMap<string, string>
): Loaded => ({
  tasks: registrations.map(({ task }) => task),
  files,
  registrations,
  handlers: Context.makeUnsafe<Task.Handler<string>>(
    new Map(registrations.map((registration) => [handlerKey(registration.task.name).key, registration]))
  )
})

const inOrder = (found: ReadonlyArray<Exports.Found>): Loaded => {
  const sorted = found.toSorted((a, b) => a.registration.task.name < b.registration.task.name ? -1 : 1)
  return toLoaded(
    sorted.map(({ registration }) => registration),
    new Map(sorted.map(({ file, registration }) => [registration.task.name, file]))
  )
}

/** Loads everything; every mistake is told at once. */
export const load = Effect.fnUntraced(function*(options: LoadOptions): Effect.fn.Return<Loaded, ReadonlyArray<Issue>> {
  const scans = options.paths.map(scan)
  const issues = scans.flatMap(({ issues }) => issues)
  const candidates = new Map(scans.flatMap(({ candidates }) => candidates).map((one) => [one.file, one]))
  const memo = yield* Layer.makeMemoMap
  const reads = yield* Effect.forEach(
    candidates.values(),
    (candidate): Effect.Effect<Exports.Read> =>
      candidate.kind === "Module" ? readModule(candidate, memo, options) : readExecutable(candidate, options)
  )
  const found = reads.flatMap(({ found }) => found)
  issues.push(...reads.flatMap(({ issues }) => issues), ...badNames(found), ...duplicates(found))
  if (issues.length === 0 && found.length === 0) {
    issues.push({
      reason: "NoTask",
      file: options.paths.join(", "),
      problem: "has no tasks: a task is a module or an executable file, with the task's name as its own"
    })
  }
  return issues.length === 0 ? inOrder(found) : yield* Effect.fail(issues)
})
