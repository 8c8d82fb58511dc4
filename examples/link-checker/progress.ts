/**
 * Progress of a run: one line that is redrawn where somebody watches, a few
 * plain lines where the output goes into a file.
 */
import { Console, Effect, Stdio, Terminal } from "effect"
import type { Progress } from "./Runs.ts"

const barWidth = 30

const bar = ({ files, left }: Progress): string => {
  const filled = files === 0 ? barWidth : Math.floor(barWidth * (files - left) / files)
  return "█".repeat(filled) + "░".repeat(barWidth - filled)
}

export const describe = ({ files, left }: Progress): string => `${files - left} of ${files} files`

const line = (progress: Progress, note: string): string => {
  const failing = progress.failing > 0 ? `${progress.failing} failing, to be tried again` : ""
  return [describe(progress), failing, note].filter((part) => part !== "").join(", ")
}

export interface Display {
  /** `note` says what else there is to know, or is empty. */
  readonly show: (progress: Progress, note: string) => Effect.Effect<void>
  /** Takes a redrawn line away. */
  readonly clear: Effect.Effect<void>
}

export const makeDisplay: Effect.Effect<Display, never, Stdio.Stdio | Terminal.Terminal> = Effect.gen(function*() {
  const stdio = yield* Stdio.Stdio
  const terminal = yield* Terminal.Terminal
  const write = (text: string) => Effect.ignore(terminal.display(text))

  if (yield* stdio.stdoutIsTerminal) {
    return {
      show: Effect.fnUntraced(function*(progress, note) {
        const columns = yield* terminal.columns
        const text = `${bar(progress)} ${line(progress, note)}`
        yield* write(`\r\x1b[2K${columns > 0 ? text.slice(0, columns - 1) : text}`)
      }),
      clear: write("\r\x1b[2K")
    }
  }

  let shownTenths: number | undefined
  let shownNote = ""
  return {
    show: (progress, note) => {
      const tenths = Math.floor(10 * (progress.files - progress.left) / progress.files)
      shownTenths ??= tenths
      if (tenths === shownTenths && note === shownNote) return Effect.void
      shownTenths = tenths
      shownNote = note
      return Console.log(line(progress, note))
    },
    clear: Effect.void
  }
})
