/**
 * What each of the doctor's questions means: from an answer of the database to findings.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { KongTaskError } from "../../KongTaskError.ts"
import type { MigrationStatus } from "../../Migrator.ts"
import type * as Diagnosis from "../postgres/diagnosis.ts"
import { type Check, type Finding, ok, problem, unknown } from "./finding.ts"

const list = (names: ReadonlyArray<string>): string =>
  names.length <= 5 ? names.join(", ") : `${names.slice(0, 5).join(", ")} and ${names.length - 5} more`

const many = (count: number, noun: string): string =>
  `${count.toLocaleString("en-US")} ${noun}${count === 1 ? "" : "s"}`

/** Above this part of `max_connections`, a few more processes get none. */
const connectionShare = 0.9

export const connection = (server: Diagnosis.Server, millis: number): ReadonlyArray<Finding> => {
  const { connections, database, is_read_only, is_standby, max_connections, role } = server
  const problems: Array<Finding> = []
  if (is_standby || is_read_only) {
    problems.push(problem(
      "connection",
      is_standby ? "This server is a standby, which takes no writes." : "Transactions are read-only here.",
      is_standby
        ? "Connect to the primary server."
        : "Connect to the primary server, or set default_transaction_read_only to off."
    ))
  }
  if (connections >= max_connections * connectionShare) {
    problems.push(problem(
      "connection",
      `${connections} of ${max_connections} connections are in use.`,
      "Raise max_connections, make the pools of programs smaller, or put a pooler in between."
    ))
  }
  return problems.length > 0 ? problems : [
    ok(
      "connection",
      `Database "${database}" as "${role}", ${
        millis.toFixed(1)
      } ms away; ${connections} of ${max_connections} connections in use.`
    )
  ]
}

const oldestVersion = 12

export const version = ({ version, version_number }: Diagnosis.Server): ReadonlyArray<Finding> => [
  version_number >= oldestVersion * 10_000
    ? ok("version", `PostgreSQL ${version}.`)
    : problem("version", `PostgreSQL ${version} is too old.`, `Upgrade the server to ${oldestVersion} or later.`)
]

export const privileges = (rights: Diagnosis.Rights, schema: string, role: string): ReadonlyArray<Finding> => {
  const asOwner = `Connect as the owner of the schema, or make "${role}" a member of that role.`
  if (!rights.schema_exists) {
    return [
      rights.can_create_schema
        ? ok("privileges", `"${role}" may create the schema.`)
        : problem("privileges", `"${role}" may not create the schema "${schema}".`, `Grant it CREATE on the database.`)
    ]
  }
  if (!rights.can_use_schema || rights.denied.length > 0) {
    const what = rights.can_use_schema ? list(rights.denied) : `the schema "${schema}"`
    return [problem("privileges", `"${role}" may not use ${what}.`, asOwner)]
  }
  if (rights.hidden.length > 0) {
    return [
      problem("privileges", `Row level security hides the rows of ${list(rights.hidden)} from "${role}".`, asOwner)
    ]
  }
  return [ok("privileges", `"${role}" may use the schema and sees its rows.`)]
}

const migrations = ({ applied, newer, pending, schema }: MigrationStatus): ReadonlyArray<Finding> => {
  if (applied.length === 0) {
    return [problem("migrations", `The schema "${schema}" is not there yet.`, "Run `kongtask migrate`.")]
  }
  if (pending.length > 0) {
    return [
      problem(
        "migrations",
        `${many(pending.length, "migration")} to come: ${list(pending.map(({ name }) => name))}.`,
        "Run `kongtask migrate`."
      )
    ]
  }
  const beyond = newer.length > 0 ? `, ${newer.length} of them by a newer version` : ""
  return [ok("migrations", `${many(applied.length, "migration")} applied${beyond}, none to come.`)]
}

export const indexes = (
  { damaged, interop }: Pick<MigrationStatus, "damaged" | "interop">,
  invalid: ReadonlyArray<string>,
  hasForeign: boolean
): ReadonlyArray<Finding> => {
  const lacking = [...new Set([...damaged, ...invalid])]
  const problems: Array<Finding> = []
  if (lacking.length > 0) {
    problems.push(problem(
      "indexes",
      `Missing, invalid, or not as KongTask made them: ${list(lacking)}.`,
      damaged.length > 0
        ? "Run `kongtask migrate`, which repairs them."
        : `Drop and make them again: ${list(invalid.map((name) => `reindex index concurrently "${name}"`))}.`
    ))
  }
  if (hasForeign && !interop) {
    problems.push(problem(
      "indexes",
      "Workers of graphile-worker run here without the indexes that their claims use.",
      "Run `kongtask migrate --interop`, or stop them."
    ))
  }
  return problems.length > 0 ? problems : [ok("indexes", "All there.")]
}

const workers = (
  { alive, dead, has_foreign, orphans, overdue }: Diagnosis.Workers
): ReadonlyArray<Finding> => {
  const problems: Array<Finding> = []
  const release = alive > 0
    ? "A running worker releases what they hold within its lease; if it stays, `kongtask workers unlock ID` does."
    : "Start a worker, which releases what they hold, or do it by `kongtask workers unlock ID`."
  if (dead.length > 0) {
    problems.push(problem("workers", `${many(dead.length, "worker")} died: ${list(dead)}.`, release))
  }
  if (orphans.length > 0) {
    problems.push(problem("workers", `Jobs are held by workers that nobody knows: ${list(orphans)}.`, release))
  }
  if (overdue > 0 && alive === 0 && !has_foreign) {
    const count = overdue > 10_000 ? "More than 10,000 jobs" : many(overdue, "job")
    problems.push(problem(
      "workers",
      `${count} ${overdue === 1 ? "has" : "have"} been due for longer than a minute, and no worker runs.`,
      "Start one: `kongtask worker --tasks FILE`."
    ))
  }
  return problems.length > 0
    ? problems
    : [ok("workers", alive === 0 ? "None runs." : `${many(alive, "worker")} alive.`)]
}

const since = (seconds: number): string =>
  seconds >= 7200
    ? `${Math.floor(seconds / 3600)} hours`
    : seconds >= 120
    ? `${Math.floor(seconds / 60)} minutes`
    : `${seconds} seconds`

export const transactions = (
  { open, prepared, slots, unseen }: Diagnosis.Transactions,
  openFor: Duration.Duration
): ReadonlyArray<Finding> => {
  const problems: Array<Finding> = [
    ...open.map(({ application, pid, seconds, state }) =>
      problem(
        "transactions",
        `Session ${pid}${application === "" ? "" : ` (${application})`} has had a transaction open for ${
          since(seconds)
        }, ${state}. Deleted jobs stay in the tables meanwhile, and claims walk over them.`,
        `Commit it, or end it by select pg_terminate_backend(${pid}); idle_in_transaction_session_timeout prevents it.`
      )
    ),
    ...prepared.map((gid) =>
      problem(
        "transactions",
        `The prepared transaction "${gid}" waits for its end.`,
        `End it by commit prepared '${gid}' or rollback prepared '${gid}'.`
      )
    ),
    ...slots.map((slot) =>
      problem(
        "transactions",
        `Nobody uses the replication slot "${slot}", which keeps deleted rows.`,
        `Connect its standby again, or drop it by select pg_drop_replication_slot('${slot}').`
      )
    )
  ]
  if (problems.length > 0) return problems
  return [
    unseen > 0
      ? unknown(
        "transactions",
        `None of those that this role sees; ${many(unseen, "session")} of other roles it does not.`,
        "Grant it pg_read_all_stats to see them."
      )
      : ok("transactions", `None has been open for longer than ${Duration.format(openFor)}.`)
  ]
}

const manyDead = 100_000
const largeBytes = 100 * 1024 * 1024
const bytesPerRow = 10_000

export const bloat = (
  tables: ReadonlyArray<Diagnosis.TableSize>,
  isAutovacuumOn: boolean
): ReadonlyArray<Finding> => {
  const off = isAutovacuumOn ? tables.filter((table) => table.is_autovacuum_off).map(({ name }) => name) : []
  const problems: Array<Finding> = []
  if (!isAutovacuumOn || off.length > 0) {
    problems.push(problem(
      "bloat",
      `Autovacuum is off${off.length > 0 ? ` for ${list(off)}` : ""}, so that deleted rows stay for ever.`,
      isAutovacuumOn ? "alter table … reset (autovacuum_enabled)." : "Set autovacuum to on."
    ))
  }
  for (const { bytes, dead, live, name } of tables) {
    if (dead > Math.max(manyDead, live)) {
      problems.push(problem(
        "bloat",
        `${name} has ${Math.round(dead).toLocaleString("en-US")} dead rows beside ${
          Math.round(live).toLocaleString("en-US")
        } living ones.`,
        "If no transaction is open for long, run vacuum on it, and let autovacuum run more often (autovacuum_vacuum_scale_factor)."
      ))
    } else if (bytes > largeBytes && bytes > Math.max(1, live) * bytesPerRow) {
      problems.push(problem(
        "bloat",
        `${name} takes ${Math.round(bytes / 1024 / 1024)} MB for ${
          Math.round(live).toLocaleString("en-US")
        } rows, its indexes included.`,
        "reindex table concurrently gives back the indexes' part; the table's own shrinks by vacuum full, which locks it."
      ))
    }
  }
  return problems.length > 0 ? problems : [ok("bloat", "No table has many dead rows.")]
}

const tolerance = 1000

/** `skew` is how far the server is ahead, `uncertainty` half of the way there and back. */
export const clock = (skew: number, uncertainty: number): ReadonlyArray<Finding> => {
  const off = Math.max(0, Math.abs(skew) - uncertainty)
  if (off <= tolerance) return [ok("clock", `Within ${Math.ceil(Math.abs(skew) + uncertainty)} ms of the server's.`)]
  return [problem(
    "clock",
    `This machine's clock is ${(off / 1000).toFixed(1)} s ${skew > 0 ? "behind" : "ahead of"} the server's.`,
    "Let both keep their time by NTP: schedules are due by this machine's, jobs by the server's."
  )]
}

/** Fails for a lost connection only; what else cannot be looked at is a finding. */
const examined = (check: Check, findings: Effect.Effect<ReadonlyArray<Finding>, KongTaskError>) =>
  Effect.catchTag(findings, "KongTaskError", (error): Effect.Effect<ReadonlyArray<Finding>, KongTaskError> => {
    switch (error.reason._tag) {
      case "ConnectionFailed":
        return Effect.fail(error)
      case "SchemaMissing":
        return Effect.succeed([unknown(check, "There is no schema to look at yet.")])
      case "SchemaIncompatible":
      case "ServerTooOld":
        return Effect.succeed([
          problem(check, error.message, "docs/operations.md says which schemas and servers are supported.")
        ])
    }
    return Effect.succeed([unknown(check, error.message)])
  })

const clockCheck = (diagnosis: Diagnosis.Diagnosis) =>
  Effect.gen(function*() {
    const before = yield* Clock.currentTimeMillis
    const now = yield* diagnosis.clock
    const after = yield* Clock.currentTimeMillis
    return clock(now - (before + after) / 2, (after - before) / 2)
  })

const connectionCheck = (diagnosis: Diagnosis.Diagnosis, server: Diagnosis.Server) =>
  Effect.map(Effect.timed(diagnosis.clock), ([way]) => connection(server, Duration.toMillis(way)))

export const run = Effect.fnUntraced(function*({ diagnosis, openFor, schema, server, status }: {
  readonly schema: string
  readonly server: Diagnosis.Server
  readonly diagnosis: Diagnosis.Diagnosis
  readonly openFor: Duration.Duration
  readonly status: Effect.Effect<MigrationStatus, KongTaskError>
}): Effect.fn.Return<ReadonlyArray<Finding>, KongTaskError> {
  const parts = yield* Effect.all([
    examined("connection", connectionCheck(diagnosis, server)),
    examined("version", Effect.succeed(version(server))),
    examined("privileges", Effect.map(diagnosis.rights, (rights) => privileges(rights, schema, server.role))),
    examined("migrations", Effect.map(status, migrations)),
    examined(
      "indexes",
      Effect.gen(function*() {
        const known = yield* status
        const invalid = yield* diagnosis.invalidIndexes
        const { has_foreign } = yield* diagnosis.workers
        return indexes(known, invalid, has_foreign)
      })
    ),
    examined("workers", Effect.map(diagnosis.workers, workers)),
    examined("transactions", Effect.map(diagnosis.transactions(openFor), (found) => transactions(found, openFor))),
    examined("bloat", Effect.map(diagnosis.sizes, (sizes) => bloat(sizes, server.is_autovacuum_on))),
    examined("clock", clockCheck(diagnosis))
  ])
  return parts.flat()
})
