/**
 * A store whose due times go by Effect's Clock, on a database that has its own.
 *
 * A job that is to wait is written a thousand years late, so that no time of the
 * database's makes it due; one whose time has come by Effect's Clock is written a
 * thousand years early. Whoever reads gets the time that was meant, exactly.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Job from "../../Job.ts"
import type { Changes, ClaimedJob, Filter, JobSpec, Page, Settlement, Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"

const shift = Duration.toMillis(Duration.days(365_242))

/** Between the years 1500 and 2500 times are as they are: whoever wrote them knew nothing of this. */
const earliest = Date.UTC(1500, 0)
const latest = Date.UTC(2500, 0)

/** Where jobs are put whose time is about to be written. */
const limbo = 3 * shift
const firstOfLimbo = Date.UTC(4500, 0)

const meant = (stored: number): number => stored > latest ? stored - shift : stored < earliest ? stored + shift : stored

/** Whose time it is where a worker runs by the machine's clock. */
export const DueClock = Context.Reference<Clock.Clock | undefined>("kongtask/testing/DueClock", {
  defaultValue: () => undefined
})

const now: Effect.Effect<number> = Effect.gen(function*() {
  const clock = (yield* DueClock) ?? (yield* Clock.Clock)
  return yield* clock.currentTimeMillis
})

const placed = (at: number, now: number): number => at > now ? at + shift : at - shift

const toJob = (job: Job.Job): Job.Job =>
  new Job.Job({ ...job, runAt: DateTime.makeUnsafe(meant(job.runAt.epochMilliseconds)) }, { disableChecks: true })

/** Field by field: a claimed job may have getters. */
const toClaimed = (job: ClaimedJob): ClaimedJob => ({
  id: job.id,
  task: job.task,
  payload: job.payload,
  attempt: job.attempt,
  maxAttempts: job.maxAttempts,
  isLastAttempt: job.isLastAttempt,
  key: job.key,
  queueName: job.queueName,
  priority: job.priority,
  runAt: DateTime.makeUnsafe(meant(job.runAt.epochMilliseconds)),
  createdAt: job.createdAt,
  revision: job.revision,
  flags: job.flags,
  lastError: job.lastError,
  origin: job.origin,
  bundle: job.bundle,
  details: job.details
})

const pageSize = 1000

/** What a settlement makes of the job's time, in milliseconds from now. */
const delayOf = (settlement: Settlement): number | undefined =>
  settlement._tag === "Failed" ? settlement.retryIn : settlement._tag === "Snoozed" ? settlement.delay : undefined

const hidden = (settlement: Settlement): Settlement =>
  settlement._tag === "Failed" && settlement.retryIn !== undefined
    ? { ...settlement, retryIn: limbo, since: undefined }
    : settlement._tag === "Snoozed"
    ? { ...settlement, delay: limbo, since: undefined }
    : settlement

const unchanged: Changes = {
  runAt: undefined,
  delay: undefined,
  priority: undefined,
  attempts: undefined,
  maxAttempts: undefined
}

export const make = (store: Store): Store => {
  const all = Effect.fnUntraced(function*(filter: Filter) {
    const found: Array<Job.Job> = []
    let after: Job.JobId | undefined
    do {
      const page = yield* store.list(filter, { limit: pageSize, after })
      found.push(...page)
      after = page.length < pageSize ? undefined : page.at(-1)!.id
    } while (after !== undefined)
    return found
  })

  const at = (ids: ReadonlyArray<Job.JobId>, runAt: number) => store.reschedule(ids, { ...unchanged, runAt })

  /** Makes due what is by Effect's Clock. */
  const promote = Effect.gen(function*() {
    const time = yield* now
    const byTime = new Map<number, Array<Job.JobId>>()
    for (const job of yield* all({ states: ["scheduled", "retrying"] })) {
      const stored = job.runAt.epochMilliseconds
      if (stored <= latest || stored >= firstOfLimbo || meant(stored) > time) continue
      const due = placed(meant(stored), time)
      byTime.set(due, [...byTime.get(due) ?? [], job.id])
    }
    yield* Effect.forEach(byTime, ([due, ids]) => at(ids, due), { discard: true })
  })

  const toSpec = Effect.fnUntraced(function*(spec: JobSpec) {
    const time = yield* now
    return { ...spec, runAt: placed(spec.runAt ?? time + (spec.delay ?? 0), time), delay: undefined }
  })

  const read = <A>(effect: Effect.Effect<A, KongTaskError>): Effect.Effect<A, KongTaskError> =>
    Effect.andThen(promote, effect)
  const jobs = (effect: Effect.Effect<ReadonlyArray<Job.Job>, KongTaskError>) =>
    Effect.map(effect, (jobs) => jobs.map(toJob))
  const job = (effect: Effect.Effect<Option.Option<Job.Job>, KongTaskError>) => Effect.map(effect, Option.map(toJob))

  /** The database knows other times than those that a filter means. */
  const filtered = ({ runAfter = -Infinity, runBefore = Infinity, ...filter }: Filter) =>
    Effect.map(
      jobs(read(all(filter))),
      (found) => found.filter(({ runAt }) => runAt.epochMilliseconds >= runAfter && runAt.epochMilliseconds < runBefore)
    )
  const hasTimes = ({ runAfter, runBefore }: Filter) => runAfter !== undefined || runBefore !== undefined
  const pageOf = (found: ReadonlyArray<Job.Job>, { after, limit }: Page) =>
    found.filter(({ id }) => after === undefined || BigInt(id) > BigInt(after)).slice(0, limit)

  return {
    ...store,
    // A batch's jobs are chosen by the database's clock.
    capabilities: { ...store.capabilities, batch: false },
    add: (spec) => Effect.flatMap(toSpec(spec), (spec) => Effect.map(store.add(spec), toJob)),
    addMany: (specs) =>
      Effect.flatMap(
        Effect.forEach(specs, toSpec),
        (specs) => Effect.map(store.addMany(specs), (jobs) => jobs.map(toJob))
      ),
    bundling: {
      ...store.bundling,
      add: (bundle) =>
        Effect.flatMap(
          Effect.forEach(bundle.jobs, toSpec),
          (jobs) =>
            Effect.map(store.bundling.add({ ...bundle, jobs }), (added) => ({
              ...added,
              jobs: added.jobs.map(toJob)
            }))
        ),
      addTo: (id, specs) =>
        Effect.flatMap(
          Effect.forEach(specs, toSpec),
          (specs) => Effect.map(store.bundling.addTo(id, specs), (jobs) => jobs.map(toJob))
        )
    },
    get: (id) => job(read(store.get(id))),
    list: (filter, page) =>
      hasTimes(filter)
        ? Effect.map(filtered(filter), (found) => pageOf(found, page))
        : jobs(read(store.list(filter, page))),
    count: (filter) =>
      hasTimes(filter) ? Effect.map(filtered(filter), (found) => found.length) : read(store.count(filter)),
    stats: (filter) =>
      hasTimes(filter)
        ? Effect.die(
          new Error("With effectClock, stats cannot be asked for by runAfter or runBefore: use list or count.")
        )
        : read(store.stats(filter)),
    remove: (target) => job(store.remove(target)),
    removeMany: (filter, page) =>
      hasTimes(filter)
        ? Effect.die(
          new Error("With effectClock, removeMany cannot be asked for by runAfter or runBefore: use list and remove.")
        )
        : read(store.removeMany(filter, page)),
    cancel: (id) => job(store.cancel(id)),
    complete: (ids) => jobs(store.complete(ids)),
    fail: (ids, message) => jobs(store.fail(ids, message)),
    forceUnlock: (pools) => jobs(store.forceUnlock(pools)),
    reschedule: Effect.fnUntraced(function*(ids, changes) {
      const time = yield* now
      const wanted = changes.runAt ?? (changes.delay === undefined ? undefined : time + changes.delay)
      const runAt = wanted === undefined ? undefined : placed(wanted, time)
      return yield* jobs(store.reschedule(ids, { ...changes, runAt, delay: undefined }))
    }),
    retry: Effect.fnUntraced(function*(ids) {
      const retried = yield* store.retry(ids)
      const time = yield* now
      return yield* jobs(at(retried.map(({ id }) => id), placed(time, time)))
    }),
    claim: (request) =>
      Effect.map(read(store.claim({ ...request, dueAt: undefined })), (claim) => ({
        ...claim,
        jobs: claim.jobs.map(toClaimed)
      })),
    settle: Effect.fnUntraced(function*(pool, settlements, held) {
      const recorded = yield* store.settle(pool, settlements.map(hidden), held)
      const time = yield* now
      yield* Effect.forEach(settlements, (settlement) => {
        const delay = delayOf(settlement)
        return delay === undefined || !recorded.has(settlement.id)
          ? Effect.void
          : at([settlement.id], placed(time + delay, time))
      }, { discard: true })
      return recorded
    }),
    dedicated: Effect.map(store.dedicated, make)
  }
}
