/**
 * What a test expects to have been added, and how it is told what was.
 */
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Equal from "effect/Equal"
import * as Predicate from "effect/Predicate"
import { AssertionError } from "node:assert"
import { inspect, isDeepStrictEqual } from "node:util"
import type * as Job from "../../Job.ts"
import type { JobSpec } from "../../JobStore.ts"

export interface Comparable {
  readonly payload: unknown
  readonly options: Job.Options
}

export interface Expected {
  readonly payload?: unknown
  readonly options?: Job.Options | undefined
  readonly times?: number | undefined
}

const isPlain = (value: unknown): value is Record<string, unknown> =>
  Predicate.isObject(value) && !Array.isArray(value) && Object.getPrototypeOf(value) === Object.prototype

/** What is left out of an object is not asked for. */
const matches = (actual: unknown, expected: unknown): boolean =>
  isPlain(expected) && Predicate.isObject(actual)
    ? Object.entries(expected).every(([key, value]) => matches(Reflect.get(actual, key), value))
    : Equal.equals(actual, expected) || isDeepStrictEqual(actual, expected)

/** The options as `add` was given them, a task's defaults included. */
export const optionsOf = (spec: JobSpec): Job.Options => ({
  queueName: spec.queueName,
  runAt: spec.runAt === undefined ? undefined : DateTime.makeUnsafe(spec.runAt),
  delay: spec.delay === undefined ? undefined : Duration.millis(spec.delay),
  maxAttempts: spec.maxAttempts,
  priority: spec.priority,
  jobKey: spec.key,
  jobKeyMode: spec.keyMode,
  flags: spec.flags,
  origin: spec.details?.origin,
  retain: spec.details?.retain === undefined ? undefined : Duration.millis(spec.details.retain)
})

/** Times and durations by their milliseconds, however they are written; what is left out is left out. */
const comparable = (options: Job.Options): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(options).filter(([, value]) => value !== undefined).map(([name, value]) => {
      if (name === "delay" || name === "retain") return [name, Duration.toMillis(value as Duration.Input)]
      if (name !== "runAt") return [name, value]
      return [name, DateTime.isDateTime(value) ? value.epochMilliseconds : (value as Date).getTime()]
    })
  )

export const fits = (added: Comparable, { options, payload }: Expected): boolean =>
  (payload === undefined ||
    (typeof payload === "function" ? payload(added.payload) === true : matches(added.payload, payload))) &&
  (options === undefined || matches(comparable(added.options), comparable(options)))

const show = (value: unknown): string =>
  inspect(value, { depth: 6, breakLength: Infinity, compact: true, maxArrayLength: 20, maxStringLength: 200 })

const describe = ({ options, payload }: Comparable | Expected): string => {
  const asked = Object.fromEntries(Object.entries(options ?? {}).filter(([, value]) => value !== undefined))
  return [
    typeof payload === "function" ? `a payload for which ${payload.name || "the predicate"} holds` : show(payload),
    ...(Object.keys(asked).length === 0 ? [] : [`options ${show(asked)}`])
  ].join(", ")
}

const maxShown = 20

const list = (all: ReadonlyArray<Comparable>): string =>
  [
    ...all.slice(0, maxShown).map((added, index) => `  ${index + 1}. ${describe(added)}`),
    ...(all.length > maxShown ? [`  and ${all.length - maxShown} more`] : [])
  ].join("\n")

const jobs = (count: number): string => count === 1 ? "1 job" : `${count} jobs`

/** What is wrong, with all that was added of the task. */
export const unexpected = (
  task: string,
  wanted: string,
  expected: Expected,
  found: ReadonlyArray<Comparable>,
  all: ReadonlyArray<Comparable>,
  others: ReadonlyArray<string>
): AssertionError => {
  const asked = expected.payload === undefined && expected.options === undefined ? "" : ` like ${describe(expected)}`
  const added = all.length === 0
    ? `None of this task was added${
      others.length === 0 ? ", nor any other job." : `; there were jobs of: ${others.join(", ")}.`
    }`
    : `${jobs(all.length)} of this task ${all.length === 1 ? "was" : "were"} added:\n${list(all)}`
  return new AssertionError({
    message: `Expected ${wanted} of task "${task}"${asked}, but found ${
      found.length === 0 ? "none" : found.length
    }. ${added}`,
    actual: all.map(({ options, payload }) => ({ payload, options: comparable(options) })),
    expected: { payload: expected.payload, options: comparable(expected.options ?? {}) },
    operator: "added"
  })
}
