/**
 * What a row can ask of a contestant's process, and what it answers: plain data, sent as JSON.
 */
import type { Span } from "./contestant.ts"

/** The tasks and their handlers' milliseconds, as in `Work`. */
export interface WorkSpec {
  readonly concurrency: number
  readonly jobs: number
  readonly maxPoolSize?: number | undefined
  readonly tasks: Readonly<Record<string, number>>
}

/** What a process used while it did something. */
export interface Used {
  /** User and system time, in milliseconds. */
  readonly cpu: number
  /** Resident set after it, and the largest since the start of the process; in MB. */
  readonly rss: number
  readonly peakRss: number
}

export interface Percentiles {
  readonly p50: number
  readonly p95: number
  readonly p99: number
  readonly max: number
}

export interface Operations {
  /** Answers when the contestant's module is loaded. */
  readonly configuration: {
    readonly input: Pick<WorkSpec, "concurrency" | "maxPoolSize">
    readonly output: Readonly<Record<string, unknown>>
  }
  readonly migrate: { readonly input: object; readonly output: void }
  readonly fill: { readonly input: { readonly jobs: number; readonly padBytes: number }; readonly output: void }
  /** Runs all that is due, as so many workers at once. */
  readonly drain: {
    readonly input: { readonly work: WorkSpec; readonly workers: number }
    /** Inversions are jobs that started after one that comes later in the order of (7 n modulo `priorities`, n). */
    readonly output: Span & Used & { readonly inversions: number }
  }
  /** Runs a worker until these jobs are committed or the time is over. */
  readonly until: {
    readonly input: { readonly work: WorkSpec; readonly pending: string; readonly seconds: number }
    readonly output: Span & Used & { readonly started: number }
  }
  readonly add: {
    readonly input: {
      readonly fibers: number
      readonly calls: number
      readonly batch: number
      readonly padBytes: number
    }
    readonly output: Span & Used & Percentiles
  }
  /** One job after the other, `gap` milliseconds apart; beside them `load` jobs a second of the task `load`. */
  readonly latency: {
    readonly input: {
      readonly work: WorkSpec
      readonly samples: number
      readonly gap: number
      readonly loadPerSecond: number
    }
    readonly output: { readonly added: Percentiles; readonly started: Percentiles; readonly committed: Percentiles }
  }
  readonly claims: { readonly input: { readonly count: number }; readonly output: ReadonlyArray<number> }
  /** Starts a worker, which goes on; answers when the first job starts, if there is one. */
  readonly start: {
    readonly input: { readonly work: WorkSpec }
    readonly output: { readonly firstJobAfter: number | undefined }
  }
  readonly used: { readonly input: object; readonly output: Used }
  /** Stops that worker; answers how long it took in milliseconds. */
  readonly stop: { readonly input: object; readonly output: number }
}

export type Operation = keyof Operations

/** The channel on which a trigger tells of committed completions, for every contestant alike. */
export const committedChannel = "bench_committed"
