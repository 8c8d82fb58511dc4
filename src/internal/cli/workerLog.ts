/**
 * What a worker does, as lines of a log.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { Change } from "../../TaskLoader.ts"
import * as Worker from "../../Worker.ts"
import type { WorkerEvent } from "../../WorkerEvent.ts"
import * as Format from "./format.ts"
import { plain } from "./table.ts"

type Level = "Debug" | "Info" | "Warn" | "Error"

interface Line {
  readonly level: Level
  readonly text: string
}

const line = (level: Level, text: string): Line => ({ level, text })

const attempt = ({ attempt, maxAttempts }: { readonly attempt: number; readonly maxAttempts: number }) =>
  `attempt ${attempt} of ${maxAttempts}`

const maxError = 300

const short = (text: string) => {
  const flat = plain(text)
  return flat.length <= maxError ? flat : `${flat.slice(0, maxError)}…`
}

/** What an event is worth telling; `undefined` is nothing. */
export const describe = (event: WorkerEvent): Line | undefined => {
  switch (event._tag) {
    case "PoolStarted":
      return line("Info", `Worker ${event.pool} waits for jobs of ${event.tasks.join(", ")}.`)
    case "PoolStopped":
      return line("Info", `Worker ${event.pool} has stopped.`)
    case "PoolInterrupting":
      return line("Warn", `Interrupting ${Format.many(event.running, "running job")}.`)
    case "PoolLost":
      return line("Warn", `Worker ${event.pool} was taken for dead (${event.reason}); it goes on under a new id.`)
    case "PoolsReleased":
      return line(
        "Warn",
        `Released ${Format.many(event.recovery.released, "job")} of ${event.recovery.pools.length} dead workers.`
      )
    case "DatabaseUnavailable":
      return line("Warn", `The database does not answer: ${short(event.error.message)}`)
    case "JobStarted":
      return line("Debug", `Job ${event.job.id} (${event.job.task}) starts, ${attempt(event.job)}.`)
    case "JobCompleted":
      return line("Info", `Job ${event.job.id} (${event.job.task}) completed in ${Format.duration(event.duration)}.`)
    // That it failed, and of which kind, is logged by the worker itself; what it said may quote a payload.
    case "JobFailed":
      return line("Debug", `Job ${event.job.id} (${event.job.task}) failed: ${short(event.error)}`)
    case "JobSnoozed":
      return line("Info", `Job ${event.job.id} (${event.job.task}) is put off for ${Format.duration(event.delay)}.`)
    case "JobCancelled":
      return line(
        "Info",
        `Job ${event.job.id} (${event.job.task}) was cancelled${
          event.reason === undefined ? "" : `: ${short(event.reason)}`
        }.`
      )
    case "JobReleased":
      return line("Info", `Job ${event.job.id} (${event.job.task}) was interrupted and runs again.`)
    case "JobLost":
      return line("Warn", `Job ${event.job.id} (${event.job.task}) had been taken away; its outcome was not recorded.`)
  }
  return undefined
}

/** What has become of a version of the files. The first one has to be right, and is no matter of the log if it is not. */
export const change = (isFirst: boolean, change: Change): Effect.Effect<void> => {
  if (change._tag === "Failed") {
    return isFirst
      ? Effect.void
      : Effect.logError(`The tasks cannot be loaded, and those before go on: ${change.error.message}`)
  }
  const { added, loaded, removed } = change
  const names = [...added.map((name) => `+${name}`), ...removed.map((name) => `-${name}`)]
  return Effect.logInfo(
    `Loaded ${Format.many(loaded.tasks.length, "task")}${names.length === 0 ? "" : ` (${names.join(", ")})`}.`
  )
}

/** So many completed jobs a second have a line each; the others are counted. */
const linesPerSecond = 20

/** Writes the events of this process's workers to the log, for as long as the scope is open. */
export const follow = Effect.gen(function*() {
  const { events } = yield* Worker.Worker
  let second = 0
  let lines = 0
  let unsaid = 0
  let isAway = false

  const sayCount = Effect.suspend(() => {
    const count = unsaid
    unsaid = 0
    return count === 0 ? Effect.void : Effect.logInfo(`${Format.many(count, "more job")} completed.`)
  })

  const isOneTooMany = Effect.fnUntraced(function*() {
    const now = Math.floor((yield* Clock.currentTimeMillis) / Duration.toMillis("1 second"))
    if (now !== second) {
      yield* sayCount
      second = now
      lines = 0
    }
    lines++
    return lines > linesPerSecond
  })

  const write = Effect.fnUntraced(function*(event: WorkerEvent) {
    if (event._tag === "JobCompleted" && (yield* isOneTooMany())) {
      unsaid++
      return
    }
    // An outage is told once, not at each try.
    const wasAway = isAway
    if (event._tag === "DatabaseUnavailable") isAway = true
    if (event._tag === "JobsClaimed" || event._tag === "PoolIdle") isAway = false
    if (wasAway && isAway) return
    if (wasAway) yield* Effect.logInfo("The database answers again.")
    if (event._tag === "PoolIdle" || event._tag === "PoolStopping") yield* sayCount
    const described = describe(event)
    if (described !== undefined) yield* Effect.logWithLevel(described.level)(described.text)
  })

  yield* Effect.addFinalizer(() => sayCount)
  yield* events.pipe(Stream.runForEach(write), Effect.forkScoped({ startImmediately: true }))
})
