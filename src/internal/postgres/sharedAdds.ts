/**
 * Group commit of adds: while as many statements as are useful are in flight,
 * further adds gather, and go together with the next one. An add that finds
 * none in flight goes at once, by itself.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import type * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"
import * as Tracer from "effect/Tracer"
import type * as Job from "../../Job.ts"
import type { JobSpec } from "../../JobStore.ts"
import { sqlState } from "./errors.ts"

/** How many statements of shared adds are in flight at most. */
const maxStatements = 1

/** The largest shared statement, in jobs and in characters of their payloads. */
const maxJobs = 500
const maxCharacters = 1024 * 1024

/** How long the end waits for the statements in flight. */
const drainTimeout = "5 seconds"

/** Adds jobs without ever waiting for another transaction; `undefined` where it would have to. */
export type Insert = (specs: ReadonlyArray<JobSpec>) => Effect.Effect<ReadonlyArray<Job.Job> | undefined, SqlError>

export interface SharedAdds {
  /**
   * Adds a job together with those of other callers; `undefined` where it has to go alone. An interruption leaves the
   * others' jobs alone, and its own where its statement is in flight.
   */
  readonly add: (spec: JobSpec) => Effect.Effect<Job.Job | undefined, SqlError>
}

interface Entry {
  readonly spec: JobSpec
  readonly span: Tracer.AnySpan | undefined
  readonly resume: (effect: Effect.Effect<Job.Job | undefined, SqlError>) => void
}

/**
 * Whether the server has refused a statement, so that nothing of it was written. A broken connection may as well have
 * lost the answer.
 */
const isRefusal = (error: SqlError): boolean => {
  const code = sqlState(error)
  return code !== undefined && !/^(?:08|57P|40003)/.test(code)
}

export const make = Effect.fnUntraced(function*(insert: Insert): Effect.fn.Return<SharedAdds, never, Scope.Scope> {
  const fibers = yield* FiberSet.make<void>()
  const run = yield* FiberSet.runtime(fibers)<never>()
  const gathered = new Set<Entry>()
  let inFlight = 0
  let isOpen = true

  yield* Effect.addFinalizer(() => {
    isOpen = false
    for (const entry of gathered) entry.resume(Effect.undefined)
    gathered.clear()
    return Effect.timeoutOption(FiberSet.awaitEmpty(fibers), drainTimeout)
  })

  const take = (): ReadonlyArray<Entry> => {
    const batch: Array<Entry> = []
    let characters = 0
    for (const entry of gathered) {
      characters += entry.spec.payload.length
      if (batch.length === maxJobs || (characters > maxCharacters && batch.length > 0)) break
      batch.push(entry)
      gathered.delete(entry)
    }
    return batch
  }

  const answer = (
    batch: ReadonlyArray<Entry>,
    exit: Exit.Exit<ReadonlyArray<Job.Job> | undefined, SqlError>
  ): void => {
    if (Exit.isSuccess(exit)) {
      for (const [index, entry] of batch.entries()) entry.resume(Effect.succeed(exit.value?.[index]))
      return
    }
    const error = Cause.findErrorOption(exit.cause)
    const answer = error._tag === "Some" && isRefusal(error.value) ? Effect.undefined : Effect.failCause(exit.cause)
    for (const entry of batch) entry.resume(answer)
  }

  const send = (batch: ReadonlyArray<Entry>): Effect.Effect<void> =>
    Effect.suspend(() => insert(batch.map((entry) => entry.spec))).pipe(
      Effect.withSpan("JobStore.addShared", {
        root: true,
        attributes: { jobs: batch.length },
        links: batch.flatMap(({ span }) => span === undefined ? [] : [{ span, attributes: {} }])
      }),
      Effect.onExit((exit) => Effect.sync(() => answer(batch, exit))),
      Effect.ignoreCause,
      // Those who have just been answered may add again at once: their next jobs go together.
      Effect.andThen(Effect.yieldNow),
      Effect.ensuring(Effect.sync(land))
    )

  const land = () => {
    inFlight--
    while (isOpen && inFlight < maxStatements && gathered.size > 0) {
      inFlight++
      run(send(take()))
    }
  }

  const goAtOnce = (spec: JobSpec) =>
    Effect.suspend(() => {
      inFlight++
      return Effect.ensuring(insert([spec]), Effect.sync(land))
    }).pipe(Effect.map((jobs) => jobs?.[0]))

  const gather = (spec: JobSpec) =>
    Effect.contextWith((context: Context.Context<never>) =>
      Effect.callback<Job.Job | undefined, SqlError>((resume) => {
        const entry = { spec, span: Context.getOrUndefined(context, Tracer.ParentSpan), resume }
        gathered.add(entry)
        return Effect.sync(() => void gathered.delete(entry))
      })
    )

  return {
    add: (spec) =>
      Effect.suspend(() => {
        if (!isOpen || spec.payload.length > maxCharacters) return Effect.undefined
        return inFlight < maxStatements ? goAtOnce(spec) : gather(spec)
      })
  }
})
