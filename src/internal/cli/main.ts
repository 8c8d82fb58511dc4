/**
 * Runs a command line as the main program of the process: signals, errors, exit codes.
 */
import * as Cause from "effect/Cause"
import * as CliError from "effect/cli/CliError"
import * as CliOutput from "effect/cli/CliOutput"
import type * as HelpDoc from "effect/cli/HelpDoc"
import * as TerminalCapabilities from "effect/cli/TerminalCapabilities"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as References from "effect/References"
import * as Failure from "./failure.ts"
import * as Log from "./log.ts"
import { colors } from "./Output.ts"
import { exitCodes, Finding, OutputClosed, Problem } from "./problem.ts"

const signals = { SIGINT: 130, SIGTERM: 143 } as const

/** The signals of the process, which interrupt the command. */
export class Signals extends Context.Service<Signals, {
  /** Leaves the signals to the process from now on, which they end at once. */
  readonly release: Effect.Effect<void>
  /** From now on a signal is no failure: the command is one that runs until it is stopped. */
  readonly endsInOrder: Effect.Effect<void>
}>()("kongtask/internal/cli/main/Signals") {}

/** How many signals a worker waits for: the first stops it, the second its handlers, the third the process. */
const patience = 3

const listen = (interrupt: () => void) => {
  let first: keyof typeof signals | undefined
  let count = 0
  let isInOrder = false
  const onSignal = (signal: NodeJS.Signals) => {
    first ??= signal as keyof typeof signals
    count++
    if (count >= (isInOrder ? patience : 2)) process.exit(signals[first])
    interrupt()
  }
  for (const signal of Object.keys(signals)) process.on(signal, onSignal)
  return {
    exitCode: () => first === undefined ? signals.SIGINT : isInOrder ? 0 : signals[first],
    service: Signals.of({
      release: Effect.sync(() => {
        for (const signal of Object.keys(signals)) process.off(signal, onSignal)
      }),
      endsInOrder: Effect.sync(() => {
        isInOrder = true
      })
    })
  }
}

interface Options {
  readonly json: boolean
  readonly debug: boolean
}

const capabilities = Context.get(Context.empty(), TerminalCapabilities.TerminalCapabilities)
const errorColors = colors(capabilities.canColor && process.stderr.isTTY)

const report = (problem: Problem, json: boolean) => {
  process.stderr.write(
    json ? `${JSON.stringify(Failure.toJson(problem))}\n` : Failure.render(problem, errorColors)
  )
}

/** What is wrong with the flags, on standard error and without the whole help. */
const presenter = ({ json }: Options): CliOutput.Presenter => ({
  present: (event) =>
    event._tag === "InvalidInvocation"
      ? Effect.sync(() => {
        const message = event.errors.map(({ message }) => message.replace(/\n+/g, "\n")).join("\n")
        const todo = `\`${event.commandPath.join(" ")} --help\` shows what there is.`
        report(new Problem({ kind: "usage", message, todo }), json)
      })
      : CliOutput.defaultPresenter.present(event)
})

/** Flags of the builtin kind name all their choices twice, and a line of help has room for them once. */
const shortened = (flags: ReadonlyArray<HelpDoc.FlagDoc> | undefined) =>
  flags?.map((flag) => flag.type.length < 20 ? flag : { ...flag, type: "choice" })

const formatter = (canColor: boolean): CliOutput.Formatter => {
  const base = CliOutput.defaultFormatter({ colors: canColor, globalFlags: "summary" })
  return {
    ...base,
    formatHelpDoc: (doc) => {
      const globalFlags = shortened(doc.globalFlags)
      return base.formatHelpDoc(globalFlags === undefined ? doc : { ...doc, globalFlags })
    }
  }
}

const exitCodeOf = (cause: Cause.Cause<unknown>, interrupted: () => number, { debug, json }: Options): number => {
  if (Cause.hasInterruptsOnly(cause)) return interrupted()
  const error = Cause.squash(cause)
  if (CliError.isCliError(error)) return error._tag === "ShowHelp" && error.errors.length === 0 ? 0 : exitCodes.usage
  if (error instanceof Finding) return exitCodes[error.kind]
  if (error instanceof OutputClosed) return 0
  const problem = Failure.toProblem(error)
  report(problem, json)
  if (debug) process.stderr.write(`\n${Cause.pretty(cause)}\n`)
  return exitCodes[problem.kind]
}

/** Logs go to standard error, which leaves standard output to answers. */
const surroundings = (options: Options) =>
  Layer.mergeAll(
    Logger.layer([options.json ? Logger.withConsoleError(Logger.formatJson) : Log.make(errorColors, options.debug)]),
    Layer.succeed(References.MinimumLogLevel, options.debug ? "Debug" : "Info"),
    CliOutput.layerPresenter(presenter(options)),
    CliOutput.layer(formatter(capabilities.canColor))
  )

/** A command that only waits has nothing else that keeps the process alive. */
const alive = Effect.forever(Effect.sleep("1 day"))

/** Runs a command as the process, which ends with its exit code. */
export const run = <E>(command: Effect.Effect<void, E, Signals>, args: ReadonlyArray<string>): void => {
  // What comes after `--` is no flag.
  const flags = new Set(args.slice(0, args.includes("--") ? args.indexOf("--") : undefined))
  const options: Options = { json: flags.has("--json"), debug: flags.has("--debug") }
  const { exitCode, service } = listen(() => fiber.interruptUnsafe())
  const fiber = Effect.runFork(
    Effect.andThen(Effect.forkChild(alive), command).pipe(
      Effect.provideService(Signals, service),
      Effect.provide(surroundings(options))
    )
  )
  fiber.addObserver((exit) => {
    process.exit(Exit.isSuccess(exit) ? 0 : exitCodeOf(exit.cause, exitCode, options))
  })
}
