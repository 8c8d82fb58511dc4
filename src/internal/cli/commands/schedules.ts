import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { KongTaskError } from "../../../KongTaskError.ts"
import * as Scheduler from "../../../Scheduler.ts"
import * as Connection from "../connection.ts"
import * as Format from "../format.ts"
import { Output } from "../Output.ts"
import { notFound, Problem } from "../problem.ts"

const iso = (time: DateTime.Utc | undefined) => time === undefined ? null : Format.iso(time)

const toJson = (schedule: Scheduler.Stored) => ({
  id: schedule.id,
  task: schedule.task ?? null,
  expression: schedule.expression ?? null,
  timeZone: schedule.timeZone ?? null,
  isPaused: schedule.isPaused,
  nextRun: iso(schedule.nextRun),
  lastInstant: iso(schedule.lastInstant),
  lastJob: schedule.lastRun?.jobId ?? null,
  createdAt: iso(schedule.createdAt),
  updatedAt: iso(schedule.updatedAt),
  problem: schedule.problem ?? null
})

const list = Command.make("list", {}, () =>
  Effect.gen(function*() {
    const output = yield* Output
    const schedules = yield* Effect.provide(Scheduler.list, Connection.services)
    const now = yield* DateTime.now
    const relative = (time: DateTime.Utc | undefined) => time === undefined ? "" : Format.relative(time, now)
    yield* output.answer(
      schedules.map(toJson),
      schedules.length === 0
        ? output.note(
          "No schedule is kept in the database. Those of crontabs are shown by `kongtask crontab next FILE`."
        )
        : output.table([
          { title: "ID", cell: ({ id }) => id, isFlexible: true },
          { title: "TASK", cell: ({ task }) => task ?? "", isFlexible: true },
          { title: "EXPRESSION", cell: ({ expression }) => expression ?? "" },
          { title: "ZONE", cell: ({ timeZone }) => timeZone ?? "UTC" },
          { title: "NEXT", cell: ({ isPaused, nextRun }) => isPaused ? "paused" : relative(nextRun) },
          { title: "LAST", cell: ({ lastRun }) => relative(lastRun?.addedAt) },
          { title: "PROBLEM", cell: ({ problem }) => problem ?? "", isFlexible: true }
        ], schedules)
    )
  })).pipe(Command.withDescription("List the schedules that are kept in the database."))

const id = Argument.String("id").pipe(Argument.withDescription("The id of a schedule"))

const missing = (id: string) =>
  notFound(`There is no schedule "${id}" in the database.`, "`kongtask schedules list` shows them.")

const change = (
  name: string,
  participle: string,
  description: string,
  change: (id: string) => Effect.Effect<boolean, KongTaskError, Scheduler.Scheduler>
) =>
  Command.make(name, { id }, ({ id }) =>
    Effect.gen(function*() {
      const output = yield* Output
      const isThere = yield* Effect.provide(change(id), Connection.services)
      if (!isThere) return yield* missing(id)
      yield* output.answer({ id, [participle]: true }, output.line(`The schedule "${id}" is ${participle}.`))
    })).pipe(Command.withDescription(description))

const run = Command.make("run", { id }, ({ id }) =>
  Effect.gen(function*() {
    const output = yield* Output
    const job = yield* Effect.gen(function*() {
      const job = yield* Scheduler.runNow(id)
      if (Option.isSome(job)) return job.value
      const stored = (yield* Scheduler.list).find((schedule) => schedule.id === id)
      if (stored === undefined) return yield* missing(id)
      return yield* new Problem({
        kind: "unexpected",
        message: `The schedule "${id}" cannot run: ${stored.problem ?? "somebody is changing it at this moment"}`
      })
    }).pipe(Effect.provide(Connection.services))
    yield* output.answer({ id, job }, output.line(`Added job ${job} of the schedule "${id}".`))
  })).pipe(Command.withDescription("Add a job of a schedule now, paused or not."))

export const schedules = Command.make("schedules").pipe(
  Command.withDescription("Schedules that are kept in the database."),
  Command.withSubcommands([
    list,
    change("pause", "paused", "Keep a schedule from running.", Scheduler.pause),
    change("resume", "resumed", "Let a schedule run again, but not for what it missed.", Scheduler.resume),
    change("remove", "removed", "Take a schedule away. Its jobs stay.", Scheduler.remove),
    run
  ])
)
