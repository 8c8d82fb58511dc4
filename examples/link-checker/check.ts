/**
 * Checks the links of one file against the file system. Nothing is fetched: a
 * web address only counts.
 */
import { Effect, FileSystem, Path } from "effect"
import type { BrokenLink } from "./CheckFile.ts"
import type { Link } from "./document.ts"
import { isIgnored } from "./files.ts"
import { hasAnchors, parse } from "./links.ts"

export interface Checked {
  readonly links: number
  /** How many of the links were checked. */
  readonly local: number
  readonly anchors: number
  readonly broken: ReadonlyArray<BrokenLink>
}

const isExternal = (target: string): boolean => /^(?:[a-z][a-z0-9+.-]*:|\/\/)/i.test(target)

/** Endings that an import may have on disk: none named, or that of the JavaScript which its TypeScript becomes. */
const moduleEndings: ReadonlyArray<readonly [named: RegExp, onDisk: ReadonlyArray<string>]> = [
  [/\.js$/, [".ts", ".tsx", ".d.ts", ".jsx"]],
  [/\.mjs$/, [".mts", ".d.mts"]],
  [/\.cjs$/, [".cts", ".d.cts"]],
  [/$/, [".ts", ".tsx", ".d.ts", ".mts", ".cts", ".js", ".jsx", ".mjs", ".cjs", ".json", "/index.ts", "/index.js"]]
]

const moduleFiles = (file: string): ReadonlyArray<string> => [
  file,
  ...moduleEndings.flatMap(([named, onDisk]) =>
    named.test(file) ? onDisk.map((ending) => file.replace(named, ending)) : []
  )
]

/** A `%` that encodes nothing stands for itself. */
const percentDecoded = (text: string): string =>
  text.replace(/(?:%[0-9a-f]{2})+/gi, (encoded) => {
    const bytes = Uint8Array.from(encoded.slice(1).split("%"), (hex) => Number.parseInt(hex, 16))
    return new TextDecoder().decode(bytes)
  })

export const checkFile = Effect.fn("checkFile")(function*(root: string, file: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const absolute = path.resolve(root, file)
  const document = parse(file, yield* fs.readFileString(absolute))

  /** Its real file system may say no for other reasons than absence; a link into such a place is broken too. */
  const exists = (target: string) => Effect.orElseSucceed(fs.exists(target), () => false)

  const anchorsOf = (target: string) =>
    target === absolute
      ? Effect.succeed(document.anchors)
      : Effect.map(fs.readFileString(target), (text) => parse(target, text).anchors)

  /** What is wrong with a link; `undefined` for a good one. */
  const problemOf = Effect.fnUntraced(function*({ kind, target }: Link) {
    if (kind === "undefined") return "nothing defines this label"
    const [, named = "", anchor = ""] = /^([^?#]*)(?:\?[^#]*)?(?:#(.*))?$/s.exec(target) ?? []
    const pathname = percentDecoded(named)
    if (pathname.includes("\0")) return "no such file or folder"
    const linked = pathname === ""
      ? absolute
      : pathname.startsWith("/")
      ? path.join(root, pathname)
      : path.resolve(path.dirname(absolute), pathname)
    if (isIgnored(path.relative(root, linked))) return undefined

    const candidates = kind === "module" ? moduleFiles(linked) : [linked]
    const found = yield* Effect.findFirst(candidates, exists)
    if (found._tag === "None") return "no such file or folder"
    if (anchor === "" || anchor === "top" || !hasAnchors(linked)) return undefined
    const anchors = yield* anchorsOf(linked)
    return anchors.has(percentDecoded(anchor)) ? undefined : "no such heading or anchor"
  }, Effect.catchTag("PlatformError", (error) => Effect.succeed(error.message)))

  const local = document.links.filter(({ kind, target }) => kind !== "url" || !isExternal(target))
  const problems = yield* Effect.forEach(local, problemOf)
  return {
    links: document.links.length,
    local: local.length,
    anchors: document.anchors.size,
    broken: local.flatMap(({ line, target }, index): ReadonlyArray<BrokenLink> => {
      const problem = problems[index]
      return problem === undefined ? [] : [{ line, target, problem }]
    })
  } satisfies Checked
})
