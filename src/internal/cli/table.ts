/**
 * Tables of plain text that fit a width.
 */
import { displayWidth } from "effect/cli/CliOutput"

/** A column; of the flexible ones the widest give way when the table is too wide. */
export interface Column<Row> {
  readonly title: string
  readonly cell: (row: Row) => string
  readonly isNumber?: boolean | undefined
  readonly isFlexible?: boolean | undefined
}

const gap = "  "
const minimum = 8

/** One line of what may be several, without what a terminal would obey. */
export const plain = (text: string): string =>
  text.replace(/\s+/g, " ").trim()
    // oxlint-disable-next-line no-control-regex
    .replace(/[\u0000-\u001f\u007f-\u009f]/g, (character) =>
      `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`)

/** The text within so many columns of a terminal, its end replaced by an ellipsis where it is cut. */
export const fit = (text: string, width: number): string => {
  if (displayWidth(text) <= width) return text
  let kept = ""
  let used = 0
  for (const character of text) {
    used += displayWidth(character)
    if (used > width - 1) break
    kept += character
  }
  return `${kept}…`
}

const pad = (text: string, width: number, isNumber: boolean | undefined): string => {
  const space = " ".repeat(Math.max(0, width - displayWidth(text)))
  return isNumber === true ? space + text : text + space
}

const shrink = (widths: Array<number>, isFlexible: ReadonlyArray<boolean>, width: number) => {
  const total = () => widths.reduce((sum, each) => sum + each, gap.length * (widths.length - 1))
  while (total() > width) {
    const widest = widths.reduce(
      (best, each, i) => isFlexible[i] && each > minimum && (best < 0 || each > widths[best]!) ? i : best,
      -1
    )
    if (widest < 0) return
    widths[widest]!--
  }
}

/** The lines of a table: its titles, and a line a row. Columns that are empty in every row are left out. */
export const render = <Row>(
  columns: ReadonlyArray<Column<Row>>,
  rows: ReadonlyArray<Row>,
  width: number
): ReadonlyArray<string> => {
  const cells = rows.map((row) => columns.map((column) => plain(column.cell(row))))
  const shown = columns.map((column, i) => ({ column, i })).filter(({ i }) => cells.some((row) => row[i] !== ""))
  const widths = shown.map(({ column, i }) =>
    cells.reduce((most, row) => Math.max(most, displayWidth(row[i]!)), displayWidth(column.title))
  )
  shrink(widths, shown.map(({ column }) => column.isFlexible === true), width)
  const line = (texts: ReadonlyArray<string>) =>
    shown.map(({ column }, at) => pad(fit(texts[at]!, widths[at]!), widths[at]!, column.isNumber))
      .join(gap).trimEnd()
  return [
    line(shown.map(({ column }) => column.title)),
    ...cells.map((row) => line(shown.map(({ i }) => row[i]!)))
  ]
}
