/**
 * The commands about jobs that have stopped.
 */
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Job from "../../../Job.ts"
import * as Queue from "../../../Queue.ts"
import * as Connection from "../connection.ts"
import { integer, orUndefined, time, toggle } from "../flags.ts"
import * as Format from "../format.ts"
import { filterFlags, toFilter } from "../jobFlags.ts"
import { Output } from "../Output.ts"
import { usage } from "../problem.ts"
import * as Table from "../table.ts"

const states = ["completed", "failed", "cancelled"] as const

/** A job of the history, for `--json`. */
export const toJson = Schema.encodeSync(Schema.toCodecJson(Job.Finished))

const firstLine = (text: string | undefined): string => text?.split("\n", 1)[0] ?? ""

export const history = Command.make("history", {
  task: filterFlags.task,
  state: Flag.Literals("state", states).pipe(
    Flag.withMetavar("state"),
    Flag.withDescription("Jobs that ended so; may be given several times"),
    Flag.atLeast(0)
  ),
  queue: filterFlags.queue,
  key: filterFlags.key,
  stoppedAfter: time("stopped-after").pipe(
    Flag.withDescription("Jobs that stopped at this time or later"),
    orUndefined
  ),
  stoppedBefore: time("stopped-before").pipe(Flag.withDescription("Jobs that stopped before this time"), orUndefined),
  limit: integer("limit", 1, 10_000).pipe(
    Flag.withAlias("n"),
    Flag.withDescription("How many at most (default: 100)"),
    Flag.withDefault(100)
  )
}, ({ limit, queue, state, stoppedAfter, stoppedBefore, task, key }) =>
  Effect.gen(function*() {
    const output = yield* Output
    const { task: tasks } = toFilter({ ...noFilter, task })
    const jobs = yield* Queue.history({
      task: tasks,
      state: state.length === 0 ? undefined : state,
      queueName: queue,
      key,
      stoppedAfter,
      stoppedBefore,
      limit
    }).pipe(Effect.provide(Connection.services))
    const now = yield* DateTime.now
    yield* output.answer(
      jobs.map((job) => toJson(job)),
      jobs.length === 0
        ? output.note("No such job is kept. Jobs are kept when the job, its task or its worker has `retain`.")
        : output.table([
          { title: "ID", cell: ({ id }) => id, isNumber: true },
          { title: "TASK", cell: ({ task }) => task, isFlexible: true },
          { title: "STATE", cell: ({ state }) => state },
          { title: "TRIES", cell: ({ attempts, maxAttempts }) => `${attempts}/${maxAttempts}`, isNumber: true },
          { title: "STOPPED", cell: ({ stoppedAt }) => Format.relative(stoppedAt, now) },
          {
            title: "RESULT OR ERROR",
            cell: ({ error, result }) => firstLine(error ?? JSON.stringify(result)),
            isFlexible: true
          }
        ], jobs)
    )
  })).pipe(Command.withDescription("List jobs that have stopped and are kept, those that stopped last first."))

/** One job of the history, as text. */
export const show = Effect.fnUntraced(function*(job: Job.Finished) {
  const { colors, text } = yield* Output
  const now = yield* DateTime.now
  const at = (time: DateTime.Utc) => `${Format.iso(time)} (${Format.relative(time, now)})`
  const rows = [
    ["Job", job.id],
    ["Task", job.task],
    ["State", job.state],
    ["Attempts", `${job.attempts} of ${job.maxAttempts}`],
    ["Added", at(job.createdAt)],
    ["Stopped", at(job.stoppedAt)],
    ["Kept until", at(job.expiresAt)],
    ["Queue", job.queueName],
    ["Key", job.key],
    ["Error", job.error === undefined ? undefined : firstLine(job.error)]
  ].flatMap(([title, value]) => value === undefined ? [] : [`${title!.padEnd(12)}${Table.plain(value)}`])
  const block = (title: string, value: unknown) =>
    value === undefined
      ? []
      : ["", colors.bold(title), ...JSON.stringify(value, undefined, 2).split("\n").map((line) => `  ${line}`)]
  const failures = job.failedAttempts.flatMap(({ attempt, failedAt, message, tag }) => [
    "",
    `${colors.bold(`Attempt ${attempt}`)} failed ${at(failedAt)}: ${Table.plain(tag)}`,
    ...message.split("\n").map((line) => `  ${Table.plain(line)}`)
  ])
  yield* text([...rows, ...block("Payload", job.payload), ...block("Result", job.result), ...failures, ""].join("\n"))
})

const noFilter = {
  task: [],
  state: [],
  queue: undefined,
  key: undefined,
  flag: undefined,
  addedAfter: undefined,
  addedBefore: undefined,
  runAfter: undefined,
  runBefore: undefined
}

const { state: _, ...redriveFlags } = filterFlags

export const redrive = Command.make("redrive", {
  ...redriveFlags,
  error: Flag.String("error").pipe(
    Flag.withMetavar("text"),
    Flag.withDescription("Jobs whose last error contains this text"),
    orUndefined
  ),
  all: toggle("all").pipe(Flag.withDescription("All failed jobs")),
  dryRun: toggle("dry-run").pipe(Flag.withDescription("Only say how many jobs it would be"))
}, ({ all, dryRun, error, ...input }) =>
  Effect.gen(function*() {
    const output = yield* Output
    const filter = { ...toFilter({ ...input, state: [] }), error }
    if (!all && Object.values(filter).every((value) => value === undefined)) {
      return yield* usage("Which failed jobs?", "Give flags such as --task and --error, or --all.")
    }
    const count = yield* Effect.provide(Queue.redrive({ ...filter, dryRun }), Connection.services)
    yield* output.answer(
      dryRun ? { dryRun, matched: count } : { changed: count },
      output.line(dryRun ? `Would redrive ${Format.many(count, "job")}.` : `${Format.many(count, "job")} made ready.`)
    )
  })).pipe(Command.withDescription("Make failed jobs ready again, by what they failed with, however many they are."))
