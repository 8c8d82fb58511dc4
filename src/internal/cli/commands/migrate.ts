import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Migrator from "../../../Migrator.ts"
import * as Connection from "../connection.ts"
import { toggle } from "../flags.ts"
import * as Format from "../format.ts"
import { Output } from "../Output.ts"
import { Finding, usage } from "../problem.ts"
import * as Progress from "../progress.ts"

const names = (migrations: ReadonlyArray<Migrator.Migration>) => migrations.map(({ name }) => name)

const toJson = (status: Migrator.MigrationStatus) => ({
  ...status,
  adopted: status.adopted === undefined ? null : { ...status.adopted, at: DateTime.formatIso(status.adopted.at) },
  applied: status.applied.map((each) => ({ ...each, appliedAt: DateTime.formatIso(each.appliedAt) })),
  newer: status.newer.map((each) => ({ ...each, appliedAt: DateTime.formatIso(each.appliedAt) }))
})

interface Row {
  readonly name: string
  readonly state: string
}

const rowsOf = ({ applied, newer, pending }: Migrator.MigrationStatus): ReadonlyArray<Row> => [
  ...applied.map((each) => ({
    name: each.name,
    state: newer.includes(each)
      ? `applied ${Format.iso(each.appliedAt)} by a newer version`
      : `applied ${Format.iso(each.appliedAt)}`
  })),
  ...pending.map(({ name }) => ({ name, state: "pending" }))
]

const showStatus = Effect.fnUntraced(function*(status: Migrator.MigrationStatus) {
  const output = yield* Output
  yield* output.line(`Schema "${status.schema}" on PostgreSQL ${status.serverVersion}`)
  if (status.adopted !== undefined) {
    yield* output.line(
      `Adopted from graphile-worker ${status.adopted.from}, ${
        status.adopted.isFinished ? "finished" : "its workers may go on; `kongtask migrate --finish-adoption` ends that"
      }`
    )
  }
  yield* output.table([
    { title: "MIGRATION", cell: ({ name }) => name },
    { title: "STATE", cell: ({ state }) => state }
  ], rowsOf(status))
  if (status.damaged.length > 0) yield* output.line(`To be repaired: ${status.damaged.join(", ")}`)
})

const isBehind = ({ damaged, pending }: Migrator.MigrationStatus) => pending.length > 0 || damaged.length > 0

const status = Effect.gen(function*() {
  const output = yield* Output
  const status = yield* Effect.flatMap(Connection.migrator, ({ status }) => status)
  yield* output.answer(toJson(status), showStatus(status))
  if (!isBehind(status)) return yield* output.note("Up to date.")
  yield* output.note("`kongtask migrate` brings it up to date.")
  return yield* new Finding({ kind: "schema" })
})

const dryRun = Effect.gen(function*() {
  const output = yield* Output
  const status = yield* Effect.flatMap(Connection.migrator, ({ status }) => status)
  yield* output.answer(
    { dryRun: true, schema: status.schema, pending: names(status.pending), damaged: status.damaged },
    output.text([
      ...status.pending.map(({ breaking, name }) => `Would apply ${name}${breaking ? " (breaking)" : ""}\n`),
      ...status.damaged.map((name) => `Would repair ${name}\n`),
      ...(isBehind(status) ? [] : ["Nothing to do.\n"])
    ].join(""))
  )
})

/** How far another connection sees it come, each half second. */
const watched = <A, E, R>(migrate: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const { status } = yield* Connection.migrator
    const { isProgressWatched } = yield* Output
    if (!isProgressWatched) return yield* migrate
    const before = yield* status
    if (before.pending.length === 0) return yield* migrate
    const progress = yield* Progress.make("Migrating", before.pending.length)
    let seen = before.applied.length
    yield* status.pipe(
      Effect.flatMap(({ applied }) => {
        const more = applied.length - seen
        seen = applied.length
        return progress.advance(more)
      }),
      Effect.ignore,
      Effect.repeat(Schedule.spaced("500 millis")),
      Effect.forkScoped
    )
    return yield* migrate
  }).pipe(Effect.scoped)

const apply = Effect.gen(function*() {
  const output = yield* Output
  const { migrate } = yield* Connection.migrator
  const { adoptedFrom, applied, repaired, schema } = yield* watched(migrate)
  const lines = [
    ...(adoptedFrom === undefined ? [] : [`Adopted the schema "${schema}" from graphile-worker ${adoptedFrom}.`]),
    ...names(applied).map((name) => `Applied ${name}`),
    ...repaired.map((name) => `Repaired ${name}`),
    applied.length + repaired.length === 0
      ? `The schema "${schema}" is up to date.`
      : `The schema "${schema}" is up to date now.`
  ]
  yield* output.answer(
    { schema, applied: names(applied), adoptedFrom: adoptedFrom ?? null, repaired },
    output.text(lines.map((line) => `${line}\n`).join(""))
  )
})

const finish = Effect.gen(function*() {
  const output = yield* Output
  const { finishAdoption } = yield* Connection.migrator
  const { dropped, schema } = yield* finishAdoption
  yield* output.answer(
    { schema, dropped },
    output.line(dropped.length === 0 ? "Nothing to drop." : `Dropped ${dropped.join(", ")}.`)
  )
})

export const migrate = Command.make("migrate", {
  status: toggle("status").pipe(Flag.withDescription("Only say what is applied and what is not")),
  dryRun: toggle("dry-run").pipe(Flag.withDescription("Only say what it would do")),
  interop: toggle("interop").pipe(Flag.withDescription("Also make the indexes that graphile-worker's workers need")),
  adoptBreaking: toggle("adopt-breaking").pipe(
    Flag.withDescription("Also take over a graphile-worker schema at 16 to 18, whose running workers stop")
  ),
  finishAdoption: toggle("finish-adoption").pipe(
    Flag.withDescription("Drop the indexes that only graphile-worker's workers used")
  )
}, ({ adoptBreaking, dryRun: isDryRun, finishAdoption, interop, status: isStatus }) =>
  Effect.gen(function*() {
    if ([isStatus, isDryRun, finishAdoption].filter((given) => given).length > 1) {
      return yield* usage("--status, --dry-run and --finish-adoption exclude each other.")
    }
    const work = isStatus ? status : isDryRun ? dryRun : finishAdoption ? finish : apply
    yield* Effect.provide(work, Connection.database({ interop, adopt: adoptBreaking ? "breaking" : "live" }))
  })).pipe(
    Command.withDescription("Make the schema, or bring it up to date.")
  )
