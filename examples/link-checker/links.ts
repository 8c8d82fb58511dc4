/**
 * What is found in a file: its links, and the anchors that others may link to.
 */
import { parseMarkdown } from "./markdown.ts"
import { parseSource, parseSql } from "./source.ts"

export interface Link {
  /** Counted from 1. */
  readonly line: number
  readonly target: string
  /**
   * - `url`: a URL or a path, relative to the file, with an optional `#anchor`
   * - `module`: what an `import` names, where an extension may be left out or stand for another
   * - `undefined`: `[text][label]`, and nothing defines the label
   */
  readonly kind: "url" | "module" | "undefined"
}

export interface Document {
  readonly links: ReadonlyArray<Link>
  readonly anchors: ReadonlySet<string>
}

const parsers: ReadonlyArray<readonly [extensions: RegExp, parse: (text: string) => Document]> = [
  [/\.(?:md|markdown|mdx)$/i, parseMarkdown],
  [/\.(?:ts|tsx|mts|cts|js|jsx|mjs|cjs)$/i, parseSource],
  [/\.sql$/i, parseSql]
]

const parserOf = (file: string) => parsers.find(([extensions]) => extensions.test(file))?.[1]

/** Whether a folder's file of this name is one to check. */
export const isChecked = (file: string): boolean => parserOf(file) !== undefined

/** Whether a file has anchors that are worth checking. */
export const hasAnchors = (file: string): boolean => parserOf(file) === parseMarkdown

/** A file that was named although nothing is known about its kind is read as Markdown. */
export const parse = (file: string, text: string): Document => (parserOf(file) ?? parseMarkdown)(text)

/** Turns offsets into line numbers. */
export const lineCounter = (text: string): (offset: number) => number => {
  const starts = [0]
  for (const { index } of text.matchAll(/\n/g)) starts.push(index + 1)
  return (offset) => {
    let low = 0
    let high = starts.length
    while (high - low > 1) {
      const middle = (low + high) >>> 1
      if (starts[middle]! <= offset) low = middle
      else high = middle
    }
    return low + 1
  }
}

/** Web addresses in running text, without the punctuation that follows them. */
export const bareUrls = (text: string): ReadonlyArray<{ readonly index: number; readonly target: string }> =>
  Array.from(text.matchAll(/\bhttps?:\/\/[^\s<>"'`\\]+/g), ({ 0: found, index }) => {
    let target = found.replace(/[.,;:!?*_~]+$/, "")
    if (target.endsWith(")") && !target.includes("(")) target = target.replace(/\)+[.,;:!?]*$/, "")
    return { index, target }
  })
