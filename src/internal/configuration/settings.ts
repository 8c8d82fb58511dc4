/**
 * The settings of a KongTask program that come from outside of it: their names in flags, environment and files, and
 * what each may be. `docs/configuration.md` has the same list; a test compares them.
 */
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"

/** What a setting may be. */
export interface Kind<A> {
  /** Completes "must be …". */
  readonly expected: string
  /** From the text of an environment variable. */
  readonly fromText: (name: string) => Config.Config<A>
  /** From a value in a file. */
  readonly fromValue: (value: unknown) => Option.Option<A>
}

/** One setting. Its name in a file is its key in `settings`. */
export interface Setting<A> {
  readonly kind: Kind<A>
  /** The flag of the command line, with its dashes. */
  readonly flag?: string | undefined
  /** Environment variables, the one that wins first. */
  readonly environment: ReadonlyArray<string>
  /** Environment variables that turn it off when they are true. */
  readonly negated?: ReadonlyArray<string> | undefined
  readonly fallback: A
  /** Whether it names a file or folder, which in a file is relative to that file. */
  readonly isPath?: boolean | undefined
  /** Never shown. */
  readonly isSecret?: boolean | undefined
}

const noText = /^\s*$|\0/

const checked = <A>(
  expected: string,
  schema: Schema.Codec<A, any>,
  fromValue: Schema.Codec<A, any> = schema
): Kind<A> => ({
  expected,
  fromText: (name) => Config.schema(schema, name),
  fromValue: Schema.decodeUnknownOption(fromValue)
})

const textSchema = Schema.String.check(Schema.makeFilter((text) => !noText.test(text)))

const text = checked("a text that is not empty", textSchema)

const schemaName = checked(
  "a name of 1 to 63 bytes",
  textSchema.check(Schema.makeFilter((name) => new TextEncoder().encode(name).length <= 63))
)

const integer = (minimum: number, maximum: number): Kind<number> =>
  checked(
    `a whole number from ${minimum} to ${maximum}`,
    Schema.Int.check(Schema.isBetween({ minimum, maximum }))
  )

const oneOf = <const L extends string>(values: ReadonlyArray<L>): Kind<L> =>
  checked(`one of ${values.join(", ")}`, Schema.Literals(values))

const yesOrNo: Kind<boolean> = {
  expected: "true or false",
  fromText: Config.Boolean,
  fromValue: Schema.decodeUnknownOption(Schema.Boolean)
}

const secret: Kind<Redacted.Redacted> = {
  expected: "a text that is not empty",
  fromText: (name) => Config.map(text.fromText(name), (value) => Redacted.make(value)),
  fromValue: (value) => Option.map(text.fromValue(value), (value) => Redacted.make(value))
}

const parsed = <A>(expected: string, parse: (value: unknown) => Option.Option<A>): Kind<A> => ({
  expected,
  fromText: (name) =>
    Config.schema(Schema.String.check(Schema.makeFilter((value) => Option.isSome(parse(value)))), name).pipe(
      Config.map((value) => Option.getOrThrow(parse(value)))
    ),
  fromValue: parse
})

const list: Kind<ReadonlyArray<string>> = {
  ...parsed("one path or a list of paths", (value) =>
    Option.map(
      Schema.decodeUnknownOption(Schema.Union([textSchema, Schema.NonEmptyArray(textSchema)]))(value),
      (value) => Predicate.isString(value) ? [value] : value
    )),
  fromText: (name) => Config.map(text.fromText(name), (value) => value.split(",").map((part) => part.trim()))
}

const logLevel = parsed(`one of ${LogLevel.values.join(", ")}`, (value) =>
  Option.fromUndefinedOr(
    LogLevel.values.find((level) => Predicate.isString(value) && value.toLowerCase() === level.toLowerCase())
  ))

const units: Readonly<Record<string, string>> = {
  "": "millis",
  ms: "millis",
  s: "seconds",
  m: "minutes",
  min: "minutes",
  h: "hours",
  d: "days",
  w: "weeks"
}

/** Reads `30s`, `5 minutes`, `1500`; a bare number counts milliseconds. */
export const parseDuration = (text: string): Option.Option<Duration.Duration> => {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*$/i.exec(text)
  if (match === null) return Option.none()
  const unit = match[2]!.toLowerCase()
  return Duration.fromInput(`${Number(match[1])} ${units[unit] ?? unit}` as Duration.Input)
}

const atLeast = (minimum: Duration.Duration): Kind<Duration.Duration> =>
  parsed(
    `a duration of at least ${Duration.format(minimum)}, such as 2s, "5 minutes" or 1500 (milliseconds)`,
    (value) =>
      Option.filter(
        Predicate.isNumber(value) || Predicate.isString(value) ? parseDuration(String(value)) : Option.none(),
        (duration) => !Duration.isLessThan(duration, minimum)
      )
  )

/** How a connection is encrypted; `docs/configuration.md` says what each does. */
export const sslModes = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] as const

export type SslMode = typeof sslModes[number]

type Where = Omit<Setting<never>, "kind" | "fallback">

const optional = <A>(kind: Kind<A>, where: Where): Setting<A | undefined> => ({ kind, fallback: undefined, ...where })

const withDefault = <A>(kind: Kind<A>, fallback: A, where: Where): Setting<A> => ({ kind, fallback, ...where })

const both = (name: string): ReadonlyArray<string> => [`KONGTASK_${name}`, `GRAPHILE_WORKER_${name}`]

export const settings = {
  databaseUrl: optional(secret, {
    flag: "--database-url",
    environment: [...both("DATABASE_URL"), "DATABASE_URL"],
    isSecret: true
  }),
  host: optional(text, { environment: ["PGHOST"] }),
  port: optional(integer(1, 65_535), { environment: ["PGPORT"] }),
  user: optional(text, { environment: ["PGUSER"] }),
  password: optional(secret, { environment: ["PGPASSWORD"], isSecret: true }),
  database: optional(text, { environment: ["PGDATABASE"] }),
  sslMode: optional(oneOf(sslModes), { environment: ["PGSSLMODE"] }),
  sslRootCert: optional(text, { environment: ["PGSSLROOTCERT"], isPath: true }),
  sslCert: optional(text, { environment: ["PGSSLCERT"], isPath: true }),
  sslKey: optional(text, { environment: ["PGSSLKEY"], isPath: true }),
  embedded: optional(text, { flag: "--embedded", environment: ["KONGTASK_EMBEDDED"], isPath: true }),
  schema: withDefault(schemaName, "graphile_worker", { flag: "--schema", environment: both("SCHEMA") }),
  maxPoolSize: withDefault(integer(2, 10_000), 10, { flag: "--max-pool-size", environment: both("MAX_POOL_SIZE") }),
  preparedStatements: withDefault(yesOrNo, true, {
    flag: "--no-prepared-statements",
    environment: [],
    negated: both("NO_PREPARED_STATEMENTS")
  }),
  tasks: optional(list, { flag: "--tasks", environment: ["KONGTASK_TASKS"], isPath: true }),
  crontab: optional(text, { flag: "--crontab", environment: ["KONGTASK_CRONTAB"], isPath: true }),
  jobs: withDefault(integer(1, 10_000), 10, {
    flag: "--jobs",
    environment: [...both("JOBS"), ...both("CONCURRENCY")]
  }),
  pollInterval: withDefault(atLeast(Duration.millis(10)), Duration.seconds(2), {
    flag: "--poll-interval",
    environment: both("POLL_INTERVAL")
  }),
  useNodeTime: withDefault(yesOrNo, false, { flag: "--use-node-time", environment: both("USE_NODE_TIME") }),
  handleSignals: withDefault(yesOrNo, true, {
    flag: "--no-handle-signals",
    environment: [],
    negated: both("NO_HANDLE_SIGNALS")
  }),
  watch: withDefault(yesOrNo, false, { flag: "--watch", environment: ["KONGTASK_WATCH"] }),
  debug: withDefault(yesOrNo, false, { flag: "--debug", environment: both("DEBUG") }),
  logLevel: optional(logLevel, { environment: both("LOG_LEVEL") })
}

export type Name = keyof typeof settings

/** Every setting's value. */
export type Values = { readonly [N in Name]: (typeof settings)[N]["fallback"] }

export const names = Object.keys(settings) as ReadonlyArray<Name>

export const isName = (name: string): name is Name => Object.hasOwn(settings, name)
