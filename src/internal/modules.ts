/**
 * Modules of the user's that are loaded at run time, TypeScript as Node runs it.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import { execFile } from "node:child_process"
import { createRequire, registerHooks } from "node:module"
import { fileURLToPath, pathToFileURL } from "node:url"

/** A module that did not load; `problem` completes "the file …". */
export class ModuleFailed extends Data.TaggedError("ModuleFailed")<{
  readonly problem: string
  readonly at: { readonly line: number; readonly column: number } | undefined
  readonly cause: unknown
}> {}

/** What `text`, a stack or what Node prints of an error, says of the place in the file. */
const placeIn = (url: string, text: string): ModuleFailed["at"] => {
  for (const name of [url, fileURLToPath(url)]) {
    const start = text.indexOf(`${name}:`)
    const [, line, column] = start === -1 ? [] : /^:(\d+)(?::(\d+))?/.exec(text.slice(start + name.length)) ?? []
    // Of a syntax error the line is shown, and below it where in it.
    const caret = /^.*\n.*\n( *)\^/.exec(text.slice(Math.max(0, start)))?.[1]?.length ?? 0
    if (line !== undefined) return { line: Number(line), column: column === undefined ? caret + 1 : Number(column) }
  }
  return undefined
}

/** Node tells the place of a syntax error in JavaScript only when it prints it. */
const placeOfSyntaxError = (file: string): Effect.Effect<ModuleFailed["at"]> =>
  Effect.callback((resume) => {
    const child = execFile(process.execPath, ["--check", file], (_, __, stderr) => {
      resume(Effect.succeed(placeIn(pathToFileURL(file).href, stderr)))
    })
    return Effect.sync(() => void child.kill())
  })

const codeOf = (error: unknown): unknown => Predicate.hasProperty(error, "code") ? error.code : undefined

const problemOf = (error: unknown): string => {
  const said = Predicate.isError(error) ? error.message.split("\n")[0]! : String(error)
  switch (codeOf(error)) {
    case "ERR_MODULE_NOT_FOUND":
    case "MODULE_NOT_FOUND":
      return `imports something that is not there: ${said}. Install it, or correct the import (with its file's ending)`
    case "ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX":
      return `uses TypeScript that Node cannot strip (${said}): no enums, namespaces or parameter properties, ` +
        "or compile it to JavaScript"
    case "ERR_UNKNOWN_FILE_EXTENSION":
      return `cannot be run by this Node (${process.version}): ${said}. TypeScript needs Node 22.18 or later`
  }
  return isSyntaxError(error)
    ? `does not parse: ${said}`
    : `throws when it is imported: ${said}`
}

const isSyntaxError = (error: unknown): error is Error => Predicate.isError(error) && error.name === "SyntaxError"

const placeOf = (file: string, url: string, error: unknown): Effect.Effect<ModuleFailed["at"]> => {
  const at = placeIn(url, Predicate.isError(error) ? error.stack ?? "" : "")
  return at === undefined && isSyntaxError(error) ? placeOfSyntaxError(file) : Effect.succeed(at)
}

/** Imports a file. `query` makes it another module than the one imported before. */
export const importModule = (
  file: string,
  query = ""
): Effect.Effect<Readonly<Record<string, unknown>>, ModuleFailed> => {
  const url = `${pathToFileURL(file).href}${query}`
  return Effect.tryPromise({
    try: (): Promise<Readonly<Record<string, unknown>>> => import(url),
    catch: (error) => new ModuleFailed({ problem: problemOf(error), at: undefined, cause: error })
  }).pipe(
    Effect.catch(({ cause, problem }) =>
      Effect.flatMap(placeOf(file, url, cause), (at) => Effect.fail(new ModuleFailed({ problem, at, cause })))
    )
  )
}

/** The parameter of a module's address that tells its versions apart. */
export const versionParameter = "kongtask"

const isVersioned = new RegExp(`\\?${versionParameter}=\\w+$`)

/** What is of the same program: packages stay what they are. */
const isOwn = (specifier: string): boolean => /^(?:\.{0,2}\/|file:|#)/.test(specifier)

const isModule = /\.[cm]?[jt]s$/

/** A module of CommonJS, which Node keeps by its file's name, and those that it requires; none of other kinds. */
const required = (file: string, found: Set<string> = new Set()): ReadonlySet<string> => {
  const cached = cache[file]
  if (cached === undefined || found.has(file) || file.includes("/node_modules/")) return found
  found.add(file)
  for (const child of cached.children) required(child.filename, found)
  return found
}

const forget = (file: string): void => {
  for (const name of required(file)) delete cache[name]
}

const { cache } = createRequire(import.meta.url)

/**
 * From now on what a module with a version imports is of that version too, and is
 * remembered; until the scope closes.
 */
export const traceImports: Effect.Effect<
  { readonly filesOf: (query: string) => Iterable<string> },
  never,
  Scope.Scope
> = Effect.gen(function*() {
  const files = new Map<string, Set<string>>()
  yield* Effect.acquireRelease(
    Effect.sync(() =>
      registerHooks({
        resolve: (specifier, context, next) => {
          const resolved = next(specifier, context)
          const query = isVersioned.exec(context.parentURL ?? "")?.[0] ?? isVersioned.exec(specifier)?.[0]
          if (query === undefined || !isOwn(specifier) || !resolved.url.startsWith("file:")) return resolved
          const url = new URL(resolved.url)
          url.search = ""
          const file = fileURLToPath(url)
          if (!isModule.test(file)) return resolved
          const known = files.get(query) ?? new Set()
          if (!known.has(file)) forget(file)
          files.set(query, known.add(file))
          return { ...resolved, url: `${url.href}${query}` }
        }
      })
    ),
    (hooks) => Effect.sync(() => hooks.deregister())
  )
  const filesOf = (query: string): Iterable<string> => {
    const imported = files.get(query) ?? new Set()
    const found = new Set<string>()
    for (const file of imported) required(file, found)
    for (const file of imported) found.add(file)
    return found
  }
  return { filesOf }
})
