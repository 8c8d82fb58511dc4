import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Random, Scope } from "effect"
import { SqlClient } from "effect/sql"
import { TestDatabase } from "./support/database.ts"
import { eventually, pause } from "./support/events.ts"
import * as FastClock from "./support/fastClock.ts"
import * as Test from "./support/kongtask.ts"
import { spawnScript } from "./support/process.ts"

const items = 50
const minutes = 32
const rate = 60

/** Half of them make up for missed runs by themselves; the others only while any scheduler lives. */
const crontab = Array.from(
  { length: items },
  (_, n) => `* * * * * tick ?id=item${n}${n % 2 === 0 ? "&fill=2h" : ""} {n: ${n}}`
).join("\n")

interface Counted {
  readonly identifier: string
  readonly jobs: number
  readonly instants: number
  readonly expected: number
}

/**
 * Of each item: its jobs, their different instants, and the minutes from the first one after it was known to the last.
 * Of processes that start together, one that began before that minute may make it known after it.
 */
const counts = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  sql<Counted>`
    select known.identifier, count(job.id)::int as jobs, count(distinct job.payload -> '_cron' ->> 'ts')::int as instants,
      (extract(epoch from known.last_execution) / 60 - least(
        ceil(extract(epoch from known.known_since) / 60),
        min(extract(epoch from job.run_at)) / 60
      ))::int + 1 as expected
    from graphile_worker._private_known_crontabs as known
    left join graphile_worker._private_jobs as job on 'item' || (job.payload ->> 'n') = known.identifier
    group by known.identifier
    order by known.identifier`)

describe("four processes with one crontab, killed and started again at random", () => {
  it.live(
    `add exactly one job for each of ${items} items and each of ${minutes} minutes`,
    () =>
      Effect.gen(function*() {
        const { url } = yield* TestDatabase
        const clock: FastClock.FastClock = {
          base: Date.now(),
          start: Date.parse("2026-05-01T00:00:30Z"),
          rate
        }
        const env = { DATABASE_URL: url, CRONTAB: crontab, CLOCK: JSON.stringify(clock) }
        const spawn = Effect.gen(function*() {
          const scope = yield* Scope.fork(yield* Effect.scope)
          const child = yield* Scope.provide(
            spawnScript(new URL("fixtures/scheduler.ts", import.meta.url), { env }),
            scope
          )
          return { child, scope }
        })
        const fleet = yield* Effect.forEach([1, 2, 3, 4], () => spawn, { concurrency: 4 })
        yield* fleet[0]!.child.line("event SchedulerStarted")

        let kills = 0
        const until = FastClock.millisAt(clock) + minutes * 60_000
        while (FastClock.millisAt(clock) < until) {
          yield* pause(`${yield* Random.nextIntBetween(500, 3500)} millis`)
          // Now and then all of them.
          const victims = ++kills % 5 === 0 ? [0, 1, 2, 3] : [yield* Random.nextIntBetween(0, 3)]
          yield* Effect.forEach(victims, (index) => fleet[index]!.child.killGroup, { concurrency: "unbounded" })
          for (const index of victims) {
            yield* Scope.close(fleet[index]!.scope, Exit.void)
            fleet[index] = yield* spawn
          }
        }
        // Whatever the killed ones had begun is done by the last of them.
        const counted = yield* eventually(counts, {
          what: "the last minute",
          until: (rows) => rows.every(({ expected }) => expected >= minutes),
          within: "15 seconds",
          every: "200 millis"
        })
        yield* Effect.forEach(fleet, ({ child }) => child.killGroup)
        const rows = yield* counts

        expect(kills).toBeGreaterThan(5)
        expect(counted).toHaveLength(items)
        expect(rows.filter(({ expected, instants, jobs }) => jobs !== instants || jobs !== expected)).toEqual([])
        expect(Math.min(...rows.map(({ expected }) => expected))).toBeGreaterThanOrEqual(minutes)
      }).pipe(Effect.scoped, Effect.provide(Test.layer())),
    120_000
  )
})
