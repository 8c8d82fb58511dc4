/**
 * Runs a case: a database, workers, jobs, faults; then everything comes to its
 * end, and the checks look at what is left.
 */
import { PgClient } from "@effect/sql-pg"
import { Cause, Effect, Fiber, Layer, type Scope } from "effect"
import { KongTask, type Queue } from "kongtask"
import { eventually, pause } from "../support/events.ts"
import * as Checks from "./checks.ts"
import type { Kind } from "./clocks.ts"
import * as Fleet from "./fleet.ts"
import * as Ledger from "./ledger.ts"
import * as Load from "./load.ts"
import type { Fault, Observation } from "./observation.ts"
import { observe, registered, remaining } from "./observe.ts"
import * as Random from "./random.ts"
import * as Settings from "./settings.ts"
import * as Site from "./site.ts"

/** What a case's faults have to work with. */
export interface World<S extends Site.Site> {
  readonly site: S
  readonly fleet: Fleet.Fleet
  readonly load: Load.Load
  readonly random: Random.Random
  readonly note: (fault: Fault) => void
  /** Whether there is time left for another fault. */
  readonly goesOn: () => boolean
  /** A pause of a random length between both bounds in milliseconds. */
  readonly pause: (from: number, to: number) => Effect.Effect<void>
}

export type Services = PgClient.PgClient | Queue.Queue | Scope.Scope

export interface Case<S extends Site.Site> {
  readonly name: string
  readonly site: Site.Made<S>
  /** Makes faults until the world doesn't go on, and mends what the workers could not go on with. */
  readonly faults: (world: World<S>) => Effect.Effect<void, never, Services>
  /** The recorded errors that its faults account for. */
  readonly errors: RegExp
  /** The clock of each worker that is there from the start; default: the machine's. */
  readonly clocks?: ReadonlyArray<Kind | undefined> | undefined
  /** What has to hold beside the checks of all cases. */
  readonly checks?: ReadonlyArray<Checks.Check> | undefined
}

/** A line of the table. */
export interface Result {
  readonly name: string
  readonly faults: number
  readonly jobs: number
  readonly lost: number
  readonly rerun: number
  readonly overlapping: number
  readonly recoverySeconds: number
  readonly seconds: number
  /** Every violation of every check. */
  readonly violations: ReadonlyArray<string>
}

/** What a handler fails with because its payload says so, and nothing else. */
export const refused = /^Refused/

/** The database was away when the handler, or its transaction, needed it. */
export const refusedOrAway = /^(Refused|LedgerUnavailable|TransactionFailed)/

/** Timers went off hours too early. */
export const refusedAwayOrTimedOut = /^(Refused|LedgerUnavailable|TransactionFailed|TimedOut)/

const judge = <S extends Site.Site>(of: Case<S>, seen: Observation, seconds: number): Result => {
  const lost = Checks.lost(seen)
  const overlapping = [...Checks.overlapping(seen), ...Checks.queueOverlapping(seen)]
  const others = [
    Checks.wronglyRecorded,
    Checks.wronglyTaken,
    Checks.wronglyCharged(of.errors),
    Checks.effects,
    Checks.early,
    Checks.leftovers,
    Checks.slow(Settings.maxRecoverySeconds * 1000),
    ...(of.checks ?? [])
  ].flatMap((check) => check(seen))
  return {
    name: of.name,
    faults: seen.faults.length,
    jobs: seen.jobs.length,
    lost: lost.length,
    rerun: Checks.rerun(seen),
    overlapping: overlapping.length,
    recoverySeconds: Checks.recovery(seen) / 1000,
    seconds,
    violations: [...lost, ...overlapping, ...others]
  }
}

/** Nothing is left to run, and every registered pool is one of a living worker. */
const untilQuiet = (fleet: Fleet.Fleet) =>
  Effect.gen(function*() {
    yield* eventually(remaining, {
      what: "the end of all jobs",
      until: (count) => count === 0,
      every: "100 millis",
      within: `${Settings.drainSeconds} seconds`
    })
    yield* eventually(
      Effect.gen(function*() {
        const pools = yield* Effect.forEach(fleet.living(), (life) => life.pools)
        const alive = new Set(pools.flatMap((ids) => ids.slice(-1)))
        return (yield* registered).every((pool) => alive.has(pool))
      }),
      { what: "the release of all dead pools", every: "100 millis", within: "20 seconds" }
    )
  })

const play = Effect.fnUntraced(function*<S extends Site.Site>(of: Case<S>, site: S, seed: number) {
  const fleet = Fleet.make(site.url)
  // Two sequences, for neither depends on the other's timing.
  const load = Load.make(Random.make(seed))
  const random = Random.make(seed + 2 ** 31)
  const faults: Array<Fault> = []

  yield* load.add(Settings.initialJobs)
  const clocks = of.clocks ?? Array.from({ length: Settings.workers }, () => undefined)
  yield* Effect.forEach(clocks, (clock) => fleet.start(clock), { concurrency: "unbounded", discard: true })
  const producer = yield* Effect.forkChild(load.goOn)
  const deadline = performance.now() + Settings.seconds * 1000
  yield* of.faults({
    site,
    fleet,
    load,
    random,
    note: (fault) => void faults.push(fault),
    goesOn: () => performance.now() < deadline,
    pause: (from, to) => pause(random.between(from, to))
  })
  yield* Fiber.interrupt(producer)
  const quiet = yield* Effect.exit(untilQuiet(fleet))
  yield* fleet.terminateAll
  const seen = yield* observe(fleet, load, faults)
  const stderr = yield* Effect.forEach(fleet.lives, (life) => life.child.stderr)
  return { seen, quiet, stderr: stderr.join("").slice(-4_000) }
})

/** Runs one round of a case. */
export const run = Effect.fnUntraced(function*<S extends Site.Site>(of: Case<S>, seed: number) {
  const started = performance.now()
  const site = yield* of.site
  const played = Effect.gen(function*() {
    yield* Ledger.install(yield* PgClient.PgClient)
    return yield* play(of, site, seed)
  })
  const { quiet, seen, stderr } = yield* played.pipe(
    Effect.provide(Layer.provideMerge(KongTask.layer(), Site.clientOf(site)))
  )
  const result = judge(of, seen, (performance.now() - started) / 1000)
  if (quiet._tag === "Success") return result
  const written = stderr === "" ? [] : [`the workers wrote:\n${stderr}`]
  return { ...result, violations: [Cause.pretty(quiet.cause), ...result.violations, ...written] }
}, Effect.scoped)
