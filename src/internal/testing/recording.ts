/**
 * A store that notes what is added, and keeps some of it from the database.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Job from "../../Job.ts"
import type { JobSpec, Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import * as Nothing from "./nothing.ts"

/** One job that was added: as it was asked for, and as it was answered. */
export interface Record {
  readonly spec: JobSpec
  readonly job: Job.Job
  readonly isIgnored: boolean
}

export interface Recording {
  readonly records: Array<Record>
  readonly isIgnored: (spec: JobSpec) => boolean
  /** What is done with jobs that were added, before the one who added them goes on. */
  readonly onAdded: (jobs: ReadonlyArray<Job.Job>) => Effect.Effect<ReadonlyArray<Job.Job>, KongTaskError>
}

export const make = (store: Store, { isIgnored, onAdded, records }: Recording): Store => {
  const imaginary = Nothing.imaginary()
  const note = (spec: JobSpec, job: Job.Job, isIgnored: boolean) => {
    records.push({ spec, job, isIgnored })
    return job
  }
  /** Puts what came of the others back to their places among the ignored ones. */
  const merge = (ignored: ReadonlyArray<Job.Job | undefined>, others: ReadonlyArray<Job.Job>) => {
    let next = 0
    return ignored.map((job) => job ?? others[next++]!)
  }

  const addMany = Effect.fnUntraced(function*(specs: ReadonlyArray<JobSpec>) {
    const passed = specs.filter((spec) => !isIgnored(spec))
    const added = passed.length === 0 ? [] : yield* store.addMany(passed)
    const ignored = yield* Effect.forEach(
      specs,
      (spec) => isIgnored(spec) ? imaginary.job(spec) : Effect.undefined
    )
    merge(ignored, added).forEach((job, index) => note(specs[index]!, job, ignored[index] !== undefined))
    return merge(ignored, added.length === 0 ? added : yield* onAdded(added))
  })
  return {
    ...store,
    add: (spec) =>
      isIgnored(spec)
        ? Effect.map(imaginary.job(spec), (job) => note(spec, job, true))
        : Effect.flatMap(store.add(spec), (job) => Effect.map(onAdded([note(spec, job, false)]), ([job]) => job!)),
    addMany,
    observe: (id, revision, announce) =>
      Option.match(Option.fromNullishOr(imaginary.observe(id)), {
        onNone: () => store.observe(id, revision, announce),
        onSome: Effect.succeed
      })
  }
}
