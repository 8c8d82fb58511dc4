/**
 * Looks at a database for what keeps a queue from working well, and says what to
 * do about it.
 *
 * It reads catalogs, statistics and, once, the jobs; it locks and changes
 * nothing, and works on a schema in whatever state, or without one.
 *
 * @since 0.1.0
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Checks from "./internal/doctor/checks.ts"
import type * as Finding_ from "./internal/doctor/finding.ts"
import * as Diagnosis from "./internal/postgres/diagnosis.ts"
import { defaultSchema, validateSchemaName } from "./internal/postgres/schema.ts"
import type { KongTaskError } from "./KongTaskError.ts"
import * as Migrator from "./Migrator.ts"

/**
 * What is looked at.
 *
 * **Details**
 *
 * - `connection`: whether the server answers, may be written to, and has connections left
 * - `version`: whether PostgreSQL is recent enough
 * - `privileges`: whether the role may use the schema and sees its rows
 * - `migrations`: whether the schema is there and up to date
 * - `indexes`: whether all are there and can be used
 * - `workers`: pools that are dead, locks that nobody will release, jobs that are due and that nobody runs
 * - `transactions`: what has been open for longer than `openFor` and keeps deleted rows from being vacuumed
 * - `bloat`: tables with more dead rows than living ones
 * - `clock`: whether this machine and the server agree on the time to within a second
 *
 * @category models
 * @since 0.1.0
 */
export type Check = Finding_.Check

/**
 * What was found. `unknown` is what could not be looked at, and why.
 *
 * @category models
 * @since 0.1.0
 */
export type Finding = Finding_.Finding

/**
 * @category models
 * @since 0.1.0
 */
export interface Report {
  readonly schema: string
  /** The server's version, as it tells it: `"15.18"`. */
  readonly serverVersion: string
  /** Whether nothing is a `problem`. */
  readonly isHealthy: boolean
  /** One or more of each check, in the order of the checks. */
  readonly findings: ReadonlyArray<Finding>
}

/**
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** The schema that holds the jobs. Default: `graphile_worker`. */
  readonly schema?: string | undefined
  /** For how long a transaction may be open. Default: 5 minutes. */
  readonly openFor?: Duration.Input | undefined
}

/**
 * Examines a database.
 *
 * **Details**
 *
 * Fails when the server cannot be reached at all, or refuses the login; what else
 * goes wrong is a finding. About a dozen statements, one of which scans the jobs.
 * The `Migrator` must be that of the same schema.
 *
 * **Example**
 *
 * ```ts
 * const { findings, isHealthy } = yield* Doctor.examine()
 * ```
 *
 * @category examining
 * @since 0.1.0
 */
export const examine = (
  options?: Options
): Effect.Effect<Report, KongTaskError, PgClient.PgClient | Migrator.Migrator> =>
  Effect.gen(function*() {
    const schema = yield* validateSchemaName(options?.schema ?? defaultSchema)
    const sql = (yield* PgClient.PgClient).withoutTransforms()
    const diagnosis = Diagnosis.make(sql, schema)
    const migrator = yield* Migrator.Migrator
    const server = yield* diagnosis.server
    const openFor = Duration.fromInputUnsafe(options?.openFor ?? "5 minutes")
    const findings = yield* Checks.run({ schema, server, diagnosis, status: migrator.status, openFor })
    return {
      schema,
      serverVersion: server.version,
      isHealthy: findings.every(({ status }) => status !== "problem"),
      findings
    }
  }).pipe(Effect.withSpan("Doctor.examine"))
