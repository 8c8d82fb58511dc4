/**
 * The service `Scheduler` on a store.
 */
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { randomBytes } from "node:crypto"
import type * as JobStore from "../../JobStore.ts"
import { InvalidConfiguration, KongTaskError } from "../../KongTaskError.ts"
import type { Options, Scheduler, Stored } from "../../Scheduler.ts"
import type { SchedulerEvent } from "../../SchedulerEvent.ts"
import type * as Task from "../../Task.ts"
import { withMachineClock } from "../clock.ts"
import * as Items from "./item.ts"
import * as Run from "./run.ts"
import * as Sources from "./sources.ts"
import type { StoredRow } from "./storage.ts"
import * as Timing from "./timing.ts"

/** Events that nobody reads fast enough are dropped, the oldest first. */
const eventBuffer = 16_384

const toStored = (row: StoredRow, now: number): Stored => {
  const item = Items.fromStored(row.id, row.definition)
  const definition = Result.isSuccess(item) ? item.success.definition : undefined
  const next = Result.isSuccess(item) && !row.isPaused ? Timing.next(item.success.timing, now) : undefined
  const at = next !== undefined && Result.isSuccess(next) ? next.success?.at : undefined
  return {
    id: row.id,
    task: definition?.task,
    expression: definition?.expression,
    timeZone: definition?.timeZone,
    isPaused: row.isPaused,
    createdAt: DateTime.makeUnsafe(row.createdAt),
    updatedAt: DateTime.makeUnsafe(row.updatedAt),
    lastInstant: row.lastExecution === undefined ? undefined : DateTime.makeUnsafe(row.lastExecution),
    lastRun: row.lastRun === undefined ? undefined : {
      instant: DateTime.makeUnsafe(row.lastRun.instant),
      addedAt: DateTime.makeUnsafe(row.lastRun.addedAt),
      jobId: row.lastRun.jobId
    },
    nextRun: at === undefined ? undefined : DateTime.makeUnsafe(at),
    problem: Result.isFailure(item) ? item.failure : undefined
  }
}

const pollIntervalOf = Effect.fnUntraced(function*(input: Duration.Input | undefined) {
  const value = Duration.fromInput(input ?? Duration.seconds(1))
  if (Option.isSome(value) && Duration.isFinite(value.value) && Duration.toMillis(value.value) >= 10) return value.value
  return yield* new KongTaskError({
    reason: new InvalidConfiguration({ field: "pollInterval", problem: "must be a finite duration of at least 10ms" })
  })
})

/** Everything that can be wrong with the options, before the database is asked. */
export const prepare = Effect.fnUntraced(function*<T extends Task.Any, R>(options: Options<T, R>) {
  const context = yield* Effect.context<R | T["payloadSchema"]["DecodingServices"]>()
  const tasks = Sources.known(options.tasks, context)
  const items = yield* Effect.forEach(
    options.items ?? [],
    (item) => Effect.isEffect(item) ? item : Effect.succeed(item)
  )
  const path = options.crontabFile
  const text = path === undefined ? undefined : yield* Sources.readFile(path)
  const settings = {
    items: [
      ...items.map((item) => ({ item, version: "program" })),
      ...yield* Sources.fromCrontab(options.crontab ?? "", tasks)
    ],
    crontab: text === undefined ? [] : yield* Sources.fromCrontab(text, tasks),
    crontabFile: path === undefined || text === undefined ? undefined : { path, text },
    tasks,
    stored: options.stored ?? true,
    pollInterval: yield* pollIntervalOf(options.pollInterval)
  }
  yield* Effect.fromResult(Sources.distinct([...settings.items, ...settings.crontab]))
  return settings
})

export const make = Effect.fnUntraced(function*(store: JobStore.Store): Effect.fn.Return<Scheduler["Service"]> {
  const { scheduling } = store
  const events = yield* PubSub.sliding<SchedulerEvent>(eventBuffer)

  const change = (what: "pause" | "resume" | "remove") => (id: string) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => scheduling.change(id, now, what))

  return {
    run: Effect.fnUntraced(function*<T extends Task.Any, R>(options: Options<T, R>) {
      const settings = yield* prepare(options)
      const dedicated = yield* withMachineClock(store.dedicated)
      const id = randomBytes(9).toString("hex")
      return yield* Run.run({
        ...settings,
        id,
        storage: dedicated.scheduling,
        publish: (event) => {
          PubSub.publishUnsafe(events, event)
        }
      }).pipe(Effect.annotateLogs({ scheduler: id }))
    }, Effect.scoped),
    put: Effect.fn("Scheduler.put")(function*<R>(
      input: Items.CronItem | Effect.Effect<Items.CronItem, Items.InvalidSchedule, R>
    ) {
      const item = Effect.isEffect(input) ? yield* input : input
      if (item.runOnStart) {
        const problem = "must be left out of a schedule in the database"
        return yield* new Items.InvalidSchedule({ id: item.id, field: "runOnStart", problem })
      }
      return yield* scheduling.put(item.id, yield* Clock.currentTimeMillis, JSON.stringify(item.definition))
    }),
    remove: Effect.fn("Scheduler.remove")(change("remove")),
    pause: Effect.fn("Scheduler.pause")(change("pause")),
    resume: Effect.fn("Scheduler.resume")(change("resume")),
    runNow: Effect.fn("Scheduler.runNow")(function*(id) {
      const [row] = yield* scheduling.stored(id)
      const item = row === undefined ? undefined : Items.fromStored(row.id, row.definition)
      if (item === undefined || Result.isFailure(item)) return Option.none()
      const { jobId } = yield* scheduling.runNow(Items.runAt(item.success, {
        instant: yield* Clock.currentTimeMillis,
        how: "now",
        backfilled: false,
        revision: undefined
      }))
      return Option.fromUndefinedOr(jobId)
    }),
    list: Effect.gen(function*() {
      const rows = yield* scheduling.stored(undefined)
      const now = yield* Clock.currentTimeMillis
      return rows.map((row) => toStored(row, now))
    }).pipe(Effect.withSpan("Scheduler.list")),
    events: Stream.fromPubSub(events)
  }
})
