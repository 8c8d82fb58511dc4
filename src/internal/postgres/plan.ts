/**
 * What stands in a schema, whether it can be used, and what is to be done next.
 */
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import {
  KongTaskError,
  type KongTaskErrorReason,
  PrivilegeMissing,
  SchemaDamaged,
  SchemaIncompatible,
  SchemaMissing,
  ServerTooOld
} from "../../KongTaskError.ts"
import type { AppliedMigration, Migration, MigrationStatus } from "../../Migrator.ts"
import { type AppliedRow, type ContractRow, type Inspection, minimumServer } from "./inspection.ts"
import { fingerprints, type IndexScript, type Script, type Scripts } from "./scripts.ts"

/** What the Migrator of one schema was asked to do. */
export interface Settings {
  readonly schema: string
  readonly interop: boolean
  readonly adopt: "live" | "breaking"
}

/** The next piece of work, all or nothing. */
export type Step =
  | { readonly _tag: "Adopt"; readonly from: number; readonly migrations: ReadonlyArray<Script> }
  | { readonly _tag: "Apply"; readonly migrations: ReadonlyArray<Script> }
  | { readonly _tag: "Repair"; readonly functions: ReadonlyArray<string>; readonly indexes: ReadonlyArray<IndexScript> }

/** The last migration of graphile-worker whose schema and behaviour is ours too. */
const latest = 20

/** The last one that stops the graphile-workers that do not know it. */
const latestBreaking = 19

/** The first one after which all tables have the shape that they have now. */
const oldest = 16

const fail = (reason: KongTaskErrorReason): Effect.Effect<never, KongTaskError> =>
  Effect.fail(new KongTaskError({ reason }))

const refuse = (schema: string, problem: string): Effect.Effect<never, KongTaskError> =>
  fail(new SchemaIncompatible({ schema, problem }))

const numbers = (rows: ReadonlyArray<ContractRow>): ReadonlyArray<number> => rows.map(({ id }) => Number(id ?? NaN))

const isForeign = (rows: ReadonlyArray<ContractRow>): boolean => numbers(rows).some(Number.isNaN)

const has = (rows: ReadonlyArray<ContractRow>, id: number): boolean => numbers(rows).includes(id)

const reached = (rows: ReadonlyArray<ContractRow>): number => Math.max(0, ...numbers(rows).filter((id) => id <= latest))

/** Refuses what graphile-worker, or something else, made of the schema. */
const checkContract = (
  rows: ReadonlyArray<ContractRow>,
  isAdopted: boolean,
  { adopt, schema }: Settings
): Effect.Effect<void, KongTaskError> => {
  if (isForeign(rows)) {
    return refuse(schema, "it has a table \"migrations\" that is not graphile-worker's. Use another schema name.")
  }
  const newer = rows.filter(({ breaking, id }) => breaking && Number(id) > latest)
  if (newer.length > 0) {
    return refuse(
      schema,
      `graphile-worker's migration ${newer.map(({ id }) => id).join(", ")} changed it in a way that this version of ` +
        "KongTask does not know. Upgrade kongtask in this program to a version that does."
    )
  }
  if (isAdopted || has(rows, latestBreaking)) return Effect.void
  if (!has(rows, oldest)) {
    return refuse(
      schema,
      `its migrations end at ${
        reached(rows)
      }, and KongTask adopts what graphile-worker migrated to ${latestBreaking} ` +
        `or ${latest}. Stop the old workers and let graphile-worker 0.18 migrate it; or, if another program than ` +
        "graphile-worker made it, let that one finish its jobs and use another schema name here."
    )
  }
  return adopt === "breaking" ? Effect.void : refuse(
    schema,
    `graphile-worker migrated it to ${
      reached(rows)
    }, and to adopt it KongTask has to take it to ${latestBreaking}, with ` +
      "which the graphile-workers that run on it now stop and refuse to start again. Upgrade them to one that knows " +
      `${latestBreaking} (0.18 does) first, or ask for it with adopt: "breaking".`
  )
}

const toApplied = (row: AppliedRow): AppliedMigration => ({
  id: row.id,
  name: row.name,
  breaking: row.breaking,
  appliedAt: DateTime.makeUnsafe(Number(row.applied_at))
})

/** A migration without its text. */
export const toMigration = ({ breaking, id, name }: Migration): Migration => ({ id, name, breaking })

/** The names of what a repair makes. */
export const objectsOf = (
  { functions, indexes }: Extract<Step, { readonly _tag: "Repair" }>
): ReadonlyArray<string> => [
  ...functions,
  ...indexes.map(({ name }) => name)
]

const lacking = (inspection: Inspection, indexes: ReadonlyArray<IndexScript>): ReadonlyArray<IndexScript> =>
  indexes.filter(({ name }) => !inspection.indexes.some((index) => index.name === name && index.isValid))

/** The functions whose body is not the one that this version installs. */
const overwritten = (inspection: Inspection, scripts: Scripts, schema: string): ReadonlyArray<string> =>
  fingerprints(scripts, schema)
    .filter(({ hash, name }) => !inspection.functions.some((found) => found.name === name && found.hash === hash))
    .map(({ name }) => name)

/** Tells the state, or fails where this version cannot work with the schema at all. */
export const statusOf = Effect.fnUntraced(function*(
  settings: Settings,
  scripts: Scripts,
  inspection: Inspection
): Effect.fn.Return<MigrationStatus, KongTaskError> {
  const { schema } = settings
  if (inspection.serverVersionNum < minimumServer * 10_000) {
    return yield* fail(new ServerTooOld({ version: inspection.serverVersion, minimum: minimumServer }))
  }
  if (inspection.contract !== undefined) yield* checkContract(inspection.contract, inspection.hasLedger, settings)
  const applied = inspection.applied.map(toApplied)
  const pending = scripts.migrations.filter(({ id }) => applied.every((row) => row.id !== id)).map(toMigration)
  const last = scripts.migrations.at(-1)?.id ?? 0
  const newer = applied.filter(({ id }) => id > last)
  const hasInterop = lacking(inspection, scripts.interop).length === 0
  const first = inspection.applied[0]
  // What a newer version has migrated is that version's to judge.
  const isOurs = applied.length > 0 && pending.length === 0 && newer.length === 0
  return {
    schema,
    serverVersion: inspection.serverVersion,
    applied,
    pending,
    newer,
    adopted: typeof first?.adopted_from === "number"
      ? { from: first.adopted_from, at: toApplied(first).appliedAt, isFinished: !hasInterop }
      : undefined,
    interop: hasInterop,
    damaged: isOurs
      ? [...overwritten(inspection, scripts, schema), ...lacking(inspection, scripts.indexes).map(({ name }) => name)]
      : []
  }
})

/** Like `statusOf`, and fails where a newer version's change forbids the use. */
export const usableStatusOf = Effect.fnUntraced(function*(
  settings: Settings,
  scripts: Scripts,
  inspection: Inspection
): Effect.fn.Return<MigrationStatus, KongTaskError> {
  const status = yield* statusOf(settings, scripts, inspection)
  const breaking = status.newer.filter((migration) => migration.breaking)
  if (breaking.length > 0) {
    return yield* refuse(
      status.schema,
      `a newer KongTask changed it (${breaking.map((migration) => migration.name).join(", ")}). ` +
        "Upgrade kongtask in this program to that version."
    )
  }
  return status
})

/** What is to be done next, under the lock of the migrator. */
export const nextStep = Effect.fnUntraced(function*(
  settings: Settings,
  scripts: Scripts,
  inspection: Inspection
): Effect.fn.Return<Step | undefined, KongTaskError> {
  const { applied, newer, pending } = yield* usableStatusOf(settings, scripts, inspection)
  const [first] = pending
  if (first !== undefined && applied.length === 0 && inspection.contract !== undefined) {
    return { _tag: "Adopt", from: reached(inspection.contract), migrations: scripts.migrations }
  }
  if (first !== undefined) {
    return { _tag: "Apply", migrations: scripts.migrations.filter(({ id }) => id === first.id) }
  }
  if (newer.length > 0) return undefined
  const functions = overwritten(inspection, scripts, settings.schema)
  const indexes = lacking(inspection, settings.interop ? [...scripts.indexes, ...scripts.interop] : scripts.indexes)
  return functions.length + indexes.length === 0 ? undefined : { _tag: "Repair", functions, indexes }
})

/** Fails unless a program with the current role can work on the schema as it is. */
export const checkUsable = Effect.fnUntraced(function*(
  settings: Settings,
  scripts: Scripts,
  inspection: Inspection
): Effect.fn.Return<void, KongTaskError> {
  const { applied, damaged, pending, schema } = yield* usableStatusOf(settings, scripts, inspection)
  if (pending.length > 0) {
    const names = applied.length === 0 ? [] : pending.map(({ name }) => name)
    return yield* fail(new SchemaMissing({ schema, pending: names }))
  }
  if (damaged.length > 0) return yield* fail(new SchemaDamaged({ schema, objects: damaged }))
  if (inspection.isHidden) {
    return yield* fail(
      new PrivilegeMissing({
        detail: `row level security hides the tables of the schema "${schema}" from it. Log in as the owner of the ` +
          "tables, make the role a member of the owner, or give it BYPASSRLS or policies of its own",
        cause: undefined
      })
    )
  }
})
