/**
 * Running a worker of tasks that are known at run time, and another one in its place when they change.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { KongTaskError } from "../../KongTaskError.ts"
import * as Task from "../../Task.ts"
import * as Worker from "../../Worker.ts"

export interface Settings {
  readonly concurrency: number
  readonly pollInterval: Duration.Duration
  readonly handleSignals: boolean
}

type Registrations = ReadonlyArray<Task.Registration>

const contextOf = (registrations: Registrations): Context.Context<Task.Handler<string>> =>
  registrations.reduce(
    (context, registration) => Context.add(context, Task.handlerKey(registration.task.name), registration),
    Context.empty() as Context.Context<Task.Handler<string>>
  )

const tasksOf = (registrations: Registrations) =>
  registrations.map(({ task }) => task as Task.Any & { readonly name: string })

/** Runs what is due, and answers how it ended. */
export const once = (
  registrations: Registrations,
  { concurrency, pollInterval }: Settings
): Effect.Effect<Worker.Summary, KongTaskError, Worker.Worker> =>
  Worker.runOnce({ tasks: tasksOf(registrations), concurrency, pollInterval }).pipe(
    Effect.provideContext(contextOf(registrations))
  )

const run = (registrations: Registrations, settings: Settings): Effect.Effect<never, KongTaskError, Worker.Worker> =>
  Worker.run({ tasks: tasksOf(registrations), ...settings }).pipe(Effect.provideContext(contextOf(registrations)))

/**
 * Runs a worker until it is interrupted. When the tasks change, one with the new ones starts at once, and the one before
 * finishes what it has begun.
 */
export const forever = Effect.fnUntraced(function*<E, R>(
  first: Registrations,
  changes: Stream.Stream<Registrations, E, R>,
  settings: Settings
): Effect.fn.Return<never, KongTaskError | E, Worker.Worker | Scope.Scope | R> {
  const failed = yield* Deferred.make<never, KongTaskError | E>()
  // A worker that was replaced ends by its interruption.
  const onEnd = (cause: Cause.Cause<KongTaskError | E>) =>
    Cause.hasInterruptsOnly(cause) ? Effect.void : Effect.asVoid(Deferred.failCause(failed, cause))
  const start = (registrations: Registrations) => Effect.forkScoped(Effect.onError(run(registrations, settings), onEnd))
  let current = yield* start(first)
  yield* changes.pipe(
    Stream.runForEach((registrations) =>
      Effect.gen(function*() {
        const before = current
        current = yield* start(registrations)
        yield* Effect.forkScoped(Fiber.interrupt(before))
      })
    ),
    Effect.onError(onEnd),
    Effect.forkScoped
  )
  return yield* Deferred.await(failed)
})
