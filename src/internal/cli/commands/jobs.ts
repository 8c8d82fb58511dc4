import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Job from "../../../Job.ts"
import * as Queue from "../../../Queue.ts"
import * as Connection from "../connection.ts"
import { integer, orUndefined, toggle } from "../flags.ts"
import * as Format from "../format.ts"
import { filterFlags, ids, toFilter } from "../jobFlags.ts"
import { Output } from "../Output.ts"
import { notFound, usage } from "../problem.ts"
import * as Table from "../table.ts"
import { changes } from "./jobChanges.ts"
import * as History from "./jobHistory.ts"

const encodeJob = Schema.encodeSync(Schema.toCodecJson(Job.Job))
const encodeAttempts = Schema.encodeSync(Schema.toCodecJson(Schema.Array(Job.FailedAttempt)))

const columns = (now: DateTime.Utc): ReadonlyArray<Table.Column<Job.Job>> => [
  { title: "ID", cell: ({ id }) => id, isNumber: true },
  { title: "TASK", cell: ({ task }) => task, isFlexible: true },
  { title: "STATE", cell: ({ state }) => state },
  { title: "TRIES", cell: ({ attempts, maxAttempts }) => `${attempts}/${maxAttempts}`, isNumber: true },
  { title: "DUE", cell: ({ runAt }) => Format.relative(runAt, now) },
  { title: "PRIO", cell: ({ priority }) => priority === 0 ? "" : String(priority), isNumber: true },
  { title: "QUEUE", cell: ({ queueName }) => queueName ?? "", isFlexible: true },
  { title: "KEY", cell: ({ key }) => key ?? "", isFlexible: true },
  { title: "LAST ERROR", cell: ({ lastError }) => lastError?.split("\n", 1)[0] ?? "", isFlexible: true }
]

const defaultLimit = 100

const list = Command.make("list", {
  ...filterFlags,
  limit: integer("limit", 1, 1_000_000).pipe(
    Flag.withAlias("n"),
    Flag.withDescription(`How many at most (default: ${defaultLimit})`),
    orUndefined
  ),
  after: Flag.String("after").pipe(
    Flag.withMetavar("id"),
    Flag.withDescription("Only jobs added after this one"),
    orUndefined
  ),
  all: toggle("all").pipe(Flag.withDescription("All of them, however many they are"))
}, ({ after, all, limit, ...input }) =>
  Effect.gen(function*() {
    const output = yield* Output
    if (all && limit !== undefined) return yield* usage("--all and --limit exclude each other.")
    const most = all ? Number.POSITIVE_INFINITY : limit ?? defaultLimit
    const first = after === undefined ? undefined : (yield* ids([after]))[0]
    const jobs = pagesOf(toFilter(input), first, most)
    yield* Effect.provide(output.isJson ? printArray(jobs) : printTable(jobs, most), Connection.services)
  })).pipe(
    Command.withDescription("List jobs, in the order in which they were added."),
    Command.withExamples([
      { command: "kongtask jobs list --state failed --task send_email", description: "Which mails were not sent" },
      { command: "kongtask jobs list --all --json", description: "All jobs as one JSON array" }
    ])
  )

const pageSize = 1000

/** The jobs in pages of a table each. */
const pagesOf = (filter: Queue.Filter, after: Job.JobId | undefined, most: number) =>
  Stream.paginate(
    { after, left: most },
    ({ after, left }) =>
      Effect.map(Queue.list({ ...filter, after, limit: Math.min(left, pageSize) }), (page) => {
        const rest = { after: page.at(-1)?.id, left: left - page.length }
        const isLast = page.length < Math.min(left, pageSize) || rest.left <= 0
        return [[page], isLast ? Option.none() : Option.some(rest)] as const
      })
  )

type Pages = ReturnType<typeof pagesOf>

const printTable = Effect.fnUntraced(function*(pages: Pages, most: number) {
  const output = yield* Output
  const now = yield* DateTime.now
  let shown = 0
  yield* Stream.runForEach(pages, (page) => {
    shown += page.length
    return page.length === 0 ? Effect.void : output.table(columns(now), page)
  })
  if (shown === 0) return yield* output.note("No such job.")
  if (shown === most) yield* output.note(`The first ${Format.many(shown, "job")}; --all shows all of them.`)
})

/** One array, written as the jobs come. */
const printArray = Effect.fnUntraced(function*(pages: Pages) {
  const output = yield* Output
  let separator = "["
  yield* Stream.runForEach(pages, (page) => {
    const text = page.map((job) => {
      const before = separator
      separator = ","
      return `${before}\n  ${JSON.stringify(encodeJob(job))}`
    }).join("")
    return output.text(text)
  })
  yield* output.line(separator === "[" ? "[]" : "\n]")
})

const details = (job: Job.Job, now: DateTime.Utc): ReadonlyArray<readonly [string, string | undefined]> => {
  const time = (time: DateTime.Utc | undefined) => time && `${Format.iso(time)} (${Format.relative(time, now)})`
  return [
    ["Job", job.id],
    ["Task", job.task],
    ["State", job.state],
    ["Attempts", `${job.attempts} of ${job.maxAttempts}`],
    ["Due", time(job.runAt)],
    ["Priority", job.priority === 0 ? undefined : String(job.priority)],
    ["Queue", job.queueName],
    ["Key", job.key],
    ["Flags", job.flags.length === 0 ? undefined : job.flags.join(", ")],
    ["Revision", job.revision === 0 ? undefined : String(job.revision)],
    ["Added", time(job.createdAt)],
    ["Changed", time(job.updatedAt)],
    ["Claimed", time(job.lockedAt)],
    ["Claimed by", job.lockedBy]
  ]
}

const show = Command.make("show", {
  id: Argument.String("id").pipe(Argument.withDescription("The id of a job"), Argument.optional),
  key: Flag.String("key").pipe(Flag.withMetavar("key"), Flag.withDescription("The job with this job key"), orUndefined)
}, ({ id: given, key }) =>
  Effect.gen(function*() {
    const output = yield* Output
    const id = Option.getOrUndefined(given)
    if ((id === undefined) === (key === undefined)) return yield* usage("Name the job by its id, or by --key.")
    const find = id === undefined ? Queue.getByKey(key!) : Queue.get((yield* ids([id]))[0]!)
    const finished = id === undefined
      ? Effect.map(Queue.history({ key: key!, limit: 1 }), ([last]) => Option.fromUndefinedOr(last))
      : Queue.finished((yield* ids([id]))[0]!)
    yield* Effect.gen(function*() {
      const found = yield* find
      if (Option.isSome(found)) {
        const attempts = yield* Queue.failedAttempts(found.value.id)
        const json = { ...encodeJob(found.value) as object, failedAttempts: encodeAttempts(attempts) }
        return yield* output.answer(json, showText(found.value, attempts))
      }
      const stopped = yield* finished
      if (Option.isSome(stopped)) {
        return yield* output.answer(History.toJson(stopped.value), History.show(stopped.value))
      }
      const which = id === undefined ? `of the key "${key}"` : id
      return yield* notFound(
        `There is no job ${which}.`,
        "Completed and cancelled jobs are deleted, unless the job, its task or its worker says for how long to retain them."
      )
    }).pipe(Effect.provide(Connection.services))
  })).pipe(Command.withDescription("Show one job, its payload, and what its attempts failed with."))

const showText = Effect.fnUntraced(function*(job: Job.Job, attempts: ReadonlyArray<Job.FailedAttempt>) {
  const { colors, text } = yield* Output
  const now = yield* DateTime.now
  const rows = details(job, now).flatMap(([title, value]) =>
    value === undefined ? [] : [`${title.padEnd(12)}${Table.plain(value)}`]
  )
  const failures = attempts.flatMap(({ attempt, data, failedAt, message, tag }) => [
    "",
    `${colors.bold(`Attempt ${attempt}`)} failed ${Format.iso(failedAt)} (${Format.relative(failedAt, now)}): ${
      Table.plain(tag)
    }`,
    ...message.split("\n").map((line) => `  ${Table.plain(line)}`),
    ...(data === undefined ? [] : [`  ${JSON.stringify(data)}`])
  ])
  const error = attempts.length > 0 || job.lastError === undefined
    ? []
    : ["", colors.bold("Last error"), ...job.lastError.split("\n").map((line) => `  ${Table.plain(line)}`)]
  const payload = JSON.stringify(job.payload, undefined, 2).split("\n").map((line) => `  ${line}`)
  yield* text([...rows, "", colors.bold("Payload"), ...payload, ...error, ...failures, ""].join("\n"))
})

export const jobs = Command.make("jobs").pipe(
  Command.withDescription("Look at jobs and change them."),
  Command.withSubcommands([list, show, History.history, ...changes, History.redrive])
)
