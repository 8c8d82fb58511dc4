/**
 * The blocks of a Markdown file: which lines are code, and which are headings.
 */
import { blank } from "./document.ts"

export interface Blocks {
  /** The text with spaces in place of code blocks, comments and front matter. */
  readonly prose: string
  /** As they are written, without their marks. */
  readonly headings: ReadonlyArray<string>
}

const listItem = /^\s*(?:[-*+]|\d{1,9}[.)])\s/
const fenceStart = /^\s*(?:(?:[-*+]|\d{1,9}[.)])\s+)*(?:(`{3,})[^`]*|(~{3,}).*)$/
const fenceEnd = /^\s*(`{3,}|~{3,})\s*$/

/** The line that closes the front matter; -1 without one. */
const frontMatterEnd = (lines: ReadonlyArray<string>): number =>
  lines[0]?.trimEnd() === "---" ? lines.findIndex((line, n) => n > 0 && /^(?:---|\.\.\.)\s*$/.test(line)) : -1

/** Answers for each line whether it is (part of) something that holds no running text. */
const makeSkipper = () => {
  let fence: { readonly mark: string; readonly isQuoted: boolean } | undefined
  let isComment = false
  let isIndentedCode = false
  let isList = false
  let isAfterBlank = true

  const isInside = (line: string, isQuoted: boolean): boolean => {
    if (isComment) {
      isComment = !line.includes("-->")
      return true
    }
    if (fence === undefined) return false
    const isLeft = fence.isQuoted && !isQuoted
    if (isLeft || fenceEnd.exec(line)?.[1]?.startsWith(fence.mark) === true) fence = undefined
    return !isLeft
  }

  return (line: string, isQuoted: boolean): boolean => {
    if (isInside(line, isQuoted)) return true
    if (line.trim() === "") {
      isAfterBlank = true
      return false
    }
    const opening = fenceStart.exec(line)
    if (listItem.test(line)) isList = true
    else if (isAfterBlank && !/^\s/.test(line)) isList = false
    isIndentedCode = !isList && /^(?: {4}|\t)/.test(line) && (isIndentedCode || isAfterBlank)
    // A paragraph goes on below a list item without being indented, but not behind a code block.
    isAfterBlank = opening !== null
    if (opening !== null) fence = { mark: opening[1] ?? opening[2]!, isQuoted }
    else isComment = /^ {0,3}<!--/.test(line) && !line.includes("-->")
    return isIndentedCode || isComment || fence !== undefined
  }
}

export const readBlocks = (text: string): Blocks => {
  const lines = text.split("\n")
  const bodyStart = frontMatterEnd(lines) + 1
  const isSkipped = makeSkipper()
  const headings: Array<string> = []
  /** The lines above, which an underline would make a heading. */
  let paragraph: Array<string> = []

  const readLine = (line: string, number: number): string => {
    if (number < bodyStart) return blank(line)
    const content = line.replace(/^(?: {0,3}> ?)+/, "")
    if (isSkipped(content, content !== line)) {
      paragraph = []
      return blank(line)
    }
    const heading = /^ {0,3}#{1,6}(?:[ \t]+(.*))?$/.exec(content)
    const isUnderline = paragraph.length > 0 && /^ {0,3}(?:=+|-+)\s*$/.test(content)
    if (heading !== null) headings.push((heading[1] ?? "").replace(/(?:^|[ \t]+)#+[ \t]*$/, ""))
    else if (isUnderline) headings.push(paragraph.join(" "))
    const isText = heading === null && !isUnderline && content.trim() !== "" && !listItem.test(content) &&
      !content.includes("|")
    paragraph = isText ? [...paragraph, content.trim()] : []
    return line
  }
  return { prose: lines.map(readLine).join("\n"), headings }
}
