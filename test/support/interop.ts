/**
 * graphile-worker and KongTask on one database, and what their handlers did.
 */
import { PgClient } from "@effect/sql-pg"
import { Effect, Layer, Schema } from "effect"
import type { Task as TheirTask } from "graphile-worker"
import { type Job, KongTask, Task, Worker } from "kongtask"
import { freshDatabase, TestDatabase } from "./database.ts"
import * as Graphile from "./graphile.ts"

const layerOf = (prepare: (url: string) => Effect.Effect<void>, options?: KongTask.Options) => {
  const database = Layer.effect(
    TestDatabase,
    Effect.tap(freshDatabase({ migrated: false }), ({ url }) => prepare(url))
  )
  const client = Layer.unwrap(Effect.map(TestDatabase, ({ config }) => PgClient.layer(config)))
  return Layer.provideMerge(KongTask.layer(options), Layer.orDie(Layer.provideMerge(client, database)))
}

/** The two ways in which a schema comes to serve both. */
export const schemas = {
  "a schema that KongTask made": { adoptedFrom: undefined, layer: layerOf(() => Effect.void, { interop: true }) },
  "a schema that graphile-worker made and KongTask adopted": { adoptedFrom: 20, layer: layerOf(Graphile.migrate) }
}

/** What a test on such a schema can use. */
export type Services = Layer.Success<ReturnType<typeof layerOf>>

/** Where graphile-worker works in such a test. */
export const target: Effect.Effect<Graphile.Target, never, TestDatabase | PgClient.PgClient> = Effect.all([
  TestDatabase,
  PgClient.PgClient
]).pipe(Effect.map(([{ url }, sql]) => ({ url, sql })))

/** Tasks that one of the two runs, or both do. */
export const Ours = Task.make("ours", { payload: { n: Schema.Int } })
export const Theirs = Task.make("theirs", { payload: { n: Schema.Int } })
export const Both = Task.make("both", { payload: { n: Schema.Int } })

/** The payloads of that range. */
export const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => ({ n: from + i }))

/** One start of a handler. */
export interface Run {
  readonly by: "ours" | "theirs"
  readonly task: string
  readonly id: string
  readonly n: number
  readonly attempt: number
  readonly maxAttempts: number
  readonly priority: number
  readonly key: string | undefined
  readonly flags: ReadonlyArray<string>
  readonly runAt: number
  readonly lastError: string | undefined
}

/** Keeps every start of a handler, in order, and does `work` in it. */
export const makeLedger = (work: (run: Run) => Promise<void> | void = () => {}) => {
  const runs: Array<Run> = []
  const handle = async (run: Run) => {
    runs.push(run)
    await work(run)
  }
  const ours = ({ n }: { readonly n: number }, job: Job.Running) => {
    const { attempt, flags, id, key, lastError, maxAttempts, priority, runAt: { epochMilliseconds: runAt }, task } = job
    const run = { task, id, n, attempt, maxAttempts, priority, key, flags, runAt, lastError }
    return Effect.promise(() => handle({ by: "ours", ...run }))
  }
  const theirs: TheirTask = (payload, { job }) => {
    return handle({
      by: "theirs",
      task: job.task_identifier,
      id: job.id,
      n: (payload as { readonly n: number }).n,
      attempt: job.attempts,
      maxAttempts: job.max_attempts,
      priority: job.priority,
      key: job.key ?? undefined,
      flags: Object.keys(job.flags ?? {}),
      runAt: job.run_at.getTime(),
      lastError: job.last_error ?? undefined
    })
  }
  const runsOf = (task: string) => runs.filter((run) => run.task === task)
  return {
    runs,
    ran: (n: number) => runs.some((run) => run.n === n),
    runsOf,
    /** Our handlers of the tasks that are not graphile-worker's alone. */
    ours: Layer.mergeAll(Ours.toLayer(ours), Both.toLayer(ours)),
    /** Its handlers of the tasks that are not ours alone. */
    theirs: { theirs, both: theirs }
  }
}

/** Something that handlers wait for. */
export const makeGate = () => {
  const { promise, resolve } = Promise.withResolvers<void>()
  return { opened: promise, open: () => resolve() }
}

/** Our worker of `Ours` and `Both`, until the scope closes. */
export const startOurs = (
  handlers: ReturnType<typeof makeLedger>["ours"],
  options?: Partial<Worker.Options<Task.Any>>
) =>
  Worker.run({ tasks: [Ours, Both], handleSignals: false, pollInterval: "100 millis", ...options as {} }).pipe(
    Effect.provide(handlers),
    Effect.tapCause((cause) => Effect.logError("The worker has stopped.", cause)),
    Effect.forkScoped({ startImmediately: true })
  )
