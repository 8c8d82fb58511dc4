import * as Cron from "effect/Cron"
import type * as DateTime from "effect/DateTime"

/** What is wrong at a place of a text, counted from 0. */
export interface Problem {
  readonly at: number
  readonly problem: string
}

/** A piece of a line and where it begins, counted from 0. */
export interface Token {
  readonly text: string
  readonly at: number
}

const names = (list: string, first: number): ReadonlyMap<string, number> =>
  new Map(list.split(" ").map((name, index) => [name, index + first]))

interface Field {
  readonly name: string
  readonly min: number
  readonly max: number
  readonly names: ReadonlyMap<string, number>
}

const noNames: ReadonlyMap<string, number> = new Map()

/** The five fields in their order. */
const fieldsInOrder: ReadonlyArray<Field> = [
  { name: "minute", min: 0, max: 59, names: noNames },
  { name: "hour", min: 0, max: 23, names: noNames },
  { name: "day of the month", min: 1, max: 31, names: noNames },
  { name: "month", min: 1, max: 12, names: names("jan feb mar apr may jun jul aug sep oct nov dec", 1) },
  { name: "day of the week", min: 0, max: 7, names: names("sun mon tue wed thu fri sat", 0) }
]

/** The words that stand for five fields. */
export const words: ReadonlyMap<string, string> = new Map([
  ["@yearly", "0 0 1 1 *"],
  ["@annually", "0 0 1 1 *"],
  ["@monthly", "0 0 1 * *"],
  ["@weekly", "0 0 * * 0"],
  ["@daily", "0 0 * * *"],
  ["@midnight", "0 0 * * *"],
  ["@hourly", "0 * * * *"]
])

/** The days of each month in its longest year. */
const monthLengths = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]

/** The values that the five fields allow, in order; days of the week from 0 (Sunday) to 6. */
export interface Fields {
  readonly minutes: ReadonlyArray<number>
  readonly hours: ReadonlyArray<number>
  readonly days: ReadonlyArray<number>
  readonly months: ReadonlyArray<number>
  readonly weekdays: ReadonlyArray<number>
}

const expected = ({ max, min, name, names }: Field): string =>
  `expected ${name === "hour" ? "an" : "a"} ${name} from ${min} to ${max}${
    names.size === 0 ? "" : ` or a name (${[...names.keys()].join(", ")})`
  }`

/** A number or a name; a Sunday that ends a range is the 7th day. */
const valueOf = (field: Field, { at, text }: Token, isEnd: boolean): number | Problem => {
  const named = field.names.get(text.toLowerCase())
  if (named !== undefined) return isEnd && named === 0 ? 7 : named
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN
  return value >= field.min && value <= field.max
    ? value
    : { at, problem: `${expected(field)}, not "${text}"` }
}

const isProblem = (value: number | Problem): value is Problem => typeof value !== "number"

/** One element of a list: `*`, `*` with a step, a number, a range, a range with a step. */
const parsePart = (field: Field, { at, text }: Token): ReadonlyArray<number> | Problem => {
  const [range = "", step, ...more] = text.split("/")
  const stepAt = at + range.length + 1
  if (more.length > 0) return { at: stepAt, problem: "has more than one step" }
  if (step !== undefined && !/^0*[1-9]\d*$/.test(step)) {
    return { at: stepAt, problem: `expected a step of 1 or more, not "${step}"` }
  }
  const [start = "", end, ...rest] = range.split("-")
  if (rest.length > 0) return { at, problem: `${expected(field)}, or a range of two of them, not "${range}"` }
  let first = field.min
  let last = field.max === 7 ? 6 : field.max
  if (range !== "*") {
    const from = valueOf(field, { text: start, at }, false)
    if (isProblem(from)) return from
    const to = end === undefined ? from : valueOf(field, { text: end, at: at + start.length + 1 }, true)
    if (isProblem(to)) return to
    if (end !== undefined && to <= from) {
      return { at, problem: `expected a range whose end comes after its start, not "${range}"` }
    }
    if (end === undefined && step !== undefined) {
      return { at, problem: `expected a range or * before a step: "${start}-${last}/${step}"` }
    }
    first = from
    last = to
  }
  const values: Array<number> = []
  for (let value = first; value <= last; value += Number(step ?? 1)) values.push(field.max === 7 ? value % 7 : value)
  return values
}

const parseField = (field: Field, token: Token): ReadonlyArray<number> | ReadonlyArray<Problem> => {
  const values = new Set<number>()
  const problems: Array<Problem> = []
  let at = token.at
  for (const text of token.text.split(",")) {
    const part = parsePart(field, { text, at })
    if ("problem" in part) problems.push(part)
    else part.forEach((value) => values.add(value))
    at += text.length + 1
  }
  return problems.length > 0 ? problems : [...values].toSorted((a, b) => a - b)
}

const hasProblems = (
  result: ReadonlyArray<number> | ReadonlyArray<Problem>
): result is ReadonlyArray<Problem> => typeof result[0] === "object"

/** Parses five fields, or a word that stands for them; all that is wrong with them at once. */
export const parse = (tokens: ReadonlyArray<Token>): Fields | ReadonlyArray<Problem> => {
  const results = tokens.map((token, index) => parseField(fieldsInOrder[index]!, token))
  const problems = results.flatMap((result) => hasProblems(result) ? result : [])
  if (problems.length > 0) return problems
  const [minutes, hours, days, months, weekdays] = results as ReadonlyArray<ReadonlyArray<number>>
  const fields = { minutes: minutes!, hours: hours!, days: days!, months: months!, weekdays: weekdays! }
  return isImpossible(fields)
    ? [{ at: tokens[2]!.at, problem: "is a date that never comes: none of the months has such a day" }]
    : fields
}

/** A day of the week comes in any month. */
const isImpossible = ({ days, months, weekdays }: Fields): boolean =>
  weekdays.length === 7 && !months.some((month) => days[0]! <= monthLengths[month - 1]!)

/** Whether parsing has found something wrong. */
export const areProblems = (result: Fields | ReadonlyArray<Problem>): result is ReadonlyArray<Problem> =>
  Array.isArray(result)

/** The pieces of a text between white space. */
export const tokens = (text: string, offset: number): ReadonlyArray<Token> =>
  Array.from(text.matchAll(/\S+/g), (match) => ({ text: match[0], at: offset + match.index }))

/** Five fields, or a word, and nothing else. */
export const parseExpression = (expression: string): Fields | ReadonlyArray<Problem> => {
  const found = tokens(expression, 0)
  const word = found.length === 1 && found[0]!.text.startsWith("@") ? found[0]! : undefined
  if (word !== undefined) {
    const fields = words.get(word.text.toLowerCase())
    return fields === undefined ? [unknownWord(word)] : parse(tokens(fields, 0))
  }
  return found.length === 5
    ? parse(found)
    : [{
      at: 0,
      problem: `expected 5 fields (minute hour day month weekday) or a word such as @daily, not ${found.length}`
    }]
}

export const unknownWord = ({ at, text }: Token): Problem => ({
  at,
  problem: `expected one of ${[...words.keys()].join(", ")}, not "${text}"`
})

/** A field that allows everything restricts nothing: only then the other kind of day decides alone. */
const restricted = (values: ReadonlyArray<number>, all: number): ReadonlyArray<number> =>
  values.length === all ? [] : values

/**
 * The schedule of the fields in a zone. Of a day of the month and a day of the week, when both are restricted, one is
 * enough, as in graphile-worker.
 */
export const toCron = (
  fields: Fields,
  timeZone: DateTime.TimeZone,
  onDstOverlap: Cron.DstOverlapPolicy | undefined
): Cron.Cron =>
  Cron.make({
    minutes: restricted(fields.minutes, 60),
    hours: restricted(fields.hours, 24),
    days: restricted(fields.days, 31),
    months: restricted(fields.months, 12),
    weekdays: restricted(fields.weekdays, 7),
    tz: timeZone,
    // What runs every hour runs in a repeated hour, too.
    onDstOverlap: onDstOverlap ?? (fields.hours.length === 24 ? "both" : "earlier")
  })
