/**
 * graphile-worker's cron and our scheduler with one crontab on one schema, on
 * the real clock: CRON_MINUTES minutes, by default 3.
 */
import { PgClient } from "@effect/sql-pg"
import { describe, expect, it } from "@effect/vitest"
import { Console, Effect, Stream } from "effect"
import { parseCrontab } from "graphile-worker"
import { Scheduler, Task, Worker } from "kongtask"
import { TestDatabase } from "../support/database.ts"
import { pause } from "../support/events.ts"
import * as Graphile from "../support/graphile.ts"
import * as Test from "../support/kongtask.ts"

const minutes = Number(process.env.CRON_MINUTES ?? 3)
const items = 30

/** In different orders, which both lock differently. */
const lines = Array.from({ length: items }, (_, n) => `* * * * * tick ?id=item${n} {n: ${n}}`)
const Tick = Task.make("tick")

interface Added {
  readonly n: string
  readonly ts: string
  readonly count: number
}

describe("graphile-worker and KongTask with the same crontab", () => {
  it.live(`add one job an item and minute, over ${minutes} minutes`, () =>
    Effect.gen(function*() {
      const { url } = yield* TestDatabase
      const sql = yield* PgClient.PgClient
      // What has been added is told by a table, whoever runs the jobs.
      yield* sql`create table public.added (n text, ts text)`
      yield* sql.unsafe(`
        create function note() returns trigger language plpgsql as $$
        begin insert into public.added values (new.payload ->> 'n', new.payload -> '_cron' ->> 'ts'); return new; end $$`)
      yield* sql`create trigger note after insert on graphile_worker._private_jobs for each row execute function note()`

      let ours = 0
      const { events } = yield* Scheduler.Scheduler
      yield* events.pipe(
        Stream.runForEach((event) =>
          Effect.sync(() => {
            if (event._tag === "JobsScheduled") ours += event.runs.length
          })
        ),
        Effect.forkScoped({ startImmediately: true })
      )
      const parsedCronItems = parseCrontab(lines.toReversed().join("\n"))
      for (let n = 0; n < 2; n++) {
        yield* Graphile.start({ sql, url }, { tick: () => {} }, { parsedCronItems })
        yield* Effect.forkScoped(Scheduler.run({ crontab: lines.join("\n") }))
      }
      yield* Effect.forkScoped(
        Worker.run({ tasks: [Tick], handleSignals: false }).pipe(Effect.provide(Tick.toLayer(() => Effect.void)))
      )
      // From the middle of a minute to the middle of another.
      yield* pause(`${90_000 - Date.now() % 60_000} millis`)
      yield* sql`delete from public.added`
      ours = 0
      yield* pause(`${minutes} minutes`)
      const added = yield* sql<Added>`select n, ts, count(*)::int as count from public.added group by n, ts`
      yield* Console.log(`${added.length} jobs, ${ours} of them by KongTask's schedulers`)
      expect(added.filter(({ count }) => count !== 1)).toEqual([])
      expect(added).toHaveLength(items * minutes)
      expect(new Set(added.map(({ ts }) => ts)).size).toBe(minutes)
    }).pipe(Effect.scoped, Effect.provide(Test.layer({ interop: true }))))
})
