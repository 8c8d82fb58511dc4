/**
 * A store that notes what is added, and keeps some of it from the database.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Bundle from "../../Bundle.ts"
import type * as Job from "../../Job.ts"
import type { Bundling, CompletionSpec, JobSpec, Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import * as Imaginary from "./imaginary.ts"

/** One job that was added: as it was asked for, and as it was answered. */
export interface Record {
  readonly spec: JobSpec
  readonly job: Job.Job
  readonly isIgnored: boolean
}

/** One bundle that was added: as it was answered, and the completions that it was asked for. */
export interface BundleRecord {
  readonly bundle: Bundle.Bundle
  readonly completions: ReadonlyArray<CompletionSpec>
  readonly isIgnored: boolean
}

export interface Recording {
  readonly records: Array<Record>
  readonly bundles: Array<BundleRecord>
  readonly isIgnored: (spec: JobSpec) => boolean
  /** What is done with jobs that were added, before the one who added them goes on: answers the same array for nothing. */
  readonly onAdded: (jobs: ReadonlyArray<Job.Job>) => Effect.Effect<ReadonlyArray<Job.Job>, KongTaskError>
}

export const make = (store: Store, { bundles, isIgnored, onAdded, records }: Recording): Store => {
  const imaginary = Imaginary.make()
  const note = (specs: ReadonlyArray<JobSpec>, jobs: ReadonlyArray<Job.Job>, ignored: ReadonlyArray<boolean>) =>
    jobs.forEach((job, index) => records.push({ spec: specs[index]!, job, isIgnored: ignored[index]! }))
  const passedOf = (specs: ReadonlyArray<JobSpec>, ignored: ReadonlyArray<boolean>) =>
    specs.filter((_, index) => !ignored[index])

  /** Puts the jobs that were added to their places among the ignored ones, notes all, and lets happen what is to. */
  const finish = Effect.fnUntraced(function*(
    specs: ReadonlyArray<JobSpec>,
    ignored: ReadonlyArray<boolean>,
    added: ReadonlyArray<Job.Job>,
    bundle?: Imaginary.Membership
  ) {
    const merge = (others: ReadonlyArray<Job.Job>, imagined: ReadonlyArray<Job.Job | undefined>) => {
      let next = 0
      return imagined.map((job) => job ?? others[next++]!)
    }
    const imagined = yield* Effect.forEach(
      specs,
      (spec, index) => ignored[index] ? imaginary.job(spec, bundle) : Effect.undefined
    )
    note(specs, merge(added, imagined), ignored)
    const after = added.length === 0 ? added : yield* onAdded(added)
    return { jobs: merge(after, imagined), hasRun: after !== added }
  })

  const addMany = Effect.fnUntraced(function*(specs: ReadonlyArray<JobSpec>) {
    const ignored = specs.map(isIgnored)
    const passed = passedOf(specs, ignored)
    const added = passed.length === 0 ? [] : yield* store.addMany(passed)
    return (yield* finish(specs, ignored, added)).jobs
  })

  const addBundle: Bundling["add"] = Effect.fnUntraced(function*(spec) {
    const ignored = spec.jobs.map(isIgnored)
    const passed = passedOf(spec.jobs, ignored)
    if (passed.length === 0) {
      const imagined = yield* imaginary.addBundle(spec)
      bundles.push({ bundle: imagined.bundle, completions: spec.completions, isIgnored: true })
      note(spec.jobs, imagined.jobs, ignored)
      return imagined
    }
    const completions = spec.completions.filter((completion) => !isIgnored(completion.spec))
    const { bundle, jobs: added } = yield* store.bundling.add({ ...spec, completions, jobs: passed })
    bundles.push({ bundle, completions: spec.completions, isIgnored: false })
    const { hasRun, jobs } = yield* finish(spec.jobs, ignored, added, bundle)
    return { bundle: hasRun ? Option.getOrElse(yield* store.bundling.get(bundle.id), () => bundle) : bundle, jobs }
  })

  /** What is ignored is refused as the others are. */
  const checkOpen = Effect.fnUntraced(function*(id: Bundle.BundleId) {
    const found = yield* store.bundling.get(id)
    if (Option.isNone(found)) return yield* new Bundle.BundleNotFound({ bundle: id })
    if (found.value.state === "done") return yield* new Bundle.BundleDone({ bundle: id })
  })

  const addToBundle: Bundling["addTo"] = Effect.fnUntraced(function*(id, specs) {
    const imagined = yield* imaginary.addToBundle(id, specs)
    if (imagined !== undefined) {
      note(specs, imagined, specs.map(() => true))
      return imagined
    }
    const ignored = specs.map(isIgnored)
    const passed = passedOf(specs, ignored)
    if (passed.length === 0) yield* checkOpen(id)
    const added = passed.length === 0 ? [] : yield* store.bundling.addTo(id, passed)
    return (yield* finish(specs, ignored, added, { id, origin: undefined })).jobs
  })

  return {
    ...store,
    add: (spec) =>
      isIgnored(spec)
        ? Effect.map(finish([spec], [true], []), ({ jobs: [job] }) => job!)
        : Effect.flatMap(store.add(spec), (job) => Effect.map(finish([spec], [false], [job]), ({ jobs }) => jobs[0]!)),
    addMany,
    observe: (id, revision, announce) =>
      Option.match(Option.fromNullishOr(imaginary.observe(id)), {
        onNone: () => store.observe(id, revision, announce),
        onSome: Effect.succeed
      }),
    bundling: {
      ...store.bundling,
      add: addBundle,
      addTo: addToBundle,
      get: (id) =>
        Option.match(Option.fromNullishOr(imaginary.bundle(id)), {
          onNone: () => store.bundling.get(id),
          onSome: Effect.succeedSome
        }),
      outcomes: (id, page) =>
        imaginary.bundle(id) === undefined
          ? store.bundling.outcomes(id, page)
          : Effect.sync(() => imaginary.outcomes(id, page))
    }
  }
}
