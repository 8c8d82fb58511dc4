/**
 * Links and anchors of Markdown as GitHub shows it: inline and reference links,
 * images, autolinks, web addresses in the text, and the HTML that may stand in
 * it; the anchors of headings and of HTML elements. Code is left alone.
 */
import { readBlocks } from "./blocks.ts"
import { bareUrls, blankRanges, type Document, lineCounter, type Link } from "./document.ts"
import { slugs } from "./headings.ts"
import { codeSpans, decode, type Range, unescape } from "./inline.ts"

/** A link by its place in the text. */
interface Found {
  readonly offset: number
  readonly target: string
  readonly kind?: Link["kind"]
}

/** Found links, and the places that hold nothing more to find. */
interface Findings {
  readonly links: ReadonlyArray<Found>
  readonly used: ReadonlyArray<Range>
}

const comments = (text: string): ReadonlyArray<Range> => {
  const ranges: Array<Range> = []
  for (let start = text.indexOf("<!--"); start !== -1;) {
    const close = text.indexOf("-->", start + 4)
    if (close === -1) break
    ranges.push([start, close + 3])
    start = text.indexOf("<!--", close + 3)
  }
  return ranges
}

const labelKey = (label: string): string => label.trim().replace(/\s+/g, " ").toLowerCase()

const definition = /^ {0,3}(?:> ?)*\[((?:[^[\]\\]|\\.)+)\]:[ \t]*(?:\n[ \t]*)?(<[^<>\n]*>|[^\s<]\S*)[^\n]*/gm

type Definitions = ReadonlyMap<string, Found>

/** `[label]: target`, by label; the first definition of a label counts. */
const findDefinitions = (
  prose: string,
  text: string
): { readonly byLabel: Definitions; readonly used: ReadonlyArray<Range> } => {
  const byLabel = new Map<string, Found>()
  const used: Array<Range> = []
  for (const { 0: whole, 2: target = "", index } of prose.matchAll(definition)) {
    const offset = index + whole.indexOf("[")
    const key = labelKey(text.slice(offset + 1, text.indexOf("]:", offset)))
    if (key.startsWith("^")) continue
    if (!byLabel.has(key)) byLabel.set(key, { offset, target: unescape(target.replace(/^<|>$/g, "")) })
    used.push([index, index + whole.length])
  }
  return { byLabel, used }
}

/** The destination and the end of what stands in parentheses behind a link's text. */
const destination = (text: string, open: number): { readonly target: string; readonly end: number } | undefined => {
  const angle = /\(\s*<([^<>\n]*)>/y
  angle.lastIndex = open
  const found = angle.exec(text)
  let at = open + (found?.[0].length ?? 1)
  let target = found?.[1]
  if (target === undefined) {
    while (/\s/.test(text[at] ?? "")) at++
    const start = at
    for (let depth = 0; at < text.length; at++) {
      const char = text[at]!
      if (/\s/.test(char)) break
      if (char === "\\") at++
      else if (char === "(") depth++
      else if (char === ")" && depth-- === 0) break
    }
    target = text.slice(start, at)
  }
  const rest = /(?:\s+(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\((?:[^()\\]|\\.)*\)))?\s*\)/y
  rest.lastIndex = at
  const end = rest.exec(text)
  return end === null ? undefined : { target: unescape(target), end: at + end[0].length }
}

/** What a closing bracket completes: an inline link, a reference, or nothing. */
const closeBracket = (
  body: string,
  text: string,
  definitions: Definitions,
  [start, close]: Range
): { readonly link: Found | undefined; readonly end: number; readonly label?: string } | undefined => {
  const inline = body[close + 1] === "(" ? destination(body, close + 1) : undefined
  if (inline !== undefined) return { link: { offset: start, target: inline.target }, end: inline.end }

  const content = text.slice(start + 1, close)
  const end = body[close + 1] === "[" ? body.indexOf("]", close + 2) : -1
  const reference = text.slice(close + 2, end).trim()
  const isFull = end !== -1 && reference !== "" && !reference.includes("[")
  const label = labelKey(isFull ? reference : content)
  const defined = definitions.get(label)
  if (defined !== undefined) {
    return { link: { offset: start, target: defined.target }, end: isFull ? end + 1 : close + 1, label }
  }
  // `[text][label]` without a definition is a mistake, unless it is code, such as a[0][1], or about footnotes.
  const isMistake = isFull && content.trim() !== "" && !/[\p{L}\p{N}_)\]]/u.test(body[start - 1] ?? "") &&
    !content.startsWith("^") && !label.startsWith("^")
  if (!isMistake) return undefined
  return { link: { offset: start, target: `[${reference}]`, kind: "undefined" }, end: end + 1 }
}

const isBlankLine = (text: string, start: number): boolean => {
  const end = text.indexOf("\n", start)
  return text.slice(start, end === -1 ? undefined : end).trim() === ""
}

/**
 * Links in brackets, innermost first; no bracket is closed beyond its paragraph.
 * An address that is the text of a link is no second one, so `whole` has all of
 * the link, `used` what follows its text.
 */
const findBracketed = (
  body: string,
  text: string,
  definitions: Definitions
): Findings & { readonly whole: ReadonlyArray<Range> } => {
  const links: Array<Found> = []
  const used: Array<Range> = []
  const whole: Array<Range> = []
  const unused = new Map(definitions)
  let open: Array<number> = []
  for (let at = 0; at < body.length; at++) {
    const char = body[at]
    if (char === "\\") at++
    else if (char === "[") open.push(at)
    else if (char === "\n" && isBlankLine(body, at + 1)) open = []
    else if (char === "]") {
      const start = open.pop()
      const closed = start === undefined ? undefined : closeBracket(body, text, definitions, [start, at])
      if (closed?.link === undefined) continue
      links.push(closed.link)
      used.push([at, closed.end])
      while (whole.length > 0 && whole.at(-1)![0] > closed.link.offset) whole.pop()
      whole.push([closed.link.offset, closed.end])
      if (closed.label !== undefined) unused.delete(closed.label)
      at = closed.end - 1
    }
  }
  return { links: [...links, ...unused.values()], used, whole }
}

const attribute = /\s(href|src|id|name)\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]+)/gi

/** Autolinks, and what the attributes of HTML elements link to or name. */
const findTags = (body: string): Findings & { readonly names: ReadonlyArray<string> } => {
  const links: Array<Found> = []
  const used: Array<Range> = []
  const names: Array<string> = []
  for (const { 0: tag, index: offset } of body.matchAll(/<([a-zA-Z][^<>]*)>/g)) {
    used.push([offset, offset + tag.length])
    if (/^<[a-zA-Z][a-zA-Z0-9+.-]{1,31}:\S*>$/.test(tag)) {
      links.push({ offset, target: tag.slice(1, -1) })
      continue
    }
    for (const { 1: name = "", 2: quoted = "" } of tag.matchAll(attribute)) {
      const value = decode(quoted.replace(/^["']|["']$/g, ""))
      if (/^(?:href|src)$/i.test(name)) links.push({ offset, target: value })
      else names.push(value)
    }
  }
  return { links, used, names }
}

export const parseMarkdown = (source: string): Document => {
  const text = source.replaceAll("\r", " ")
  const blocks = readBlocks(text)
  const withoutCode = blankRanges(blocks.prose, codeSpans(blocks.prose))
  const prose = blankRanges(withoutCode, comments(withoutCode))

  const definitions = findDefinitions(prose, text)
  const body = blankRanges(prose, definitions.used)
  const bracketed = findBracketed(body, text, definitions.byLabel)
  const tags = findTags(blankRanges(body, bracketed.used))
  const urls = bareUrls(blankRanges(blankRanges(body, bracketed.whole), tags.used))

  const lineOf = lineCounter(text)
  return {
    links: [...bracketed.links, ...tags.links, ...urls]
      .map(({ kind = "url", offset, target }: Found): Link => ({ line: lineOf(offset), target, kind }))
      .toSorted((a, b) => a.line - b.line),
    anchors: new Set([...slugs(blocks.headings), ...tags.names])
  }
}
