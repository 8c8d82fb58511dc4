/**
 * A report every morning, each day's exactly once however many processes run
 * this: `npm run example examples/reports/main.ts`, on the
 * server of `DATABASE_URL` or on PostgreSQL inside the process.
 *
 * The first start ever makes a report at once; the others come at six, and those
 * of days on which nothing was running are made up for. Stop it with Ctrl-C.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, DateTime, Effect, Layer, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { Scheduler, Task, Worker } from "kongtask"
import { QueueLive } from "../support/database.ts"

/** `_cron.ts` is the instant for which it was due, whenever it is made. */
const DailyReport = Task.make("daily_report", {
  payload: {
    regions: Schema.Array(Schema.String),
    _cron: Schema.optionalKey(Schema.Struct({ ts: Schema.DateTimeUtcFromString }))
  }
})

const DailyReportLive = DailyReport.toLayer(
  Effect.fn(function*({ _cron, regions }) {
    const sql = yield* SqlClient.SqlClient
    const until = DateTime.formatIso(_cron?.ts ?? (yield* DateTime.now))
    const rows = yield* Effect.orDie(
      sql<{ readonly region: string; readonly sales: number; readonly cents: number }>`
        select region, count(*)::int as sales, sum(cents)::int as cents from sales
        where ${sql.in("region", regions)}
          and sold_at >= ${until}::timestamptz - interval '1 day' and sold_at < ${until}::timestamptz
        group by region order by region`
    )
    yield* Console.log(`Report for the day until ${until}`)
    for (const { cents, region, sales } of rows) {
      yield* Console.log(`  ${region}: ${sales} sales, ${(cents / 100).toFixed(2)}`)
    }
  })
)

const SchedulerLive = Scheduler.layer({
  items: [
    Scheduler.cron(DailyReport, "0 6 * * *", {
      payload: { regions: ["north", "south"] },
      timeZone: "Europe/Berlin",
      backfill: "7 days",
      runOnStart: true
    })
  ]
})

/** Stands for what the rest of the company does. */
const sell = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`create table if not exists sales (region text, cents int, sold_at timestamptz default now())`
  yield* sql`insert into sales (region, cents, sold_at)
    select (array['north', 'south', 'west'])[i % 3 + 1], 100 * i, now() - i * interval '1 minute'
    from generate_series(1, 30) as i`
})

const program = Effect.andThen(sell, Worker.run({ tasks: [DailyReport] }))

program.pipe(
  Effect.provide(Layer.provideMerge(Layer.merge(DailyReportLive, SchedulerLive), QueueLive)),
  NodeRuntime.runMain
)
