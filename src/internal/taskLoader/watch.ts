/**
 * Versions of tasks, one after the other, each loaded anew.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { randomBytes } from "node:crypto"
import type * as Task from "../../Task.ts"
import type { Change, Issue, Loaded } from "../../TaskLoader.ts"
import { traceImports, versionParameter } from "../modules.ts"
import { load, toLoaded } from "./load.ts"
import { fingerprint } from "./scan.ts"

const lookEvery = Duration.millis(250)

/** How long a version outlives its last attempt: jobs that are claimed already may still begin with it. */
const grace = Duration.seconds(5)

/** Counts the attempts of a version, so that nothing is released under them. */
const counted = (loaded: Loaded, scope: Scope.Closeable) => {
  let running = 0
  let isRetired = false
  const close = Effect.suspend(() => isRetired && running === 0 ? Scope.close(scope, Exit.void) : Effect.void)
  const inUse = (registration: Task.Registration): Task.Registration => ({
    ...registration,
    handler: (payload, job) =>
      Effect.suspend(() => {
        running++
        return registration.handler(payload, job)
      }).pipe(
        Effect.ensuring(Effect.suspend(() => {
          running--
          return close
        }))
      )
  })
  return {
    loaded: toLoaded(loaded.registrations.map(inUse), loaded.files),
    retire: Effect.delay(
      Effect.suspend(() => {
        isRetired = true
        return close
      }),
      grace
    )
  }
}

/** A version, or why there is none. */
export type Step = Extract<Change, { readonly _tag: "Loaded" }> | {
  readonly _tag: "Failed"
  readonly issues: ReadonlyArray<Issue>
}

/** Versions one after the other: `next` waits for the next one. */
export interface Watch {
  readonly next: Effect.Effect<Step>
}

export const make = Effect.fnUntraced(function*(
  paths: ReadonlyArray<string>,
  executableTimeout: Duration.Input
): Effect.fn.Return<Watch, never, Scope.Scope> {
  const outer = yield* Effect.scope
  const imports = yield* traceImports
  let dependencies: ReadonlySet<string> = new Set()
  let seen: string | undefined
  let tasks: ReadonlySet<string> = new Set()
  let retire: Effect.Effect<void> = Effect.void
  const look = () => fingerprint([...paths, ...dependencies])

  /** Waits until something has changed, and then nothing for one look. */
  const settled = Effect.gen(function*() {
    while (seen !== undefined) {
      const now = look()
      yield* Effect.sleep(lookEvery)
      if (now !== seen && now === look()) return
    }
  })

  const loadNext = Effect.gen(function*(): Effect.fn.Return<Step> {
    const query = `?${versionParameter}=${randomBytes(6).toString("hex")}`
    const scope = yield* Scope.fork(outer)
    const before = fingerprint(paths)
    const result = yield* Effect.result(load({ paths, executableTimeout, scope, query }))
    const imported = imports.filesOf(query)
    dependencies = new Set(result._tag === "Success" ? imported : [...dependencies, ...imported])
    seen = before === fingerprint(paths) ? look() : ""
    if (result._tag === "Failure") {
      yield* Scope.close(scope, Exit.void)
      return { _tag: "Failed", issues: result.failure }
    }
    const version = counted(result.success, scope)
    yield* Effect.forkIn(retire, outer)
    retire = version.retire
    const names = new Set(version.loaded.tasks.map(({ name }) => name))
    const added = [...names].filter((name) => !tasks.has(name))
    const removed = [...tasks].filter((name) => !names.has(name))
    tasks = names
    return { _tag: "Loaded", loaded: version.loaded, added, removed }
  })

  return { next: Effect.andThen(settled, loadNext) }
})
