/**
 * Bundles under `kill -9`: real worker processes are killed at random moments
 * while they end the jobs of many bundles. `BUNDLE_KILLS` says how many kills
 * there are to be; without it as many as fit into the seconds of a test.
 */
import { PgClient } from "@effect/sql-pg"
import { expect, it } from "@effect/vitest"
import { Clock, Console, Effect, Random, Schema } from "effect"
import { Bundle, Queue } from "kongtask"
import { Part, Whole } from "./fixtures/bundle.ts"
import { TestDatabase } from "./support/database.ts"
import { eventually, pause } from "./support/events.ts"
import * as Test from "./support/kongtask.ts"
import { spawnScript } from "./support/process.ts"

const wanted = process.env["BUNDLE_KILLS"] === undefined ? Infinity : Number(process.env["BUNDLE_KILLS"])
const seconds = wanted === Infinity ? 12 : Infinity
const processes = 3
const jobsOfABundle = 60

const decodeWhole = Schema.decodeUnknownEffect(Schema.toCodecJson(Whole.payloadSchema))

/** A worker that is there again when it was killed, at a random moment from when it may have begun to work. */
const killAgainAndAgain = Effect.fnUntraced(function*(url: string, mayKill: () => boolean, killed: () => void) {
  while (mayKill()) {
    yield* Effect.scoped(Effect.gen(function*() {
      const child = yield* spawnScript(new URL("fixtures/bundleWorker.ts", import.meta.url), {
        env: { DATABASE_URL: url }
      })
      yield* pause(900 + (yield* Random.nextIntBetween(0, 1500)))
      yield* child.killGroup
      killed()
    }))
  }
})

it.live("each bundle is counted and completed once, whatever is killed", () =>
  Effect.scoped(Effect.gen(function*() {
    const { url } = yield* TestDatabase
    const sql = yield* PgClient.PgClient
    const started = yield* Clock.currentTimeMillis
    let kills = 0
    let now = started
    const mayKill = () => kills < wanted && now - started < seconds * 1000
    const bundles = new Map<Bundle.BundleId, number>()

    /** Bundles are added as long as processes are killed, so that there is always something to end. */
    const addBundles = Effect.gen(function*() {
      while (mayKill()) {
        now = yield* Clock.currentTimeMillis
        const isSlow = bundles.size % 2 === 0
        const { bundle } = yield* Queue.addBundle(
          Array.from({ length: jobsOfABundle }, (_, n) => Part.request({ n, slow: isSlow })),
          { onComplete: Bundle.completion(Whole, bundles.size) }
        )
        bundles.set(bundle.id, bundles.size)
        const open = yield* sql<{ count: number }>`
          select count(*)::int as count from graphile_worker._private_kongtask_bundles where done_at is null`
        yield* pause(open[0]!.count > 20 ? 400 : 40)
      }
    })

    // Each completion job that is ever added is written down, by the transaction that adds it.
    yield* sql`create table public.completions (bundle text, payload json)`
    yield* sql.unsafe(`
      create function note_completion() returns trigger language plpgsql as $$
      begin
        if (select identifier from graphile_worker._private_tasks where id = new.task_id) = 'whole' then
          insert into public.completions values (new.payload -> 'bundle' ->> 'id', new.payload);
        end if;
        return null;
      end $$`)
    yield* sql`
      create trigger note_completion after insert on graphile_worker._private_jobs
      for each row execute function note_completion()`

    yield* Effect.all([
      addBundles,
      ...Array.from({ length: processes }, () => killAgainAndAgain(url, mayKill, () => void kills++))
    ], { concurrency: "unbounded" })

    // Those that nobody kills end the rest.
    const doneUnderFire = (yield* Queue.bundles({ state: "done", limit: 10_000 })).length
    // In the short form a slow machine may not get so far between the kills.
    if (wanted !== Infinity) expect(doneUnderFire).toBeGreaterThan(0)
    const last = yield* spawnScript(new URL("fixtures/bundleWorker.ts", import.meta.url), {
      env: { DATABASE_URL: url }
    })
    const live = sql`
      select task, state, attempts, last_error, locked_by from graphile_worker.kongtask_jobs
      where state <> 'failed' order by id limit 5`
    yield* eventually(live, {
      what: "the end of all jobs",
      until: (jobs) => jobs.length === 0,
      every: "200 millis",
      within: wanted === Infinity ? "60 seconds" : "10 minutes"
    })
    yield* last.killGroup

    const completions = yield* sql<
      { bundle: Bundle.BundleId; payload: unknown }
    >`select bundle, payload from public.completions`
    const all = yield* Queue.bundles({ limit: 10_000 })
    expect(all.filter(({ state }) => state !== "done")).toEqual([])
    expect(all).toHaveLength(bundles.size)
    for (const { cancelled, completed, failed, jobs } of all) {
      expect({ cancelled, completed, failed, jobs }).toEqual({
        cancelled: jobsOfABundle / 6,
        completed: jobsOfABundle * 4 / 6,
        failed: jobsOfABundle / 6,
        jobs: jobsOfABundle
      })
    }
    expect(completions.map(({ bundle }) => bundle).toSorted()).toEqual([...bundles.keys()].toSorted())
    for (const { payload } of completions) {
      const { bundle, data, outcomes } = yield* decodeWhole(payload)
      expect(data).toBe(bundles.get(bundle.id))
      expect(outcomes.map((outcome) => outcome._tag === "Completed" ? outcome.result : outcome._tag)).toEqual(
        Array.from({ length: jobsOfABundle }, (_, n) => n % 6 === 1 ? "Failed" : n % 6 === 2 ? "Cancelled" : n)
      )
    }
    for (const table of ["bundle_steps", "job_details"]) {
      const left = yield* sql.unsafe(
        `select from graphile_worker._private_kongtask_${table} where bundle_id is not null` +
          (table === "job_details" ? " and stopped_at is null" : "")
      )
      expect(left).toHaveLength(0)
    }
    expect(kills).toBeGreaterThanOrEqual(wanted === Infinity ? 3 : wanted)
    yield* Console.log(
      `${kills} kills of ${processes} processes: ${bundles.size} bundles of ${jobsOfABundle} jobs, ${doneUnderFire} of ` +
        `them done under fire; each counted and completed once (${completions.length} completion jobs)`
    )
  })).pipe(Effect.provide(Test.layer())), wanted === Infinity ? 180_000 : 1_800_000)
