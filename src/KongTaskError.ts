/**
 * The errors of a KongTask program's surroundings: its configuration, its
 * connection, its schema.
 *
 * `KongTaskError` is one error with a union of reasons, as `SqlError` is. Each
 * reason's message says what is wrong and what to do about it. What is wrong
 * with one particular job is a `Job.InvalidJob` instead.
 *
 * @since 0.1.0
 */
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"

const TypeId = "~kongtask/KongTaskError" as const

/**
 * No connection was configured: neither an address nor `layerEmbedded`.
 *
 * @category errors
 * @since 0.1.0
 */
export class ConnectionNotConfigured extends Schema.TaggedError<ConnectionNotConfigured>(
  "kongtask/KongTaskError/ConnectionNotConfigured"
)("ConnectionNotConfigured", {
  /** The names of the settings that were looked for. */
  looked: Schema.Array(Schema.String)
}) {
  readonly isTransient = false
  override get message(): string {
    return `No PostgreSQL connection is configured. Set ${this.looked.join(" or ")}, ` +
      "or ask for the database inside the process with KongTask.layerEmbedded({ dataDir })."
  }
}

/**
 * The configuration has a value that cannot be used.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidConfiguration extends Schema.TaggedError<InvalidConfiguration>(
  "kongtask/KongTaskError/InvalidConfiguration"
)("InvalidConfiguration", {
  /** The name of the setting or option. */
  field: Schema.String,
  /** What is wrong with its value and what the limit is; never the value of a secret. */
  problem: Schema.String
}) {
  readonly isTransient = false
  override get message(): string {
    return `Invalid configuration: ${this.field} ${this.problem}.`
  }
}

/**
 * A configuration file has settings that there are not, or values that they cannot have.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidConfigurationFile extends Schema.TaggedError<InvalidConfigurationFile>(
  "kongtask/KongTaskError/InvalidConfigurationFile"
)("InvalidConfigurationFile", {
  file: Schema.String,
  /** All that is wrong with it, each with its place as far as that is known, counted from 1. */
  issues: Schema.Array(Schema.Struct({
    line: Schema.UndefinedOr(Schema.Int),
    column: Schema.UndefinedOr(Schema.Int),
    /** What is wrong and what would be right; never the value of a secret. */
    problem: Schema.String
  }))
}) {
  readonly isTransient = false
  override get message(): string {
    return this.issues.map(({ column, line, problem }) =>
      `${[this.file, line, column].filter((part) => part !== undefined).join(":")}: ${problem}${
        problem.endsWith("?") ? "" : "."
      }`
    ).join("\n")
  }
}

/**
 * The server could not be reached, or the connection broke.
 *
 * @category errors
 * @since 0.1.0
 */
export class ConnectionFailed extends Schema.TaggedError<ConnectionFailed>(
  "kongtask/KongTaskError/ConnectionFailed"
)("ConnectionFailed", {
  /** The driver's own message. */
  detail: Schema.String,
  cause: Schema.Defect()
}) {
  readonly isTransient = true
  override get message(): string {
    return `PostgreSQL cannot be reached: ${this.detail}. Check that the server is running and that the address is right.`
  }
}

/**
 * The server refused the user or its password.
 *
 * @category errors
 * @since 0.1.0
 */
export class AuthenticationFailed extends Schema.TaggedError<AuthenticationFailed>(
  "kongtask/KongTaskError/AuthenticationFailed"
)("AuthenticationFailed", {
  detail: Schema.String,
  cause: Schema.Defect()
}) {
  readonly isTransient = false
  override get message(): string {
    return `PostgreSQL refused the login: ${this.detail}. Check the user, the password and pg_hba.conf.`
  }
}

/**
 * The database of that name does not exist on the server.
 *
 * @category errors
 * @since 0.1.0
 */
export class DatabaseMissing extends Schema.TaggedError<DatabaseMissing>(
  "kongtask/KongTaskError/DatabaseMissing"
)("DatabaseMissing", {
  detail: Schema.String,
  cause: Schema.Defect()
}) {
  readonly isTransient = false
  override get message(): string {
    return `The database does not exist: ${this.detail}. Create it, or correct its name in the connection settings.`
  }
}

/**
 * The server is older than the oldest PostgreSQL that KongTask supports.
 *
 * @category errors
 * @since 0.1.0
 */
export class ServerTooOld extends Schema.TaggedError<ServerTooOld>(
  "kongtask/KongTaskError/ServerTooOld"
)("ServerTooOld", {
  /** The server's version, as it tells it: `"11.22"`. */
  version: Schema.String,
  /** The oldest supported major version. */
  minimum: Schema.Int
}) {
  readonly isTransient = false
  override get message(): string {
    return `This server is PostgreSQL ${this.version}; KongTask needs ${this.minimum} or later. Upgrade the server.`
  }
}

/**
 * The schema is not there, or lacks migrations, and the program was told not to
 * migrate.
 *
 * @category errors
 * @since 0.1.0
 */
export class SchemaMissing extends Schema.TaggedError<SchemaMissing>(
  "kongtask/KongTaskError/SchemaMissing"
)("SchemaMissing", {
  schema: Schema.String,
  /** The migrations that are not applied, oldest first; empty when the schema itself is not there. */
  pending: Schema.Array(Schema.String)
}) {
  readonly isTransient = false
  override get message(): string {
    const what = this.pending.length === 0 ? "does not exist" : `lacks the migrations ${this.pending.join(", ")}`
    return `The schema "${this.schema}" ${what}. Run Migrator.migrate, or leave out \`migrate: false\`.`
  }
}

/**
 * The schema was made by something that this version does not know how to work
 * with: a newer KongTask, or a graphile-worker that it cannot adopt.
 *
 * @category errors
 * @since 0.1.0
 */
export class SchemaIncompatible extends Schema.TaggedError<SchemaIncompatible>(
  "kongtask/KongTaskError/SchemaIncompatible"
)("SchemaIncompatible", {
  schema: Schema.String,
  /** What is there and what to do about it. */
  problem: Schema.String
}) {
  readonly isTransient = false
  override get message(): string {
    return `The schema "${this.schema}" cannot be used: ${this.problem}`
  }
}

/**
 * Something other than KongTask changed the schema: it lacks functions or
 * indexes, or has others in their place.
 *
 * @category errors
 * @since 0.1.0
 */
export class SchemaDamaged extends Schema.TaggedError<SchemaDamaged>(
  "kongtask/KongTaskError/SchemaDamaged"
)("SchemaDamaged", {
  schema: Schema.String,
  /** The names of the functions and indexes. */
  objects: Schema.Array(Schema.String)
}) {
  readonly isTransient = false
  override get message(): string {
    return `The schema "${this.schema}" lacks its own version of ${
      this.objects.join(", ")
    }, which something else has ` +
      "overwritten or dropped. Run Migrator.migrate to repair it."
  }
}

/**
 * The role lacks a privilege that it needs.
 *
 * @category errors
 * @since 0.1.0
 */
export class PrivilegeMissing extends Schema.TaggedError<PrivilegeMissing>(
  "kongtask/KongTaskError/PrivilegeMissing"
)("PrivilegeMissing", {
  detail: Schema.String,
  cause: Schema.Defect()
}) {
  readonly isTransient = false
  override get message(): string {
    return `The role lacks a privilege: ${this.detail}. KongTask runs as the owner of its schema; ` +
      "to create the schema the role needs CREATE on the database."
  }
}

/**
 * A migration failed and was rolled back; nothing of it stayed behind.
 *
 * @category errors
 * @since 0.1.0
 */
export class MigrationFailed extends Schema.TaggedError<MigrationFailed>(
  "kongtask/KongTaskError/MigrationFailed"
)("MigrationFailed", {
  /** The name of the migration's file. */
  migration: Schema.String,
  detail: Schema.String,
  cause: Schema.Defect()
}) {
  readonly isTransient = false
  override get message(): string {
    return `Migration ${this.migration} failed and was rolled back: ${this.detail}.`
  }
}

/**
 * The directory of an embedded database is in use by another process.
 *
 * @category errors
 * @since 0.1.0
 */
export class DataDirectoryInUse extends Schema.TaggedError<DataDirectoryInUse>(
  "kongtask/KongTaskError/DataDirectoryInUse"
)("DataDirectoryInUse", {
  dataDir: Schema.String,
  /** The process that holds it. */
  pid: Schema.Int
}) {
  readonly isTransient = false
  override get message(): string {
    return `The data directory ${this.dataDir} is in use by process ${this.pid}. An embedded database belongs to one process: ` +
      "stop that process, use another directory, or use a server (DATABASE_URL) to share a queue."
  }
}

/**
 * The embedded database could not be opened.
 *
 * @category errors
 * @since 0.1.0
 */
export class EmbeddedDatabaseFailed extends Schema.TaggedError<EmbeddedDatabaseFailed>(
  "kongtask/KongTaskError/EmbeddedDatabaseFailed"
)("EmbeddedDatabaseFailed", {
  /** `undefined` for a database in memory. */
  dataDir: Schema.UndefinedOr(Schema.String),
  /** What went wrong and what to do about it. */
  problem: Schema.String,
  cause: Schema.Defect()
}) {
  readonly isTransient = false
  override get message(): string {
    return `The embedded database${
      this.dataDir === undefined ? "" : ` in ${this.dataDir}`
    } could not be opened: ${this.problem}`
  }
}

/**
 * A job was to be added inside a transaction of another client than the queue's:
 * it would have been added even if that transaction rolled back.
 *
 * @category errors
 * @since 0.1.0
 */
export class OtherTransaction extends Schema.TaggedError<OtherTransaction>(
  "kongtask/KongTaskError/OtherTransaction"
)("OtherTransaction", {}) {
  readonly isTransient = false
  override get message(): string {
    return "This is a transaction of another SqlClient than the queue's, which the queue cannot join. Build the queue from " +
      "the client that runs the transaction, or add the job outside of it."
  }
}

/**
 * A statement failed for another reason.
 *
 * @category errors
 * @since 0.1.0
 */
export class StatementFailed extends Schema.TaggedError<StatementFailed>(
  "kongtask/KongTaskError/StatementFailed"
)("StatementFailed", {
  /** What was being done: `"claim"`, `"settle"`, `"add"`. */
  operation: Schema.String,
  /** The SQLSTATE, where the server gave one. */
  code: Schema.UndefinedOr(Schema.String),
  detail: Schema.String,
  /** Whether the same statement may succeed later: a deadlock, a shutdown, too many connections. */
  isTransient: Schema.Boolean,
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `PostgreSQL refused to ${this.operation}${
      this.code === undefined ? "" : ` (SQLSTATE ${this.code})`
    }: ${this.detail}`
  }
}

/**
 * Everything that a `KongTaskError` can be.
 *
 * @category schemas
 * @since 0.1.0
 */
export const KongTaskErrorReason = Schema.Union([
  ConnectionNotConfigured,
  InvalidConfiguration,
  InvalidConfigurationFile,
  ConnectionFailed,
  AuthenticationFailed,
  DatabaseMissing,
  ServerTooOld,
  SchemaMissing,
  SchemaIncompatible,
  SchemaDamaged,
  PrivilegeMissing,
  MigrationFailed,
  DataDirectoryInUse,
  EmbeddedDatabaseFailed,
  OtherTransaction,
  StatementFailed
])

/**
 * @category models
 * @since 0.1.0
 */
export type KongTaskErrorReason = typeof KongTaskErrorReason.Type

/**
 * A failure of the queue's surroundings.
 *
 * **When to use**
 *
 * Match one reason with `Effect.catchReason("KongTaskError", "ConnectionFailed", …)`.
 *
 * @category errors
 * @since 0.1.0
 */
export class KongTaskError extends Schema.TaggedError<KongTaskError>("kongtask/KongTaskError")("KongTaskError", {
  reason: KongTaskErrorReason
}) {
  readonly [TypeId] = TypeId

  override readonly cause = this.reason

  override get message(): string {
    return this.reason.message
  }

  /** Whether the same call may succeed later without anybody changing anything. */
  get isTransient(): boolean {
    return this.reason.isTransient
  }
}

/**
 * @category guards
 * @since 0.1.0
 */
export const isKongTaskError = (u: unknown): u is KongTaskError => Predicate.hasProperty(u, TypeId)
