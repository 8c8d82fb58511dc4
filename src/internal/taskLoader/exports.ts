/**
 * From what a module exports to registrations.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Job from "../../Job.ts"
import * as Task from "../../Task.ts"
import type { Issue } from "../../TaskLoader.ts"
import type { Candidate } from "./scan.ts"

/** A registration, and the export that it comes from. */
export interface Found {
  readonly registration: Task.Registration
  readonly file: string
  readonly export: string
}

export interface Read {
  readonly found: ReadonlyArray<Found>
  readonly issues: ReadonlyArray<Issue>
}

type Handler = (payload: unknown, job: Job.Running, signal: AbortSignal) => unknown

const isHandler = (value: unknown): value is Handler => Predicate.isFunction(value)

/** Whatever it needs, it is given the context of whoever loads it. */
const isLayer = (value: unknown): value is Layer.Layer<unknown, unknown> => Layer.isLayer(value)

const isRegistration = (value: unknown): value is Pick<Task.Registration, "task" | "handler"> =>
  Predicate.hasProperty(value, "task") && Task.isTask(value.task) && Predicate.hasProperty(value, "handler") &&
  isHandler(value.handler)

const toError = (error: unknown): Error => Predicate.isError(error) ? error : new Error(String(error))

/** A plain handler as the handler of a task: whatever it throws or rejects with fails the attempt. */
const fromFunction = (name: string, handler: Handler, options: Task.HandlerOptions<any>): Task.Registration => ({
  task: Task.make(name, { payload: Schema.Json }),
  handler: (payload, job) =>
    Effect.suspend(() => {
      const controller = new AbortController()
      return Effect.sync(() => handler(payload, job, controller.signal)).pipe(
        Effect.catchDefect(Effect.fail),
        Effect.flatMap((answer): Effect.Effect<unknown, any, any> =>
          Effect.isEffect(answer)
            ? answer
            : Predicate.isPromiseLike(answer)
            ? Effect.catchDefect(Effect.promise(() => answer), Effect.fail)
            : Effect.void
        ),
        Effect.onInterrupt(() => Effect.sync(() => controller.abort()))
      )
    }),
  context: Context.empty(),
  options
})

/** Builds a layer, and answers the handlers that it provides. */
const fromLayer = (
  layer: Layer.Layer<unknown, unknown>,
  memo: Layer.MemoMap,
  scope: Scope.Scope
): Effect.Effect<ReadonlyArray<Task.Registration>, unknown> =>
  Effect.map(
    Layer.buildWithMemoMap(layer, memo, scope),
    (context) =>
      [...context.mapUnsafe].filter(([key]) => key.startsWith(Task.handlerKey("").key)).map(([, handler]) =>
        handler as Task.Registration
      )
  )

/** The default export alone where there is one, as TypeScript compiled to CommonJS has it too. */
const exportsOf = (module: Readonly<Record<string, unknown>>): ReadonlyArray<readonly [string, unknown]> => {
  const { default: fallback, "module.exports": _, __esModule: __, ...named } = module
  if (fallback === undefined) return Object.entries(named)
  const inner = Predicate.hasProperty(fallback, "__esModule") && Predicate.hasProperty(fallback, "default")
    ? fallback.default
    : fallback
  return [["default", inner]]
}

const isPlain = (value: unknown): value is Readonly<Record<string, unknown>> =>
  Predicate.isObject(value) && [Object.prototype, null].includes(Object.getPrototypeOf(value))

const howTo = "export default (payload, job) => …, or export default task.toLayer((payload, job) => …)"

const optionsOf = (module: Readonly<Record<string, unknown>>): Task.HandlerOptions<any> | string => {
  const { options } = module
  if (options === undefined) return {}
  if (!isPlain(options)) return "exports options that are no object, such as { timeout: \"1 minute\" }"
  const { timeout } = options
  return timeout === undefined || Option.isSome(Duration.fromInput(timeout as Duration.Input))
    ? options
    : "exports options with a timeout that is no duration, such as \"1 minute\""
}

const nothingIn = (file: string, contract: string | undefined): Issue => ({
  reason: "NoTask",
  file,
  problem: contract === undefined
    ? `exports nothing that runs jobs: ${howTo}`
    : `exports the task "${contract}" without its handler: ${howTo}`
})

/** Reads the exports of a candidate's module; layers are built in the scope. */
export const read = Effect.fnUntraced(function*(
  { file, isAlone, name }: Candidate,
  module: Readonly<Record<string, unknown>>,
  memo: Layer.MemoMap,
  scope: Scope.Scope
): Effect.fn.Return<Read> {
  const found: Array<Found> = []
  const issues: Array<Issue> = []
  const contracts: Array<string> = []
  const add = (key: string, ...registrations: ReadonlyArray<Task.Registration>) => {
    for (const registration of registrations) {
      const same = found.find((other) => other.registration.task.name === registration.task.name)
      if (same === undefined) found.push({ registration, file, export: key })
      // One layer under two names is one handler.
      else if (same.registration !== registration) {
        issues.push({
          reason: "DuplicateTask",
          file,
          task: registration.task.name,
          problem:
            `exports the task "${registration.task.name}" twice, as ${same.export} and as ${key}. Keep one of them`
        })
      }
    }
  }

  const options = optionsOf(module)
  if (Predicate.isString(options)) return { found, issues: [{ reason: "InvalidExport", file, problem: options }] }
  const isDefaultAlone = module.default !== undefined
  const all = exportsOf(module).flatMap(([key, value]) =>
    isAlone && key === "default" && isPlain(value) && !isRegistration(value) && !isLayer(value)
      ? Object.entries(value)
      : [[key, value] as const]
  )
  for (const [key, value] of all) {
    if (isLayer(value)) {
      const built = yield* Effect.exit(fromLayer(value, memo, scope))
      if (built._tag === "Success") add(key, ...built.value)
      else {
        issues.push({
          reason: "HandlerFailed",
          file,
          problem: `exports the layer ${key}, which cannot be built: ${toError(Cause.squash(built.cause)).message}. ` +
            "What it needs, and is not the queue's, has to be provided in the file"
        })
      }
    } else if (isRegistration(value)) add(key, { context: Context.empty(), options: {}, ...value })
    else if (Task.isTask(value)) contracts.push(value.name)
    else if (isHandler(value)) {
      if (key === "default") add(key, fromFunction(name, value, options))
      else if (isAlone) add(key, fromFunction(key, value, isDefaultAlone ? {} : options))
    }
  }

  if (found.length === 0 && issues.length === 0) issues.push(nothingIn(file, contracts[0]))
  return { found, issues }
})
