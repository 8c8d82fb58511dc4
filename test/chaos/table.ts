/**
 * The report of a run.
 */
import type { Result } from "./harness.ts"
import * as Settings from "./settings.ts"

const header = ["case", "faults", "jobs", "lost", "re-run", "overlapping", "recovery (s)", "took (s)"]

/** A line a round of a case. */
export const table = (results: ReadonlyArray<Result>): string => {
  const lines = [
    header,
    ...results.map((result) => [
      result.name,
      String(result.faults),
      String(result.jobs),
      String(result.lost),
      String(result.rerun),
      String(result.overlapping),
      result.recoverySeconds.toFixed(1),
      result.seconds.toFixed(0)
    ])
  ]
  const widths = header.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)))
  const rows = lines.map((line) =>
    line.map((cell, column) => column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)).join("  ")
  )
  return `Chaos, ${Settings.isLong ? "long" : "short"} form, CHAOS_SEED=${Settings.seed}\n${rows.join("\n")}`
}
