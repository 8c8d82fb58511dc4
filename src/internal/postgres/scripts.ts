import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { createHash } from "node:crypto"
import { fileURLToPath } from "node:url"
import { InvalidConfiguration, KongTaskError } from "../../KongTaskError.ts"
import { quoteIdentifier, quoteLiteral } from "./schema.ts"

/** A numbered file of the package's folder `migrations`, `0001_contract.sql` for one. */
export interface Script {
  readonly id: number
  /** The file's name without `.sql`. */
  readonly name: string
  /** Whether a program that does not know this migration can no longer use the schema. */
  readonly breaking: boolean
  /** Whether it only creates or replaces, so that it repairs what something else has overwritten. */
  readonly repeatable: boolean
  readonly sql: string
}

/** An index of the jobs. */
export interface IndexScript {
  readonly name: string
  /** One statement, `create index … on …`. */
  readonly sql: string
}

/** Everything in the folder `migrations`. */
export interface Scripts {
  /** Oldest first. */
  readonly migrations: ReadonlyArray<Script>
  /** What a schema that graphile-worker made gets instead of the first migration. */
  readonly adoption: string
  /** The indexes that our claims use. */
  readonly indexes: ReadonlyArray<IndexScript>
  /** The indexes that graphile-worker's claims use. */
  readonly interop: ReadonlyArray<IndexScript>
}

const folder = "../../../migrations/"

const unreadable = (cause: unknown): KongTaskError =>
  new KongTaskError({
    reason: new InvalidConfiguration({
      field: "migrations",
      problem: `cannot be read: ${cause instanceof Error ? cause.message : String(cause)}. They are the package's ` +
        `folder "migrations"; a bundler has to keep kongtask external, or copy the folder`
    })
  })

const parse = (file: string, sql: string): Effect.Effect<Script, KongTaskError> => {
  const id = /^(\d{4})_\w+\.sql$/.exec(file)?.[1]
  const [, breaking, repeatable] = /^-- breaking: (true|false)\r?\n(-- repeatable: true\r?\n)?/.exec(sql) ?? []
  return id === undefined || breaking === undefined
    ? Effect.fail(unreadable(`${file} has no number in its name or no flag in its first line`))
    : Effect.succeed({
      id: Number(id),
      name: file.slice(0, -".sql".length),
      breaking: breaking === "true",
      repeatable: repeatable !== undefined,
      sql
    })
}

const parseIndexes = (sql: string): ReadonlyArray<IndexScript> =>
  Array.from(sql.matchAll(/^create index (\w+)[^;]+/gm), ([statement, name]) => ({ name: name!, sql: statement }))

/** Reads the package's migrations. */
export const load: Effect.Effect<Scripts, KongTaskError> = Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  const directory = yield* Effect.try({
    try: () => fileURLToPath(new URL(folder, import.meta.url)),
    catch: unreadable
  })
  const read = (name: string) => Effect.mapError(files.readFileString(`${directory}/${name}`), unreadable)
  const names = yield* Effect.mapError(files.readDirectory(directory), unreadable)
  return {
    migrations: yield* Effect.forEach(
      names.filter((name) => /^\d/.test(name)).toSorted(),
      (name) => Effect.flatMap(read(name), (sql) => parse(name, sql))
    ),
    adoption: yield* read("adopt.sql"),
    indexes: parseIndexes(yield* read("indexes.sql")),
    interop: parseIndexes(yield* read("interop.sql"))
  }
}).pipe(Effect.provide(NodeFileSystem.layer))

/** A dollar quote that the text does not contain, so that it can stand around it. */
const dollarQuote = (text: string): string => {
  let tag = "$kongtask$"
  for (let n = 1; text.includes(tag); n++) tag = `$kongtask${n}$`
  return tag
}

/**
 * A script for one schema. Scripts quote function bodies with `$body$`, which
 * becomes a tag that the name of the schema does not contain.
 */
export const render = (sql: string, schema: string): string => {
  const identifier = quoteIdentifier(schema)
  const literal = quoteLiteral(schema)
  const body = dollarQuote(schema)
  return sql
    .replaceAll("$body$", () => body)
    .replaceAll(/:schema(_literal)?\b/g, (_, isLiteral) => isLiteral === undefined ? identifier : literal)
}

/** Many statements as one: the driver's protocol takes only one at a time. */
export const asOneStatement = (script: string): string => {
  const inner = dollarQuote(script)
  const outer = dollarQuote(script + inner)
  return `do ${outer} begin execute ${inner}${script}${inner}; end ${outer}`
}

/** A function and the SHA-256 of its body, in hexadecimal, as `pg_proc.prosrc` has it. */
export interface Fingerprint {
  readonly name: string
  readonly hash: string
}

/** The functions that the repeatable scripts make in a schema. */
export const fingerprints = (scripts: Scripts, schema: string): ReadonlyArray<Fingerprint> =>
  scripts.migrations.filter(({ repeatable }) => repeatable).flatMap(({ sql }) =>
    Array.from(
      sql.matchAll(/^create or replace function :schema\.(\w+)[^$]*\$body\$([^]*?)\$body\$/gm),
      ([, name, body]) => ({
        name: name!,
        hash: createHash("sha256").update(render(body!, schema)).digest("hex")
      })
    )
  )
