/**
 * What rows are made of: workloads, each with contestants that are measured in turn.
 */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { AgentFailed } from "./agents.ts"
import type { Server } from "./server.ts"

/** A contestant left jobs behind, or could not be measured. */
export class MeasurementFailed extends Data.TaggedError("MeasurementFailed")<{ readonly message: string }> {}

/** How large the workloads are. */
export class Sizes extends Context.Service<Sizes, {
  /** All counts are multiplied by it. */
  readonly scale: number
}>()("kongtask/bench/Sizes") {}

/** Named numbers; which of them a row shows is the row's matter. */
export type Metrics = Readonly<Record<string, number>>

export interface Measured {
  readonly metrics: Metrics
  readonly configuration: Readonly<Record<string, unknown>>
}

export interface Entry {
  /** The contestant's name, with what distinguishes it in this row. */
  readonly label: string
  /** Left out of the part that is run without `--full`. */
  readonly isOnlyInFull?: boolean | undefined
  readonly measure: Effect.Effect<Measured, AgentFailed | MeasurementFailed, Scope.Scope | Server | Sizes>
}

/** The entry, in the usual part or not. */
export const onlyInFull = (entry: Entry, isOnlyInFull: boolean): Entry => ({ ...entry, isOnlyInFull })

export interface Row {
  /** Unique, `group: workload`. */
  readonly id: string
  /** What `--only` names. */
  readonly group: string
  /** What is counted, in one sentence, for the documents. */
  readonly what: string
  /** The metric that is compared, and its unit. */
  readonly metric: string
  readonly unit: string
  readonly isMoreBetter: boolean
  /** Whether it belongs to the part that is run without `--full`. */
  readonly isInSubset: boolean
  /** As many rounds at most, for what hardly varies. */
  readonly rounds?: number | undefined
  /** Only run when asked for by a flag of its own. */
  readonly isHuge?: boolean | undefined
  readonly entries: ReadonlyArray<Entry>
}
