/**
 * The flags that settings can come from, and those that several commands share.
 */
import * as Flag from "effect/cli/Flag"
import * as DateTime from "effect/DateTime"
import * as Option from "effect/Option"
import { parseDuration } from "../configuration/settings.ts"

/** Reads an instant: `2026-01-31T08:00:00Z`, `2026-01-31 08:00`, `2026-01-31`; UTC where it names no offset. */
export const parseTime = (text: string): Option.Option<DateTime.Utc> => {
  const match = /^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?)\s*(Z|[+-]\d{2}:?\d{2})?)?$/i.exec(
    text.trim()
  )
  if (match === null) return Option.none()
  return DateTime.make(`${match[1]}T${match[2] ?? "00:00"}${match[3]?.toUpperCase() ?? "Z"}`)
    .pipe(Option.map(DateTime.toUtc))
}

export const duration = (name: string) =>
  Flag.String(name).pipe(
    Flag.filterMap(parseDuration, () => "a duration such as 30s, \"5 minutes\" or 1500 (milliseconds)"),
    Flag.withMetavar("duration")
  )

export const time = (name: string) =>
  Flag.String(name).pipe(
    Flag.filterMap(parseTime, () => "a time such as 2026-01-31T08:00:00Z"),
    Flag.withMetavar("time")
  )

export const integer = (name: string, minimum: number, maximum: number) =>
  Flag.Int(name).pipe(
    Flag.filter(
      (value) => value >= minimum && value <= maximum,
      () => `a whole number from ${minimum} to ${maximum}`
    ),
    Flag.withMetavar("number")
  )

/** A flag that stays `undefined` where it was not given. */
export const orUndefined = <A>(flag: Flag.Flag<A>): Flag.Flag<A | undefined> =>
  Flag.map(Flag.optional(flag), Option.getOrUndefined)

/** A flag that is on or off, and off unless given. */
export const toggle = (name: string) => Flag.Boolean(name).pipe(Flag.withoutNegation, Flag.withDefault(false))

/** Of every command. */
export const shared = {
  config: Flag.String("config").pipe(
    Flag.withAlias("C"),
    Flag.withMetavar("file"),
    Flag.withDescription("The configuration file, instead of kongtask.config.* found upwards from here"),
    orUndefined
  ),
  databaseUrl: Flag.Redacted("database-url").pipe(
    Flag.withAlias("connection"),
    Flag.withAlias("c"),
    Flag.withMetavar("url"),
    Flag.withDescription("Where PostgreSQL is: postgres://user:password@host:port/database"),
    orUndefined
  ),
  schema: Flag.String("schema").pipe(
    Flag.withAlias("s"),
    Flag.withMetavar("name"),
    Flag.withDescription("The schema that holds the jobs (default: graphile_worker)"),
    orUndefined
  ),
  embedded: Flag.String("embedded").pipe(
    Flag.withMetavar("folder"),
    Flag.withOptionalValue(".kongtask"),
    Flag.withDescription("Use PostgreSQL inside this process, kept in a folder (default: .kongtask)"),
    orUndefined
  ),
  json: toggle("json").pipe(Flag.withDescription("Print JSON")),
  debug: toggle("debug").pipe(Flag.withDescription("Show debug logs, and the whole cause of an error"))
}
