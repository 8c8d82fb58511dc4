/**
 * Tasks from disk: modules and executable files, loaded at run time.
 *
 * A path is a file or a folder. In a folder each file is a task, named as its
 * path without the ending (`mail/welcome`); a single module may export many. A
 * module exports the layer of a task's handler, or a plain function; anything
 * executable is run as graphile-worker runs it.
 *
 * @since 0.1.0
 */
import type * as Context from "effect/Context"
import type * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Load from "./internal/taskLoader/load.ts"
import * as Watch from "./internal/taskLoader/watch.ts"
import type { KongTaskError } from "./KongTaskError.ts"
import type * as Task from "./Task.ts"
import * as Worker from "./Worker.ts"

/**
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** How long one attempt of an executable may take, before it is killed. Default: 4 hours. */
  readonly executableTimeout?: Duration.Input | undefined
}

/**
 * What was loaded, in the order of the tasks' names.
 *
 * @category models
 * @since 0.1.0
 */
export interface Loaded {
  readonly tasks: ReadonlyArray<Task.Any>
  readonly registrations: ReadonlyArray<Task.Registration>
  /** The file of each task. */
  readonly files: ReadonlyMap<string, string>
  /** The handlers, for a worker of `tasks`. */
  readonly handlers: Context.Context<Task.Handler<string>>
}

/**
 * A mistake in a file, or with it.
 *
 * **Details**
 *
 * - `Unreadable`: there is no such file or folder, or no right to read it
 * - `UnknownFileType`: a file is neither a module nor executable
 * - `InvalidName`: a file's name has characters that a task's name from disk cannot have
 * - `ImportFailed`: a module throws, does not parse, or imports what is not there
 * - `NoTask`: a module exports nothing that runs jobs, or there is no task at all
 * - `InvalidExport`: a module exports `options` that cannot be used
 * - `DuplicateTask`: two exports, or two files, are the same task
 * - `HandlerFailed`: the layer of a handler cannot be built
 *
 * @category schemas
 * @since 0.1.0
 */
export const Issue = Schema.Struct({
  reason: Schema.Literals([
    "Unreadable",
    "UnknownFileType",
    "InvalidName",
    "ImportFailed",
    "NoTask",
    "InvalidExport",
    "DuplicateTask",
    "HandlerFailed"
  ]),
  file: Schema.String,
  /** Where in the file, counted from 1, where that is known. */
  line: Schema.optional(Schema.Int),
  column: Schema.optional(Schema.Int),
  /** The task, where one is meant. */
  task: Schema.optional(Schema.String),
  /** What is wrong and what to do. */
  problem: Schema.String
})

/**
 * @category models
 * @since 0.1.0
 */
export type Issue = typeof Issue.Type

/**
 * Tasks could not be loaded: all mistakes that were found.
 *
 * @category errors
 * @since 0.1.0
 */
export class TaskLoaderError extends Schema.TaggedError<TaskLoaderError>("kongtask/TaskLoaderError")(
  "TaskLoaderError",
  { issues: Schema.Array(Issue) }
) {
  override get message(): string {
    return this.issues.map(({ column, file, line, problem }) =>
      `${[file, line, column].filter((part) => part !== undefined).join(":")} ${problem}.`
    ).join("\n")
  }
}

/**
 * What `watch` tells.
 *
 * **Details**
 *
 * - `Loaded`: a version that is whole, with the names of the tasks that it has more and fewer than the one before
 * - `Failed`: one that is not; the one before goes on
 *
 * @category models
 * @since 0.1.0
 */
export type Change = Data.TaggedEnum<{
  Loaded: {
    readonly loaded: Loaded
    readonly added: ReadonlyArray<string>
    readonly removed: ReadonlyArray<string>
  }
  Failed: { readonly error: TaskLoaderError }
}>

const defaultTimeout: Duration.Input = "4 hours"

/** Answers an effect that waits for the next version. */
const versions = (paths: ReadonlyArray<string>, options: Options | undefined) =>
  Effect.map(
    Watch.make(paths, options?.executableTimeout ?? defaultTimeout),
    ({ next }): Effect.Effect<Change> =>
      Effect.map(next, (step) =>
        step._tag === "Loaded" ? step : { _tag: "Failed", error: new TaskLoaderError({ issues: step.issues }) })
  )

/**
 * Loads the tasks of files and folders, once. What the layers of their handlers
 * acquire is released with the scope.
 *
 * **Details**
 *
 * Layers may need what is in the context of this effect, such as `Queue` or
 * `PgClient`; handlers that are functions get what is in the context of the
 * worker. A file that the program has imported too is the same module.
 *
 * **Example**
 *
 * ```ts
 * const worker = Effect.gen(function*() {
 *   const { handlers, tasks } = yield* TaskLoader.load(["./tasks"])
 *   return yield* Effect.provide(Worker.run({ tasks }), handlers)
 * })
 * ```
 *
 * @category loading
 * @since 0.1.0
 */
export const load = (
  paths: ReadonlyArray<string>,
  options?: Options
): Effect.Effect<Loaded, TaskLoaderError, Scope.Scope> =>
  Effect.flatMap(
    Effect.scope,
    (scope) => Load.load({ paths, scope, executableTimeout: options?.executableTimeout ?? defaultTimeout })
  ).pipe(Effect.mapError((issues) => new TaskLoaderError({ issues })))

/**
 * Loads the tasks, and again whenever one of the files changes, or one that they
 * import; files of `node_modules` excepted.
 *
 * **Details**
 *
 * Looks four times a second, and loads when nothing has changed for one look: that
 * works where file systems announce nothing. A new version is of new modules, all
 * of them; what the old one has acquired is released once none of its attempts
 * runs any more. Meant for development: Node keeps old modules in memory.
 *
 * @category loading
 * @since 0.1.0
 */
export const watch = (paths: ReadonlyArray<string>, options?: Options): Stream.Stream<Change> =>
  Stream.unwrap(Effect.map(versions(paths, options), Stream.fromEffectRepeat))

/**
 * Runs a worker of the tasks of files and folders, until it is interrupted.
 *
 * **Details**
 *
 * With `watch` a new version of a file runs the attempts that begin from then on, those that run end with the old one,
 * and added and removed files change what is claimed. A version with a mistake is told, and the old one goes on; the
 * first one has to be right. `onChange` is told of each version.
 *
 * @category running
 * @since 0.1.0
 */
export const run = <R = never>(
  paths: ReadonlyArray<string>,
  options?:
    & Options
    & Omit<Worker.Options<Task.Any, R>, "tasks" | "replacements">
    & {
      readonly watch?: boolean | undefined
      readonly onChange?: ((change: Change) => Effect.Effect<void, never, R>) | undefined
    }
): Effect.Effect<never, KongTaskError | TaskLoaderError, Worker.Worker | R> =>
  Effect.scoped(Effect.gen(function*() {
    const { executableTimeout: _, onChange = () => Effect.void, watch: isWatching, ...worker } = options ?? {}
    if (isWatching !== true) {
      const loaded = yield* load(paths, options)
      yield* onChange({ _tag: "Loaded", loaded, added: loaded.tasks.map(({ name }) => name), removed: [] })
      return yield* Effect.provideContext(Worker.run<Task.Any, R>({ ...worker, tasks: loaded.tasks }), loaded.handlers)
    }
    const next = yield* versions(paths, options)
    const first = yield* next
    yield* onChange(first)
    if (first._tag === "Failed") return yield* first.error
    const replacements = Stream.fromEffectRepeat(next).pipe(
      Stream.tap(onChange),
      Stream.filter((change) => change._tag === "Loaded"),
      Stream.map(({ loaded }) => loaded.registrations)
    )
    return yield* Effect.provideContext(
      Worker.run<Task.Any, R>({ ...worker, tasks: first.loaded.tasks, replacements }),
      first.loaded.handlers
    )
  })) as Effect.Effect<never, KongTaskError | TaskLoaderError, Worker.Worker | R>
