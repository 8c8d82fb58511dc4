import * as Effect from "effect/Effect"
import { InvalidConfiguration, KongTaskError } from "../../KongTaskError.ts"

/** The schema that is used unless another one is configured: graphile-worker's. */
export const defaultSchema = "graphile_worker"

/** PostgreSQL cuts longer names off silently. */
const maxBytes = 63

const byteLength = (text: string): number => new TextEncoder().encode(text).byteLength

/** A name as it stands in SQL. */
export const quoteIdentifier = (name: string): string => `"${name.replaceAll("\"", "\"\"")}"`

/** A text as it stands in SQL, whatever `standard_conforming_strings` says. */
export const quoteLiteral = (text: string): string => {
  const quoted = `'${text.replaceAll("'", "''")}'`
  return text.includes("\\") ? ` E${quoted.replaceAll("\\", "\\\\")}` : quoted
}

const schemaNameProblem = (name: string): string | undefined => {
  if (name === "") return "must not be empty"
  const bytes = byteLength(name)
  if (bytes > maxBytes) return `has ${bytes} bytes; the limit is ${maxBytes}`
  if (name.includes("\u0000")) return "has a NUL character, which no name can have"
  if (/\p{Surrogate}/u.test(name)) return "has half a surrogate pair, which no name can have"
  if (name.startsWith("pg_")) return "starts with pg_, which PostgreSQL keeps for its own schemas"
  return undefined
}

/** Answers the name itself, or fails with `InvalidConfiguration` when PostgreSQL cannot have a schema of that name. */
export const validateSchemaName = (name: string): Effect.Effect<string, KongTaskError> => {
  const problem = schemaNameProblem(name)
  return problem === undefined
    ? Effect.succeed(name)
    : Effect.fail(new KongTaskError({ reason: new InvalidConfiguration({ field: "schema", problem }) }))
}
