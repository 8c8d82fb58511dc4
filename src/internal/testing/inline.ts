/**
 * Running what was just added, before the one who added it goes on.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Job from "../../Job.ts"
import type { Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import type * as Task from "../../Task.ts"
import type * as Worker from "../../Worker.ts"
import { DueClock } from "./clocked.ts"

/** The machine's clock, whatever a test has put in its place. */
export const machineClock: Clock.Clock = Context.get(Context.empty(), Clock.Clock)

/**
 * Runs a worker by the machine's clock, since it waits for a real database, but due times and handlers by the clock of the
 * calling fiber.
 */
export const run = Effect.fnUntraced(function*<T extends Task.Any, R>(
  worker: Worker.Worker["Service"],
  options: Worker.Options<T, R>
): Effect.fn.Return<Worker.Summary, KongTaskError, Task.ToHandler<T> | R> {
  const clock = (yield* DueClock) ?? (yield* Clock.Clock)
  const around = options.hooks?.around
  return yield* worker.runOnce<T, R>({
    ...options,
    hooks: {
      ...options.hooks,
      around: (attempt, job) => {
        const own = Effect.provideService(attempt, Clock.Clock, clock)
        return around === undefined ? own : around(own, job)
      }
    }
  }).pipe(
    Effect.provideService(DueClock, clock),
    Effect.provideService(Clock.Clock, machineClock)
  )
})

/** How many handlers of one worker may wait for jobs that they have added themselves. */
const concurrency = 100

export interface Inline {
  /** Answers these jobs, which were added together, as they are when they have run. */
  readonly after: (added: ReadonlyArray<Job.Job>) => Effect.Effect<ReadonlyArray<Job.Job>, KongTaskError>
}

export const make = <T extends Task.Any>(
  store: Store,
  worker: Worker.Worker["Service"],
  context: Context.Context<Task.ToHandler<T>>,
  { onFailure, tasks }: {
    readonly tasks: ReadonlyArray<T>
    readonly onFailure: "record" | "die"
  }
): Inline => {
  const outcomes = new Map<Job.JobId, Job.Outcome>()
  // Those who wait for a job that another one's worker runs.
  const waiting = new Map<Job.JobId, Deferred.Deferred<void>>()
  const wake = (deferred: Deferred.Deferred<void>) => Deferred.doneUnsafe(deferred, Effect.void)
  const names = new Set<string>(tasks.map(({ name }) => name))

  const drain = run(worker, {
    tasks,
    concurrency,
    listen: false,
    hooks: {
      after: (job, outcome) =>
        Effect.sync(() => {
          outcomes.set(job.id, outcome)
          const deferred = waiting.get(job.id)
          if (deferred !== undefined) wake(deferred)
        })
    }
  }).pipe(
    Effect.provideContext(context),
    Effect.ensuring(Effect.sync(() => waiting.forEach(wake)))
  )

  const ended = (id: Job.JobId) =>
    Effect.suspend(() => {
      const deferred = waiting.get(id) ?? Deferred.makeUnsafe<void>()
      waiting.set(id, deferred)
      return Effect.ensuring(Deferred.await(deferred), Effect.sync(() => waiting.delete(id)))
    })

  const stopped = (job: Job.Job): Job.Job => {
    const outcome = outcomes.get(job.id)
    const state = outcome?._tag === "Completed" ? "completed" : "cancelled"
    return outcome === undefined
      ? job
      : new Job.Job({ ...job, state, attempts: job.attempts + 1 }, { disableChecks: true })
  }

  /** A job of a named queue may be behind the one that has added it: then it runs when that one has ended. */
  const settled = Effect.fnUntraced(function*(added: Job.Job) {
    while (true) {
      const found = yield* store.get(added.id)
      if (Option.isNone(found)) return stopped(added)
      const { queueName, state } = found.value
      if (queueName !== undefined || state !== "running") return found.value
      if (!outcomes.has(added.id)) yield* ended(added.id)
      else yield* Effect.yieldNow
    }
  })

  const missed = Effect.fnUntraced(function*({ id, task }: Job.Job) {
    const outcome = outcomes.get(id)
    if (outcome?._tag !== "Failed") return
    const attempts = yield* store.failedAttempts(id)
    return yield* Effect.die(new Job.JobFailed({ job: id, task, error: outcome.error, attempts }))
  })

  return {
    after: Effect.fnUntraced(function*(added) {
      const own = added.filter(({ task }) => names.has(task))
      if (own.length === 0 || (yield* Effect.result(store.mayWait))._tag === "Failure") return added
      for (const { id } of own) outcomes.delete(id)
      yield* drain
      const jobs = yield* Effect.forEach(added, (job) => names.has(job.task) ? settled(job) : Effect.succeed(job))
      if (onFailure === "die") yield* Effect.forEach(own, missed, { discard: true })
      return jobs
    })
  }
}
