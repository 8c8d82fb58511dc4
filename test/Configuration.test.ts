import { describe, expect, it } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Layer, Redacted, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { KongTask, type KongTaskError, Migrator } from "kongtask"
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Configuration from "../src/internal/cli/configuration.ts"
import * as Connection from "../src/internal/configuration/connection.ts"
import type { extensions } from "../src/internal/configuration/document.ts"
import * as Database from "./support/database.ts"
import { isRoot, makeDirectory, nobody } from "./support/directory.ts"

type Files = Readonly<Record<string, string>>

const write = (folder: string, files: Files) => {
  for (const [name, text] of Object.entries(files)) {
    const path = Path.join(folder, name)
    Fs.mkdirSync(Path.dirname(path), { recursive: true })
    Fs.writeFileSync(path, text)
  }
}

/** A folder with these files, under one that no configuration file is above. */
const folderWith = Effect.fnUntraced(function*(files: Files): Effect.fn.Return<string, never, Scope.Scope> {
  const folder = yield* makeDirectory("programs")
  write(folder, files)
  return folder
})

interface Given {
  readonly env?: Readonly<Record<string, string>>
  readonly flags?: Configuration.Flags
  readonly file?: string
  readonly files?: Files
  /** The working folder inside of the one with the files. */
  readonly within?: string
}

const resolve = Effect.fnUntraced(function*({ env = {}, file, files = {}, flags, within = "." }: Given) {
  const folder = yield* folderWith(files)
  const configuration = yield* Configuration.resolve({ flags, file, folder: Path.join(folder, within) }).pipe(
    Effect.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord({ ...env }))),
    Effect.mapError((error) => ({
      ...error,
      message: error.message.replaceAll(`${folder}/`, ""),
      reason: error.reason
    }))
  )
  return { ...configuration, folder }
})

/** What is wrong, with paths relative to the folder. */
const problem = (given: Given) => Effect.map(Effect.flip(resolve(given)), ({ message }) => message)

const shown = ({ settings }: Configuration.Configuration, name: Configuration.Name) =>
  [settings[name].value, Configuration.describeSource(settings[name].source)] as const

const test = (name: string, effect: Effect.Effect<void, unknown, Scope.Scope>, timeout?: number) =>
  it.live(name, () => Effect.scoped(effect), timeout)

const same: Readonly<Record<typeof extensions[number], string>> = {
  ts:
    "const jobs: number = 7\n\nexport default {\n  schema: \"of_file\",\n  jobs,\n  pollInterval: \"3s\",\n  tasks: [\"a\", \"b\"]\n}\n",
  mts: "export default {\n  jobs: 7, pollInterval: 3000 as number,\n  schema: \"of_file\", tasks: [\"a\", \"b\"] }\n",
  js: "export default { schema: \"of_file\", jobs: 7,\n  tasks: [\"a\", \"b\"],\n  pollInterval: \"3 seconds\" }\n",
  mjs: "export default {\n  \"schema\": \"of_file\",\n  tasks: [\"a\", \"b\"], 'jobs': 7, pollInterval: 3000\n}\n",
  json: "{\n\t\"schema\": \"of_file\",\n\t\"jobs\": 7,\n\t\"tasks\": [\"a\", \"b\"],\n\t\"pollInterval\": 3000\n}\n",
  yaml: "# of the queue\nschema: of_file\njobs: 7\ntasks:\n  - a\n  - b\npollInterval: 3s\n",
  yml: "schema: of_file\njobs: 7\ntasks: [a, b]\npollInterval: 3s\n",
  toml: "schema = \"of_file\"\njobs = 7\n\npollInterval = \"3s\"\ntasks = [\n  \"a\",\n  \"b\"\n]\n"
}

describe("where a setting comes from", () => {
  test(
    "a flag wins over the environment, which wins over the file, which wins over the default",
    Effect.gen(function*() {
      const files = { "kongtask.config.yaml": "schema: of_file\njobs: 3\n" }
      const env = { KONGTASK_SCHEMA: "of_env", KONGTASK_JOBS: "4" }
      expect(shown(yield* resolve({}), "schema")).toEqual(["graphile_worker", "default"])
      const fromFile = yield* resolve({ files })
      expect(shown(fromFile, "jobs")).toEqual([3, `${fromFile.folder}/kongtask.config.yaml:2`])
      expect(shown(yield* resolve({ files, env }), "schema")).toEqual(["of_env", "KONGTASK_SCHEMA"])
      const all = yield* resolve({ files, env, flags: { schema: "of_flag" } })
      expect(shown(all, "schema")).toEqual(["of_flag", "--schema"])
      expect(shown(all, "jobs")).toEqual([4, "KONGTASK_JOBS"])
    })
  )

  test(
    "an older name counts where the newer one is not set",
    Effect.gen(function*() {
      const env = {
        GRAPHILE_WORKER_SCHEMA: "old",
        GRAPHILE_WORKER_NO_PREPARED_STATEMENTS: "1",
        KONGTASK_CONCURRENCY: "5"
      }
      const old = yield* resolve({ env })
      expect(shown(old, "schema")).toEqual(["old", "GRAPHILE_WORKER_SCHEMA"])
      expect(shown(old, "preparedStatements")).toEqual([false, "GRAPHILE_WORKER_NO_PREPARED_STATEMENTS"])
      expect(shown(old, "jobs")).toEqual([5, "KONGTASK_CONCURRENCY"])
      const both = yield* resolve({ env: { ...env, KONGTASK_SCHEMA: "new", KONGTASK_NO_PREPARED_STATEMENTS: "off" } })
      expect(shown(both, "schema")).toEqual(["new", "KONGTASK_SCHEMA"])
      expect(shown(both, "preparedStatements")).toEqual([true, "KONGTASK_NO_PREPARED_STATEMENTS"])
    })
  )

  test(
    "an empty variable is one that is not set",
    Effect.gen(function*() {
      expect(shown(yield* resolve({ env: { KONGTASK_SCHEMA: "", GRAPHILE_WORKER_SCHEMA: "old" } }), "schema"))
        .toEqual(["old", "GRAPHILE_WORKER_SCHEMA"])
    })
  )

  test(
    "the file is found upwards from the working folder, the nearest one",
    Effect.gen(function*() {
      const files = {
        "kongtask.config.toml": "schema = \"far\"",
        "app/kongtask.config.json": "{\"schema\": \"near\"}",
        "app/src/deep/x": ""
      }
      expect((yield* resolve({ files, within: "app/src/deep" })).settings.schema.value).toBe("near")
      expect((yield* resolve({ files })).settings.schema.value).toBe("far")
      expect((yield* resolve({ files, file: "app/kongtask.config.json" })).settings.schema.value).toBe("near")
      const env = { KONGTASK_CONFIG: "app/kongtask.config.json" }
      expect((yield* resolve({ files, env })).settings.schema.value).toBe("near")
    })
  )

  test(
    "paths are relative to what names them: the file, or the working folder",
    Effect.gen(function*() {
      const files = { "kongtask.config.yaml": "tasks: jobs\ncrontab: ./crontab\n", "app/x": "" }
      const { folder, settings } = yield* resolve({ files, within: "app", env: { KONGTASK_TASKS: "here, /there" } })
      expect(settings.tasks.value).toEqual([`${folder}/app/here`, "/there"])
      expect(settings.crontab.value).toBe(`${folder}/crontab`)
    })
  )

  for (const [extension, text] of Object.entries(same)) {
    test(
      `kongtask.config.${extension} says the same as the others, line by line`,
      Effect.gen(function*() {
        const name = `kongtask.config.${extension}`
        const { folder, settings } = yield* resolve({ files: { [name]: text } })
        expect(settings.jobs.value).toBe(7)
        expect(settings.tasks.value).toEqual([`${folder}/a`, `${folder}/b`])
        expect(Duration.toMillis(settings.pollInterval.value)).toBe(3000)
        for (const key of ["schema", "jobs", "pollInterval", "tasks"] as const) {
          const line = text.split("\n").findIndex((line) => /^(const|#)/.test(line) ? false : line.includes(key)) + 1
          expect(shown({ file: undefined, settings }, key)[1]).toBe(`${folder}/${name}:${line}`)
        }
      })
    )
  }
})

describe("a configuration file that is wrong", () => {
  const wrong: Readonly<Record<string, readonly [file: string, text: string, message: string | RegExp]>> = {
    "an unknown key": [
      "kongtask.config.yaml",
      "jobs: 3\nscheme: x\n",
      "kongtask.config.yaml:2:1: \"scheme\" is no setting; did you mean \"schema\"?"
    ],
    "a key written otherwise": [
      "kongtask.config.toml",
      "max_pool_size = 5\n",
      "kongtask.config.toml:1:1: \"max_pool_size\" is no setting; did you mean \"maxPoolSize\"?"
    ],
    "a key like no other": [
      "kongtask.config.json",
      "{\n  \"favouriteColour\": \"blue\" }",
      /^kongtask\.config\.json:2:3: "favouriteColour" is no setting; the settings are databaseUrl, host, .*logLevel\.$/
    ],
    "a table": [
      "kongtask.config.toml",
      "jobs = 2\n[worker]\njobs = 3\n",
      /^kongtask\.config\.toml:2:1: "worker" is no setting/
    ],
    "a wrong type": [
      "kongtask.config.yaml",
      "jobs: many\n",
      "kongtask.config.yaml:1:7: jobs must be a whole number from 1 to 10000, not \"many\"."
    ],
    "a number as text": [
      "kongtask.config.json",
      "{\"jobs\": \"3\"}",
      "kongtask.config.json:1:10: jobs must be a whole number from 1 to 10000, not \"3\"."
    ],
    "a value out of bounds": [
      "kongtask.config.toml",
      "\nmaxPoolSize = 1\n",
      "kongtask.config.toml:2:15: maxPoolSize must be a whole number from 2 to 10000, not 1."
    ],
    "a duration that is none": [
      "kongtask.config.yml",
      "pollInterval: soon\n",
      /^kongtask\.config\.yml:1:15: pollInterval must be a duration of at least 10ms, such as 2s, .*, not "soon"\.$/
    ],
    "a word that is not of the list": [
      "kongtask.config.ts",
      "export default {\n  sslMode: \"sometimes\" as string\n}\n",
      "kongtask.config.ts:2:3: sslMode must be one of disable, allow, prefer, require, verify-ca, verify-full, not \"sometimes\"."
    ],
    "no yes or no": [
      "kongtask.config.json",
      "{\"watch\": \"true\"}",
      "kongtask.config.json:1:11: watch must be true or false, not \"true\"."
    ],
    "nothing where a value should be": [
      "kongtask.config.yaml",
      "schema:\n",
      /^kongtask\.config\.yaml:1:\d: schema must be a name of 1 to 63 bytes, not null\.$/
    ],
    "a secret of the wrong type": [
      "kongtask.config.yaml",
      "password: 123456\n",
      "kongtask.config.yaml:1:11: password must be a text that is not empty."
    ],
    "YAML that is none": ["kongtask.config.yaml", "jobs: [1\nschema: x\n", /^kongtask\.config\.yaml:2:1: /],
    "a key twice in YAML": ["kongtask.config.yaml", "jobs: 1\njobs: 2\n", /^kongtask\.config\.yaml:2:1: .*unique/],
    "JSON that is none": ["kongtask.config.json", "{\n  \"jobs\": 1,\n}", /^kongtask\.config\.json:3:1: is not JSON: /],
    "JSON with a comment": [
      "kongtask.config.json",
      "{\n  # many\n  \"jobs\": 1\n}",
      /^kongtask\.config\.json:2:3: is not JSON/
    ],
    "TOML that is none": [
      "kongtask.config.toml",
      "jobs = 1\nschema = \n",
      /^kongtask\.config\.toml:[23]:\d+: is not TOML: /
    ],
    "a list": [
      "kongtask.config.yaml",
      "- jobs\n",
      /a list or a single value where its settings should be, such as `jobs: 10`/
    ],
    "no default export": [
      "kongtask.config.ts",
      "export const jobs = 3\n",
      /has no default export where .* `export default/
    ],
    "a function": [
      "kongtask.config.js",
      "export default () => ({ jobs: 3 })\n",
      /has something else where its settings should be/
    ],
    "a module that throws": [
      "kongtask.config.ts",
      "const a = 1\nthrow new Error(`no ${a}`)\n",
      /^kongtask\.config\.ts:2:7: throws when it is imported: no 1\.$/
    ],
    "a module that does not parse": [
      "kongtask.config.js",
      "export default {\n  jobs: =\n}\n",
      /^kongtask\.config\.js:2:\d+: does not parse: /
    ],
    "a module that imports what is not there": [
      "kongtask.config.ts",
      "import \"./nowhere.ts\"\nexport default {}\n",
      /^kongtask\.config\.ts.*: imports something that is not there: .*nowhere\.ts/
    ],
    "an enum": [
      "kongtask.config.ts",
      "enum A { B }\nexport default { jobs: A.B }\n",
      /uses TypeScript that Node cannot strip/
    ]
  }
  for (const [what, [file, text, message]] of Object.entries(wrong)) {
    test(
      `${what}: ${file}`,
      Effect.gen(function*() {
        expect(yield* problem({ files: { [file]: text } })).toMatch(message)
      })
    )
  }

  test(
    "every mistake is told at once, as data too",
    Effect.gen(function*() {
      const files = { "kongtask.config.yaml": "job: 3\nschema: 5\nwatch: 1\n" }
      const { message, reason } = yield* Effect.flip(resolve({ files }))
      expect(message.split("\n")).toHaveLength(3)
      expect(reason).toMatchObject({
        _tag: "InvalidConfigurationFile",
        issues: [{ line: 1, column: 1 }, { line: 2, column: 9 }, { line: 3, column: 8 }]
      })
    })
  )

  test(
    "two of them side by side",
    Effect.gen(function*() {
      expect(yield* problem({ files: { "kongtask.config.json": "{}", "kongtask.config.yaml": "" } }))
        .toBe("kongtask.config.json: is not the only one: kongtask.config.yaml is beside it. Keep one of them.")
    })
  )

  test(
    "one that is not there, or of no known type",
    Effect.gen(function*() {
      expect(yield* problem({ file: "nowhere.yaml" })).toMatch(/^nowhere\.yaml: cannot be read: ENOENT/)
      expect(yield* problem({ file: "config.ini" })).toMatch(/its name must end in one of \.ts, .*\.toml\.$/)
    })
  )
})

describe("a variable that is wrong", () => {
  test(
    "is named, with its value and what would be right",
    Effect.gen(function*() {
      expect(yield* problem({ env: { KONGTASK_JOBS: "many" } })).toBe(
        "Invalid configuration: KONGTASK_JOBS must be a whole number from 1 to 10000, not \"many\"."
      )
      expect(yield* problem({ env: { GRAPHILE_WORKER_USE_NODE_TIME: "maybe" } })).toMatch(
        /GRAPHILE_WORKER_USE_NODE_TIME must be true or false, not "maybe"/
      )
      expect(yield* problem({ env: { KONGTASK_POLL_INTERVAL: "1ms" } })).toMatch(/at least 10ms/)
      expect(yield* problem({ env: { PGSSLMODE: "on" } })).toMatch(/PGSSLMODE must be one of disable, /)
      expect(yield* problem({ env: { KONGTASK_LOG_LEVEL: "loud" } })).toMatch(/KONGTASK_LOG_LEVEL must be one of /)
    })
  )
})

describe("what is shown of a value", () => {
  test(
    "no password, whatever names it",
    Effect.gen(function*() {
      const { settings } = yield* resolve({
        env: {
          DATABASE_URL: "postgres://ada:se%40cr:et@db:5433/app?sslmode=require&password=se%40cr:et&x=1",
          PGPASSWORD: "se@cr:et"
        }
      })
      const all = Configuration.names.map((name) => Configuration.display(name, settings[name].value))
      expect(JSON.stringify(all)).not.toMatch(/se(@|%40)cr/)
      expect(all[0]).toBe("postgres://ada:<redacted>@db:5433/app?sslmode=require&password=<redacted>&x=1")
      expect(Configuration.display("password", settings.password.value)).toBe("<redacted>")
      expect(JSON.stringify(settings)).not.toMatch(/se(@|%40)cr/)
      expect(Configuration.display("pollInterval", settings.pollInterval.value)).toBe("2s")
    })
  )
})

const target = (given: Given) => Effect.flatMap(resolve(given), Connection.target)

const config = (given: Given) =>
  Effect.flatMap(target(given), (named) => named._tag === "Server" ? Effect.succeed(named.config) : Effect.die(named))

const refusal = (given: Given) =>
  Effect.map(Effect.flip(target(given)), (error) => (error as KongTaskError.KongTaskError).message)

describe("which database", () => {
  test(
    "an address leaves open what other settings say",
    Effect.gen(function*() {
      const env = { PGHOST: "pg", PGPORT: "5433", PGUSER: "ada", PGPASSWORD: "of PG", PGDATABASE: "app" }
      expect(yield* config({ env })).toMatchObject({ host: "pg", port: 5433, username: "ada", database: "app" })
      const mixed = yield* config({ env: { ...env, DATABASE_URL: "postgres://bob@db/" } })
      expect(Redacted.value(mixed.url!)).toBe("postgres://bob@db/")
      expect(mixed).toMatchObject({ host: undefined, port: 5433, username: undefined, database: "app" })
      expect(Redacted.value(mixed.password as Redacted.Redacted)).toBe("of PG")
    })
  )

  test(
    "the strongest source names it, whatever kind of name it has",
    Effect.gen(function*() {
      const files = { "kongtask.config.yaml": "embedded: data\n" }
      expect(yield* target({ files })).toMatchObject({ _tag: "Embedded", dataDir: expect.stringMatching(/\/data$/) })
      expect((yield* target({ files, env: { PGDATABASE: "app" } }))._tag).toBe("Server")
      expect((yield* target({ env: { DATABASE_URL: "postgres://db/app" }, flags: { embedded: "data" } }))._tag).toBe(
        "Embedded"
      )
      const url = yield* config({
        files: { "kongtask.config.yaml": "databaseUrl: postgres://file/app\n" },
        env: { GRAPHILE_WORKER_DATABASE_URL: "postgres://old/app", DATABASE_URL: "postgres://env/app" }
      })
      expect(Redacted.value(url.url!)).toBe("postgres://old/app")
    })
  )

  test(
    "two of one source are refused, and none is too",
    Effect.gen(function*() {
      expect(yield* refusal({ env: { KONGTASK_EMBEDDED: "data", DATABASE_URL: "postgres://db/app" } })).toMatch(
        /KONGTASK_EMBEDDED asks for an embedded database, and DATABASE_URL for a server: leave one of them out/
      )
      expect(yield* refusal({ env: { PGHOST: "pg" } })).toMatch(/No PostgreSQL connection is configured/)
    })
  )

  test(
    "an address that is none is refused without showing it",
    Effect.gen(function*() {
      const bare = yield* refusal({ env: { DATABASE_URL: "db:secret@host" } })
      expect(bare).toMatch(/DATABASE_URL must be an address such as postgres:\/\//)
      expect(bare).not.toContain("secret")
      const mysql = yield* refusal({
        files: { "kongtask.config.yaml": "jobs: 2\ndatabaseUrl: mysql://a:secret@b/c\n" }
      })
      expect(mysql).toMatch(/kongtask\.config\.yaml:2 must be an address .*, not one that starts with "mysql:"/)
      expect(mysql).not.toContain("secret")
      expect(yield* refusal({ env: { DATABASE_URL: "postgres://db/app?sslmode=on" } })).toMatch(
        /DATABASE_URL has sslmode=on, which must be one of disable, /
      )
      expect(yield* refusal({ env: { DATABASE_URL: "postgres://db/app?ssl=maybe" } })).toMatch(/ssl=…/)
      expect(yield* refusal({ env: { PGDATABASE: "app", PGSSLMODE: "verify-ca", PGSSLROOTCERT: "no.crt" } })).toMatch(
        /PGSSLROOTCERT names a file \(sslRootCert\) that cannot be read: ENOENT/
      )
    })
  )

  test(
    "prepared statements and the size of the pool reach the driver",
    Effect.gen(function*() {
      const env = { PGDATABASE: "app", KONGTASK_MAX_POOL_SIZE: "33", KONGTASK_NO_PREPARED_STATEMENTS: "yes" }
      expect(yield* config({ env })).toMatchObject({ prepare: false, maxConnections: 33 })
    })
  )
})

/** A server with a certificate for `localhost` by an authority of its own, and files of both. */
const tlsServer = Effect.gen(function*() {
  const folder = yield* makeDirectory("programs")
  const openssl = (...args: ReadonlyArray<string>) => {
    const { status, stderr } = spawnSync("openssl", args, { cwd: folder, encoding: "utf8" })
    if (status !== 0) throw new Error(`openssl ${args.join(" ")}: ${stderr}`)
  }
  const key = ["-newkey", "rsa:2048", "-nodes"]
  const authority = ["-x509", "-days", "2", "-addext", "basicConstraints=critical,CA:TRUE"]
  openssl("req", ...key, ...authority, "-subj", "/CN=ours", "-keyout", "ca.key", "-out", "ca.crt")
  openssl("req", ...key, ...authority, "-subj", "/CN=other", "-keyout", "other.key", "-out", "other.crt")
  openssl("req", ...key, "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
  write(folder, { "server.ext": "subjectAltName=DNS:localhost\n" })
  openssl(
    ...["x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"],
    ...["-extfile", "server.ext", "-out", "server.crt"]
  )
  Fs.chmodSync(Path.join(folder, "server.key"), 0o600)
  if (isRoot()) Fs.chownSync(Path.join(folder, "server.key"), nobody.uid, nobody.gid)
  const server = yield* Database.dedicatedServerWith({
    settings: {
      ssl: "on",
      ssl_cert_file: Path.join(folder, "server.crt"),
      ssl_key_file: Path.join(folder, "server.key")
    }
  })
  return { folder, url: server.url }
})

/** Whether the connection that these settings make is encrypted, or why there is none. */
const encryption = (url: string, env: Readonly<Record<string, string>> = {}) =>
  Effect.gen(function*() {
    const named = yield* config({ env: { DATABASE_URL: url, ...env } })
    return yield* Effect.flatMap(SqlClient.SqlClient, (sql) =>
      sql<{ ssl: boolean }>`select ssl from pg_stat_ssl where pid = pg_backend_pid()`).pipe(
        Effect.map(([row]) =>
          row!.ssl ? "encrypted" : "plain"
        ),
        Effect.provide(Connection.layer({ ...named, maxConnections: 2 })),
        Effect.catchCause((cause) => Effect.succeed(String(cause)))
      )
  })

describe("sslmode", () => {
  test(
    "does on a real server what docs/configuration.md says",
    Effect.gen(function*() {
      const { folder, url } = yield* tlsServer
      const localhost = url.replace("127.0.0.1", "localhost")
      const ours = `&sslrootcert=${folder}/ca.crt`
      const other = `&sslrootcert=${folder}/other.crt`
      const refused = /ConnectionError|certificate|TLS/
      expect(yield* encryption(localhost)).toBe("plain")
      expect(yield* encryption(`${localhost}?sslmode=disable`)).toBe("plain")
      expect(yield* encryption(`${localhost}?ssl=false`, { PGSSLMODE: "require" })).toBe("plain")
      expect(yield* encryption(`${localhost}?sslmode=require`)).toBe("encrypted")
      expect(yield* encryption(localhost, { PGSSLMODE: "require" })).toBe("encrypted")
      expect(yield* encryption(`${url}?sslmode=require${ours}`)).toBe("encrypted")
      expect(yield* encryption(`${url}?sslmode=require${other}`)).toMatch(refused)
      expect(yield* encryption(`${url}?sslmode=verify-ca${ours}`)).toBe("encrypted")
      expect(yield* encryption(`${url}?sslmode=verify-ca`, { PGSSLROOTCERT: `${folder}/ca.crt` })).toBe("encrypted")
      expect(yield* encryption(`${url}?sslmode=verify-ca${other}`)).toMatch(refused)
      expect(yield* encryption(`${localhost}?sslmode=verify-full${ours}`)).toBe("encrypted")
      expect(yield* encryption(`${url}?sslmode=verify-full${ours}`)).toMatch(refused)
      expect(yield* encryption(`${localhost}?ssl=true`)).toMatch(refused)
      expect(yield* encryption(`${localhost}?ssl=true${ours}`)).toBe("encrypted")
      expect(yield* encryption(`${localhost}?sslmode=prefer`)).toMatch(refused)
      const plain = (yield* Database.freshDatabase()).url
      expect(yield* encryption(`${plain}?sslmode=prefer`)).toBe("plain")
      expect(yield* encryption(plain, { PGSSLMODE: "allow" })).toBe("plain")
      expect(yield* encryption(`${plain}?sslmode=require`)).toMatch(/does not support TLS|refused TLS/)
    }),
    60_000
  )
})

describe("the layers", () => {
  const schemaOf = Effect.map(Migrator.status, ({ schema }) => schema)

  test(
    "services and client of a server, and of an embedded database",
    Effect.gen(function*() {
      const { url } = yield* Database.freshDatabase({ migrated: false })
      const ofServer = yield* resolve({ env: { DATABASE_URL: url, KONGTASK_SCHEMA: "of_env" } })
      const missing = yield* Effect.flip(
        Layer.build(Configuration.services(ofServer, { migrate: false }))
      )
      expect(missing.reason._tag).toBe("SchemaMissing")
      expect(yield* Effect.provide(schemaOf, Configuration.services(ofServer))).toBe("of_env")
      const embedded = yield* resolve({ flags: { embedded: "data", schema: "of_flag" } })
      expect(yield* Effect.provide(schemaOf, Configuration.services(embedded))).toBe("of_flag")
      expect(Fs.existsSync(`${embedded.folder}/data`)).toBe(true)
      const rows = yield* Effect.flatMap(
        SqlClient.SqlClient,
        (sql) => sql`select 1 from pg_namespace where nspname = 'of_flag'`
      ).pipe(Effect.provide(Configuration.client(embedded)))
      expect(rows).toHaveLength(1)
    }),
    60_000
  )

  test(
    "KongTask.layerConfig reads the same settings",
    Effect.gen(function*() {
      const { url } = yield* Database.freshDatabase({ migrated: false })
      const folder = yield* folderWith({ "my.config.toml": `databaseUrl = "${url}"\nschema = "of_file"\n` })
      const env = { KONGTASK_CONFIG: `${folder}/my.config.toml` }
      const status = yield* schemaOf.pipe(
        Effect.provide(
          Layer.provide(KongTask.layerConfig, ConfigProvider.layer(ConfigProvider.fromEnvRecord(env)))
        )
      )
      expect(status).toBe("of_file")
    })
  )
})

describe("docs/configuration.md", () => {
  const page = Fs.readFileSync(new URL("../docs/configuration.md", import.meta.url), "utf8")

  it("has every setting with its flag, its variables and its default", () => {
    const rows = page.split("\n").filter((line) => line.startsWith("| `")).map((line) =>
      line.split(/(?<!\\)\|/).slice(1, 5).map((cell) => cell.trim())
    )
    const cell = (names: ReadonlyArray<string>) => names.map((name) => `\`${name}\``).join(", ")
    const expected = Configuration.names.map((name) => {
      const setting = Configuration.settings[name] as Configuration.Setting<any>
      const value = Configuration.display(name, setting.fallback)
      return [
        cell([name]),
        cell(setting.flag === undefined ? [] : [setting.flag]),
        cell([...setting.environment, ...(setting.negated ?? [])]),
        value === undefined ? "" : `\`${String(value)}\``
      ]
    })
    expect(rows.slice(0, expected.length)).toEqual(expected)
  })
})
