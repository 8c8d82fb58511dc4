import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as GlobalFlag from "effect/cli/GlobalFlag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as References from "effect/References"
import type * as Task from "../../../Task.ts"
import * as Worker from "../../../Worker.ts"
import type { Configuration } from "../../configuration/resolve.ts"
import * as Connection from "../connection.ts"
import { duration, integer, orUndefined, toggle } from "../flags.ts"
import * as Format from "../format.ts"
import { Signals } from "../main.ts"
import { Output } from "../Output.ts"
import { Finding, Problem, usage } from "../problem.ts"
import * as WorkerLog from "../workerLog.ts"

const taskLoader = Effect.promise(() => import("../../../TaskLoader.ts"))

const optional = (name: string, description: string) =>
  Flag.Boolean(name).pipe(Flag.withDescription(description), orUndefined)

const flags = {
  tasks: Flag.String("tasks").pipe(
    Flag.withAlias("t"),
    Flag.withMetavar("file-or-folder"),
    Flag.withDescription(
      "A module whose exports are tasks, or a folder with a file a task; may be given several times"
    ),
    Flag.atLeast(0)
  ),
  once: toggle("once").pipe(Flag.withDescription("Run what is due, then stop")),
  watch: optional("watch", "Load tasks again when their files change").pipe(Flag.withAlias("w")),
  jobs: integer("jobs", 1, 10_000).pipe(
    Flag.withAlias("j"),
    Flag.withDescription("How many handlers run at once (default: 10)"),
    orUndefined
  ),
  pollInterval: duration("poll-interval").pipe(
    Flag.withDescription("How often to look for jobs that nothing announces (default: 2s)"),
    orUndefined
  ),
  maxPoolSize: integer("max-pool-size", 2, 10_000).pipe(
    Flag.withAlias("m"),
    Flag.withDescription("How many connections handlers have at most (default: 10)"),
    orUndefined
  ),
  noPreparedStatements: toggle("no-prepared-statements").pipe(
    Flag.withDescription("Prepare no statements, for poolers in transaction mode")
  ),
  crontab: Flag.String("crontab").pipe(
    Flag.withMetavar("file"),
    Flag.withDescription("Recurring jobs; the file is read again when it changes"),
    orUndefined
  ),
  noScheduler: toggle("no-scheduler").pipe(
    Flag.withDescription("Run no schedules, neither those of the crontab nor those in the database")
  ),
  useNodeTime: optional("use-node-time", "Whether jobs are due by this machine's clock, not the database's"),
  noHandleSignals: toggle("no-handle-signals").pipe(
    Flag.withDescription("SIGTERM and SIGINT end the process at once, not the worker in order")
  ),
  noMigrate: toggle("no-migrate").pipe(Flag.withDescription("Leave the schema as it is"))
}

/** What `Worker.run` is told. */
const optionsOf = ({ settings }: Configuration) => ({
  concurrency: settings.jobs.value,
  pollInterval: settings.pollInterval.value,
  useNodeTime: settings.useNodeTime.value,
  handleSignals: settings.handleSignals.value
})

const summaryText = (
  { cancelled, completed, failed, lost, retried, snoozed }: Worker.Summary
): string =>
  [
    `${Format.many(completed, "job")} completed`,
    ...(failed > 0 ? [`${Format.count(failed)} failed for good`] : []),
    ...(retried > 0 ? [`${Format.count(retried)} failed and will be tried again`] : []),
    ...(snoozed > 0 ? [`${Format.count(snoozed)} put off`] : []),
    ...(cancelled > 0 ? [`${Format.count(cancelled)} cancelled`] : []),
    ...(lost > 0 ? [`${Format.count(lost)} taken away`] : [])
  ].join(", ")

const runOnce = Effect.fnUntraced(function*(paths: ReadonlyArray<string>, configuration: Configuration) {
  const output = yield* Output
  if (output.isJson) yield* leaveOutput
  const { load } = yield* taskLoader
  const { handlers, tasks } = yield* load(paths)
  const summary = yield* Effect.provideContext(
    Worker.runOnce({ ...optionsOf(configuration), tasks: tasks as ReadonlyArray<Task.Any> }),
    handlers
  )
  yield* output.answer(summary, output.line(`${summaryText(summary)}.`))
  if (summary.failed + summary.retried > 0) return yield* new Finding({ kind: "jobsFailed" })
})

/** What handlers print is no part of an answer in JSON. */
const leaveOutput = Effect.sync(() => {
  const { error } = globalThis.console
  Object.assign(globalThis.console, { log: error, info: error, debug: error })
})

/** Runs until it is told to stop, and the schedules beside. */
const runForever = Effect.fnUntraced(function*(
  paths: ReadonlyArray<string>,
  configuration: Configuration,
  withScheduler: boolean
) {
  const { settings } = configuration
  const signals = yield* Signals
  yield* settings.handleSignals.value ? signals.endsInOrder : signals.release
  const { run } = yield* taskLoader
  let isLoaded = false
  const worker = run(paths, {
    ...optionsOf(configuration),
    watch: settings.watch.value,
    onChange: (change) => {
      const isFirst = !isLoaded
      isLoaded = true
      return WorkerLog.change(isFirst, change)
    }
  })
  if (!withScheduler) return yield* worker
  const { run: runScheduler } = yield* Effect.promise(() => import("../../../Scheduler.ts"))
  return yield* Effect.raceFirst(worker, runScheduler({ crontabFile: settings.crontab.value }))
})

export const worker = Command.make(
  "worker",
  flags,
  ({ noHandleSignals, noMigrate, noPreparedStatements, noScheduler, once, tasks, ...given }) =>
    Effect.gen(function*() {
      const configuration = yield* Connection.resolve({
        ...given,
        tasks: tasks.length === 0 ? undefined : tasks,
        preparedStatements: noPreparedStatements ? false : undefined,
        handleSignals: noHandleSignals ? false : undefined
      })
      const { settings } = configuration
      if (once && given.watch === true) return yield* usage("--once and --watch exclude each other.")
      const paths = settings.tasks.value
      if (paths === undefined) {
        return yield* new Problem({
          kind: "configuration",
          message: "No tasks are configured.",
          todo: "Give --tasks FILE-OR-FOLDER, or set `tasks` in kongtask.config.ts."
        })
      }
      yield* Effect.gen(function*() {
        yield* WorkerLog.follow
        yield* once ? runOnce(paths, configuration) : runForever(paths, configuration, !noScheduler)
      }).pipe(
        Effect.scoped,
        Effect.provide(Connection.workerServices(configuration, !noMigrate))
      )
    }).pipe(withLogLevel)
).pipe(
  Command.withDescription("Run jobs."),
  Command.withExamples([
    { command: "kongtask worker --tasks ./tasks --watch", description: "While developing" },
    { command: "kongtask worker --tasks tasks.ts --once", description: "Run what is due, and tell how it went" }
  ])
)

/** That of the settings, where the flag does not say it. */
const withLogLevel = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const { settings } = yield* Connection.resolve()
    const level = settings.logLevel.value ?? (settings.debug.value ? "Debug" : undefined)
    return Option.isSome(yield* GlobalFlag.LogLevel) || level === undefined
      ? yield* self
      : yield* Effect.provideService(self, References.MinimumLogLevel, level)
  })
