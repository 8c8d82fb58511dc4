/**
 * Random sequences of commands, carried out by the store on PostgreSQL and by a model of the queue: after each of them
 * both must agree about every job. `MODEL_RUNS` says how many sequences, `MODEL_REPLAY` which failed one to run again.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, it } from "@effect/vitest"
import { Arbitrary, Data, Duration, Effect, Exit, Option, Result } from "effect"
import * as Reactivity from "effect/reactivity/Reactivity"
import type { SqlError } from "effect/sql/SqlError"
import * as PostgresStore from "../src/internal/postgres/store.ts"
import type * as Job from "../src/Job.ts"
import type { Heartbeat, Settlement, Store } from "../src/JobStore.ts"
import type { KongTaskError } from "../src/KongTaskError.ts"
import { freshDatabase } from "./support/database.ts"
import { type Added, Model } from "./support/model.ts"
import { type Command, Commands, poolCount, showCommand, toSpec } from "./support/modelCommands.ts"

const runs = Number(process.env["MODEL_RUNS"] ?? 60)
const replay = process.env["MODEL_REPLAY"]

/** The database and the model disagree after the last of these commands. */
class Disagreement extends Data.TaggedError("Disagreement")<{
  readonly commands: ReadonlyArray<string>
  readonly problem: string
}> {}

interface JobRow {
  readonly id: string
  readonly task: string
  readonly state: string
  readonly queue_name: string | null
  readonly priority: number
  readonly run_at: number
  readonly attempts: number
  readonly max_attempts: number
  readonly last_error: string | null
  readonly key: string | null
  readonly locked_by: string | null
  readonly revision: number
  readonly payload: unknown
}

interface Snapshot {
  readonly jobs: ReadonlyArray<JobRow>
  readonly queues: Readonly<Record<string, string>>
  readonly pools: ReadonlyArray<string>
  readonly clock: number
}

const snapshotQuery = `
  select jsonb_build_object(
    'jobs', (select coalesce(jsonb_agg(to_jsonb(job) || jsonb_build_object('run_at',
      (extract(epoch from job.run_at) * 1000000)::int8) order by id), '[]') from graphile_worker.kongtask_jobs as job),
    'queues', (select coalesce(jsonb_object_agg(queue_name, locked_by), '{}') from graphile_worker._private_job_queues
      where locked_at is not null),
    'pools', (select coalesce(jsonb_agg(id order by id), '[]') from graphile_worker._private_kongtask_pools),
    'clock', (extract(epoch from clock_timestamp()) * 1000000)::int8
  ) as snapshot`

const world = Effect.gen(function*() {
  const { config } = yield* freshDatabase()
  const connect = Effect.flatMap(
    PgClient.make({ ...config, maxConnections: 2 }),
    (sql) =>
      Effect.map(
        Effect.provideService(PostgresStore.make({ schema: "graphile_worker" }), PgClient.PgClient, sql),
        (store) => ({ sql, store })
      )
  )
  const [{ sql, store }, other] = yield* Effect.all([connect, connect])
  return { sql, stores: [store, other.store, store] }
}).pipe(Effect.provide(Reactivity.layer))

type World = Effect.Success<typeof world>

let poolNames = 0

/** One sequence on the emptied database. */
const sequence = Effect.fnUntraced(function*({ sql, stores }: World) {
  const model = new Model()
  const seen: Array<string> = []
  const pools: Array<string> = []
  const formerPools: Array<string> = []

  yield* sql.unsafe(`
    with jobs as (delete from graphile_worker._private_jobs),
      queues as (delete from graphile_worker._private_job_queues),
      requests as (delete from graphile_worker._private_kongtask_cancellations)
    delete from graphile_worker._private_kongtask_pools`)

  const register = Effect.fnUntraced(function*(place: number) {
    if (pools[place] !== undefined) formerPools[place] = pools[place]
    const id = pools[place] = `kongtask-${place}-${++poolNames}`
    yield* stores[place]!.registerPool(id, Duration.hours(1))
    model.pools.add(id)
  })
  for (let place = 0; place < poolCount; place++) yield* register(place)

  const snapshot = Effect.map(
    sql.unsafe<{ snapshot: Snapshot }>(snapshotQuery),
    ([row]) => row!.snapshot
  )
  let before = (yield* snapshot).clock

  /** A job that is there, by its place; a place beyond them means one that has gone, or never was. */
  const job = (place: number, among: ReadonlyArray<string> = [...model.jobs.keys()]): Job.JobId =>
    (place === 7 || among.length === 0
      ? seen[place] ?? "9223372036854775807"
      : among[place % among.length]) as Job.JobId

  const jobs = (places: ReadonlyArray<number>) => [...new Set(places.map((place) => job(place)))]

  const idsOf = (list: ReadonlyArray<{ readonly id: string }>) => list.map(({ id }) => id)

  const settlement = (id: Job.JobId, outcome: string): Settlement => {
    const attempt = model.jobs.get(id)?.attempts ?? 1
    switch (outcome) {
      case "complete":
        return { _tag: "Completed", id }
      case "cancel":
        return { _tag: "Cancelled", id, reason: undefined }
      case "release":
        return { _tag: "Released", id, attempt }
      case "snooze":
        return { _tag: "Snoozed", id, attempt, delay: 3_600_000 }
      default:
        return {
          _tag: "Failed",
          id,
          error: `failed: ${outcome}`,
          retryIn: outcome === "fail" ? undefined : outcome === "retry" ? 0 : 3_600_000
        }
    }
  }

  /** The pool that a command means, and the store through which it works. */
  const actor = (place: number, late: boolean): { readonly pool: string; readonly store: Store } => ({
    pool: late ? formerPools[place] ?? "kongtask-unknown" : pools[place]!,
    store: stores[place]!
  })

  const sorted = (heartbeat: Heartbeat) => ({ ...heartbeat, cancelled: heartbeat.cancelled.toSorted() })

  const heartbeatOf = (pool: string) => ({
    isAlive: model.pools.has(pool),
    deadPools: [],
    cancelled: idsOf(model.heldBy(pool)).filter((id) => model.requests.has(id)).toSorted()
  })

  /** The answers of the database to a command, and then the model's, which is asked when its time is known. */
  const carryOut = Effect.fnUntraced(function*(
    command: Command
  ): Effect.fn.Return<readonly [unknown, () => unknown], Job.InvalidJob | KongTaskError | SqlError> {
    switch (command._tag) {
      case "Add": {
        const specs = command.jobs.map(toSpec)
        const store = stores[specs.length % stores.length]!
        const add = specs.length === 1 ? Effect.map(store.add(specs[0]!), (one) => [one]) : store.addMany(specs)
        const result = yield* add.pipe(
          Effect.map(Result.succeed),
          Effect.catchTag("DuplicateJobKey", (refusal) => Effect.succeed(Result.fail(refusal)))
        )
        const added = Result.isSuccess(result) ? idsOf(result.success) : []
        const known = new Set(model.jobs.keys())
        const answer: ReadonlyArray<Added> = Result.isSuccess(result)
          ? added.map((id, place) =>
            known.has(id) || added.indexOf(id) < place ? { _tag: "Known", id } : { _tag: "New" }
          )
          : [{
            _tag: "Refused",
            index: result.failure.index ?? 0,
            existing: known.has(result.failure.existing) ? result.failure.existing : "New",
            state: result.failure.state
          }]
        return [answer, () => {
          const expected = model.add(specs, (place) => added[place] ?? `-${place + 1}`)
          seen.push(...added.filter((id) => !seen.includes(id)))
          return expected
        }]
      }
      case "Claim": {
        const { pool, store } = actor(command.pool, command.late)
        const tasks = [...command.tasks]
        const request = { pool, tasks, limit: command.limit, start: Math.min(command.start, command.limit) }
        const { contended, heartbeat, jobs: claimed, nextDueIn } = yield* store.claim({
          ...request,
          runs: tasks.map(() => command.run),
          beat: command.beat
        })
        const found = idsOf(claimed)
        return [{
          found,
          contended,
          hasNext: nextDueIn !== undefined,
          heartbeat: heartbeat && sorted(heartbeat),
          attempts: claimed.map(({ attempt, isLastAttempt }) => ({ attempt, isLastAttempt }))
        }, () => {
          const expected = model.claim(pool, tasks, command.limit, request.start, command.run)
          const choice = expected.choices.find((ids) => ids.join() === found.join()) ?? expected.choices[0]!
          model.hold(pool, choice)
          return {
            found: choice,
            contended: choice.length === 0 && expected.contended,
            hasNext: choice.length === 0 && expected.hasNext,
            heartbeat: command.beat ? heartbeatOf(pool) : undefined,
            attempts: choice.map((id) => {
              const { attempts, maxAttempts } = model.jobs.get(id)!
              return { attempt: attempts, isLastAttempt: attempts >= maxAttempts }
            })
          }
        }]
      }
      case "Settle": {
        const { pool, store } = actor(command.pool, command.late)
        const held = command.of === "held" ? idsOf(model.heldBy(pool)) : undefined
        const outcomes = new Map(command.outcomes.map((one) => [job(one.job, held), one.outcome]))
        const settlements = Array.from(outcomes, ([id, outcome]) => settlement(id, outcome))
        const others = model.heldBy(pool).map(({ id }) => id as Job.JobId).filter((id) => !outcomes.has(id))
        const settled = yield* store.settle(pool, settlements, others)
        return [[...settled].toSorted(), () => model.settle(pool, settlements).toSorted()]
      }
      case "Expire": {
        const { pool, store } = actor(command.pool, false)
        const buries = stores[(command.pool + 1) % poolCount]!
        yield* sql`
          update graphile_worker._private_kongtask_pools set heartbeat_at = now() - lease * 2 where id = ${pool}`
        const recovery = yield* buries.releasePools([pool])
        const { isAlive } = yield* store.heartbeat(pool)
        yield* register(command.pool)
        return [{ ...recovery, isAlive }, () => ({
          pools: [pool],
          isAlive: false,
          ...model.takeFrom(
            pool,
            (lost) => `The pool ${pool} died while it ran attempt ${lost.attempts}, the last one.`
          )
        })]
      }
      case "ReleaseAlive": {
        const { pool, store } = actor(command.pool, false)
        return [yield* store.releasePools([pool]), () => ({ pools: [], released: 0, failed: 0 })]
      }
      case "Heartbeat": {
        const { pool, store } = actor(command.pool, false)
        return [sorted(yield* store.heartbeat(pool)), () => heartbeatOf(pool)]
      }
      case "Deregister": {
        const { pool, store } = actor(command.pool, false)
        yield* store.deregisterPool(pool)
        yield* register(command.pool)
        return [undefined, () => {
          model.releaseUnknown(pool, [])
          model.pools.delete(pool)
        }]
      }
      case "ForceUnlock": {
        const { pool, store } = actor(command.pool, false)
        const unlocked = yield* store.forceUnlock([pool])
        yield* register(command.pool)
        return [idsOf(unlocked), () => {
          const held = idsOf(model.heldBy(pool)).toSorted((a, b) => Number(a) - Number(b))
          model.takeFrom(
            pool,
            (lost) => `The pool ${pool} was unlocked while it ran attempt ${lost.attempts}, the last one.`
          )
          return held
        }]
      }
      case "ReleaseUnknown": {
        const { pool, store } = actor(command.pool, false)
        const known = jobs(command.known)
        yield* store.releaseUnknown(pool, known)
        return [undefined, () => model.releaseUnknown(pool, known)]
      }
      case "Remove":
      case "RemoveKey": {
        const target = "key" in command ? { key: command.key } : { id: job(command.job) }
        const removed = yield* stores[0]!.remove(target)
        return [Option.getOrUndefined(removed)?.state, () => model.remove(target)]
      }
      case "Cancel": {
        const id = job(command.job)
        const cancelled = yield* stores[1]!.cancel(id)
        return [Option.getOrUndefined(cancelled)?.state, () => model.cancel(id)]
      }
      case "Retry": {
        const ids = jobs(command.jobs)
        return [idsOf(yield* stores[0]!.retry(ids)), () => model.retry(ids)]
      }
      case "Complete": {
        const ids = jobs(command.jobs)
        return [idsOf(yield* stores[1]!.complete(ids)), () => model.complete(ids)]
      }
      case "Fail": {
        const ids = jobs(command.jobs)
        return [idsOf(yield* stores[0]!.fail(ids, "by hand")), () => model.fail(ids, "by hand")]
      }
      case "Reschedule": {
        const ids = jobs(command.jobs)
        const { delay, priority } = command
        const changes = { runAt: undefined, delay, priority, attempts: undefined, maxAttempts: undefined }
        return [idsOf(yield* stores[0]!.reschedule(ids, changes)), () => model.reschedule(ids, delay, priority)]
      }
    }
  })

  /** Compares every job, and takes over the exact times that the database has chosen within what the model allows. */
  const compare = (after: Snapshot) => {
    const expected = Array.from(model.jobs.values(), (known) => ({ ...known, state: model.state(known) }))
      .toSorted((a, b) => Number(a.id) - Number(b.id))
    assert.deepStrictEqual(
      after.jobs.map((row) => ({
        id: String(row.id),
        task: row.task,
        state: row.state,
        queueName: row.queue_name ?? undefined,
        priority: row.priority,
        attempts: row.attempts,
        maxAttempts: row.max_attempts,
        key: row.key ?? undefined,
        revision: row.revision,
        payload: JSON.stringify(row.payload),
        lastError: row.last_error ?? undefined,
        holder: row.locked_by ?? undefined
      })),
      expected.map(({ runAt: _, superseded: __, ...known }) => known),
      "the jobs (first the database's, then the model's)"
    )
    for (const row of after.jobs) {
      const known = model.jobs.get(String(row.id))!
      const { max, min } = known.runAt
      assert.isTrue(
        row.run_at >= min && row.run_at <= max,
        `job ${row.id} is due at ${row.run_at}, not ${min} to ${max}`
      )
      known.runAt = { min: row.run_at, max: row.run_at }
    }
    const holders = [...model.jobs.values()].filter((known) =>
      known.queueName !== undefined && known.holder !== undefined
    )
    const holdings = new Set(holders.map((known) => `${known.queueName} ${known.holder}`))
    assert.strictEqual(new Set(holders.map((known) => known.queueName)).size, holdings.size, "one holder a queue")
    assert.deepStrictEqual(
      after.queues,
      Object.fromEntries(holders.map((known) => [known.queueName, known.holder])),
      "the locked queues"
    )
    assert.deepStrictEqual(after.pools, [...model.pools].toSorted(), "the pools")
  }

  return Effect.fnUntraced(function*(command: Command) {
    const [answer, ask] = yield* carryOut(command)
    const after = yield* snapshot
    model.now = { min: before, max: after.clock }
    before = after.clock
    assert.deepStrictEqual(answer, ask() as typeof answer, "the answer")
    compare(after)
  })
})

const agrees = (world: World) =>
  Effect.fnUntraced(function*(commands: ReadonlyArray<Command>) {
    const step = yield* Effect.orDie(sequence(world))
    const done: Array<string> = []
    for (const command of commands) {
      done.push(showCommand(command))
      const exit = yield* Effect.exit(step(command))
      if (Exit.isFailure(exit)) {
        const problem = exit.cause.reasons.map((reason) => describe(reason)).join("\n")
        return yield* new Disagreement({ commands: done, problem })
      }
    }
    return true
  })

const describe = (reason: { readonly _tag: string; readonly error?: unknown; readonly defect?: unknown }): string => {
  const thrown = (reason.error ?? reason.defect) as
    | { message?: string; actual?: unknown; expected?: unknown }
    | undefined
  const sides = thrown !== undefined && "expected" in thrown
    ? `\ndatabase: ${JSON.stringify(thrown.actual, null, 1)}\nmodel: ${JSON.stringify(thrown.expected, null, 1)}`
    : ""
  return `${thrown?.message ?? reason._tag}${sides}`
}

const message = (result: Arbitrary.CheckResult<ReadonlyArray<Command>, Disagreement>): string | undefined => {
  if (result._tag !== "Falsified" || result.failure._tag !== "PropertyError") {
    return Arbitrary.formatCheckFailure(result)
  }
  const { commands, problem } = result.failure.error
  return [
    `the database and the model disagree after sequence ${result.runs}, made shorter ${result.shrinks} times:`,
    ...commands.map((command, place) => `${place + 1}. ${command}`),
    problem,
    `To see it again: MODEL_REPLAY='${result.replay}'`
  ].join("\n")
}

it.live("a random sequence of commands leaves the database as it leaves the model", () =>
  Effect.gen(function*() {
    const result = yield* Arbitrary.checkEffect(Commands, agrees(yield* world), {
      runs,
      size: 100,
      maxShrinks: 600,
      ...(replay === undefined ? {} : { replay })
    })
    const problem = message(result)
    if (problem !== undefined) assert.fail(problem)
  }), 120_000 + runs * 1_000)
