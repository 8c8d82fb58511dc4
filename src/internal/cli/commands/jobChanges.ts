/**
 * The commands that change jobs, one by one or in bulk.
 */
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type * as Job from "../../../Job.ts"
import type { KongTaskError } from "../../../KongTaskError.ts"
import * as Queue from "../../../Queue.ts"
import * as Connection from "../connection.ts"
import { duration, integer, orUndefined, time } from "../flags.ts"
import * as Format from "../format.ts"
import { type Choice, choose, select, selection, type SelectionInput } from "../jobFlags.ts"
import { Output } from "../Output.ts"
import { notFound, usage } from "../problem.ts"
import * as Progress from "../progress.ts"

interface Change {
  /** What it does, before and after: `retry`, `retried`. */
  readonly verb: string
  readonly participle: string
  /** Which of the jobs a statement has changed. */
  readonly apply: (
    ids: ReadonlyArray<Job.JobId>
  ) => Effect.Effect<ReadonlyArray<Job.Job>, KongTaskError, Queue.Queue>
  /** Where no state is named. */
  readonly states?: ReadonlyArray<Job.State> | undefined
  /** What else is to be said of the changed jobs. */
  readonly remark?: ((jobs: ReadonlyArray<Job.Job>) => string | undefined) | undefined
}

const quote = (ids: ReadonlyArray<string>) =>
  ids.length <= 10 ? ids.join(", ") : `${ids.slice(0, 10).join(", ")} and ${ids.length - 10} more`

const apply = Effect.fnUntraced(function*(input: SelectionInput, change: Change) {
  const choice = yield* choose(input)
  yield* Effect.provide(applyTo(choice, input.dryRun, change), Connection.services)
})

const applyTo = Effect.fnUntraced(function*(choice: Choice, isDryRun: boolean, change: Change) {
  const output = yield* Output
  const { chunks, count, isById } = yield* select(choice, change.states)
  if (isDryRun) {
    return yield* output.answer(
      { dryRun: true, matched: count },
      output.line(`Would ${change.verb} ${Format.many(count, "job")}.`)
    )
  }
  const changed: Array<Job.JobId> = []
  const unchanged: Array<Job.JobId> = []
  const remarks: Array<string> = []
  const work = Effect.gen(function*() {
    const progress = yield* Progress.make(`${change.participle[0]!.toUpperCase()}${change.participle.slice(1)}`, count)
    yield* Stream.runForEach(chunks, (ids) =>
      Effect.gen(function*() {
        const jobs = yield* change.apply(ids)
        const done = new Set(jobs.map(({ id }) => id))
        for (const id of ids) (done.has(id) ? changed : unchanged).push(id)
        const remark = change.remark?.(jobs)
        if (remark !== undefined) remarks.push(remark)
        yield* progress.advance(ids.length)
      }))
  }).pipe(
    Effect.scoped,
    Effect.onError(() => output.note(`${Format.many(changed.length, "job")} had been ${change.participle} before it.`))
  )
  yield* work
  const answer = output.line(
    `${Format.many(changed.length, "job")} ${change.participle}.${remarks.length > 0 ? ` ${remarks[0]}` : ""}`
  )
  yield* output.answer({ matched: changed.length + unchanged.length, changed: changed.length, unchanged }, answer)
  if (unchanged.length === 0) return
  const which = `${unchanged.length === 1 ? "Job" : "Jobs"} ${quote(unchanged)}`
  const why = `${unchanged.length === 1 ? "is" : "are"} not there, or held by a worker.`
  if (isById) return yield* notFound(`${which} ${why}`, "`kongtask jobs show ID` tells more.")
  yield* output.note(`${which} had changed meanwhile, or ${why}`)
})

/** One statement a job, some at once. */
const each =
  (one: (id: Job.JobId) => Effect.Effect<Option.Option<Job.Job>, KongTaskError, Queue.Queue>): Change["apply"] =>
  (ids) => Effect.map(Effect.forEach(ids, one, { concurrency: 8 }), (jobs) => jobs.flatMap(Option.toArray))

const retry = Command.make("retry", selection, (input) =>
  apply(input, {
    verb: "retry",
    participle: "made ready",
    apply: Queue.retry,
    states: ["failed"]
  })).pipe(Command.withDescription(
    "Make jobs due now, with all of their attempts before them. Flags without --state choose failed jobs."
  ))

const cancel = Command.make("cancel", selection, (input) =>
  apply(input, {
    verb: "cancel",
    participle: "cancelled",
    apply: each(Queue.cancel),
    remark: (jobs) =>
      jobs.some(({ state }) => state === "running")
        ? "Running ones end when their handlers have let go."
        : undefined
  })).pipe(Command.withDescription("End jobs for good: waiting ones are deleted, running ones interrupted."))

const remove = Command.make("remove", selection, (input) =>
  apply(input, {
    verb: "remove",
    participle: "removed",
    apply: each(Queue.remove),
    remark: (jobs) =>
      jobs.some(({ state }) => state === "running")
        ? "Running ones go on to their end, and are not retried."
        : undefined
  })).pipe(Command.withDescription("Take jobs back: waiting ones are deleted, running ones go on but are not retried."))

const complete = Command.make(
  "complete",
  selection,
  (input) => apply(input, { verb: "complete", participle: "completed", apply: Queue.complete })
).pipe(
  Command.withDescription("Delete jobs as if they had completed.")
)

const fail = Command.make(
  "fail",
  {
    ...selection,
    message: Flag.String("message").pipe(
      Flag.withMetavar("text"),
      Flag.withDescription("What is recorded as their last error"),
      orUndefined
    )
  },
  ({ message, ...input }) =>
    apply(input, { verb: "fail", participle: "failed", apply: (ids) => Queue.fail(ids, message) })
).pipe(
  Command.withDescription("Fail jobs for good, without running them.")
)

const reschedule = Command.make("reschedule", {
  ...selection,
  runAt: time("run-at").pipe(Flag.withDescription("Not before this time"), orUndefined),
  delay: duration("delay").pipe(Flag.withDescription("Not before so long from now"), orUndefined),
  priority: integer("priority", -32_768, 32_767).pipe(Flag.withDescription("Smaller numbers first"), orUndefined),
  attempts: integer("attempts", 0, 32_767).pipe(
    Flag.withDescription("How many attempts count as used"),
    orUndefined
  ),
  maxAttempts: integer("max-attempts", 1, 32_767).pipe(
    Flag.withDescription("How many attempts there are"),
    orUndefined
  )
}, ({ attempts, delay, maxAttempts, priority, runAt, ...input }) =>
  Effect.gen(function*() {
    const changes = { attempts, delay, maxAttempts, priority, runAt }
    if (delay !== undefined && runAt !== undefined) return yield* usage("--delay and --run-at exclude each other.")
    if (Object.values(changes).every((value) => value === undefined)) {
      return yield* usage("Nothing to change.", "Give --run-at, --delay, --priority, --attempts or --max-attempts.")
    }
    yield* apply(input, {
      verb: "reschedule",
      participle: "rescheduled",
      apply: (ids) => Queue.reschedule(ids, changes)
    })
  })).pipe(
    Command.withDescription("Change when jobs run, and how often they may."),
    Command.withExamples([
      { command: "kongtask jobs reschedule 42 --delay 10m", description: "Run job 42 in ten minutes" }
    ])
  )

export const changes = [retry, cancel, remove, complete, reschedule, fail] as const
