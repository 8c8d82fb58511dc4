/**
 * The handler of the task.
 */
import { Effect } from "effect"
import { Retry } from "kongtask"
import { checkFile } from "./check.ts"
import { BrokenLinks, CheckFile, UnreadableFile } from "./CheckFile.ts"
import { Runs } from "./Runs.ts"

export const CheckFileLive = CheckFile.toLayer(
  Effect.fnUntraced(function*({ file, root, run }, job) {
    const { anchors, broken, links, local } = yield* Effect.mapError(
      checkFile(root, file),
      (error) => new UnreadableFile({ problem: error.message })
    )

    // A job may run more than once, for one after a crash. So its counts are put, never added.
    const runs = yield* Runs
    yield* Effect.orDie(
      runs.record({ run, file, links, broken: broken.length, attempts: job.attempt })
    )

    if (broken.length > 0) return yield* new BrokenLinks({ broken })
    return { links, local, anchors }
  }),
  {
    timeout: "30 seconds",
    // Somebody may be about to save the file that is missing.
    retry: Retry.steps(["250 millis", "500 millis", "1 second", "2 seconds"])
  }
)
