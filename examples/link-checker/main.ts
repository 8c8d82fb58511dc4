/**
 * Checks the links of this repository, one job a file: `npm start`.
 *
 * - `npm start -- ~/notes CHANGES.txt` checks these too
 * - `DATABASE_URL=postgres://… npm start` runs on a server; several may run at once and share the work, as long as they
 *   see the same files
 *
 * Exit codes: 0 all is well, 1 some files failed, 2 it could not be done, 130
 * it was stopped, and the next start goes on.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Cause, Config, Console, Effect, Exit, Layer, Logger, Option, Path, References, Runtime, Schema } from "effect"
import { Argument, CliError, CliOutput, Command, Flag } from "effect/cli"
import { isSqlError } from "effect/sql/SqlError"
import { KongTask } from "kongtask"
import { checkAll, FilesFailed } from "./checkAll.ts"
import { CheckFileLive } from "./CheckFileLive.ts"
import { findFiles } from "./files.ts"
import { Runs } from "./Runs.ts"

const defaultDataDir = ".kongtask"

const paths = Argument.String("path").pipe(
  Argument.withDescription("Files and folders to check beside those of this folder."),
  Argument.variadic()
)

const dataDir = Flag.String("data-dir").pipe(
  Flag.withDescription(
    `Folder of the embedded database. Default: ${defaultDataDir}, or no embedded database when DATABASE_URL is set.`
  ),
  Flag.optional
)

const concurrency = Flag.Int("concurrency").pipe(
  Flag.withDescription("How many files are checked at once, 1 to 1000. Default: 32."),
  Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1000 }))),
  Flag.withDefault(32)
)

/** The server of DATABASE_URL; without one, or when a folder is named, the embedded database. */
const database = Effect.fnUntraced(function*(dataDir: Option.Option<string>) {
  const url = yield* Config.option(Config.Redacted("DATABASE_URL"))
  if (Option.isSome(url) && Option.isNone(dataDir)) {
    return { name: "the database at DATABASE_URL", layer: KongTask.layerConfig }
  }
  const folder = Option.getOrElse(dataDir, () => defaultDataDir)
  return { name: `the embedded database in ${folder}`, layer: KongTask.layerEmbedded({ dataDir: folder }) }
})

const linkChecker = Command.make(
  "link-checker",
  { paths, dataDir, concurrency },
  Effect.fnUntraced(function*({ concurrency, dataDir, paths }) {
    const path = yield* Path.Path
    const root = path.resolve()
    const files = yield* findFiles(root, paths)
    const { layer, name } = yield* database(dataDir)
    yield* Console.log(`Checking ${files.length} files with ${name}.`)
    yield* checkAll({ root, files, concurrency }).pipe(
      Effect.provide(Layer.provideMerge(CheckFileLive, Layer.provideMerge(Runs.layer, layer)))
    )
  })
).pipe(
  Command.withDescription("Checks the links of Markdown and source files, one job a file.")
)

/** What is wrong with a command line is said in one line, without all the help. */
const presenter = CliOutput.layerPresenter({
  present: (event) =>
    event._tag === "InvalidInvocation"
      ? Console.error(`${event.errors.map(({ message }) => message).join(" ")} (--help shows the options.)`)
      : CliOutput.defaultPresenter.present(event)
})

/** One line for what may happen to anybody; a defect of the program comes with its stack. */
const explain = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  const isExpected = !Cause.hasDies(cause) || isSqlError(error)
  return isExpected && error instanceof Error ? error.message : Cause.pretty(cause)
}

const reported = Effect.tapCause((cause: Cause.Cause<unknown>) =>
  // The command line's own errors have been shown already.
  Cause.hasInterruptsOnly(cause) || CliError.isCliError(Cause.squash(cause))
    ? Effect.void
    : Console.error(explain(cause))
)

const exitCode: Runtime.Teardown = (exit, onExit) =>
  Runtime.defaultTeardown(exit, (code) => {
    const isDone = Exit.isFailure(exit) && Cause.squash(exit.cause) instanceof FilesFailed
    onExit(code === 1 && !isDone ? 2 : code)
  })

Command.run(linkChecker, { version: "0.1.0" }).pipe(
  reported,
  Effect.provide([NodeServices.layer, presenter]),
  // The progress says what matters of the worker's warnings; --log-level shows them.
  Effect.provideService(References.MinimumLogLevel, "Error"),
  Effect.provideService(Logger.LogToStderr, true),
  NodeRuntime.runMain({ disableErrorReporting: true, teardown: exitCode })
)
