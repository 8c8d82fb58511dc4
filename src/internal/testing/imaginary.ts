/**
 * Jobs and bundles that no database has: what is answered to those who add what the test ignores.
 */
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Bundle from "../../Bundle.ts"
import * as Job from "../../Job.ts"
import type { BundleSpec, JobSpec, Observation, OutcomePlace, StoredOutcome } from "../../JobStore.ts"

/** What jobs take from the bundle that they are added to. */
export type Membership = Pick<Bundle.Bundle, "id" | "origin">

/** Whoever adds is answered what a database would answer; whoever looks later finds that it was cancelled. */
export interface Imaginary {
  readonly job: (spec: JobSpec, bundle?: Membership) => Effect.Effect<Job.Job>
  readonly observe: (id: Job.JobId) => Observation | undefined
  readonly addBundle: (
    spec: BundleSpec
  ) => Effect.Effect<{ readonly bundle: Bundle.Bundle; readonly jobs: ReadonlyArray<Job.Job> }>
  /** `undefined` for a bundle that is not one of these; so it is with the next two. */
  readonly addToBundle: (
    id: Bundle.BundleId,
    specs: ReadonlyArray<JobSpec>
  ) => Effect.Effect<ReadonlyArray<Job.Job> | undefined>
  readonly bundle: (id: Bundle.BundleId) => Bundle.Bundle | undefined
  readonly outcomes: (
    id: Bundle.BundleId,
    page: { readonly limit: number; readonly after?: OutcomePlace | undefined }
  ) => ReadonlyArray<StoredOutcome>
}

/** Ids come down from the highest one, where no sequence gets to. */
const highest = 2n ** 63n - 1n

export const make = (): Imaginary => {
  const tasks = new Map<Job.JobId, string>()
  const bundles = new Map<Bundle.BundleId, { readonly added: Bundle.Bundle; readonly jobs: Array<Job.Job> }>()

  const makeJob: Imaginary["job"] = Effect.fnUntraced(function*(spec, bundle) {
    const now = yield* Clock.currentTimeMillis
    const runAt = spec.runAt ?? now + (spec.delay ?? 0)
    const id = Job.JobId.make(String(highest - BigInt(tasks.size)))
    tasks.set(id, spec.task)
    const origin = spec.details?.origin ?? bundle?.origin
    return new Job.Job({
      id,
      task: spec.task,
      state: runAt > now ? "scheduled" : "ready",
      payload: JSON.parse(spec.payload),
      queueName: spec.queueName,
      priority: spec.priority ?? 0,
      runAt: DateTime.makeUnsafe(runAt),
      attempts: 0,
      maxAttempts: spec.maxAttempts ?? 25,
      lastError: undefined,
      createdAt: DateTime.makeUnsafe(now),
      updatedAt: DateTime.makeUnsafe(now),
      key: spec.key,
      lockedAt: undefined,
      lockedBy: undefined,
      revision: 0,
      flags: spec.flags ?? [],
      ...(origin === undefined ? {} : { origin }),
      ...(bundle === undefined ? {} : { bundle: bundle.id })
    })
  })

  return {
    job: makeJob,
    observe: (id) => {
      const task = tasks.get(id)
      return task === undefined ? undefined : {
        _tag: "Stopped",
        task,
        state: "cancelled",
        error: "the test ignores it",
        attempts: [],
        result: undefined,
        isRetained: false
      }
    },
    addBundle: Effect.fnUntraced(function*({ jobs: specs, name, origin }) {
      const bundle = new Bundle.Bundle({
        id: Bundle.BundleId.make(String(highest - BigInt(bundles.size))),
        name,
        origin,
        jobs: specs.length,
        completed: 0,
        failed: 0,
        cancelled: 0,
        state: "open",
        createdAt: yield* DateTime.now,
        doneAt: undefined
      })
      const jobs = yield* Effect.forEach(specs, (spec) => makeJob(spec, bundle))
      bundles.set(bundle.id, { added: bundle, jobs: [...jobs] })
      return { bundle, jobs }
    }),
    addToBundle: Effect.fnUntraced(function*(id, specs) {
      const found = bundles.get(id)
      if (found === undefined) return undefined
      const jobs = yield* Effect.forEach(specs, (spec) => makeJob(spec, found.added))
      found.jobs.push(...jobs)
      return jobs
    }),
    bundle: (id) => {
      const found = bundles.get(id)
      return found && new Bundle.Bundle({
        ...found.added,
        jobs: found.jobs.length,
        cancelled: found.jobs.length,
        state: "done",
        doneAt: found.added.createdAt
      })
    },
    outcomes: (id, { after, limit }) => {
      const jobs = bundles.get(id)?.jobs ?? []
      const first = after === undefined ? 0 : jobs.findIndex((job) => job.id === after.job) + 1
      return jobs.slice(first, first + limit).map(({ id, task }) => ({
        place: { job: id, revision: 0 },
        outcome: { _tag: "Cancelled", job: id, task }
      }))
    }
  }
}
