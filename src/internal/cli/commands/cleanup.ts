import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Queue from "../../../Queue.ts"
import * as Connection from "../connection.ts"
import { duration, orUndefined, toggle } from "../flags.ts"
import * as Format from "../format.ts"
import { Output } from "../Output.ts"
import { usage } from "../problem.ts"

export const cleanup = Command.make("cleanup", {
  tasks: toggle("tasks").pipe(
    Flag.withDescription("Names of tasks that no job has; not beside graphile-worker's workers")
  ),
  queues: toggle("queues").pipe(Flag.withDescription("Names of queues that no job has")),
  failedJobs: duration("failed-jobs").pipe(
    Flag.withDescription("Jobs that failed for good at least so long ago"),
    orUndefined
  )
}, (what) =>
  Effect.gen(function*() {
    const output = yield* Output
    if (!what.tasks && !what.queues && what.failedJobs === undefined) {
      return yield* usage("Nothing to delete.", "Give --failed-jobs 30d, --queues or --tasks.")
    }
    const deleted = yield* Effect.provide(Queue.cleanup(what), Connection.services)
    const { failedJobs, queues, tasks } = deleted
    yield* output.answer(
      deleted,
      output.line(
        `Deleted ${Format.many(failedJobs, "failed job")}, ${Format.many(tasks, "task name")} and ${
          Format.many(queues, "queue name")
        }.`
      )
    )
  })).pipe(Command.withDescription("Delete what is not used any more."))
