/**
 * What a command prints: answers on standard output, everything else on standard error.
 */
import * as TerminalCapabilities from "effect/cli/TerminalCapabilities"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Writable } from "node:stream"
import { OutputClosed } from "./problem.ts"
import * as Table from "./table.ts"

export interface Colors {
  readonly bold: (text: string) => string
  readonly dim: (text: string) => string
  readonly red: (text: string) => string
  readonly green: (text: string) => string
  readonly yellow: (text: string) => string
}

const style = (on: number, off: number) => (text: string) => `\u001b[${on}m${text}\u001b[${off}m`
const same = (text: string) => text

export const colors = (canColor: boolean): Colors =>
  canColor
    ? { bold: style(1, 22), dim: style(2, 22), red: style(31, 39), green: style(32, 39), yellow: style(33, 39) }
    : { bold: same, dim: same, red: same, green: same, yellow: same }

/** Waits until the text is taken, so that a large answer keeps nothing waiting in memory. */
const write = (stream: Writable, text: string): Effect.Effect<void, OutputClosed> =>
  Effect.callback((resume) => {
    stream.write(text, (error) => resume(error ? Effect.fail(new OutputClosed()) : Effect.void))
  })

/** Without a terminal, the width of a table is that of `COLUMNS`, or what it needs. */
const environment = Config.all({
  columns: Config.Int("COLUMNS").pipe(Config.orElse(() => Config.succeed(Number.POSITIVE_INFINITY))),
  terminal: Config.String("TERM").pipe(Config.withDefault(""))
})

export class Output extends Context.Service<Output, {
  readonly isJson: boolean
  /** Whether somebody watches standard output, so that it may be drawn anew. */
  readonly isWatched: boolean
  /** Whether somebody watches standard error. */
  readonly isProgressWatched: boolean
  readonly columns: number
  readonly rows: number
  readonly colors: Colors
  /** A line of the answer. */
  readonly line: (text: string) => Effect.Effect<void, OutputClosed>
  /** Text of the answer, as it is. */
  readonly text: (text: string) => Effect.Effect<void, OutputClosed>
  /** A line beside the answer; none with `--json`. */
  readonly note: (text: string) => Effect.Effect<void>
  /** Text on standard error, as it is. */
  readonly errorText: (text: string) => Effect.Effect<void>
  readonly table: <Row>(
    columns: ReadonlyArray<Table.Column<Row>>,
    rows: ReadonlyArray<Row>
  ) => Effect.Effect<void, OutputClosed>
  /** The answer as JSON, or else by the given effect. */
  readonly answer: <A, E, R>(
    json: unknown,
    otherwise: Effect.Effect<A, E, R>
  ) => Effect.Effect<void, E | OutputClosed, R>
}>()("kongtask/internal/cli/Output") {
  static readonly layer = (json: boolean) =>
    Layer.effect(
      Output,
      Effect.gen(function*() {
        const { canAnimate, canColor } = yield* TerminalCapabilities.TerminalCapabilities
        const { stderr, stdout } = process
        const env = yield* Effect.orDie(environment)
        const columns = stdout.isTTY ? stdout.columns || 80 : env.columns
        const palette = colors(canColor)
        const text = (text: string) => write(stdout, text)
        const line = (text: string) => write(stdout, `${text}\n`)
        const errorText = (text: string) => Effect.ignore(write(stderr, text))
        return Output.of({
          isJson: json,
          isWatched: canAnimate,
          isProgressWatched: stderr.isTTY && env.terminal !== "dumb",
          columns,
          rows: stdout.rows || 24,
          colors: palette,
          line,
          text,
          errorText,
          note: (text) => json ? Effect.void : errorText(`${text}\n`),
          table: (definitions, rows) => {
            const [titles = "", ...lines] = Table.render(definitions, rows, columns)
            return text([palette.bold(titles), ...lines, ""].join("\n"))
          },
          answer: (value, otherwise) => json ? line(JSON.stringify(value, undefined, 2)) : Effect.asVoid(otherwise)
        })
      })
    )
}
