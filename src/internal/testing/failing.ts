/**
 * A store whose operations fail when they are told to.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { Store } from "../../JobStore.ts"
import { KongTaskError, StatementFailed } from "../../KongTaskError.ts"

type Group = "bundling" | "listening" | "scheduling"

/** What can be told to fail: an operation, a group of them, or one of a group. */
export type Operation =
  | Exclude<keyof Store, "capabilities" | "dedicated">
  | { readonly [G in Group]: `${G}.${keyof Store[G] & string}` }[Group]

/** How the next calls of an operation fail. */
export interface Rule {
  readonly error: KongTaskError
  left: number
}

export type Rules = Map<Operation | "all", Rule>

export const defaultError = (operation: Operation | "all"): KongTaskError =>
  new KongTaskError({
    reason: new StatementFailed({
      operation,
      code: undefined,
      detail: "the test said so",
      isTransient: false,
      cause: undefined
    })
  })

/** Waiting is not a statement: `mayWait` asks no database. */
const untouched = new Set(["capabilities", "dedicated", "mayWait"])

export const make = (store: Store, rules: Rules): Store => {
  const failure = (operation: Operation): KongTaskError | undefined => {
    const group = operation.split(".")[0] as Operation
    const rule = rules.get(operation) ?? rules.get(group) ?? rules.get("all")
    if (rule === undefined || rule.left <= 0) return undefined
    rule.left--
    return rule.error
  }

  const wrap = (operation: Operation, value: unknown): unknown => {
    if (Effect.isEffect(value)) {
      return Effect.suspend((): Effect.Effect<unknown, unknown, any> => {
        const error = failure(operation)
        return error === undefined ? value : Effect.fail(error)
      })
    }
    if (Stream.isStream(value)) {
      return Stream.suspend((): Stream.Stream<unknown, unknown, any> => {
        const error = failure(operation)
        return error === undefined ? value : Stream.fail(error)
      })
    }
    if (typeof value === "function") return (...args: ReadonlyArray<unknown>) => wrap(operation, value(...args))
    return typeof value === "object" && value !== null
      ? new Proxy(value, {
        get: (group, key) => wrap(`${operation}.${String(key)}` as Operation, Reflect.get(group, key))
      })
      : value
  }

  return {
    ...Object.fromEntries(
      Object.entries(store).map(([key, value]) => [key, untouched.has(key) ? value : wrap(key as Operation, value)])
    ) as unknown as Store,
    dedicated: Effect.map(store.dedicated, (dedicated) => make(dedicated, rules))
  }
}
