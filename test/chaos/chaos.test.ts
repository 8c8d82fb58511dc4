import { afterAll, describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Cases from "./cases.ts"
import { type Case, type Result, run } from "./harness.ts"
import * as Settings from "./settings.ts"
import type { Site } from "./site.ts"
import { table } from "./table.ts"

const results: Array<Result> = []

const survives = <S extends Site>(name: string, of: Case<S>, place: number) =>
  it.live(
    name,
    () =>
      Effect.gen(function*() {
        for (let round = 0; round < Settings.rounds; round++) {
          const result = yield* run(of, Settings.seed + 1_000 * round + place)
          results.push(result)
          expect(result.violations.slice(0, 20)).toEqual([])
          expect(result.faults).toBeGreaterThan(0)
        }
      }),
    Settings.rounds * Settings.caseTimeoutMillis
  )

describe("nothing is lost, and everything recovers in seconds", () => {
  survives("when workers are killed", Cases.kill, 1)
  survives("when workers are stopped for longer than their lease", Cases.stop, 2)
  survives("when workers are told to end again and again", Cases.terminate, 3)
  survives("when the database crashes", Cases.crash, 4)
  survives("when sessions of the database are ended", Cases.sessions, 5)
  survives("when a standby takes the primary's place", Cases.failover, 6)
  survives("when the network fails", Cases.network, 7)
  survives("when a handler blocks its process for longer than its lease", Cases.block, 8)
  survives("when clocks jump by hours", Cases.clock, 9)

  afterAll(() => console.log(table(results)))
})
