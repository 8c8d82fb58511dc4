/**
 * A running scheduler: one loop that runs what is due, sleeps until something
 * may be due, and looks for changes of its schedules.
 */
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { InvalidCrontab } from "../../Crontab.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import * as Event from "../../SchedulerEvent.ts"
import { answeredWithin } from "../deadline.ts"
import * as Due from "./due.ts"
import * as Enqueue from "./enqueue.ts"
import * as Item from "./item.ts"
import * as Sources from "./sources.ts"
import type { Scheduling, StoredRow } from "./storage.ts"

/** A scheduler that was silent for so long is not running any more. */
const leaseMillis = 60_000

/** Statements count as lost after that time, on the real clock. */
const deadline = Duration.seconds(30)

const firstDelay = 200
const maxDelay = 10_000

/** The clock may go back by that much without anybody being told. */
const jitterMillis = 1000

export interface Settings {
  readonly id: string
  readonly storage: Scheduling
  readonly items: ReadonlyArray<Sources.Versioned>
  readonly crontab: ReadonlyArray<Sources.Versioned>
  readonly crontabFile: { readonly path: string; readonly text: string } | undefined
  readonly tasks: Sources.Known
  readonly stored: boolean
  readonly pollInterval: Duration.Duration
  readonly publish: (event: Event.SchedulerEvent) => void
}

/** A schedule that should run, wherever it comes from. */
interface Wanted extends Sources.Versioned {
  readonly stored: StoredRow | undefined
}

/** Whatever clock decides when schedules are due, the database is waited for on the machine's. */
export const answered = answeredWithin(deadline)

const makePersist = ({ id, publish }: Settings) => <A>(statement: Effect.Effect<A, KongTaskError>) =>
  Effect.gen(function*() {
    let delay = firstDelay
    while (true) {
      const result = yield* Effect.result(answered(statement))
      if (Result.isSuccess(result)) return result.success
      if (!result.failure.isTransient) return yield* result.failure
      publish(new Event.SchedulerUnavailable({ scheduler: id, error: result.failure }))
      if (delay === firstDelay) yield* Effect.logWarning("The scheduler waits for the database.", result.failure)
      yield* Effect.sleep(Duration.millis(delay))
      delay = Math.min(delay * 1.5, maxDelay)
    }
  })

/** For ever. */
export const run = Effect.fnUntraced(function*(
  settings: Settings
): Effect.fn.Return<never, KongTaskError, Scope.Scope> {
  const { id: scheduler, publish, storage, tasks } = settings
  const persist = makePersist(settings)
  const pollMillis = Duration.toMillis(settings.pollInterval)
  const enqueue = Enqueue.make({ scheduler, storage, publish, persist })

  const actives = new Map<string, Due.Active>()
  let crontab = settings.crontab
  let crontabText = settings.crontabFile?.text
  let stored: ReadonlyArray<Wanted> = []
  let revision = -1
  let reached: number | undefined

  const refuse = (id: string, problem: string) => {
    publish(new Event.ScheduleRefused({ scheduler, id, problem }))
    return Effect.logWarning(`The stored schedule "${id}" is not run: it ${problem}.`)
  }

  const warnOfTask = ({ id, task }: Item.Item) => {
    if (tasks.isKnown(task)) return Effect.void
    publish(new Event.TaskUnknown({ scheduler, id, task }))
    return Effect.logWarning(`The schedule "${id}" is for the task "${task}", which this program does not know.`)
  }

  const loadStored = Effect.fnUntraced(function*(last: number) {
    const own = new Set([...settings.items, ...crontab].map(({ item }) => item.id))
    const rows = yield* persist(storage.stored(undefined))
    const wanted: Array<Wanted> = []
    for (const row of rows) {
      if (row.isPaused) continue
      const item = Item.fromStored(row.id, row.definition)
      const problem = own.has(row.id)
        ? "has the id of a schedule of the program"
        : Result.isFailure(item)
        ? item.failure
        : yield* tasks.payloadProblem(item.success)
      if (problem !== undefined) yield* refuse(row.id, problem)
      else if (Result.isSuccess(item)) {
        wanted.push({ item: item.success, version: `stored ${row.revision}`, stored: row })
      }
    }
    stored = wanted
    revision = last
  })

  /** Begins with what is new among the schedules, and ends with what is gone. */
  const activate = Effect.fnUntraced(function*(now: number, isStart: boolean) {
    const wanted: ReadonlyArray<Wanted> = [
      ...[...settings.items, ...crontab].map(({ item, version }) => ({ item, version, stored: undefined })),
      ...stored
    ]
    const ids = new Set(wanted.map(({ item }) => item.id))
    const known = yield* persist(storage.register({
      scheduler,
      now,
      lease: leaseMillis,
      ids: [...ids],
      onStart: !isStart ?
        [] :
        wanted.filter(({ item }) => item.runOnStart).map(({ item }) =>
          Item.runAt(item, { instant: now, how: "now", backfilled: false, revision: undefined })
        )
    }))
    for (const id of actives.keys()) if (!ids.has(id)) actives.delete(id)
    for (const { item, stored, version } of wanted) {
      const seen = known.get(item.id)
      if (seen === undefined || actives.get(item.id)?.version === version) continue
      yield* warnOfTask(item)
      actives.set(
        item.id,
        Due.begin({
          item,
          version,
          revision: stored?.revision,
          known: seen,
          now,
          since: stored?.since,
          reached
        })
      )
    }
    const started = wanted.flatMap(({ item: { id, task } }) => {
      const jobId = known.get(id)?.startedJob
      return jobId === undefined ? [] : [{ id, task, instant: DateTime.makeUnsafe(now), jobId }]
    })
    if (started.length > 0) publish(new Event.JobsScheduled({ scheduler, runs: started }))
  })

  const reloadFile = Effect.fnUntraced(function*(path: string) {
    const text = yield* Effect.result(Sources.readFile(path))
    const content = Result.isSuccess(text) ? text.success : `unreadable: ${text.failure.message}`
    if (content === crontabText) return false
    crontabText = content
    const loaded = yield* Effect.fromResult(text).pipe(
      Effect.flatMap((text) => Sources.fromCrontab(text, tasks)),
      Effect.tap((entries) => Effect.fromResult(Sources.distinct([...settings.items, ...entries]))),
      Effect.result
    )
    if (Result.isFailure(loaded)) {
      const error: InvalidCrontab | Item.InvalidSchedule | KongTaskError = loaded.failure
      publish(new Event.CrontabRejected({ scheduler, path, error }))
      yield* Effect.logError(`The crontab file ${path} cannot be used; the last good one goes on.`, error)
      return false
    }
    crontab = loaded.success
    publish(new Event.CrontabLoaded({ scheduler, path, ids: crontab.map(({ item }) => item.id) }))
    return true
  })

  /** Looks for changes of the schedules, and tells that this scheduler is alive. */
  const poll = Effect.fnUntraced(function*(now: number) {
    const isReloaded = settings.crontabFile === undefined ? false : yield* reloadFile(settings.crontabFile.path)
    const seen = yield* persist(storage.poll(scheduler))
    const isChanged = settings.stored && (isReloaded || seen.revision !== revision)
    if (isChanged) yield* loadStored(seen.revision)
    if (!isChanged && !isReloaded && seen.isRegistered) return
    yield* activate(now, false)
    if (isChanged) {
      publish(new Event.SchedulesLoaded({ scheduler, ids: stored.map(({ item }) => item.id) }))
    }
  })

  const start = Effect.fnUntraced(function*(now: number) {
    publish(
      new Event.SchedulerStarting({ scheduler, ids: [...settings.items, ...crontab].map(({ item }) => item.id) })
    )
    if (settings.stored) yield* loadStored((yield* persist(storage.poll(scheduler))).revision)
    yield* Effect.acquireRelease(activate(now, true), () =>
      Effect.andThen(
        Effect.ignore(answered(storage.deregister(scheduler))),
        Effect.sync(() => publish(new Event.SchedulerStopped({ scheduler })))
      ), { interruptible: true })
    publish(new Event.SchedulerStarted({ scheduler }))
  })

  const nextDue = () => Math.min(...Array.from(actives.values(), ({ next }) => next?.at ?? Infinity))

  yield* start(yield* Clock.currentTimeMillis)
  let polled = yield* Clock.currentTimeMillis
  let last = 0
  while (true) {
    let now = yield* Clock.currentTimeMillis
    if (now < last - jitterMillis) {
      publish(new Event.TimerPremature({ scheduler, by: Duration.millis(last - now) }))
      yield* Effect.logWarning(`The clock was set back by ${last - now} ms; schedules wait until it is there again.`)
    }
    last = now
    const rest = yield* enqueue([...actives.values()], now)
    reached = Math.max(reached ?? 0, now)
    if (rest === "stale") revision = -1
    if (rest === "stale" || now - polled >= pollMillis || now < polled) {
      polled = now
      yield* poll(now)
    }
    if (rest === "more" || rest === "stale") continue
    now = yield* Clock.currentTimeMillis
    const wait = rest === "busy" ? pollMillis : Math.min(pollMillis, nextDue() - now)
    // What has become due meanwhile is not slept over.
    if (wait > 0) yield* Effect.sleep(Duration.millis(wait))
  }
})
