import * as PgClient from "@effect/sql-pg/PgClient"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"
import * as Stream from "effect/Stream"
import type * as Job from "../../Job.ts"
import type { Announcement, Heartbeat, Store, Swept } from "../../JobStore.ts"
import { KongTaskError, OtherTransaction } from "../../KongTaskError.ts"
import { isEmbedded } from "../pglite/layer.ts"
import * as Adding from "./adding.ts"
import * as Administration from "./administration.ts"
import * as Batches from "./batches.ts"
import * as Bundles from "./bundles.ts"
import { type ClaimedRow, toClaimed } from "./claimed.ts"
import { derive, sessions } from "./client.ts"
import { fromSqlError, sqlState, withTransaction } from "./errors.ts"
import * as History from "./history.ts"
import * as Listening from "./listening.ts"
import * as Observing from "./observing.ts"
import { partition } from "./outcomes.ts"
import {
  type DepthRow,
  type FailedAttemptRow,
  type JobRow,
  type StatsRow,
  toDepths,
  toFailedAttempt,
  toJob,
  toStats
} from "./rows.ts"
import * as Scheduling from "./scheduling.ts"
import { quoteIdentifier, validateSchemaName } from "./schema.ts"
import * as Statements from "./statements.ts"
import * as Transactional from "./transactional.ts"

/** The channel that graphile-worker fixed: one for all schemas of a database. */
const channel = "jobs:insert"

/**
 * Connections of a dedicated store: two sessions for claims, settles and batches, of which no more than two are wanted at
 * once; one listens; the last is for heartbeats and the rest, which wait for none of these.
 */
const sessionConnections = 2
const otherConnections = 2

type ClaimRow =
  | ClaimedRow & { readonly contended: null; readonly beat?: false }
  | { readonly id: null; readonly contended: boolean; readonly next_due_in: number | null; readonly beat?: false }

interface BeatRow {
  readonly beat: true
  readonly dead_pool: string | null
  readonly cancelled_job: Job.JobId | null
}

/** The key of the innermost transaction of any client, which `effect/sql` keeps under this name. */
const CurrentTransaction = Context.Reference<unknown>("effect/sql/CurrentTransactionService", {
  defaultValue: () => undefined
})

const makeStore = Effect.fnUntraced(function*(
  client: PgClient.PgClient,
  schema: string,
  isDedicated: boolean
): Effect.fn.Return<Store, never, Scope.Scope> {
  const sql = client.withoutTransforms()
  const statements = Statements.make(quoteIdentifier(schema))

  const failure = (operation: string) => fromSqlError(operation, schema)

  // A session that began while its database was read-only stays so for good. A worker's own make room for new ones.
  const endReadOnly = Effect.ignore(sql.unsafe(statements.endReadOnly))
  const isReadOnly = (error: SqlError) => isDedicated && sqlState(error) === "25006"

  const run = <Row extends object>(operation: string, text: string, params: ReadonlyArray<unknown>) =>
    sql.unsafe<Row>(text, params).pipe(
      Effect.tapError((error) => isReadOnly(error) ? endReadOnly : Effect.void),
      Effect.mapError(failure(operation))
    )

  /** A write inside another client's transaction would silently be none of it. */
  const joinsOnlyOwn = <A, E, R>(write: Effect.Effect<A, E, R>): Effect.Effect<A, E | KongTaskError, R> =>
    Effect.contextWith((context: Context.Context<R>): Effect.Effect<A, E | KongTaskError, R> =>
      Context.get(context, CurrentTransaction) !== undefined &&
        Context.getOrUndefined(context, sql.transactionService as never) === undefined
        ? Effect.fail(new KongTaskError({ reason: new OtherTransaction() }))
        : write
    )

  const sessionPool = isEmbedded(client) ? undefined : yield* Effect.orDie(sessions(client, sessionConnections))

  /** A statement of a worker's own sessions. What nobody waits for any more may still be running in its session. */
  const runOnSession: typeof run = sessionPool === undefined || !isDedicated
    ? run
    : <Row extends object>(operation: string, text: string, params: ReadonlyArray<unknown>) =>
      sessionPool.use((session) =>
        session.query(text, params).pipe(
          Effect.tapError((error) => isReadOnly(error) ? sessionPool.invalidate(session) : Effect.void),
          Effect.onInterrupt(() => sessionPool.invalidate(session))
        )
      ).pipe(
        Effect.map(({ rows }) => rows as unknown as ReadonlyArray<Row>),
        // As the driver has it for what is sent through a client.
        Effect.withSpan("sql.execute", { kind: "client", attributes: { "db.query.text": text } }),
        Effect.mapError(failure(operation))
      )

  const { add, addMany } = yield* Adding.make({ sql, statements })

  const claim: Store["claim"] = Effect.fnUntraced(function*({
    beat,
    dueAt,
    forbiddenFlags = [],
    limit,
    pool,
    runs,
    start,
    tasks
  }) {
    const rows = yield* runOnSession<ClaimRow | BeatRow>(
      "claim",
      beat === true ? statements.claimAndBeat : statements.claim,
      [
        pool,
        tasks,
        limit,
        start ?? limit,
        forbiddenFlags.length === 0 ? null : forbiddenFlags,
        runs ?? null,
        dueAt ?? null
      ]
    )
    const claimed: Array<ClaimedRow> = []
    const beats: Array<BeatRow> = []
    let contended = false
    let nextDueIn: number | undefined
    for (const row of rows) {
      if (row.beat === true) {
        beats.push(row)
      } else if (row.id === null) {
        contended = row.contended
        nextDueIn = row.next_due_in ?? undefined
      } else {
        claimed.push(row)
      }
    }
    return {
      jobs: toClaimed(claimed),
      contended,
      nextDueIn,
      ...(beat === true ? { heartbeat: toHeartbeat(beats) } : {})
    }
  })

  const filterParams = (filter: Parameters<Store["count"]>[0]) => [
    filter.tasks ?? null,
    filter.states ?? null,
    filter.queueName ?? null,
    filter.key ?? null,
    filter.flag ?? null,
    filter.addedAfter ?? null,
    filter.addedBefore ?? null,
    filter.runAfter ?? null,
    filter.runBefore ?? null,
    filter.origin ?? null,
    filter.bundle ?? null
  ]

  return {
    capabilities: { batch: !isEmbedded(client), notifications: true },
    add: (spec) => joinsOnlyOwn(add(spec)),
    addMany: (specs) => joinsOnlyOwn(addMany(specs)),
    get: (id) =>
      Effect.map(run<JobRow>("get", statements.get, [id]), (rows) => Option.map(Option.fromNullishOr(rows[0]), toJob)),
    failedAttempts: (id) =>
      Effect.map(run<FailedAttemptRow>("get", statements.failedAttempts, [id]), (rows) => rows.map(toFailedAttempt)),
    ...Observing.make({ client, run, schema, failure }),
    ...History.make({ schema, run, joinsOnlyOwn, filterParams }),
    list: (filter, page) =>
      Effect.map(
        run<JobRow>("list", statements.list, [...filterParams(filter), page.after ?? null, page.limit]),
        (rows) => rows.map(toJob)
      ),
    removeMany: (filter, page) =>
      joinsOnlyOwn(Effect.map(
        run<{ readonly count: number; readonly last: Job.JobId | null }>("remove", statements.removeMany, [
          ...filterParams(filter),
          page.after ?? null,
          page.limit
        ]),
        ([row]) => ({ count: row!.count, last: row!.count < page.limit ? undefined : row!.last ?? undefined })
      )),
    count: (filter) =>
      Effect.map(
        run<{ readonly count: number }>("count", statements.count, filterParams(filter)),
        (rows) => rows[0]!.count
      ),
    stats: (filter) => Effect.map(run<StatsRow>("stats", statements.stats, filterParams(filter)), toStats),
    measure: Effect.fnUntraced(function*(unlessWithin) {
      const turn = yield* run("measure", statements.turnToMeasure, [Duration.toMillis(unlessWithin)])
      if (turn.length === 0) return Option.none()
      return Option.some(toDepths(yield* run<DepthRow>("measure", statements.depths, [maxMeasured]), maxMeasured))
    }),
    ...Administration.make({ schema, run, joinsOnlyOwn }),
    remove: (target) =>
      joinsOnlyOwn(Effect.map(
        run<JobRow>("remove", statements.remove, [
          "id" in target ? target.id : null,
          "key" in target ? target.key : null
        ]),
        (rows) => Option.map(Option.fromNullishOr(rows[0]), toJob)
      )),
    cancel: (id) =>
      joinsOnlyOwn(Effect.map(
        run<JobRow>("cancel", statements.cancel, [id]),
        (rows) => Option.map(Option.fromNullishOr(rows[0]), toJob)
      )),
    claim,
    ...(sessionPool === undefined ? noBatches : Batches.make({ sessions: sessionPool, statements, failure, run })),
    settle: Effect.fnUntraced(function*(pool, settlements, held = []) {
      const { allEndings, cancelled, completed, failures, kept, releases } = partition(settlements)
      const rows = yield* runOnSession<{ readonly id: Job.JobId }>("settle", statements.settle, [
        pool,
        kept.length === 0 ? completed : completed.concat(kept),
        cancelled,
        failures,
        releases,
        held,
        allEndings
      ])
      return new Set(rows.map((row) => row.id))
    }),
    completeWith: Transactional.make({ sql, statements, failure }),
    releaseUnknown: (pool, known) => Effect.asVoid(run("release", statements.releaseUnknown, [pool, known])),
    registerPool: (pool, lease) =>
      Effect.asVoid(run("register the pool", statements.registerPool, [pool, Duration.toMillis(lease)])),
    heartbeat: (pool) =>
      Effect.map(
        run<Omit<BeatRow, "beat">>("heartbeat", statements.heartbeat, [pool]),
        toHeartbeat
      ),
    deregisterPool: (pool, mayHold = true) =>
      (mayHold
        ? sql.unsafe(statements.deregisterPool, [pool]).pipe(
          Effect.andThen(sql.unsafe(statements.releaseUnknown, [pool, []])),
          Effect.andThen(sql.unsafe(statements.endBatches, [pool])),
          withTransaction(sql)
        )
        : Effect.andThen(
          sql.unsafe(statements.deregisterPool, [pool]),
          sql.unsafe(statements.endBatches, [pool])
        )).pipe(
          Effect.mapError(failure("deregister the pool")),
          Effect.asVoid
        ),
    // Two statements: the second one sees the claims that the first one waited for.
    releasePools: (pools) =>
      Effect.gen(function*() {
        const buried = yield* sql.unsafe<{ readonly id: string }>(statements.buryPools, [
          pools === "all" ? null : pools
        ])
        const ids = buried.map((row) => row.id)
        if (ids.length === 0 && pools !== "all") return { pools: ids, released: 0, failed: 0 }
        const rows = yield* sql.unsafe<{ readonly released: number; readonly failed: number }>(
          statements.releasePools,
          [ids, pools === "all"]
        )
        return { pools: ids, released: rows[0]!.released, failed: rows[0]!.failed }
      }).pipe(withTransaction(sql), Effect.mapError(failure("release dead pools"))),
    sweep: (lease) =>
      Effect.map(
        run<Swept>("release orphaned locks", statements.sweep, [Duration.toMillis(lease)]),
        (rows) => rows[0]
      ),
    renew: (pool, ids) => Effect.asVoid(run("renew locks", statements.renew, [pool, ids])),
    probe: (pool) => Effect.asVoid(run("listen", statements.probe, [pool])),
    notifications: client.listen(channel).pipe(
      Effect.map((queue) =>
        Stream.fromQueue(queue).pipe(
          Stream.map((notification) => toAnnouncement(notification.payload)),
          Stream.filter((announcement) => announcement._tag !== "JobsAdded" || announcement.count > 0),
          (announcements) => Stream.concat(Stream.succeed({ _tag: "Listening" } as const), announcements)
        )
      ),
      Stream.unwrap,
      Stream.mapError(failure("listen"))
    ),
    scheduling: Scheduling.make({ schema, run, joinsOnlyOwn }),
    bundling: Bundles.make({ sql, schema, run, joinsOnlyOwn }),
    listening: Listening.make({ client, schema, run, failure }),
    dedicated: Effect.flatMap(
      Effect.mapError(derive(client, otherConnections), failure("connect")),
      (dedicated) => makeStore(dedicated, schema, true)
    )
  }
})

/** How many jobs a measurement reads at most. */
const maxMeasured = 1_000_000

const toHeartbeat = (rows: ReadonlyArray<Omit<BeatRow, "beat">>): Heartbeat => ({
  isAlive: rows.some((row) => row.cancelled_job === null),
  deadPools: rows.flatMap((row) => row.dead_pool === null ? [] : [row.dead_pool]),
  cancelled: rows.flatMap((row) => row.cancelled_job === null ? [] : [row.cancelled_job])
})

/** One session cannot skip its own row locks. */
const noBatch = Effect.die(new Error("Batches need capabilities.batch"))
const noBatches: Pick<Store, "batch" | "forgetBatch" | "settleLate"> = {
  batch: () => noBatch,
  forgetBatch: () => noBatch,
  settleLate: () => noBatch
}

/**
 * `{"r": …, "count": n}`, negative for a removal; a message without a readable count announces one job. A cancellation
 * is one for no job, with the pool that holds the job, so that graphile-worker's workers pass it over.
 */
const toAnnouncement = (payload: string | null | undefined): Announcement => {
  const probe = /"probe"\s*:\s*"([^"]+)"/.exec(payload ?? "")
  if (probe !== null) return { _tag: "Probed", pool: probe[1]! }
  const cancel = /"cancel"\s*:\s*"([^"]+)"/.exec(payload ?? "")
  if (cancel !== null) return { _tag: "CancellationRequested", pool: cancel[1]! }
  const count = /"count"\s*:\s*(-?\d+)/.exec(payload ?? "")
  return { _tag: "JobsAdded", count: count === null ? 1 : Number(count[1]) }
}

/** The store on PostgreSQL 12 and later. Opens nothing by itself. */
export const make = Effect.fnUntraced(function*(
  options: { readonly schema: string }
): Effect.fn.Return<Store, KongTaskError, PgClient.PgClient | Scope.Scope> {
  const client = yield* PgClient.PgClient
  return yield* makeStore(client, yield* validateSchemaName(options.schema), false)
})
