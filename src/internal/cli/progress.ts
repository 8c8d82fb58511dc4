/**
 * A progress bar on standard error, for whoever watches a terminal.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Format from "./format.ts"
import { Output } from "./Output.ts"

export interface Progress {
  /** Says that so much more is done. */
  readonly advance: (by: number) => Effect.Effect<void>
}

const interval = 100
const widest = 30

/** One line: what is done, how much of it, and how fast; a bar where the total is known. */
export const render = (
  state: {
    readonly label: string
    readonly done: number
    readonly total: number | undefined
    readonly elapsedMillis: number
  },
  columns: number
): string => {
  const { done, elapsedMillis, label, total } = state
  const rate = elapsedMillis >= 1000 ? `  ${Format.count(Math.round(done / elapsedMillis * 1000))}/s` : ""
  const amount = total === undefined ? Format.count(done) : `${Format.count(done)} of ${Format.count(total)}`
  const text = `${label} ${amount}${rate}`
  const room = Math.min(widest, columns - text.length - 10)
  if (total === undefined || total === 0 || room < 5) return text.slice(0, columns - 1)
  const part = Math.min(1, done / total)
  const filled = Math.floor(part * room)
  return `${label} [${"=".repeat(filled)}${" ".repeat(room - filled)}] ${
    String(Math.floor(part * 100)).padStart(3)
  }% ${amount}${rate}`
}

/** A bar for as long as the scope is open; on anything but a terminal, and with `--json`, there is none. */
export const make = Effect.fnUntraced(function*(
  label: string,
  total?: number
): Effect.fn.Return<Progress, never, Output | Scope.Scope> {
  const output = yield* Output
  if (!output.isProgressWatched || output.isJson) return { advance: () => Effect.void }
  const columns = process.stderr.columns || 80
  const startedAt = yield* Clock.currentTimeMillis
  let done = 0
  let drawnAt = 0
  const draw = (now: number) => {
    drawnAt = now
    return output.errorText(`\r\u001b[K${render({ label, done, total, elapsedMillis: now - startedAt }, columns)}`)
  }
  yield* Effect.addFinalizer(() => output.errorText("\r\u001b[K"))
  yield* draw(startedAt)
  return {
    advance: Effect.fnUntraced(function*(by) {
      done += by
      const now = yield* Clock.currentTimeMillis
      if (now - drawnAt >= interval) yield* draw(now)
    })
  }
})
