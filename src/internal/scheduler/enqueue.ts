/**
 * What is due, recorded and added in the order of time.
 */
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type { KongTaskError } from "../../KongTaskError.ts"
import * as Event from "../../SchedulerEvent.ts"
import * as Due from "./due.ts"
import * as Item from "./item.ts"
import type { RunOutcome, Scheduling } from "./storage.ts"

/** Instants of one schedule that are taken at a time, and runs of one statement. */
const batchSize = 200

const outcomes = Metric.counter("kongtask_schedule_runs", {
  description: "Instants at which schedules were due, by what became of them",
  incremental: true
})

const lateness = Metric.gauge("kongtask_schedule_lateness_seconds", {
  description: "How late the last runs were recorded"
})

interface Planned {
  readonly due: Due.Due
  readonly instant: Due.Instant
  readonly isLast: boolean
  readonly backfilled: boolean
}

/** Where a scheduler tells what it does. */
export interface Context {
  readonly scheduler: string
  readonly storage: Scheduling
  readonly publish: (event: Event.SchedulerEvent) => void
  /** Runs a statement until it succeeds, or fails for good. */
  readonly persist: <A>(statement: Effect.Effect<A, KongTaskError>) => Effect.Effect<A, KongTaskError>
}

const runOf = ({ due: { active: { item } }, instant }: Planned): Event.Run => ({
  id: item.id,
  task: item.task,
  instant: DateTime.makeUnsafe(instant.at)
})

const plan = (dues: ReadonlyArray<Due.Due>): ReadonlyArray<Planned> =>
  dues.flatMap((due) =>
    due.instants.map((instant, index) => ({
      due,
      instant,
      isLast: index === due.instants.length - 1,
      backfilled: instant.at < due.active.backfilledBefore
    }))
  ).toSorted((a, b) => a.instant.at - b.instant.at)

/** The database's answer to one item alone is the item's own fault when waiting does not cure it. */
const isItemsFault = ({ isTransient, reason }: KongTaskError): boolean =>
  reason._tag === "StatementFailed" && !isTransient

const announce = (context: Context, planned: ReadonlyArray<Planned>) => {
  const { publish, scheduler } = context
  const backfilled = planned.filter(({ backfilled }) => backfilled)
  const regular = planned.filter(({ backfilled, instant }) => !backfilled && instant.how === "due")
  if (backfilled.length > 0) publish(new Event.BackfillStarted({ scheduler, runs: backfilled.map(runOf) }))
  if (regular.length > 0) publish(new Event.JobsScheduling({ scheduler, runs: regular.map(runOf) }))
}

const tell = Effect.fnUntraced(function*(
  { publish, scheduler }: Context,
  planned: ReadonlyArray<Planned>,
  results: ReadonlyArray<RunOutcome>
) {
  const added: Array<Event.JobsScheduled["runs"][number]> = []
  const counts = new Map<string, number>()
  for (const [index, { jobId, outcome }] of results.entries()) {
    const run = planned[index]!
    const { due: { active: { item }, skipped }, instant, isLast } = run
    const skip = (reason: "missed" | "overlap", count: number) =>
      publish(
        new Event.RunsSkipped({ scheduler, id: item.id, reason, count, instant: DateTime.makeUnsafe(instant.at) })
      )
    counts.set(outcome, (counts.get(outcome) ?? 0) + 1)
    if (outcome === "added" && jobId !== undefined) added.push({ ...runOf(run), jobId })
    if (outcome === "overlapping") skip("overlap", 1)
    if (outcome === "passed") skip("missed", skipped + 1)
    else if (outcome !== "known" && isLast && skipped > 0) skip("missed", skipped)
  }
  if (added.length > 0) publish(new Event.JobsScheduled({ scheduler, runs: added }))
  yield* Effect.forEach(
    counts,
    ([outcome, count]) => Metric.update(Metric.withAttributes(outcomes, { outcome }), count),
    { discard: true }
  )
})

const send = (context: Context, planned: ReadonlyArray<Planned>) =>
  context.persist(
    context.storage.schedule(planned.map(({ backfilled, due: { active }, instant }) =>
      Item.runAt(active.item, { instant: instant.at, how: instant.how, backfilled, revision: active.revision })
    ))
  )

/** One after the other; nothing of a schedule is recorded after an instant that has to wait. */
const sendOneByOne = Effect.fnUntraced(function*(context: Context, planned: ReadonlyArray<Planned>) {
  const waiting = new Map<Due.Active, RunOutcome>()
  const results: Array<RunOutcome | undefined> = []
  for (const one of planned) {
    const { active } = one.due
    const [result] = waiting.has(active) ? [waiting.get(active)] : yield* schedule(context, [one])
    if (result?.outcome === "busy" || result?.outcome === "stale") waiting.set(active, result)
    results.push(result)
  }
  return results
})

/** Records and adds; where the database refuses one of them for good, the others all the same. */
const schedule = (
  context: Context,
  planned: ReadonlyArray<Planned>
): Effect.Effect<ReadonlyArray<RunOutcome | undefined>, KongTaskError> =>
  send(context, planned).pipe(
    Effect.catchIf(isItemsFault, (error): Effect.Effect<ReadonlyArray<RunOutcome | undefined>, KongTaskError> => {
      if (planned.length > 1) return sendOneByOne(context, planned)
      const { id } = planned[0]!.due.active.item
      context.publish(new Event.ScheduleFailed({ scheduler: context.scheduler, id, problem: error.message }))
      return Effect.as(Effect.logError(`The job of the schedule "${id}" was refused.`, error), [undefined])
    })
  )

const warnOfProblems = Effect.fnUntraced(function*(
  { publish, scheduler }: Context,
  actives: ReadonlyArray<Due.Active>,
  told: Set<Due.Active>
) {
  for (const active of actives) {
    if (active.problem === undefined || told.has(active)) continue
    told.add(active)
    publish(new Event.ScheduleFailed({ scheduler, id: active.item.id, problem: active.problem }))
    yield* Effect.logError(`The schedule "${active.item.id}" runs no more: its function ${active.problem}.`)
  }
})

/** What a pass left to do: nothing, more at once, or to look at the stored schedules again. */
export type Rest = "none" | "more" | "stale" | "busy"

/** Runs what is due at a time. */
export const make = (context: Context): (
  actives: ReadonlyArray<Due.Active>,
  now: number
) => Effect.Effect<Rest, KongTaskError> => {
  const told = new Set<Due.Active>()
  return Effect.fnUntraced(function*(actives, now) {
    const { publish, scheduler } = context
    const dues: Array<Due.Due> = []
    for (const active of actives) {
      if (active.next === undefined || active.next.at > now) continue
      dues.push(Due.due(active, now, batchSize))
    }
    yield* warnOfProblems(context, actives, told)
    const planned = plan(dues)
    const first = planned.find(({ backfilled }) => !backfilled)
    if (first !== undefined) yield* Metric.update(lateness, (now - first.instant.at) / 1000)
    if (first !== undefined && now - first.instant.at >= Due.lateMillis) {
      const by = Duration.millis(now - first.instant.at)
      publish(new Event.TimerOverdue({ scheduler, instant: DateTime.makeUnsafe(first.instant.at), by }))
    }
    const blocked = new Map<Due.Active, "stale" | "busy">()
    for (let start = 0; start < planned.length; start += batchSize) {
      const batch = planned.slice(start, start + batchSize).filter(({ due }) => !blocked.has(due.active))
      if (batch.length === 0) continue
      announce(context, batch)
      const results = yield* Effect.withSpan(schedule(context, batch), "Scheduler.schedule", {
        attributes: { runs: batch.length }
      })
      for (const [index, { due: { active }, instant }] of batch.entries()) {
        const outcome = results[index]?.outcome
        if (outcome === "stale" || outcome === "busy") blocked.set(active, outcome)
        else Due.moveTo(active, instant.at)
      }
      yield* tell(
        context,
        batch.filter((_, index) => results[index] !== undefined),
        results.filter((result) => result !== undefined)
      )
    }
    const why = new Set(blocked.values())
    if (why.size > 0) return why.has("stale") ? "stale" : "busy"
    return dues.some(({ hasMore }) => hasMore) ? "more" : "none"
  })
}
