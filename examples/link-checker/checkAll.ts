/**
 * One run from its beginning, or from where it was left, to its report.
 */
import { Clock, Console, Effect, Schedule, Schema } from "effect"
import { Queue, Worker } from "kongtask"
import { type Activity, follow } from "./Activity.ts"
import { CheckFile } from "./CheckFile.ts"
import { describe, makeDisplay } from "./progress.ts"
import { rate, report } from "./report.ts"
import { type Progress, type Run, Runs } from "./Runs.ts"

/** The run is complete, and not all is well. */
export class FilesFailed extends Schema.TaggedError<FilesFailed>()("FilesFailed", {
  failed: Schema.Int,
  files: Schema.Int
}) {
  override get message(): string {
    return `${this.failed} of ${this.files} files failed.`
  }
}

const lookInterval = "100 millis"

/** Looks without progress before it is asked what the progress waits for. */
const patience = 10

/** A short lease, so that the jobs of a killed process don't wait long. */
const worker = (concurrency: number) =>
  Worker.run({
    tasks: [CheckFile],
    concurrency,
    lease: "10 seconds",
    heartbeatInterval: "2 seconds",
    // The program's main fiber is interrupted by signals, and the worker with it.
    handleSignals: false
  })

/** What is being waited for while nothing goes on here. */
const explain = Effect.fnUntraced(function*(activity: Activity) {
  if (activity.trouble !== undefined) return activity.trouble
  const running = yield* Queue.list({ task: CheckFile, state: "running", limit: 1000 })
  const elsewhere = running.filter(({ lockedBy }) => lockedBy !== undefined && !activity.pools.has(lockedBy))
  return elsewhere.length === 0
    ? ""
    : `waiting for ${elsewhere.length} jobs of another process (of a stopped one: for up to 20 seconds)`
})

/** Shows the progress until every file of the run is finished. */
const watch = Effect.fnUntraced(function*(run: Run, activity: Activity) {
  const runs = yield* Runs
  const display = yield* makeDisplay
  let last: Progress = { files: run.files, left: run.left, failing: 0 }
  let looks = 0

  const look = Effect.gen(function*() {
    const progress = yield* runs.progress(run.id)
    looks = progress.left === last.left ? looks + 1 : 0
    last = progress
    if (looks > 0) yield* runs.collectFailures
    yield* display.show(progress, looks > patience ? yield* explain(activity) : "")
    return progress.left === 0
  })

  yield* look.pipe(
    // The worker waits for a database that is away; so does its watcher.
    Effect.tapError((error) => display.show(last, error.message)),
    Effect.retry({ schedule: Schedule.spaced("1 second"), times: 30 }),
    Effect.repeat({ schedule: Schedule.spaced(lookInterval), until: (isDone) => isDone }),
    Effect.ensuring(display.clear)
  )
})

export const checkAll = Effect.fn("checkAll")(function*(options: {
  readonly root: string
  readonly files: ReadonlyArray<string>
  readonly concurrency: number
}) {
  const runs = yield* Runs
  const run = yield* runs.begin(options.root, options.files)
  yield* Console.log(
    run.isResumed
      ? `Going on with run ${run.id}: ${run.left} of ${run.files} files left.`
      : `Run ${run.id}: ${run.files} files.`
  )

  const startedAt = yield* Clock.currentTimeMillis
  const activity = yield* follow
  yield* Effect.raceFirst(worker(options.concurrency), watch(run, activity)).pipe(
    Effect.onInterrupt(() =>
      Effect.ignore(
        Effect.flatMap(runs.progress(run.id), (progress) =>
          Console.log(`Stopped after ${describe(progress)}; the next start goes on.`))
      )
    )
  )

  const results = yield* runs.finish(run.id)
  yield* Console.log(report(results))
  yield* Console.log(rate(activity.finished, activity.lastFinishedAt - startedAt))
  const failed = results.filter(({ problem }) => problem !== null).length
  if (failed > 0) return yield* new FilesFailed({ failed, files: results.length })
}, Effect.scoped)
