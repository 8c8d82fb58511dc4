/**
 * Which value each setting has, and where it comes from: a flag, an environment variable, a file, or the default, in
 * this order.
 */
import type * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { dirname, resolve as resolvePath } from "node:path"
import { InvalidConfiguration, KongTaskError } from "../../KongTaskError.ts"
import * as Document from "./document.ts"
import { nearest } from "./nearest.ts"
import { isName, type Name, names, type Setting, settings, type Values } from "./settings.ts"

/** Where a value comes from. */
export type Source =
  | { readonly _tag: "Flag"; readonly flag: string }
  | { readonly _tag: "Environment"; readonly variable: string }
  | { readonly _tag: "File"; readonly file: string; readonly line: number | undefined }
  | { readonly _tag: "Default" }

export interface Resolved<A> {
  readonly value: A
  readonly source: Source
}

/** The settings that were given as flags; what is `undefined` was not. */
export type Flags = { readonly [N in Name]?: Values[N] | undefined }

export interface Options {
  readonly flags?: Flags | undefined
  /** The configuration file, instead of looking for one upwards from `folder`. */
  readonly file?: string | undefined
  /** The working folder. Default: that of the process. */
  readonly folder?: string | undefined
}

export interface Configuration {
  /** The configuration file, where there is one. */
  readonly file: string | undefined
  readonly settings: { readonly [N in Name]: Resolved<Values[N]> }
}

const fallback: Source = { _tag: "Default" }

const quoted = (value: unknown): string => {
  const text = JSON.stringify(value) ?? String(value)
  return text.length <= 60 ? text : `${text.slice(0, 59)}…`
}

const problemOf = ({ isSecret, kind }: Setting<any>, value: unknown): string =>
  `must be ${kind.expected}${isSecret === true ? "" : `, not ${quoted(value)}`}`

/** Paths of a file are relative to it. */
const located = (setting: Setting<any>, value: unknown, folder: string): unknown =>
  setting.isPath !== true || (setting === settings.sslRootCert && value === "system")
    ? value
    : Array.isArray(value)
    ? value.map((path: string) => resolvePath(folder, path))
    : resolvePath(folder, value as string)

const fromVariable = Effect.fnUntraced(function*(
  provider: ConfigProvider.ConfigProvider,
  setting: Setting<any>,
  config: (name: string) => Config.Config<unknown>,
  variable: string
): Effect.fn.Return<Option.Option<unknown>, KongTaskError> {
  const node = yield* Effect.mapError(provider.load([variable]), ({ message }) => invalid(variable, message))
  if (node?.value === undefined) return Option.none()
  return yield* config(variable).parse(provider).pipe(
    Effect.mapBoth({
      onFailure: () => invalid(variable, problemOf(setting, node.value)),
      onSuccess: Option.some
    })
  )
})

const invalid = (field: string, problem: string): KongTaskError =>
  new KongTaskError({ reason: new InvalidConfiguration({ field, problem }) })

const fromEnvironment = Effect.fnUntraced(function*(
  provider: ConfigProvider.ConfigProvider,
  setting: Setting<any>,
  folder: string
): Effect.fn.Return<Resolved<unknown> | undefined, KongTaskError> {
  for (const variable of setting.environment) {
    const value = yield* fromVariable(provider, setting, setting.kind.fromText, variable)
    if (Option.isSome(value)) {
      return { value: located(setting, value.value, folder), source: { _tag: "Environment", variable } }
    }
  }
  for (const variable of setting.negated ?? []) {
    const value = yield* fromVariable(provider, setting, setting.kind.fromText, variable)
    if (Option.isSome(value)) return { value: !value.value, source: { _tag: "Environment", variable } }
  }
  return undefined
})

/** The settings of a file; every mistake in it is told at once. */
const fromDocument = Effect.fnUntraced(function*(
  { entries, file }: Document.Document
): Effect.fn.Return<ReadonlyMap<string, Resolved<unknown>>, KongTaskError> {
  const found = new Map<string, Resolved<unknown>>()
  const issues: Array<Document.Issue> = []
  for (const { key, keyAt, value, valueAt } of entries) {
    if (!isName(key)) {
      const meant = nearest(key, names)
      const help = meant === undefined ? `the settings are ${names.join(", ")}` : `did you mean ${quoted(meant)}?`
      issues.push({ at: keyAt, problem: `${quoted(key)} is no setting; ${help}` })
      continue
    }
    const setting = settings[key] as Setting<any>
    const decoded = setting.kind.fromValue(value)
    if (Option.isNone(decoded)) issues.push({ at: valueAt ?? keyAt, problem: `${key} ${problemOf(setting, value)}` })
    else {
      found.set(key, {
        value: located(setting, decoded.value, dirname(file)),
        source: { _tag: "File", file, line: keyAt?.line }
      })
    }
  }
  return issues.length === 0 ? found : yield* Document.invalidFile(file, ...issues)
})

/** What the settings are, without looking at what they mean together. */
export const resolve = Effect.fnUntraced(function*(
  options: Options = {}
): Effect.fn.Return<Configuration, KongTaskError> {
  const provider = yield* ConfigProvider.ConfigProvider
  const folder = resolvePath(options.folder ?? ".")
  const chosen = options.file ?? (yield* chosenFile(provider))
  const file = chosen === undefined ? yield* Document.find(folder) : resolvePath(folder, chosen)
  const inFile = file === undefined ? new Map() : yield* fromDocument(yield* Document.read(file))
  const resolved: Record<string, Resolved<unknown>> = {}
  for (const name of names) {
    const setting = settings[name] as Setting<any>
    const given = options.flags?.[name]
    resolved[name] = given === undefined
      ? (yield* fromEnvironment(provider, setting, folder)) ?? inFile.get(name) ??
        { value: setting.fallback, source: fallback }
      : { value: located(setting, given, folder), source: { _tag: "Flag", flag: setting.flag ?? name } }
  }
  return { file, settings: resolved as Configuration["settings"] }
})

const chosenFile = (provider: ConfigProvider.ConfigProvider): Effect.Effect<string | undefined, KongTaskError> =>
  Effect.mapBoth(provider.load(["KONGTASK_CONFIG"]), {
    onFailure: ({ message }) => invalid("KONGTASK_CONFIG", message),
    onSuccess: (node) => node?.value
  })

/** A source as text: `--schema`, `KONGTASK_SCHEMA`, `kongtask.config.yaml:3`, `default`. */
export const describeSource = (source: Source): string => {
  switch (source._tag) {
    case "Flag":
      return source.flag
    case "Environment":
      return source.variable
    case "File":
      return source.line === undefined ? source.file : `${source.file}:${source.line}`
    case "Default":
      return "default"
  }
}

const redactedUrl = (text: string): string =>
  text.replace(/^(\w+:\/\/[^/?#]*?:)[^/?#]*(?=@)/, "$1<redacted>")
    .replaceAll(/([?&](?:password|sslpassword)=)[^&#]*/g, "$1<redacted>")

/** A value as it may be shown: without passwords, durations as text. */
export const display = (name: Name, value: Values[Name]): unknown => {
  if (value === undefined) return undefined
  if (Redacted.isRedacted(value)) {
    return name === "databaseUrl"
      ? redactedUrl(String(Redacted.value(value)))
      : "<redacted>"
  }
  return Duration.isDuration(value) ? Duration.format(value) : value
}
