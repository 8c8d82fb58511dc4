/**
 * pg-boss 12, in configurations from its documentation:
 *
 * - `default`: nothing set, one job at a time, found by polling every 2 seconds;
 * - `single`: handlers of one job, as everybody else's, at the given concurrency, fetching without pause while there is
 *   a backlog (`burstWhenReadyExceeds`, with statistics every second, which it reads);
 * - `batch`: handlers of 1,000 jobs at once, four of them: its fastest, with one outcome for the 1,000;
 * - `notify`: LISTEN/NOTIFY, which has to be turned on twice.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { setTimeout } from "node:timers/promises"
import { type Options, PgBoss, type WorkOptions } from "pg-boss"
import { type Contestant, type Make, now, type Payload, type Work } from "../support/contestant.ts"

const instance = (profile: string, concurrency: number): Omit<Options, "connectionString"> => {
  if (profile === "single") {
    const seconds = 1
    return {
      max: Math.max(10, concurrency),
      superviseIntervalSeconds: seconds,
      monitorIntervalSeconds: seconds,
      queueCacheIntervalSeconds: seconds
    }
  }
  return profile === "notify" ? { useListenNotify: true } : {}
}

const working = (profile: string, concurrency: number): WorkOptions => {
  switch (profile) {
    case "single":
      return { localConcurrency: concurrency, batchSize: 1, pollingIntervalSeconds: 0.5, burstWhenReadyExceeds: 1 }
    case "batch":
      return { localConcurrency: 4, batchSize: 1000, pollingIntervalSeconds: 0.5, burstWhenBatchFull: true }
    case "notify":
      return { localConcurrency: concurrency }
    default:
      return {}
  }
}

/** Its statistics of the backlog, which `burstWhenReadyExceeds` reads, are then there. */
const statistics = Effect.sleep("2500 millis")

export const make: Make = (connectionString, profile): Contestant => {
  const boss = (concurrency: number) =>
    Effect.acquireRelease(
      Effect.promise(() => {
        const boss = new PgBoss({ connectionString, ...instance(profile, concurrency) })
        boss.on("error", (error) => process.stderr.write(`pg-boss: ${error.message}\n`))
        return boss.start()
      }),
      (boss) => Effect.promise(() => boss.stop({ graceful: true, timeout: 5_000 }))
    )

  const startWork = Effect.fnUntraced(function*(boss: PgBoss, { concurrency, onStart, tasks }: Work) {
    for (const [name, millis] of Object.entries(tasks)) {
      yield* Effect.promise(() =>
        boss.work<Payload>(name, working(profile, concurrency), (jobs) => {
          for (const { data } of jobs) onStart(data.n)
          return millis === 0 ? Promise.resolve() : setTimeout(millis)
        })
      )
    }
  })

  const isDrained = Effect.gen(function*() {
    const sql = yield* PgClient.PgClient
    const [row] = yield* sql<{ left: boolean }>`select exists (
      select from pgboss.job where name = 'bench' and state in ('created', 'retry', 'active')) as left`
    return row!.left === false
  })

  const insert = (boss: PgBoss, payloads: ReadonlyArray<Payload>) =>
    Effect.promise(() => boss.insert("bench", payloads.map((data) => ({ data }))))

  return {
    configuration: ({ concurrency }) => ({ ...instance(profile, concurrency), ...working(profile, concurrency) }),
    migrate: Effect.scoped(Effect.gen(function*() {
      const started = yield* boss(1)
      const options = profile === "notify" ? { notify: true } : {}
      for (const name of ["bench", "load"]) yield* Effect.promise(() => started.createQueue(name, options))
    })),
    fill: (payloads) =>
      Effect.scoped(Effect.gen(function*() {
        const started = yield* boss(1)
        for (let first = 0; first < payloads.length; first += 1000) {
          yield* insert(started, payloads.slice(first, first + 1000))
        }
      })),
    drain: (work) =>
      Effect.scoped(Effect.gen(function*() {
        let started = 0
        const counted: Work = {
          ...work,
          onStart: (n) => {
            started++
            work.onStart(n)
          }
        }
        const running = yield* boss(work.concurrency)
        if (profile === "single") yield* statistics
        const start = now()
        yield* startWork(running, counted)
        while (started < work.jobs) yield* Effect.sleep("2 millis")
        while (!(yield* isDrained)) yield* Effect.sleep("2 millis")
        return { start, end: now() }
      })).pipe(
        Effect.provide(PgClient.layer({ url: Redacted.make(connectionString), maxConnections: 1 })),
        Effect.orDie
      ),
    work: (work) => Effect.flatMap(boss(work.concurrency), (boss) => startWork(boss, work)),
    producer: () =>
      Effect.map(boss(1), (boss) => ({
        add: (payload, task = "bench") => Effect.promise(() => boss.send(task, payload)),
        addMany: (payloads) => insert(boss, payloads)
      }))
  }
}
