import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Crontab from "../../../Crontab.ts"
import { ofCrontab } from "../failure.ts"
import * as Files from "../files.ts"
import { integer, orUndefined, time } from "../flags.ts"
import * as Format from "../format.ts"
import { Output } from "../Output.ts"
import { Finding, notFound } from "../problem.ts"

const file = Argument.String("file").pipe(Argument.withDescription("A crontab, - for standard input"))

const readFile = (file: string) => file === "-" ? Files.readInput : Files.read(file)

const parse = Effect.fnUntraced(function*(file: string) {
  const parsed = Crontab.parse(yield* readFile(file))
  return Result.isSuccess(parsed) ? parsed.success : yield* ofCrontab(parsed.failure, file)
})

const check = Command.make("check", { file }, ({ file }) =>
  Effect.gen(function*() {
    const output = yield* Output
    const parsed = Crontab.parse(yield* readFile(file))
    if (Result.isFailure(parsed)) {
      if (!output.isJson) return yield* ofCrontab(parsed.failure, file)
      yield* output.answer({ file, isValid: false, issues: parsed.failure.issues }, Effect.void)
      return yield* new Finding({ kind: "input" })
    }
    const count = parsed.success.length
    yield* output.answer(
      { file, isValid: true, schedules: count, issues: [] },
      output.line(`${file}: ${Format.many(count, "schedule")}, nothing wrong.`)
    )
  })).pipe(Command.withDescription("Check a crontab, and say where it is wrong."))

/** The next runs of all entries together, the earliest first. */
const runsOf = (entries: ReadonlyArray<Crontab.Entry>, after: DateTime.Utc, count: number) =>
  entries.flatMap((entry) => Crontab.next(entry, { after, count }).map((time) => ({ entry, time })))
    .toSorted((a, b) => a.time.epochMilliseconds - b.time.epochMilliseconds)
    .slice(0, count)

const next = Command.make("next", {
  file,
  id: Flag.String("id").pipe(
    Flag.withMetavar("id"),
    Flag.withDescription("Only the schedule with this id"),
    orUndefined
  ),
  from: time("from").pipe(Flag.withDescription("Runs after this time (default: now)"), orUndefined),
  count: integer("count", 1, 10_000).pipe(
    Flag.withAlias("n"),
    Flag.withDescription("How many runs (default: 10)"),
    Flag.withDefault(10)
  )
}, ({ count, file, from, id }) =>
  Effect.gen(function*() {
    const output = yield* Output
    const entries = (yield* parse(file)).filter((entry) => id === undefined || entry.id === id)
    if (id !== undefined && entries.length === 0) return yield* notFound(`There is no schedule "${id}" in ${file}.`)
    const after = from ?? (yield* DateTime.now)
    const runs = runsOf(entries, after, count)
    yield* output.answer(
      runs.map(({ entry, time }) => ({ time: Format.iso(time), id: entry.id, task: entry.task })),
      output.table([
        { title: "TIME", cell: ({ time }) => Format.iso(time) },
        { title: "IN", cell: ({ time }) => Format.relative(time, after).replace(/^in /, "") },
        { title: "LOCAL", cell: ({ entry, time }) => localTime(time, entry.timeZone) },
        { title: "ID", cell: ({ entry }) => entry.id, isFlexible: true },
        { title: "TASK", cell: ({ entry }) => entry.task === entry.id ? "" : entry.task, isFlexible: true }
      ], runs)
    )
  })).pipe(Command.withDescription("The next times at which schedules of a crontab are due."))

/** The time in the schedule's own zone; empty for UTC. */
const localTime = (time: DateTime.Utc, zone: string | undefined): string => {
  if (zone === undefined || zone === "UTC") return ""
  const zoned = DateTime.zoneFromString(zone)
  return zoned._tag === "None" ? "" : DateTime.formatIsoOffset(DateTime.setZone(time, zoned.value)).slice(0, 16)
}

const toJson = (entry: Crontab.Entry) => ({
  id: entry.id,
  task: entry.task,
  expression: entry.expression,
  timeZone: entry.timeZone ?? "UTC",
  means: Crontab.explain(entry),
  backfill: Duration.toMillis(entry.backfill),
  maxAttempts: entry.maxAttempts ?? null,
  queueName: entry.queueName ?? null,
  priority: entry.priority ?? null,
  jobKey: entry.jobKey ?? null,
  jobKeyMode: entry.jobKeyMode ?? null,
  flags: entry.flags ?? [],
  payload: entry.payload
})

/** What a line says beside when it is due. */
const remarks = (entry: Crontab.Entry): ReadonlyArray<string> => [
  ...(entry.id === entry.task ? [] : [`id ${entry.id}`]),
  ...(Duration.toMillis(entry.backfill) > 0
    ? [`missed runs of the last ${Format.duration(entry.backfill)} are made up for`]
    : []),
  ...(entry.queueName === undefined ? [] : [`in the queue ${entry.queueName}`]),
  ...(entry.priority === undefined ? [] : [`priority ${entry.priority}`]),
  ...(entry.maxAttempts === undefined ? [] : [`at most ${Format.many(entry.maxAttempts, "attempt")}`]),
  ...(entry.jobKey === undefined ? [] : [`job key ${entry.jobKey} (${entry.jobKeyMode})`]),
  ...(entry.flags === undefined ? [] : [`flags ${entry.flags.join(", ")}`]),
  ...(Object.keys(entry.payload).length === 0 ? [] : [`payload ${JSON.stringify(entry.payload)}`])
]

const explain = Command.make("explain", { file }, ({ file }) =>
  Effect.gen(function*() {
    const { answer, colors, text } = yield* Output
    const entries = yield* parse(file)
    const now = yield* DateTime.now
    const texts = entries.map((entry) =>
      [
        `${colors.bold(entry.expression)}  ${entry.task}\n`,
        `  ${Crontab.explain(entry)}; next ${Crontab.next(entry, { after: now, count: 1 }).map(Format.iso).join("")}\n`,
        ...remarks(entry).map((remark) => `  ${remark}\n`)
      ].join("")
    )
    yield* answer(entries.map(toJson), text(texts.join("\n")))
  })).pipe(Command.withDescription("Say in words when each schedule of a crontab is due."))

export const crontab = Command.make("crontab").pipe(
  Command.withDescription("Read crontabs. No database is needed."),
  Command.withSubcommands([check, next, explain])
)
