import type { Item } from "./item.ts"
import type { KnownSchedule } from "./storage.ts"
import * as Timing from "./timing.ts"

/** Later than that is too late for a schedule that skips what it missed. */
export const lateMillis = 60_000

/** What a process that slept, or whose clock was set forward, makes up for at least. */
const catchUpMillis = 24 * 60 * 60_000

/** A function that gives more instants than that between the last run and now is at fault. */
const maxChain = 1_000_000

/** A schedule that a scheduler runs. */
export interface Active {
  readonly item: Item
  /** Tells one version of it from another. */
  readonly version: string
  /** Of a stored schedule. */
  readonly revision: number | undefined
  /** Runs before that are backfilled. */
  readonly backfilledBefore: number
  /** It has been run, or does not run, up to and including this instant. */
  cursor: number
  next: Timing.Step | undefined
  /** Why it runs no more. */
  problem: string | undefined
}

export interface Instant {
  readonly at: number
  readonly how: "due" | "pass"
}

/** The instants of one schedule that are due. */
export interface Due {
  readonly active: Active
  readonly instants: ReadonlyArray<Instant>
  /** How many before the last of them are left out by its policy. */
  readonly skipped: number
  /** Whether more are due than were asked for. */
  readonly hasMore: boolean
}

/** Up to where it was run, and what comes next. */
export const moveTo = (active: Active, cursor: number): void => {
  active.cursor = cursor
  const next = Timing.next(active.item.timing, cursor)
  if (next._tag === "Success") {
    active.next = next.success
  } else {
    active.next = undefined
    active.problem = next.failure
  }
}

/** A chain of instants depends on where it begins: every process follows the same one up to the present. */
const follow = (active: Active, from: number, to: number): void => {
  moveTo(active, from)
  for (let n = 0; active.next !== undefined && active.next.at <= to; n++) {
    if (n === maxChain) {
      active.next = undefined
      active.problem = `has more than ${maxChain} instants since it was last run`
      return
    }
    moveTo(active, active.next.at)
  }
}

/** Where a scheduler begins with a schedule. */
export const begin = (options: {
  readonly item: Item
  readonly version: string
  readonly revision: number | undefined
  readonly known: KnownSchedule
  readonly now: number
  /** Of a stored schedule. */
  readonly since: number | undefined
  /** Up to where a running scheduler has run its schedules; `undefined` when it starts. */
  readonly reached: number | undefined
}): Active => {
  const { item, known, now, reached, since } = options
  const first = since ?? known.knownSince
  const last = known.lastExecution !== undefined && (since === undefined || known.lastExecution >= since)
    ? known.lastExecution
    : first - 1
  const { aliveSince } = known
  const active: Active = {
    item,
    version: options.version,
    revision: options.revision,
    backfilledBefore: reached === undefined ? Math.min(now, aliveSince ?? now) : 0,
    cursor: 0,
    next: undefined,
    problem: undefined
  }
  const cursor = reached !== undefined
    ? since === undefined ? reached : last
    : Math.min(
      now - 1,
      item.backfill > 0 ? Math.max(last, now - item.backfill - 1) : now - 1,
      aliveSince === undefined ? now - 1 : Math.max(last, aliveSince - 1)
    )
  if (item.timing._tag === "Custom") follow(active, known.lastExecution ?? known.knownSince, cursor)
  else moveTo(active, cursor)
  return active
}

/** Goes past instants that are too long ago to be made up for. */
const passOver = (active: Active, before: number): number => {
  const isJump = active.item.timing._tag !== "Custom"
  let skipped = 0
  while (active.next !== undefined && active.next.at < before) {
    skipped++
    moveTo(active, isJump ? before - 1 : active.next.at)
  }
  return skipped
}

/** What is due at a time, by the schedule's policy; changes nothing but where nothing is due. */
export const due = (active: Active, now: number, limit: number): Due => {
  const { item } = active
  const instants: Array<Instant> = []
  const tooOld = passOver(active, now - Math.max(item.backfill, catchUpMillis))
  let skipped = tooOld
  let step = active.next
  while (step !== undefined && step.at <= now && instants.length < limit) {
    if (step.isDue) {
      const how = item.missed === "skip" && now - step.at > lateMillis ? "pass" : "due"
      // Of those that do not run only the last one is recorded, which stands for the others.
      if (instants.length > 0 && (item.missed === "latest" || instants.at(-1)!.how === "pass")) {
        instants.pop()
        skipped++
      }
      instants.push({ at: step.at, how })
    }
    const next = Timing.next(item.timing, step.at)
    if (next._tag === "Failure") {
      active.problem = next.failure
      step = undefined
    } else {
      step = next.success
    }
  }
  if (instants.length === 0 && active.next !== undefined && active.next.at <= now) moveTo(active, now)
  return { active, instants, skipped, hasMore: step !== undefined && step.at <= now }
}
