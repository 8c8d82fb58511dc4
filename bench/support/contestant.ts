/**
 * What every contestant can do, and nothing of how it does it.
 *
 * A contestant lives in a process of its own (agent.ts); the rows see only what that process answers.
 */
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { randomBytes } from "node:crypto"

/** What a job carries. */
export interface Payload {
  /** Which job it is; a negative number is load that nobody counts. */
  readonly n: number
  readonly pad?: string
}

/** The tasks whose jobs a worker runs. */
export interface Work {
  readonly concurrency: number
  /** How many jobs there are to run. */
  readonly jobs: number
  /** Connections of one worker, for contestants that have to be told when many workers share a server. */
  readonly maxPoolSize?: number | undefined
  /** By the name of the task: how long its handler sleeps, in milliseconds; 0 returns at once. */
  readonly tasks: Readonly<Record<string, number>>
  /** Called first in each handler. */
  readonly onStart: (n: number) => void
}

/** A stretch of time, in milliseconds since the epoch with their fractions. */
export interface Span {
  readonly start: number
  readonly end: number
}

/** Adds jobs of the task `bench`. */
export interface Producer {
  readonly add: (payload: Payload, task?: string) => Effect.Effect<void>
  readonly addMany: (payloads: ReadonlyArray<Payload>) => Effect.Effect<void>
}

export interface Contestant {
  /** The settings that differ from the defaults, in the words of its own documentation. */
  readonly configuration: (work: Pick<Work, "concurrency" | "maxPoolSize">) => Readonly<Record<string, unknown>>
  /** Makes its tables; the task `bench` can have jobs after that. */
  readonly migrate: Effect.Effect<void>
  /** Adds jobs to drain, where its tables are not graphile-worker's (fill.ts). */
  readonly fill?: ((payloads: ReadonlyArray<Payload>) => Effect.Effect<void>) | undefined
  /** Runs all jobs that are due. The span ends when the completion of the last one is committed. */
  readonly drain: (work: Work) => Effect.Effect<Span>
  /** A worker that runs until the scope closes, which ends when it has stopped. */
  readonly work: (work: Work) => Effect.Effect<void, never, Scope.Scope>
  readonly producer: (fibers: number) => Effect.Effect<Producer, never, Scope.Scope>
  /** Claims 500 jobs at a time and settles none; answers milliseconds a claim. */
  readonly claims?: ((count: number) => Effect.Effect<ReadonlyArray<number>>) | undefined
}

export type Make = (url: string, profile: string) => Contestant

/** Now, in milliseconds since the epoch with their fractions, alike in all processes of the machine. */
export const now = (): number => performance.timeOrigin + performance.now()

/** A text of that many bytes, which the server's compression hardly shortens. */
export const padding = (bytes: number): string => randomBytes(bytes).toString("base64").slice(0, bytes)

/** How many priorities a row has that is about order: job `n` has `7 n` modulo this. */
export const priorities = 10

/** The contestants: which module runs it, in which profile, and whether its tables are graphile-worker's. */
export const contestants = {
  "kongtask": { module: "kongtask", profile: "default", schema: "graphile_worker" },
  "kongtask, interop indexes": { module: "kongtask", profile: "interop", schema: "graphile_worker" },
  "graphile-worker default": { module: "graphileWorker", profile: "default", schema: "graphile_worker" },
  "graphile-worker docs": { module: "graphileWorker", profile: "docs", schema: "graphile_worker" },
  "graphile-worker best": { module: "graphileWorker", profile: "best", schema: "graphile_worker" },
  "graphile-worker 0.16.6": { module: "graphileWorker016", profile: "default", schema: "graphile_worker" },
  "pg-boss default": { module: "pgBoss", profile: "default", schema: "pgboss" },
  "pg-boss single": { module: "pgBoss", profile: "single", schema: "pgboss" },
  "pg-boss batch": { module: "pgBoss", profile: "batch", schema: "pgboss" },
  "pg-boss notify": { module: "pgBoss", profile: "notify", schema: "pgboss" },
  "bare loop": { module: "bareLoop", profile: "1", schema: "graphile_worker" },
  "bare loop, 2 streams": { module: "bareLoop", profile: "2", schema: "graphile_worker" }
} as const

export type Name = keyof typeof contestants
