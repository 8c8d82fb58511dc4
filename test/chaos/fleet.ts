/**
 * The worker processes of a case: started, hit and started again, with a record
 * of each one's life.
 */
import { Effect, type Scope } from "effect"
import { pause } from "../support/events.ts"
import { type Child, type ChildExit, spawnScript } from "../support/process.ts"
import type { Kind } from "./clocks.ts"
import * as Journal from "./journal.ts"

/** One process from its start to its end. */
export interface Life {
  readonly child: Child
  /** The machine's, unless given. */
  readonly clock: Kind | undefined
  /** When it was killed; `undefined` while it lives, and for one that has ended by itself. */
  killedAt: number | undefined
  exit: ChildExit | undefined
  readonly journal: Effect.Effect<ReadonlyArray<Journal.Entry>>
  /** The pools that it has been so far. */
  readonly pools: Effect.Effect<ReadonlyArray<string>>
}

export interface Fleet {
  /** All that ever lived. */
  readonly lives: ReadonlyArray<Life>
  readonly living: () => ReadonlyArray<Life>
  /** Starts one, and returns when it has a pool. */
  readonly start: (clock?: Kind) => Effect.Effect<Life, never, Scope.Scope>
  /** Starts one without waiting for it. */
  readonly launch: (clock?: Kind) => Effect.Effect<Life, never, Scope.Scope>
  readonly kill: (life: Life) => Effect.Effect<void>
  /** SIGTERM; returns when it has ended. */
  readonly terminate: (life: Life) => Effect.Effect<void>
  readonly terminateAll: Effect.Effect<void>
}

const script = new URL("worker.ts", import.meta.url)

/** Workers of the database at `url`. */
export const make = (url: string): Fleet => {
  const lives: Array<Life> = []
  const living = () => lives.filter((life) => life.exit === undefined && life.killedAt === undefined)

  const launch = Effect.fnUntraced(function*(clock?: Kind) {
    const child = yield* spawnScript(script, { env: { DATABASE_URL: url, CHAOS_CLOCK: clock } })
    const journal = Effect.map(child.stdout, Journal.read)
    const life: Life = {
      child,
      clock,
      killedAt: undefined,
      exit: undefined,
      journal,
      pools: Effect.map(
        journal,
        (entries) => entries.flatMap((entry) => entry._tag === "PoolStarted" ? [entry.pool] : [])
      )
    }
    lives.push(life)
    return life
  })

  const start = Effect.fnUntraced(function*(clock?: Kind) {
    const life = yield* launch(clock)
    yield* Effect.orDie(life.child.line("PoolStarted"))
    return life
  })

  const kill = (life: Life) =>
    Effect.gen(function*() {
      life.killedAt = Date.now()
      yield* life.child.kill("SIGKILL")
      life.exit = yield* life.child.exit
    })

  const terminate = (life: Life) =>
    Effect.gen(function*() {
      yield* life.child.kill("SIGTERM")
      const exit = yield* Effect.raceFirst(life.child.exit, Effect.as(pause("20 seconds"), undefined))
      if (exit === undefined) {
        return yield* Effect.die(new Error(`A worker did not end after SIGTERM:\n${yield* life.child.stderr}`))
      }
      life.exit = exit
    })

  return {
    lives,
    living,
    start,
    launch,
    kill,
    terminate,
    terminateAll: Effect.suspend(() => Effect.forEach(living(), terminate, { concurrency: "unbounded", discard: true }))
  }
}
