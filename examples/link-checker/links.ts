/**
 * Finds the links and anchors of a file, by its kind.
 */
import type { Document } from "./document.ts"
import { parseMarkdown } from "./markdown.ts"
import { parseSource, parseSql } from "./source.ts"

const parsers: ReadonlyArray<readonly [extensions: RegExp, parse: (text: string) => Document]> = [
  [/\.(?:md|markdown|mdx)$/i, parseMarkdown],
  [/\.(?:ts|tsx|mts|cts|js|jsx|mjs|cjs)$/i, parseSource],
  [/\.sql$/i, parseSql]
]

const parserOf = (file: string) => parsers.find(([extensions]) => extensions.test(file))?.[1]

/** Whether a file of this name is one to check. */
export const isChecked = (file: string): boolean => parserOf(file) !== undefined

/** Whether links may name an anchor of this file: a line of source code (`#L10`) is not one. */
export const hasAnchors = (file: string): boolean => parserOf(file) === parseMarkdown

/** A file of another kind, which somebody named, is read as Markdown. */
export const parse = (file: string, text: string): Document => (parserOf(file) ?? parseMarkdown)(text)
