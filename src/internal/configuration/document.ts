/**
 * Configuration files: finding one, and reading it as a list of entries, each with its place.
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import { existsSync, readFileSync } from "node:fs"
import { dirname, extname, join, resolve } from "node:path"
import { InvalidConfigurationFile, KongTaskError } from "../../KongTaskError.ts"
import { importModule } from "../modules.ts"

/** A place in a text, both counted from 1. */
export interface Place {
  readonly line: number
  readonly column: number
}

/** A setting as a file has it. */
export interface Entry {
  readonly key: string
  readonly value: unknown
  /** Where its key and its value stand; in a module, where they seem to. */
  readonly keyAt: Place | undefined
  readonly valueAt: Place | undefined
}

export interface Document {
  readonly file: string
  readonly entries: ReadonlyArray<Entry>
}

export interface Issue {
  readonly at: Place | undefined
  readonly problem: string
}

/** The endings that a configuration file may have. */
export const extensions = ["ts", "mts", "js", "mjs", "json", "yaml", "yml", "toml"] as const

const isExtension = (text: string): text is typeof extensions[number] =>
  (extensions as ReadonlyArray<string>).includes(text)

export const invalidFile = (file: string, ...issues: ReadonlyArray<Issue>): KongTaskError =>
  new KongTaskError({
    reason: new InvalidConfigurationFile({
      file,
      issues: issues.map(({ at, problem }) => ({ line: at?.line, column: at?.column, problem }))
    })
  })

/** The nearest folder upwards that has one, and the file in it. */
export const find = (folder: string): Effect.Effect<string | undefined, KongTaskError> =>
  Effect.suspend(() => {
    const files = extensions.map((extension) => join(folder, `kongtask.config.${extension}`)).filter((file) =>
      existsSync(file)
    )
    if (files.length > 1) {
      return Effect.fail(
        invalidFile(files[0]!, {
          at: undefined,
          problem: `is not the only one: ${files.slice(1).join(", ")} is beside it. Keep one of them`
        })
      )
    }
    const parent = dirname(folder)
    return files.length === 1 || parent === folder ? Effect.succeed(files[0]) : find(parent)
  })

const describe = (error: unknown): string => Predicate.isError(error) ? error.message : String(error)

export const read = Effect.fnUntraced(function*(path: string): Effect.fn.Return<Document, KongTaskError> {
  const file = resolve(path)
  const extension = extname(file).slice(1)
  if (!isExtension(extension)) {
    return yield* invalidFile(file, {
      at: undefined,
      problem: `is no configuration file: its name must end in one of ${
        extensions.map((name) => `.${name}`).join(", ")
      }`
    })
  }
  const text = yield* Effect.try({
    try: () => readFileSync(file, "utf8"),
    catch: (error) => invalidFile(file, { at: undefined, problem: `cannot be read: ${describe(error)}` })
  })
  switch (extension) {
    case "json":
    case "yaml":
    case "yml":
      return { file, entries: yield* readYaml(file, text, extension === "json") }
    case "toml":
      return { file, entries: yield* readToml(file, text) }
    default:
      return { file, entries: yield* readModule(file, text) }
  }
})

/** JSON is read as YAML, which it is a part of, because of the places, once it has proved to be JSON. */
const readYaml = Effect.fnUntraced(
  function*(file: string, text: string, isJson: boolean): Effect.fn.Return<ReadonlyArray<Entry>, KongTaskError> {
    const { isMap, isNode, isScalar, LineCounter, parseDocument } = yield* Effect.promise(() => import("yaml"))
    const lines = new LineCounter()
    const document = parseDocument(text, { lineCounter: lines, prettyErrors: false })
    const placeOf = (offset: number): Place => {
      const { col, line } = lines.linePos(offset)
      return { line, column: col }
    }
    if (document.errors.length > 0) {
      return yield* invalidFile(
        file,
        ...document.errors.map(({ message, pos }) => ({ at: placeOf(pos[0]), problem: message }))
      )
    }
    if (isJson) {
      yield* Effect.try({
        try: (): unknown => JSON.parse(text),
        catch: (error) => {
          const offset = /at position (\d+)/.exec(describe(error))?.[1]
          return invalidFile(file, {
            at: offset === undefined ? undefined : placeOf(Number(offset)),
            problem: `is not JSON: ${describe(error).replace(/ (?:in JSON )?at position.*$/s, "")}`
          })
        }
      })
    }
    const { contents } = document
    if (contents === null || (isScalar(contents) && contents.value === null)) return []
    if (!isMap(contents)) return yield* noSettings(file, "a list or a single value")
    return contents.items.map((pair): Entry => {
      const { key, value } = pair
      const rangeOf = (node: unknown) => isNode(node) && node.range ? placeOf(node.range[0]) : undefined
      return {
        key: String(isScalar(key) ? key.value : key),
        value: isNode(value) ? value.toJS(document) : undefined,
        keyAt: rangeOf(key),
        valueAt: rangeOf(value)
      }
    })
  }
)

const readToml = Effect.fnUntraced(
  function*(file: string, text: string): Effect.fn.Return<ReadonlyArray<Entry>, KongTaskError> {
    const { getStaticTOMLValue, ParseError, parseTOML } = yield* Effect.promise(() => import("toml-eslint-parser"))
    const placeOf = (at: { readonly line: number; readonly column: number }): Place => ({
      line: at.line,
      column: at.column + 1
    })
    const document = yield* Effect.try({
      try: () => parseTOML(text),
      catch: (error) =>
        error instanceof ParseError
          ? invalidFile(file, {
            at: placeOf({ line: error.lineNumber, column: error.column }),
            problem: `is not TOML: ${error.message}`
          })
          : invalidFile(file, { at: undefined, problem: `is not TOML: ${describe(error)}` })
    })
    return document.body[0].body.map((node): Entry =>
      node.type === "TOMLKeyValue" && node.key.keys.length === 1
        ? {
          key: keyOf(node.key.keys[0]!),
          value: getStaticTOMLValue(node.value),
          keyAt: placeOf(node.loc.start),
          valueAt: placeOf(node.value.loc.start)
        }
        : {
          key: node.type === "TOMLKeyValue" ? node.key.keys.map(keyOf).join(".") : node.resolvedKey.join("."),
          value: {},
          keyAt: placeOf(node.loc.start),
          valueAt: undefined
        }
    )
  }
)

const keyOf = (key: { readonly type: "TOMLBare"; readonly name: string } | { readonly value: string }): string =>
  "name" in key ? key.name : key.value

const noSettings = (file: string, found: string) =>
  invalidFile(file, {
    at: undefined,
    problem: `has ${found} where its settings should be, such as ${example(extname(file).slice(1))}`
  })

const example = (extension: string): string => {
  switch (extension) {
    case "json":
      return "{ \"jobs\": 10 }"
    case "yaml":
    case "yml":
      return "`jobs: 10`"
    default:
      return "`export default { jobs: 10 }`"
  }
}

/** A module's values have no places; the first line that looks like the key's is shown. */
const readModule = Effect.fnUntraced(
  function*(file: string, text: string): Effect.fn.Return<ReadonlyArray<Entry>, KongTaskError> {
    const module = yield* Effect.mapError(
      importModule(file),
      ({ at, problem }) => invalidFile(file, { at, problem })
    )
    const settings = module.default
    if (!Predicate.isObject(settings) || Array.isArray(settings)) {
      return yield* noSettings(file, settings === undefined ? "no default export" : "something else")
    }
    const lines = text.split("\n")
    return Object.entries(settings).filter(([, value]) => value !== undefined).map(([key, value]): Entry => {
      const pattern = new RegExp(`^((?:.*[{,])?\\s*)["']?${key.replaceAll(/\W/g, "\\$&")}["']?\\s*(?::|,|\\}|$)`)
      const line = lines.findIndex((line) => pattern.test(line))
      const at = line === -1 ? undefined : { line: line + 1, column: pattern.exec(lines[line]!)![1]!.length + 1 }
      return { key, value, keyAt: at, valueAt: at }
    })
  }
)
