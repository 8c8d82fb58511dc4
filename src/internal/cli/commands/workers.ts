import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as JobStore from "../../../JobStore.ts"
import * as Queue from "../../../Queue.ts"
import * as Connection from "../connection.ts"
import * as Format from "../format.ts"
import { Output } from "../Output.ts"
import { notFound } from "../problem.ts"
import type * as Table from "../table.ts"

const iso = (time: DateTime.Utc | undefined) => time === undefined ? null : Format.iso(time)

const toJson = (pool: JobStore.Pool) => ({
  id: pool.id,
  isAlive: pool.isAlive ?? null,
  startedAt: iso(pool.startedAt),
  heartbeatAt: iso(pool.heartbeatAt),
  lease: pool.lease === undefined ? null : Duration.toMillis(pool.lease),
  jobs: pool.jobs,
  queues: pool.queues,
  oldestClaim: iso(pool.oldestClaim)
})

/** `alive`; `dead` when its lease is over; `unknown` when it has no heartbeats, as graphile-worker's have none. */
export const stateOf = ({ isAlive }: JobStore.Pool): string =>
  isAlive === undefined ? "unknown" : isAlive ? "alive" : "dead"

export const columns = (now: DateTime.Utc): ReadonlyArray<Table.Column<JobStore.Pool>> => {
  const age = (time: DateTime.Utc | undefined) => time === undefined ? "" : Format.relative(time, now)
  return [
    { title: "POOL", cell: ({ id }) => id, isFlexible: true },
    { title: "STATE", cell: stateOf },
    { title: "STARTED", cell: ({ startedAt }) => age(startedAt) },
    { title: "HEARTBEAT", cell: ({ heartbeatAt }) => age(heartbeatAt) },
    { title: "JOBS", cell: ({ jobs }) => Format.count(jobs), isNumber: true },
    { title: "QUEUES", cell: ({ queues }) => queues === 0 ? "" : Format.count(queues), isNumber: true },
    { title: "OLDEST", cell: ({ oldestClaim }) => age(oldestClaim) }
  ]
}

const list = Effect.gen(function*() {
  const output = yield* Output
  const pools = yield* Effect.provide(Queue.pools, Connection.services)
  const now = yield* DateTime.now
  yield* output.answer(
    pools.map(toJson),
    pools.length === 0
      ? output.note("No worker runs. `kongtask worker --tasks FILE` starts one.")
      : output.table(columns(now), pools)
  )
})

const unlock = Command.make("unlock", {
  pools: Argument.String("pool").pipe(
    Argument.withDescription("Ids of pools that are known to be gone"),
    Argument.atLeast(1)
  )
}, ({ pools }) =>
  Effect.gen(function*() {
    const output = yield* Output
    const { jobs, known } = yield* Effect.gen(function*() {
      const known = new Set((yield* Queue.pools).map(({ id }) => id))
      return { known, jobs: yield* Queue.forceUnlock(pools.filter((id) => known.has(id))) }
    }).pipe(Effect.provide(Connection.services))
    yield* output.answer(
      { released: jobs.map(({ id }) => id) },
      output.line(`Released ${Format.many(jobs.length, "job")}.`)
    )
    const unknown = pools.filter((id) => !known.has(id))
    if (unknown.length > 0) {
      return yield* notFound(
        `There is no pool ${unknown.join(", ")}.`,
        "`kongtask workers` shows those that there are."
      )
    }
  })).pipe(Command.withDescription(
    "Take from pools what they hold. A living one is interrupted; one of graphile-worker's is not, and its jobs may run twice."
  ))

export const workers = Command.make("workers", {}, () => list).pipe(
  Command.withDescription("The workers of all machines, and what they hold."),
  Command.withSubcommands([unlock])
)
