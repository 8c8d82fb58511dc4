import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as SqlClient from "effect/sql/SqlClient"
import { isSqlError, type SqlError } from "effect/sql/SqlError"
import {
  AuthenticationFailed,
  ConnectionFailed,
  DatabaseMissing,
  KongTaskError,
  type KongTaskErrorReason,
  PrivilegeMissing,
  SchemaMissing,
  StatementFailed
} from "../../KongTaskError.ts"

/** The SQLSTATE, where the server gave one. A socket's errors have a `code` too, but no severity. */
export const sqlState = (error: SqlError): string | undefined => {
  const cause = error.reason.cause
  return Predicate.hasProperty(cause, "severity") && Predicate.hasProperty(cause, "code") &&
      Predicate.isString(cause.code)
    ? cause.code
    : undefined
}

const text = (value: unknown, property: string): string | undefined =>
  Predicate.hasProperty(value, property) && Predicate.isString(value[property]) && value[property] !== ""
    ? value[property]
    : undefined

/**
 * What the server, or else the socket or the driver, says is wrong. Data
 * exceptions (class 22) quote the value that they refuse after a colon; it may
 * be secret and is cut off, as are the server's detail and context, which quote
 * whole rows.
 */
export const sqlErrorDetail = (error: SqlError): string => {
  const cause = error.reason.cause
  const said = text(cause, "message") ?? text(cause, "code") ?? error.message
  return sqlState(error)?.startsWith("22") === true ? said.replace(/: ".*$/s, "") : said
}

/** The server ended the session or takes none at the moment, or the connection broke. */
const isConnectionLoss = (error: SqlError, code: string | undefined): boolean =>
  error.reason._tag === "ConnectionError" || (code !== undefined && /^(?:08|57P|53300)/.test(code))

/** Deadlocks, timeouts, lack of resources, and a server that was demoted to a standby. */
const passes = (code: string): boolean => /^(?:53|25006|40001|40P01|55P03|57014)/.test(code)

/** Whether the same statement may succeed later without anybody changing anything. */
export const isTransient = (error: SqlError): boolean => {
  const code = sqlState(error)
  return isConnectionLoss(error, code) || (code !== undefined && passes(code))
}

const ownNames = "(?:_private_\\w+|migrations|jobs|kongtask_jobs|job_spec|add_jobs?|remove_job|complete_jobs|" +
  "permanently_fail_jobs|reschedule_jobs|force_unlock_workers)\\b"

const ownObject = new RegExp(`([^\\s"'«»„“”()]+)\\.${ownNames}`)

const startsWithOwnName = new RegExp(`^${ownNames}`)

/** The schema of ours that a message about a missing object names; messages don't quote what is in them. */
const missingSchema = (code: string | undefined, detail: string, known: string | undefined): string | undefined => {
  switch (code) {
    case "3F000":
      return known === undefined ? /["«„“](.+)["»“”]/.exec(detail)?.[1] : detail.includes(known) ? known : undefined
    case "42P01":
    case "42704":
    case "42883":
      if (known === undefined) return ownObject.exec(detail)?.[1]
      return detail.split(`${known}.`).slice(1).some((rest) => startsWithOwnName.test(rest)) ? known : undefined
  }
  return undefined
}

const reasonOf = (operation: string, error: SqlError, known: string | undefined): KongTaskErrorReason => {
  const code = sqlState(error)
  const detail = sqlErrorDetail(error)
  if (isConnectionLoss(error, code)) return new ConnectionFailed({ detail, cause: error })
  if (error.reason._tag === "AuthenticationError") return new AuthenticationFailed({ detail, cause: error })
  if (code === "3D000") return new DatabaseMissing({ detail, cause: error })
  if (code === "42501") return new PrivilegeMissing({ detail, cause: error })
  const schema = missingSchema(code, detail, known)
  if (schema !== undefined) return new SchemaMissing({ schema, pending: [] })
  return new StatementFailed({ operation, code, detail, isTransient: isTransient(error), cause: error })
}

/**
 * Says what a failed statement means for the queue. `operation` is what was
 * being done, such as `"claim"`; `schema` is the one that the statement names,
 * and is guessed from the message when left out.
 */
export const fromSqlError = (operation: string, schema?: string) => (error: SqlError): KongTaskError =>
  new KongTaskError({ reason: reasonOf(operation, error, schema) })

/**
 * `sql.withTransaction`, but a broken connection is a failure in any case. The
 * driver's own dies when the rollback after a failed statement fails in its
 * turn, and neither `retry` nor `catchTag` sees a defect.
 */
export const withTransaction =
  (sql: SqlClient.SqlClient) => <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | SqlError, R> =>
    Effect.catchDefect(
      sql.withTransaction(effect),
      (defect) => isSqlError(defect) ? Effect.fail(defect) : Effect.die(defect)
    )
