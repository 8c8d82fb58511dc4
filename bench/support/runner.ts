/**
 * Runs rows: in every round each contestant once, in turn, so that a slow minute of the machine meets all of them.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Metrics, Row } from "./bench.ts"
import { median } from "./statistics.ts"

/** What one contestant did in one row. */
export interface Result {
  readonly contestant: string
  readonly configuration: Readonly<Record<string, unknown>>
  /** One a round; `null` where it failed, so that rounds stay comparable. */
  readonly runs: ReadonlyArray<Metrics | null>
  /** Of every metric. */
  readonly median: Metrics
  readonly min: Metrics
  readonly max: Metrics
  readonly problems: ReadonlyArray<string>
}

export interface RowResult extends Omit<Row, "entries" | "isInSubset" | "isHuge" | "rounds"> {
  readonly results: ReadonlyArray<Result>
}

/** One line on standard error. */
export const progress = (text: string): Effect.Effect<void> => Effect.sync(() => void process.stderr.write(`${text}\n`))

const summarise = (runs: ReadonlyArray<Metrics>, of: (values: ReadonlyArray<number>) => number): Metrics =>
  Object.fromEntries(
    Object.keys(runs[0] ?? {}).map((metric) => [metric, of(runs.map((run) => run[metric] ?? Number.NaN))])
  )

/** A number with three significant digits at least. */
export const show = (value: number): string => {
  if (!Number.isFinite(value)) return "–"
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2
  return value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits })
}

export const runRow = Effect.fnUntraced(function*(row: Row, wanted: number) {
  const rounds = Math.min(wanted, row.rounds ?? wanted)
  yield* progress(`\n${row.id}`)
  const tally = row.entries.map(() => ({
    runs: [] as Array<Metrics | null>,
    problems: [] as Array<string>,
    configuration: {} as Readonly<Record<string, unknown>>
  }))
  for (let round = 1; round <= rounds; round++) {
    for (const [index, entry] of row.entries.entries()) {
      const own = tally[index]!
      const exit = yield* entry.measure.pipe(
        Effect.scoped,
        Effect.timeoutOrElse({
          duration: "10 minutes",
          orElse: () => Effect.die(new Error("not within ten minutes"))
        }),
        Effect.exit
      )
      if (Exit.isSuccess(exit)) {
        own.runs.push(exit.value.metrics)
        own.configuration = exit.value.configuration
        yield* progress(`  ${round}/${rounds}  ${entry.label}: ${show(exit.value.metrics[row.metric]!)} ${row.unit}`)
      } else {
        if (Cause.hasInterruptsOnly(exit.cause)) return yield* Effect.interrupt
        const problem = Cause.pretty(exit.cause)
        own.runs.push(null)
        own.problems.push(problem)
        yield* progress(`  ${round}/${rounds}  ${entry.label}: FAILED\n${problem}`)
      }
    }
  }
  const { entries, isHuge: _huge, isInSubset: _subset, rounds: _rounds, ...described } = row
  return {
    ...described,
    results: entries.map(({ label }, index): Result => {
      const { configuration, problems, runs } = tally[index]!
      const good = runs.filter((run) => run !== null)
      return {
        contestant: label,
        configuration,
        runs,
        median: summarise(good, median),
        min: summarise(good, (values) => Math.min(...values)),
        max: summarise(good, (values) => Math.max(...values)),
        problems
      }
    })
  } satisfies RowResult
})
