/**
 * From whatever a command failed with to a `Problem`, and its text.
 */
import * as Cause from "effect/Cause"
import * as Predicate from "effect/Predicate"
import { basename, dirname } from "node:path"
import type * as Crontab from "../../Crontab.ts"
import type * as Job from "../../Job.ts"
import type { KongTaskErrorReason } from "../../KongTaskError.ts"
import * as KongTaskError from "../../KongTaskError.ts"
import type { TaskLoaderError } from "../../TaskLoader.ts"
import type { Colors } from "./Output.ts"
import { exitCodes, type Kind, Problem } from "./problem.ts"

type Reasons = {
  readonly [Tag in KongTaskErrorReason["_tag"]]: (
    reason: Extract<KongTaskErrorReason, { readonly _tag: Tag }>
  ) => { readonly kind: Kind; readonly message?: string; readonly where?: string; readonly todo?: string }
}

/** The errors' own messages tell programs what to do; these tell whoever types commands. */
const reasons: Reasons = {
  ConnectionNotConfigured: () => ({
    kind: "configuration",
    message: "No database is configured.",
    todo: "Set DATABASE_URL, give --database-url, or use the database inside the process with --embedded. " +
      "`kongtask config show` tells what is set."
  }),
  InvalidConfiguration: () => ({ kind: "configuration" }),
  InvalidConfigurationFile: ({ file, issues }) => ({
    kind: "configuration",
    where: file,
    message: issues.map(({ column, line, problem }) =>
      `${line === undefined ? "" : `line ${line}${column === undefined ? "" : `, column ${column}`}: `}${problem}`
    ).join("\n"),
    todo: "`kongtask config show` tells which value counts; docs/configuration.md has all settings."
  }),
  ConnectionFailed: ({ detail }) => ({
    kind: "connection",
    message: `PostgreSQL cannot be reached: ${detail}`,
    todo:
      "Check that the server is running and that the address is right; `kongtask config show` tells where it is from."
  }),
  AuthenticationFailed: ({ detail }) => ({
    kind: "rights",
    message: `PostgreSQL refused the login: ${detail}`,
    todo: "Check the user and the password; `kongtask config show` tells where they are from."
  }),
  DatabaseMissing: ({ detail }) => ({
    kind: "connection",
    message: `The database does not exist: ${detail}`,
    todo: "Create it with `createdb`, or correct its name."
  }),
  ServerTooOld: () => ({ kind: "schema" }),
  SchemaMissing: ({ pending, schema }) => ({
    kind: "schema",
    message: pending.length === 0
      ? `The schema "${schema}" does not exist yet.`
      : `The schema "${schema}" lacks the migrations ${pending.join(", ")}.`,
    todo: "Run `kongtask migrate`, or name another schema with --schema."
  }),
  SchemaIncompatible: () => ({ kind: "schema" }),
  SchemaDamaged: ({ objects, schema }) => ({
    kind: "schema",
    message: `Something else has overwritten or dropped ${objects.join(", ")} in the schema "${schema}".`,
    todo: "Run `kongtask migrate`, which repairs it."
  }),
  PrivilegeMissing: ({ detail }) => ({
    kind: "rights",
    message: `The role lacks a privilege: ${detail}`,
    todo: "Connect as the owner of the schema; to make a new one the role needs CREATE on the database."
  }),
  MigrationFailed: () => ({ kind: "schema", todo: "Nothing of it stayed behind. Remove the cause and run it again." }),
  DataDirectoryInUse: ({ dataDir, pid }) => ({
    kind: "connection",
    message: `The embedded database ${dataDir} is in use by process ${pid}.`,
    todo: "An embedded database belongs to one process: stop that one, use another folder, or a server."
  }),
  EmbeddedDatabaseFailed: () => ({ kind: "connection" }),
  OtherTransaction: () => ({ kind: "unexpected" }),
  StatementFailed: ({ isTransient }) => ({ kind: isTransient ? "connection" : "unexpected" })
}

const ofKongTask = (error: KongTaskError.KongTaskError): Problem => {
  const { kind, message, todo, where } = reasons[error.reason._tag](error.reason as never)
  return new Problem({ kind, message: message ?? error.message, where, todo, cause: error })
}

/** The errors of a crontab, with the file that they are in. */
export const ofCrontab = (error: Crontab.InvalidCrontab, file?: string): Problem =>
  new Problem({
    kind: "input",
    message: error.issues.map(({ column, line, problem }) => `line ${line}, column ${column}: ${problem}`).join("\n"),
    where: file,
    todo: "`kongtask crontab explain` shows how each line is read; docs/scheduling.md has the format.",
    cause: error
  })

/** The mistakes in task files. */
const ofTaskLoader = (error: TaskLoaderError): Problem => {
  const [first, ...others] = new Set(error.issues.map(({ file }) => file))
  return new Problem({
    kind: "tasks",
    message: error.issues.map(({ column, file, line, problem }) =>
      `${[basename(file), line, column].filter((part) => part !== undefined).join(":")} ${problem}.`
    ).join("\n"),
    where: others.length === 0 ? first : dirname(first!),
    todo: "docs/tasks.md says what such files are.",
    cause: error
  })
}

const messageOf = (error: unknown): string =>
  Predicate.isError(error) && error.message !== "" ? error.message : String(error)

const limit = 10

/** The first of what may be many, so that it stays on one screen. */
const shortened = (text: string): string => {
  const lines = text.split("\n")
  return lines.length <= limit
    ? text
    : [...lines.slice(0, limit), `… and ${lines.length - limit} lines more`].join("\n")
}

export const toProblem = (error: unknown): Problem => {
  if (error instanceof Problem) return error
  if (KongTaskError.isKongTaskError(error)) return ofKongTask(error)
  if (Predicate.isTagged(error, "InvalidJob") || Predicate.isTagged(error, "DuplicateJobKey")) {
    return new Problem({
      kind: "input",
      message: messageOf(error),
      todo: (error as unknown as Job.InvalidJob | Job.DuplicateJobKey)._tag === "DuplicateJobKey"
        ? "Give it another --key, or another --key-mode: `kongtask add --help` has them."
        : undefined,
      cause: error
    })
  }
  if (Predicate.isTagged(error, "InvalidCrontab")) return ofCrontab(error as unknown as Crontab.InvalidCrontab)
  if (Predicate.isTagged(error, "InvalidSchedule")) {
    return new Problem({ kind: "input", message: messageOf(error), cause: error })
  }
  if (Predicate.isTagged(error, "TaskLoaderError")) return ofTaskLoader(error as unknown as TaskLoaderError)
  return new Problem({
    kind: "unexpected",
    message: messageOf(error),
    todo: "With --debug the whole cause is shown.",
    cause: error
  })
}

/** The problem that a command ended with; `undefined` when it was only interrupted. */
export const ofCause = (cause: Cause.Cause<unknown>): Problem | undefined =>
  Cause.hasInterruptsOnly(cause) ? undefined : toProblem(Cause.squash(cause))

const indent = (text: string, by: string): string => text.split("\n").join(`\n${by}`)

/** The problem as text: what is wrong, where, what was done, and what to do. */
export const render = (problem: Problem, { bold, red }: Colors): string => {
  const rows = [
    ["Where", problem.where],
    ["Done", problem.done],
    ["To do", problem.todo]
  ] as const
  return [
    `${bold(red("Error:"))} ${indent(shortened(problem.message), "       ")}`,
    ...rows.flatMap(([title, text]) => text === undefined ? [] : [`${`${title}:`.padEnd(7)}${indent(text, "       ")}`])
  ].map((line) => `${line}\n`).join("")
}

/** The same for `--json`. */
export const toJson = ({ done, kind, message, todo, where }: Problem) => ({
  error: { kind, exitCode: exitCodes[kind], message, where, done, todo }
})
