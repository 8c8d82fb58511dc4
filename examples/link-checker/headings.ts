/**
 * The anchors that GitHub gives to the headings of a Markdown file.
 */
import { codeSpans, unescape } from "./inline.ts"

/** The text of a heading as a reader sees it. */
const plainText = (heading: string): string => {
  let result = ""
  let at = 0
  const readable = (markup: string) =>
    unescape(
      markup
        .replace(/\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])/g, "$1")
        .replace(/<\/?[a-zA-Z][^<>]*>/g, "")
        .replace(/(?<![\p{L}\p{N}_\\])(_{1,2})(?=[^\s_])(.*?[^\s_])\1(?![\p{L}\p{N}_])/gu, "$2")
    )
  // A link around a code span is taken apart by its brackets alone, so its target goes first.
  const source = heading.replace(/!\[[^\]]*\]\([^()\s]*\)/g, "").replace(/\]\([^()\s]*\)/g, "]")
  for (const [start, end] of codeSpans(source)) {
    const code = source.slice(start, end).replace(/^`+|`+$/g, "").trim()
    result += readable(source.slice(at, start)) + code
    at = end
  }
  return result + readable(source.slice(at))
}

/** GitHub's anchors of headings: letters, digits, hyphens and underscores; a repeated one gets a number. */
export const slugs = (headings: ReadonlyArray<string>): ReadonlyArray<string> => {
  const used = new Map<string, number>()
  return headings.map((heading) => {
    const slug = plainText(heading).trim().toLowerCase().replace(/[^\p{L}\p{M}\p{N}\p{Pc}\- ]/gu, "").replaceAll(
      " ",
      "-"
    )
    let unique = slug
    while (used.has(unique)) {
      const repeated = used.get(slug)! + 1
      used.set(slug, repeated)
      unique = `${slug}-${repeated}`
    }
    used.set(unique, 0)
    return unique
  })
}
