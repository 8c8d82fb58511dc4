/**
 * From the settings to a connection.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type * as SqlClient from "effect/sql/SqlClient"
import { readFileSync } from "node:fs"
import { userInfo } from "node:os"
import type { ConnectionOptions } from "node:tls"
import { ConnectionNotConfigured, InvalidConfiguration, KongTaskError } from "../../KongTaskError.ts"
import { fromSqlError } from "../postgres/errors.ts"
import { type Configuration, describeSource, type Resolved, type Source } from "./resolve.ts"
import { type Name, type SslMode, sslModes } from "./settings.ts"

/** Which database is meant. */
export type Target =
  | { readonly _tag: "Server"; readonly config: PgClient.PgPoolConfig }
  | { readonly _tag: "Embedded"; readonly dataDir: string }

const invalid = (source: Source, problem: string): KongTaskError =>
  new KongTaskError({ reason: new InvalidConfiguration({ field: describeSource(source), problem }) })

const rank = ({ _tag }: Source): number => ["Flag", "Environment", "File", "Default"].indexOf(_tag)

/** What names a database: the one that the strongest source gives, and in it the address before the parts. */
const addressOf = Effect.fnUntraced(function*(
  settings: Configuration["settings"]
): Effect.fn.Return<Extract<Name, "databaseUrl" | "database" | "embedded">, KongTaskError> {
  const given = (["embedded", "databaseUrl", "database"] as const).filter((name) => settings[name].value !== undefined)
    .toSorted((a, b) => rank(settings[a].source) - rank(settings[b].source))
  const [first, second] = given
  if (first === undefined) {
    return yield* new KongTaskError({
      reason: new ConnectionNotConfigured({ looked: ["DATABASE_URL", "PGDATABASE (with PGHOST, PGUSER, …)"] })
    })
  }
  if (
    first === "embedded" && second === "databaseUrl" && rank(settings[first].source) === rank(settings[second].source)
  ) {
    return yield* invalid(
      settings[first].source,
      `asks for an embedded database, and ${
        describeSource(settings[second].source)
      } for a server: leave one of them out`
    )
  }
  return first
})

const parseUrl = Effect.fnUntraced(function*(
  { source, value }: Resolved<Redacted.Redacted>
): Effect.fn.Return<URL, KongTaskError> {
  const expected = "must be an address such as postgres://user:password@host:5432/database"
  const url = URL.parse(String(Redacted.value(value)))
  if (url === null) {
    return yield* invalid(source, `${expected}; special characters in a password are written as %40 and the like`)
  }
  return url.protocol === "postgres:" || url.protocol === "postgresql:"
    ? url
    : yield* invalid(source, `${expected}, not one that starts with "${url.protocol}"`)
})

const parameters: Readonly<Record<"sslMode" | "sslRootCert" | "sslCert" | "sslKey", string>> = {
  sslMode: "sslmode",
  sslRootCert: "sslrootcert",
  sslCert: "sslcert",
  sslKey: "sslkey"
}

/** What an address says of encryption; `ssl=true` means what it means to other drivers of JavaScript. */
const sslModeOf = Effect.fnUntraced(function*(
  url: URL,
  source: Source
): Effect.fn.Return<SslMode | undefined, KongTaskError> {
  const mode = url.searchParams.get("sslmode")
  if (mode !== null) {
    return sslModes.find((known) => known === mode) ??
      (yield* invalid(source, `has sslmode=${mode}, which must be one of ${sslModes.join(", ")}`))
  }
  switch (url.searchParams.get("ssl")) {
    case null:
      return undefined
    case "true":
    case "1":
      return "verify-full"
    case "false":
    case "0":
      return "disable"
    default:
      return yield* invalid(source, "has ssl=…, which must be true or false; sslmode=… says more")
  }
})

const certificate = (name: string, { source, value }: Resolved<string | undefined>) =>
  value === undefined ? Effect.undefined : Effect.try({
    try: () => readFileSync(value, "utf8"),
    catch: (error) => invalid(source, `names a file (${name}) that cannot be read: ${(error as Error).message}`)
  })

interface Encryption {
  readonly ssl: boolean | ConnectionOptions | undefined
  /** Whether the connection goes on without encryption where the server has none. */
  readonly isOptional: boolean
}

const encryption = Effect.fnUntraced(function*(
  mode: SslMode | undefined,
  of: (name: keyof typeof parameters) => Resolved<string | undefined>
): Effect.fn.Return<Encryption, KongTaskError> {
  if (mode === undefined || mode === "disable") return { ssl: false, isOptional: false }
  if (mode === "allow" || mode === "prefer") return { ssl: undefined, isOptional: true }
  const root = of("sslRootCert")
  const ca = root.value === "system" ? undefined : yield* certificate("sslRootCert", root)
  const options: ConnectionOptions = {
    ca,
    cert: yield* certificate("sslCert", of("sslCert")),
    key: yield* certificate("sslKey", of("sslKey"))
  }
  if (mode === "verify-full") return { ssl: options, isOptional: false }
  // As libpq has it: a root certificate makes `require` a `verify-ca`.
  return mode === "verify-ca" || ca !== undefined
    ? { ssl: { ...options, checkServerIdentity: () => undefined }, isOptional: false }
    : { ssl: { ...options, rejectUnauthorized: false }, isOptional: false }
})

const server = Effect.fnUntraced(function*(
  { settings }: Configuration,
  address: "databaseUrl" | "database"
): Effect.fn.Return<PgClient.PgPoolConfig, KongTaskError> {
  const { databaseUrl } = settings
  const isUrl = address === "databaseUrl"
  const url = isUrl ? yield* parseUrl(databaseUrl as Resolved<Redacted.Redacted>) : new URL("postgres:///")
  const ofUrl = (parameter: string) => url.searchParams.get(parameter) ?? undefined
  const { isOptional, ssl } = yield* encryption(
    (yield* sslModeOf(url, databaseUrl.source)) ?? settings.sslMode.value,
    (name) => {
      const value = ofUrl(parameters[name])
      return value === undefined ? settings[name] : { value, source: databaseUrl.source }
    }
  )
  if (isOptional) url.searchParams.set("sslmode", "prefer")
  // The address comes first; what it leaves open is filled up, as libpq does.
  const part = <A>(inUrl: string | undefined, value: A): A | undefined =>
    inUrl === undefined || inUrl === "" ? value : undefined
  return {
    url: Redacted.make(url.href),
    host: part(url.hostname || ofUrl("host"), settings.host.value),
    port: part(url.port || ofUrl("port"), settings.port.value),
    username: part(url.username || ofUrl("user"), settings.user.value ?? userInfo().username),
    password: part(url.password || ofUrl("password"), settings.password.value),
    database: part(url.pathname.slice(1) || ofUrl("dbname"), settings.database.value),
    ssl,
    prepare: settings.preparedStatements.value,
    maxConnections: settings.maxPoolSize.value,
    applicationName: ofUrl("application_name") ?? "kongtask"
  }
})

/** The database that the settings name. */
export const target = Effect.fnUntraced(function*(
  configuration: Configuration
): Effect.fn.Return<Target, KongTaskError> {
  const address = yield* addressOf(configuration.settings)
  return address === "embedded"
    ? { _tag: "Embedded", dataDir: configuration.settings.embedded.value! }
    : { _tag: "Server", config: yield* server(configuration, address) }
})

/** A client of a server. */
export const layer = (
  config: PgClient.PgPoolConfig
): Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, KongTaskError> =>
  Layer.catch(PgClient.layer(config), (error) => Layer.effectContext(Effect.fail(fromSqlError("connect")(error))))
