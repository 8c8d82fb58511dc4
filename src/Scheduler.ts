/**
 * Recurring jobs: typed schedules, crontabs and schedules in the database, run
 * by any number of processes at once with exactly one job for each schedule and
 * instant.
 *
 * A scheduler is a scoped fiber beside the worker: `Scheduler.run`, or
 * `Scheduler.layer` for a program that wants to forget about it.
 *
 * **Exactly one job**
 *
 * What is due is recorded in the database and its job added by one statement, in
 * the table and by the rule of graphile-worker, which may run the same crontab
 * beside it. After a crash, or while the database is away, nothing is lost of
 * what is due while any scheduler lives.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Stream from "effect/Stream"
import * as Crontab from "./Crontab.ts"
import { zoneOf } from "./internal/crontab/line.ts"
import * as Items from "./internal/scheduler/item.ts"
import * as Service from "./internal/scheduler/service.ts"
import type { Minute } from "./internal/scheduler/timing.ts"
import type * as Job from "./Job.ts"
import * as JobStore from "./JobStore.ts"
import type { KongTaskError } from "./KongTaskError.ts"
import type { SchedulerEvent } from "./SchedulerEvent.ts"
import type * as Task from "./Task.ts"

export { InvalidSchedule } from "./internal/scheduler/item.ts"
export type { CronItem, Item } from "./internal/scheduler/item.ts"
export type { Minute } from "./internal/scheduler/timing.ts"

/**
 * Options of a schedule, beside its payload.
 *
 * @category models
 * @since 0.1.0
 */
export interface ItemOptions extends Pick<Job.Options, "maxAttempts" | "priority" | "jobKey" | "jobKeyMode" | "flags"> {
  /** 1 to 512 characters, unique among the schedules of a database. Default: the task's name. */
  readonly id?: string | undefined
  /** A named queue for its jobs. Default: none, or one of its own with `overlap: "queue"`. */
  readonly queueName?: string | undefined
  /**
   * How far back a starting scheduler makes up for what was missed since the last run while no scheduler lived. A new
   * schedule has missed nothing. Default: not at all, or 7 days with `missed: "latest"`.
   */
  readonly backfill?: Duration.Input | undefined
  /**
   * Which of the runs that were missed, before a start or because the process slept, still run: `all` within `backfill`
   * (a day at least, when it slept), only the `latest`, or none that is more than a minute late (`skip`). Default: `all`.
   */
  readonly missed?: "all" | "latest" | "skip" | undefined
  /**
   * What happens when it is due while its last job has not ended: another job is added (`allow`), none (`skip`), or one
   * that waits for the others in a named queue (`queue`). Default: `allow`.
   */
  readonly overlap?: "allow" | "skip" | "queue" | undefined
}

/**
 * Options of a schedule of a program.
 *
 * @category models
 * @since 0.1.0
 */
export interface StaticOptions extends ItemOptions {
  /**
   * Whether a job is added, too, when a scheduler starts with it and no other scheduler that lives has it: once for all
   * processes of a cluster. One that was killed lives for a minute more in that sense. Default: false.
   */
  readonly runOnStart?: boolean | undefined
}

/**
 * The payload, which may be left out where the task needs none.
 *
 * @category utility types
 * @since 0.1.0
 */
export type Payload<T extends Task.Any> = void extends T["payloadSchema"]["~type.make.in"]
  ? { readonly payload?: T["payloadSchema"]["~type.make.in"] }
  : { readonly payload: T["payloadSchema"]["~type.make.in"] }

/**
 * The last argument of the constructors of schedules.
 *
 * @category utility types
 * @since 0.1.0
 */
export type OptionsOf<T extends Task.Any, O> = void extends T["payloadSchema"]["~type.make.in"]
  ? readonly [options?: Payload<T> & O]
  : readonly [options: Payload<T> & O]

/**
 * A schedule by five fields, or a word such as `@daily`; see `Crontab.cron`.
 *
 * **Details**
 *
 * Everything is checked here, the payload by the task's schema. What it fails
 * with says which option is wrong. The payload of its jobs, where it is an
 * object, gets a field `_cron` with the instant and whether it is made up for:
 * `{ ts: "2026-01-01T04:00:00.000Z", backfilled: false }`.
 *
 * **Example**
 *
 * ```ts
 * const nightly = Scheduler.cron(SendReport, "0 4 * * *", {
 *   timeZone: "Europe/Berlin",
 *   payload: { to: "all" },
 *   backfill: "1 day"
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const cron = <T extends Task.Any>(
  task: T,
  expression: string,
  ...[options]: OptionsOf<T, StaticOptions & Crontab.CronOptions>
): Effect.Effect<Items.CronItem, Items.InvalidSchedule, T["payloadSchema"]["EncodingServices"]> =>
  Effect.suspend(() => {
    const cron = Crontab.cron(expression, options)
    const given: StaticOptions & Crontab.CronOptions = options ?? {}
    return Result.isFailure(cron)
      ? Effect.fail(
        new Items.InvalidSchedule({
          id: given.id ?? String(task.name),
          field: cron.failure.issues[0].problem.startsWith("expected a time zone") ? "timeZone" : "expression",
          problem: cron.failure.issues[0].problem
        })
      )
      : Items.make(task, given, { _tag: "Cron", cron: cron.success }, expression)
  }) as Effect.Effect<Items.CronItem, Items.InvalidSchedule, T["payloadSchema"]["EncodingServices"]>

/**
 * A schedule whose next instant a function answers; `undefined` ends it.
 *
 * **Details**
 *
 * The function is given the last instant, at first that of the last run that the
 * database knows, or else when the schedule became known: so all processes agree
 * on the instants. It must answer a later one, and the same one each time. One
 * that fails, or answers an earlier one, is told as `ScheduleFailed` and runs no
 * more in that process.
 *
 * **Example**
 *
 * ```ts
 * const often = Scheduler.custom(Poll, (after) => DateTime.add(after, { seconds: 90 }))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const custom = <T extends Task.Any>(
  task: T,
  next: (after: DateTime.Utc) => DateTime.DateTime | undefined,
  ...[options]: OptionsOf<T, StaticOptions>
): Effect.Effect<Items.Item, Items.InvalidSchedule, T["payloadSchema"]["EncodingServices"]> =>
  Items.make(task, options ?? {}, { _tag: "Custom", next }, undefined)

/**
 * A schedule that is due in the minutes that a function says. It is asked about
 * each minute, up to a day ahead, and must answer the same each time.
 *
 * @category constructors
 * @since 0.1.0
 */
export const matching = <T extends Task.Any>(
  task: T,
  matches: (minute: Minute) => boolean,
  ...[options]: OptionsOf<T, StaticOptions & Pick<Crontab.CronOptions, "timeZone">>
): Effect.Effect<Items.Item, Items.InvalidSchedule, T["payloadSchema"]["EncodingServices"]> =>
  Effect.suspend(() => {
    const given: StaticOptions & Pick<Crontab.CronOptions, "timeZone"> = options ?? {}
    const { timeZone } = given
    if (timeZone !== undefined && Option.isNone(DateTime.zoneFromString(timeZone))) {
      const problem = `must be a time zone such as Europe/Berlin, not "${timeZone}"`
      return Effect.fail(new Items.InvalidSchedule({ id: given.id ?? String(task.name), field: "timeZone", problem }))
    }
    return Items.make(task, given, { _tag: "Matcher", matches, timeZone: zoneOf(timeZone) }, undefined)
  })

/**
 * @category models
 * @since 0.1.0
 */
export interface Options<T extends Task.Any = never, R = never> {
  /** Schedules of the program, or effects that make them. */
  readonly items?: ReadonlyArray<Items.Item | Effect.Effect<Items.Item, Items.InvalidSchedule, R>> | undefined
  /** A crontab as text. */
  readonly crontab?: string | undefined
  /** The path of a crontab, which is read again when it changes; a bad one leaves the last good one in force. */
  readonly crontabFile?: string | undefined
  /**
   * The tasks that the program knows: payloads of crontabs and stored schedules are checked by their schemas, and
   * schedules of other tasks are told as `TaskUnknown`. Default: nothing is checked.
   */
  readonly tasks?: ReadonlyArray<T> | undefined
  /** Whether schedules that are kept in the database are run. Default: true. */
  readonly stored?: boolean | undefined
  /** How often changes of stored schedules and of the file are looked for, 10 ms or more. Default: 1 second. */
  readonly pollInterval?: Duration.Input | undefined
}

/**
 * What a scheduler cannot start with.
 *
 * @category models
 * @since 0.1.0
 */
export type StartError = Items.InvalidSchedule | Crontab.InvalidCrontab | KongTaskError

/**
 * A schedule that is kept in the database.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stored {
  readonly id: string
  /** `undefined` when the definition is not understood; see `problem`. */
  readonly task: string | undefined
  readonly expression: string | undefined
  readonly timeZone: string | undefined
  readonly isPaused: boolean
  readonly createdAt: DateTime.Utc
  readonly updatedAt: DateTime.Utc
  /** The last instant that was recorded. */
  readonly lastInstant: DateTime.Utc | undefined
  /** The last job, which may be gone: its instant and when it was added. */
  readonly lastRun:
    | { readonly instant: DateTime.Utc; readonly addedAt: DateTime.Utc; readonly jobId: Job.JobId }
    | undefined
  /** When it is due next; `undefined` while it is paused. */
  readonly nextRun: DateTime.Utc | undefined
  /** Why it does not run. */
  readonly problem: string | undefined
}

/**
 * @category services
 * @since 0.1.0
 */
export class Scheduler extends Context.Service<Scheduler, {
  /**
   * Runs schedules until interrupted.
   *
   * **Details**
   *
   * Fails at once for what is wrong with its options. While the database is away
   * it waits, and makes up for what was due. Uses a connection of its own; costs a
   * statement each `pollInterval`, and one a batch of what is due.
   */
  readonly run: <T extends Task.Any = never, R = never>(
    options: Options<T, R>
  ) => Effect.Effect<never, StartError, R | T["payloadSchema"]["DecodingServices"]>

  /**
   * Keeps a schedule in the database, and answers whether that changed anything: one of that id is replaced, and what it
   * missed is forgotten. Every scheduler runs it within its `pollInterval`. Joins the caller's transaction.
   */
  readonly put: <R = never>(
    item: Items.CronItem | Effect.Effect<Items.CronItem, Items.InvalidSchedule, R>
  ) => Effect.Effect<boolean, Items.InvalidSchedule | KongTaskError, R>

  /** Takes a stored schedule away, at once and everywhere; answers whether it was there. Its jobs stay. */
  readonly remove: (id: string) => Effect.Effect<boolean, KongTaskError>

  /** Keeps a stored schedule from running, at once and everywhere; answers whether it is there. */
  readonly pause: (id: string) => Effect.Effect<boolean, KongTaskError>

  /** Lets a stored schedule run again, but not for what it missed; answers whether it is there. */
  readonly resume: (id: string) => Effect.Effect<boolean, KongTaskError>

  /**
   * Adds a job of a stored schedule now, paused or not, whatever its last one does; `None` if the schedule is not there,
   * not understood, or being changed at this moment. When it is due is not affected.
   */
  readonly runNow: (id: string) => Effect.Effect<Option.Option<Job.JobId>, KongTaskError>

  /** The stored schedules in the order of their ids. One statement. */
  readonly list: Effect.Effect<ReadonlyArray<Stored>, KongTaskError>

  /**
   * What all schedulers of this service do, from the moment of subscription on; a reader that falls behind by 16,384
   * events misses the oldest.
   */
  readonly events: Stream.Stream<SchedulerEvent>
}>()("kongtask/Scheduler") {
  static readonly layer: Layer.Layer<Scheduler, never, JobStore.JobStore> = Layer.effect(
    Scheduler,
    Effect.flatMap(JobStore.JobStore, Service.make)
  )
}

/**
 * Runs schedules until interrupted: `Scheduler.run` of the service.
 *
 * **Example**
 *
 * ```ts
 * const scheduler = Scheduler.run({
 *   items: [Scheduler.cron(SendReport, "0 4 * * *", { payload: { to: "all" } })]
 * }).pipe(Effect.provide(KongTaskLive))
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const run = <T extends Task.Any = never, R = never>(
  options: Options<T, R>
): Effect.Effect<never, StartError, Scheduler | R | T["payloadSchema"]["DecodingServices"]> =>
  Effect.flatMap(Scheduler, (scheduler) => scheduler.run(options))

/**
 * A scheduler for as long as the layer lives, beside the rest of a program.
 *
 * **Details**
 *
 * What is wrong with the options fails the layer.
 *
 * **Gotchas**
 *
 * A scheduler that fails after its start, for a lost privilege or a missing
 * schema, cannot fail the layer any more; it is logged as an error.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <T extends Task.Any = never, R = never>(
  options: Options<T, R>
): Layer.Layer<never, StartError, Scheduler | R | T["payloadSchema"]["DecodingServices"]> =>
  Service.prepare(options).pipe(
    Effect.andThen(
      run(options).pipe(
        Effect.tapCause((cause) => Effect.logError("The scheduler has stopped.", cause)),
        Effect.forkScoped
      )
    ),
    Layer.effectDiscard
  )

/** A method of the service as a function that requires the service. */
const accessor = <A extends ReadonlyArray<unknown>, B, E>(
  method: (scheduler: Scheduler["Service"]) => (...args: A) => Effect.Effect<B, E>
) =>
(...args: A): Effect.Effect<B, E, Scheduler> => Effect.flatMap(Scheduler, (scheduler) => method(scheduler)(...args))

/**
 * Keeps a schedule in the database: `Scheduler.put` of the service.
 *
 * @category accessors
 * @since 0.1.0
 */
export const put = <R = never>(
  item: Items.CronItem | Effect.Effect<Items.CronItem, Items.InvalidSchedule, R>
): Effect.Effect<boolean, Items.InvalidSchedule | KongTaskError, Scheduler | R> =>
  Effect.flatMap(Scheduler, (scheduler) => scheduler.put(item))

/**
 * @category accessors
 * @since 0.1.0
 */
export const remove = accessor((scheduler) => scheduler.remove)

/**
 * @category accessors
 * @since 0.1.0
 */
export const pause = accessor((scheduler) => scheduler.pause)

/**
 * @category accessors
 * @since 0.1.0
 */
export const resume = accessor((scheduler) => scheduler.resume)

/**
 * @category accessors
 * @since 0.1.0
 */
export const runNow = accessor((scheduler) => scheduler.runNow)

/**
 * @category accessors
 * @since 0.1.0
 */
export const list: Effect.Effect<ReadonlyArray<Stored>, KongTaskError, Scheduler> = Effect.flatMap(
  Scheduler,
  (scheduler) => scheduler.list
)
