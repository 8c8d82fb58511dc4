import type * as Cron from "effect/Cron"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import JSON5 from "json5"
import { unescape } from "node:querystring"
import type * as Job from "../../Job.ts"
import { integerProblem, isBadFlag, taskNameProblem, textProblem } from "../jobSpec.ts"
import * as Fields from "./fields.ts"

/** What a line of a crontab says. */
export interface Line {
  readonly id: string
  readonly task: string
  readonly expression: string
  readonly timeZone: string | undefined
  readonly cron: Cron.Cron
  readonly backfill: Duration.Duration
  readonly maxAttempts: number | undefined
  readonly queueName: string | undefined
  readonly priority: number | undefined
  readonly jobKey: string | undefined
  readonly jobKeyMode: Job.KeyMode | undefined
  readonly flags: ReadonlyArray<string> | undefined
  readonly payload: { readonly [key: string]: Schema.Json }
}

type Options = {
  -readonly [Key in Exclude<keyof Line, "task" | "expression" | "cron" | "payload">]?: Line[Key]
}

/** Sets what an option says, or answers what was expected. */
type Reader = (value: string, options: Options) => string | undefined

const units: Readonly<Record<string, number>> = {
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000
}

const unitNames = ["w", "d", "h", "m", "s"] as const

const ids = /^[_a-zA-Z][-_a-zA-Z0-9]*$/
const taskNames = /^[_a-zA-Z][_a-zA-Z0-9:/_-]*$/
const queueNames = /^[-a-zA-Z0-9_:]+$/
const keyModes: ReadonlySet<string> = new Set<Job.KeyMode>(["replace", "preserve_run_at", "unsafe_dedupe"])

const readers: ReadonlyMap<string, Reader> = new Map<string, Reader>([
  ["id", (value, options) => {
    options.id = value
    return ids.test(value) && textProblem(value, 512, "") === undefined
      ? undefined
      : "letters, digits, _ and -, the first one a letter or _"
  }],
  ["fill", (value, options) => {
    const parts = Array.from(value.matchAll(/(\d+)([smhdw])/g))
    options.backfill = Duration.millis(parts.reduce((sum, [, count, unit]) => sum + Number(count) * units[unit!]!, 0))
    return /^(?:\d+[smhdw])+$/.test(value) && Duration.toMillis(options.backfill) <= maxFill
      ? undefined
      : "numbers, each with one of the units w, d, h, m, s, such as 1d12h, of 100 years at most"
  }],
  ["max", (value, options) => {
    options.maxAttempts = Number(value)
    return /^\d+$/.test(value) && integerProblem(options.maxAttempts, 1) === undefined
      ? undefined
      : "a whole number from 1 to 32767"
  }],
  ["queue", (value, options) => {
    options.queueName = value
    return queueNames.test(value) && textProblem(value, 128, "") === undefined
      ? undefined
      : "1 to 128 letters, digits, _, - and :"
  }],
  ["jobKey", (value, options) => {
    options.jobKey = value
    return textProblem(value, 512, "") === undefined ? undefined : "1 to 512 characters"
  }],
  ["jobKeyMode", (value, options) => {
    options.jobKeyMode = value as Job.KeyMode
    return keyModes.has(value) ? undefined : `one of ${[...keyModes].join(", ")}`
  }],
  ["priority", (value, options) => {
    options.priority = Number(value)
    return /^-?\d+$/.test(value) && integerProblem(options.priority, -32_768) === undefined
      ? undefined
      : "a whole number from -32768 to 32767"
  }],
  ["tz", (value, options) => {
    options.timeZone = value
    return Option.isSome(DateTime.zoneFromString(value))
      ? undefined
      : "a time zone such as Europe/Berlin, UTC or +02:00"
  }],
  ["flags", (value, options) => {
    options.flags = value.split(",")
    return options.flags.some(isBadFlag) ? "flags with commas between them" : undefined
  }]
])

const maxFill = 100 * 365.25 * 86_400_000

const readOptions = (token: Fields.Token, problems: Array<Fields.Problem>): Options => {
  const options: Options = {}
  const seen = new Set<string>()
  let at = token.at + 1
  for (const part of token.text.slice(1).split("&")) {
    const [key, ...rest] = part.split("=")
    const name = unescape(key!.replaceAll("+", " "))
    const value = unescape(rest.join("=").replaceAll("+", " "))
    const reader = readers.get(name)
    if (part !== "") {
      if (reader === undefined) {
        problems.push({
          at,
          problem: `has the unknown option "${name}"; expected one of ${[...readers.keys()].join(", ")}`
        })
      } else if (seen.has(name)) {
        problems.push({ at, problem: `has the option "${name}" twice` })
      } else {
        const expected = reader(value, options)
        if (expected !== undefined) {
          problems.push({ at: at + key!.length + 1, problem: `expected for "${name}" ${expected}, not "${value}"` })
        }
      }
      seen.add(name)
    }
    at += part.length + 1
  }
  return options
}

interface Json5Failure {
  readonly message: string
  readonly columnNumber?: number
}

const readPayload = ({ at, text }: Fields.Token, problems: Array<Fields.Problem>): Line["payload"] => {
  if (!text.startsWith("{")) {
    problems.push({ at, problem: "expected ?options, a payload in braces, or the end of the line" })
    return {}
  }
  const parsed = Result.try({ try: () => JSON5.parse(text), catch: (error) => error as Json5Failure })
  if (Result.isSuccess(parsed)) return parsed.success
  const { columnNumber, message } = parsed.failure
  problems.push({
    at: at + (columnNumber ?? 1) - 1,
    problem: `has a payload that is not JSON5: ${message.replace(/^JSON5: /, "").replace(/ at \d+:\d+$/, "")}`
  })
  return {}
}

const utc = DateTime.zoneMakeNamedUnsafe("UTC")

/** The zone of that name, which has been checked; UTC if there is none. */
export const zoneOf = (name: string | undefined): DateTime.TimeZone =>
  name === undefined ? utc : Option.getOrElse(DateTime.zoneFromString(name), () => utc)

/** Five fields, or a word that stands for them, and what comes after. */
const readTime = (
  line: string,
  problems: Array<Fields.Problem>
):
  | { readonly fields: Fields.Fields | undefined; readonly expression: string; readonly rest: Fields.Token }
  | undefined =>
{
  const found = Fields.tokens(line, 0)
  const isWord = found[0]!.text.startsWith("@")
  const time = found.slice(0, isWord ? 1 : 5)
  const next = found[time.length]
  if (time.length < (isWord ? 1 : 5) || next === undefined) {
    problems.push({
      at: line.length,
      problem: "expected 5 fields (minute hour day month weekday), or a word such as @daily, and then a task"
    })
    return undefined
  }
  const expression = isWord ? Fields.words.get(time[0]!.text.toLowerCase()) : time.map(({ text }) => text).join(" ")
  const fields = expression === undefined
    ? [Fields.unknownWord(time[0]!)]
    : isWord
    ? Fields.parse(Fields.tokens(expression, 0))
    : Fields.parse(time)
  if (Fields.areProblems(fields)) problems.push(...fields)
  return {
    fields: Fields.areProblems(fields) ? undefined : fields,
    expression: expression ?? "",
    rest: { text: line.slice(next.at), at: next.at }
  }
}

/** Parses a line that is neither empty nor a comment; all that is wrong with it at once. */
export const parse = (text: string): Line | ReadonlyArray<Fields.Problem> => {
  const problems: Array<Fields.Problem> = []
  const line = text.trimEnd()
  const time = readTime(line, problems)
  if (time === undefined) return problems
  const [, task = "", gap = "", rest = ""] = /^(\S+)(\s*)([^]*)$/.exec(time.rest.text) ?? []
  const taskProblem = taskNameProblem(task)
  if (!taskNames.test(task) || taskProblem !== undefined) {
    problems.push({
      at: time.rest.at,
      problem: taskNames.test(task)
        ? `has a task's name that ${taskProblem!.problem}`
        : `expected a task's name (letters, digits, _, -, : and /, the first one a letter or _), not "${task}"`
    })
  }
  const restAt = time.rest.at + task.length + gap.length
  const given = rest.startsWith("?") ? /^\S+/.exec(rest)![0] : undefined
  const options = given === undefined ? {} : readOptions({ text: given, at: restAt }, problems)
  const after = given === undefined ? rest : rest.slice(given.length).trimStart()
  const payload = after === "" ? {} : readPayload({ text: after, at: line.length - after.length }, problems)
  if (problems.length > 0 || time.fields === undefined) return problems
  return {
    id: options.id ?? task,
    task,
    expression: time.expression,
    timeZone: options.timeZone,
    cron: Fields.toCron(time.fields, zoneOf(options.timeZone), undefined),
    backfill: options.backfill ?? Duration.zero,
    maxAttempts: options.maxAttempts,
    queueName: options.queueName,
    priority: options.priority,
    jobKey: options.jobKey,
    jobKeyMode: options.jobKeyMode ?? (options.jobKey === undefined ? undefined : "replace"),
    flags: options.flags,
    payload
  }
}

export const isLine = (result: Line | ReadonlyArray<Fields.Problem>): result is Line => !Array.isArray(result)

const timePhrase = (millis: number): string => {
  let rest = millis
  let phrase = ""
  for (const unit of unitNames) {
    const count = Math.floor(rest / units[unit]!)
    rest -= count * units[unit]!
    if (count > 0) phrase += `${count}${unit}`
  }
  return phrase
}

/** Characters that would end an option, or mean something else in it. */
const escaped = (value: string): string => value.replace(/[%&+=#?\s]/g, (character) => encodeURIComponent(character))

/** The line as text; `JSON.stringify` writes what JSON5 reads, on one line. */
export const format = (line: Omit<Line, "cron">): string => {
  const fill = Duration.toMillis(line.backfill)
  const options: ReadonlyArray<readonly [string, string | number | undefined]> = [
    ["id", line.id === line.task ? undefined : line.id],
    ["fill", fill === 0 ? undefined : timePhrase(fill)],
    ["max", line.maxAttempts],
    ["queue", line.queueName],
    ["priority", line.priority],
    ["jobKey", line.jobKey],
    ["jobKeyMode", line.jobKeyMode === "replace" ? undefined : line.jobKeyMode],
    ["tz", line.timeZone],
    ["flags", line.flags?.join(",")]
  ]
  const given = options.filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${key}=${escaped(String(value))}`)
  return [
    line.expression,
    line.task,
    ...(given.length === 0 ? [] : [`?${given.join("&")}`]),
    ...(Object.keys(line.payload).length === 0 ? [] : [JSON.stringify(line.payload)])
  ].join(" ")
}
