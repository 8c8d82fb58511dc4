export type Check =
  | "connection"
  | "version"
  | "privileges"
  | "migrations"
  | "indexes"
  | "workers"
  | "transactions"
  | "bloat"
  | "clock"

export interface Finding {
  readonly check: Check
  readonly status: "ok" | "problem" | "unknown"
  /** What was found. */
  readonly message: string
  /** What to do about it; `undefined` when there is nothing to do. */
  readonly todo: string | undefined
}

export const ok = (check: Check, message: string): Finding => ({ check, status: "ok", message, todo: undefined })

export const problem = (check: Check, message: string, todo: string): Finding => ({
  check,
  status: "problem",
  message,
  todo
})

export const unknown = (check: Check, message: string, todo?: string): Finding => ({
  check,
  status: "unknown",
  message,
  todo
})
