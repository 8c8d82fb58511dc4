/**
 * What a parser finds in a file, and what all parsers need.
 */
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
  /** What links may name after a `#`. */
  readonly anchors: ReadonlySet<string>
}

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

/** Spaces in place of the text, so that all offsets stay as they are. */
export const blank = (text: string): string => text.replace(/[^\n]/g, " ")

/** Blanks ranges of a text, given in order. */
export const blankRanges = (text: string, ranges: Iterable<readonly [start: number, end: number]>): string => {
  let result = ""
  let at = 0
  for (const [start, end] of ranges) {
    result += text.slice(at, start) + blank(text.slice(start, end))
    at = end
  }
  return result + text.slice(at)
}

const withoutPunctuation = (url: string): string => {
  let end = url.length
  while (".,;:!?*_~)".includes(url[end - 1]!) && !(url[end - 1] === ")" && url.includes("("))) end--
  return url.slice(0, end)
}

/** Web addresses in running text, without the punctuation that follows them. */
export const bareUrls = (text: string): ReadonlyArray<{ readonly offset: number; readonly target: string }> =>
  Array.from(text.matchAll(/\bhttps?:\/\/[^\s<>"'`\\]+/g), ({ 0: found, index }) => ({
    offset: index,
    target: withoutPunctuation(found)
  }))
