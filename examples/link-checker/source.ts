/**
 * Links in source code: what it imports by a relative path, files that it names
 * relative to itself, and the web addresses in its comments.
 *
 * The scanner knows just enough of the language to tell code from strings,
 * templates, comments and regular expressions.
 */
import { bareUrls, type Document, lineCounter, type Link } from "./document.ts"

/** After these a slash begins a regular expression, as it does after most punctuation. */
const beforeRegExp = new Set(
  "return typeof case in of delete void throw new else do instanceof yield await".split(" ")
)

const word = /[\p{ID_Start}$_][\p{ID_Continue}$]*/uy
const quoted = /"[^"\\\n]*(?:\\[\s\S][^"\\\n]*)*"|'[^'\\\n]*(?:\\[\s\S][^'\\\n]*)*'/y
const regExp = /\/(?:[^/\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/[a-z]*/y
const ofThisModule = /\s*,\s*import\s*\.\s*meta\s*\.\s*url\s*,?\s*\)/y

const isRelative = (target: string): boolean => /^\.{1,2}(?:\/|$)/.test(target)

/** The end of the comment that begins at `start`. */
const commentEnd = (text: string, start: number): number => {
  const end = text[start + 1] === "/" ? text.indexOf("\n", start) : text.indexOf("*/", start + 2)
  return end === -1 ? text.length : text[start + 1] === "/" ? end : end + 2
}

/** The end of the template text that begins at `start`: behind its backtick, or behind the `${` of a substitution. */
const templateEnd = (text: string, start: number): { readonly end: number; readonly isOpen: boolean } => {
  for (let i = start; i < text.length; i++) {
    if (text[i] === "\\") i++
    else if (text[i] === "`") return { end: i + 1, isOpen: false }
    else if (text[i] === "$" && text[i + 1] === "{") return { end: i + 2, isOpen: true }
  }
  return { end: text.length, isOpen: false }
}

const match = (pattern: RegExp, text: string, offset: number): string | undefined => {
  pattern.lastIndex = offset
  return pattern.exec(text)?.[0]
}

export const parseSource = (text: string): Document => {
  const lineOf = lineCounter(text)
  const links: Array<Link> = []
  /** The last tokens, the latest first; a string stands for all strings. */
  let before: ReadonlyArray<string> = []
  /** For each substitution of a template that is open: how many braces are open in it. */
  const braces: Array<number> = []

  const kindOf = (end: number): Link["kind"] | undefined => {
    const [last, second, third] = before
    if ((last === "from" || last === "import") && second !== ".") return "module"
    if (last !== "(") return undefined
    if ((second === "import" || second === "require") && third !== ".") return "module"
    return second === "URL" && third === "new" && match(ofThisModule, text, end) !== undefined ? "url" : undefined
  }
  const startsRegExp = (): boolean => {
    const last = before[0]
    return last === undefined || beforeRegExp.has(last) || /^[^\p{ID_Continue}$)\]}"]$/u.test(last)
  }
  const skipTemplate = (start: number): number => {
    const { end, isOpen } = templateEnd(text, start)
    if (isOpen) braces.push(0)
    return end
  }

  let at = 0
  const take = (length: number, token: string) => {
    at += length
    before = [token, ...before.slice(0, 2)]
  }
  while (at < text.length) {
    const char = text[at]!
    if (/\s/.test(char)) {
      at++
    } else if (char === "/" && (text[at + 1] === "/" || text[at + 1] === "*")) {
      const end = commentEnd(text, at)
      for (const url of bareUrls(text.slice(at, end))) {
        links.push({ line: lineOf(at + url.offset), target: url.target, kind: "url" })
      }
      at = end
    } else if (char === "`" || (char === "}" && braces.at(-1) === 0)) {
      if (char === "}") braces.pop()
      take(skipTemplate(at + 1) - at, "\"")
    } else if (char === "\"" || char === "'") {
      const literal = match(quoted, text, at)
      const target = literal?.slice(1, -1) ?? ""
      const kind = isRelative(target) ? kindOf(at + literal!.length) : undefined
      if (kind !== undefined) links.push({ line: lineOf(at), target, kind })
      take(literal?.length ?? 1, "\"")
    } else if (char === "/" && startsRegExp()) {
      take(match(regExp, text, at)?.length ?? 1, "\"")
    } else {
      if (braces.length > 0 && (char === "{" || char === "}")) braces.push(braces.pop()! + (char === "{" ? 1 : -1))
      const token = match(word, text, at) ?? char
      take(token.length, token)
    }
  }
  return { links, anchors: new Set() }
}

/** The web addresses in the comments of SQL. */
export const parseSql = (text: string): Document => {
  const lineOf = lineCounter(text)
  const links: Array<Link> = []
  for (const { 0: comment, index } of text.matchAll(/'[^']*'|--[^\n]*|\/\*[\s\S]*?\*\//g)) {
    if (comment.startsWith("'")) continue
    for (const url of bareUrls(comment)) {
      links.push({ line: lineOf(index + url.offset), target: url.target, kind: "url" })
    }
  }
  return { links, anchors: new Set() }
}
