/**
 * Programs as tasks, run as graphile-worker runs them.
 */
import * as NodeChildProcessSpawner from "@effect/platform-node/NodeChildProcessSpawner"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodePath from "@effect/platform-node/NodePath"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import type { PlatformError } from "effect/PlatformError"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { dirname } from "node:path"
import type * as Job from "../../Job.ts"
import * as Task from "../../Task.ts"

/** A program that did not exit with 0. */
export class ExecutableFailed extends Data.TaggedError("ExecutableFailed")<{
  readonly message: string
  /** `undefined` where a signal ended it, or it did not start. */
  readonly exitCode: number | undefined
}> {}

/** How much of what a program writes is logged of one attempt, and how much of its end is recorded when it fails. */
const maxLogged = 1024 * 1024
const maxLine = 8 * 1024
const maxRecorded = 4 * 1024

/** How long a program may take to end after SIGTERM, and its output to end after it. */
const patience = "5 seconds"

const spawner = NodeChildProcessSpawner.layer.pipe(Layer.provide([NodeFileSystem.layer, NodePath.layer]))

const environmentOf = (job: Job.Running): Record<string, string | undefined> => ({
  GRAPHILE_WORKER_PAYLOAD_FORMAT: "json",
  GRAPHILE_WORKER_TASK_IDENTIFIER: job.task,
  GRAPHILE_WORKER_JOB_ID: job.id,
  GRAPHILE_WORKER_JOB_KEY: job.key,
  GRAPHILE_WORKER_JOB_ATTEMPTS: String(job.attempt),
  GRAPHILE_WORKER_JOB_MAX_ATTEMPTS: String(job.maxAttempts),
  GRAPHILE_WORKER_JOB_PRIORITY: String(job.priority),
  GRAPHILE_WORKER_JOB_RUN_AT: DateTime.formatIso(job.runAt)
})

/** Splits text into lines, and lines that are too long. */
const lines = (output: Stream.Stream<Uint8Array, PlatformError>): Stream.Stream<string, PlatformError> =>
  Stream.suspend(() => {
    let rest = ""
    const cut = (text: string): ReadonlyArray<string> => {
      const parts = text.split("\n")
      rest = parts.pop()!
      if (rest.length > maxLine) {
        parts.push(rest)
        rest = ""
      }
      return parts
    }
    return Stream.concat(
      Stream.flatMap(Stream.decodeText(output), (text) => Stream.fromIterable(cut(rest + text))),
      Stream.suspend(() => rest === "" ? Stream.empty : Stream.succeed(rest))
    )
  })

/** Logs what a program writes, as far as it is not too much, and keeps its end. */
const follow = (
  output: Stream.Stream<Uint8Array, PlatformError>,
  log: (line: string) => Effect.Effect<void>,
  isRecorded: boolean
) => {
  let logged = 0
  let tail = ""
  const told = (line: string) => {
    const text = line.length > maxLine ? `${line.slice(0, maxLine)}…` : line
    const before = logged
    logged += line.length + 1
    if (isRecorded) tail = `${tail}${text}\n`.slice(-maxRecorded)
    return logged <= maxLogged
      ? log(text)
      : before <= maxLogged
      ? log("… it writes more than 1 MiB; the rest is not logged.")
      : Effect.void
  }
  return { run: Stream.runForEach(lines(output), told), tail: () => tail.trim() }
}

const failed = (what: string, tail: string, exitCode?: number) =>
  new ExecutableFailed({ message: tail === "" ? what : `${what}:\n${tail}`, exitCode })

const run = Effect.fnUntraced(function*(file: string, payload: unknown, job: Job.Running) {
  const started = yield* ChildProcess.make(file, [], {
    cwd: dirname(file),
    env: environmentOf(job),
    extendEnv: true,
    stdin: { stream: Stream.make(new TextEncoder().encode(JSON.stringify({ payload }))) },
    detached: true,
    forceKillAfter: patience
  }).pipe(
    Effect.mapError((error) => failed(`could not be started: ${error.message}`, ""))
  )
  const stdout = follow(started.stdout, Effect.logInfo, false)
  const stderr = follow(started.stderr, Effect.logError, true)
  const output = yield* Effect.forkScoped(Effect.all([stdout.run, stderr.run], { concurrency: 2, discard: true }))
  const exit = yield* Effect.result(started.exitCode)
  // What it has started in the background may keep its output open; that ends with the scope.
  yield* Effect.timeoutOption(Fiber.await(output), patience)
  if (exit._tag === "Failure") return yield* failed(signalOf(exit.failure), stderr.tail())
  if (exit.success !== 0) {
    return yield* failed(`exited with code ${exit.success}`, stderr.tail(), exit.success)
  }
})

const signalOf = (error: PlatformError): string => {
  const signal = /'(SIG\w+)'/.exec(String(error.cause ?? error.message))?.[1]
  return signal === undefined ? error.message : `was ended by ${signal}`
}

/** A task that runs the file. */
export const toRegistration = (name: string, file: string, timeout: Duration.Input): Task.Registration => ({
  task: Task.make(name, { payload: Schema.Json }),
  handler: (payload, job) => run(file, payload, job).pipe(Effect.scoped, Effect.provide(spawner)),
  context: Context.empty(),
  options: { timeout, delivery: "durable" }
})
