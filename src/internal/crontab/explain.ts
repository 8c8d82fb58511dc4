import type { Fields } from "./fields.ts"

const monthNames = [
  "January",
  "February",
  "March",
  "April",
  "May",
  "June",
  "July",
  "August",
  "September",
  "October",
  "November",
  "December"
]

const dayNames = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]

const list = (parts: ReadonlyArray<string>): string =>
  parts.length < 2 ? parts.join() : `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}`

/** Runs of three or more neighbours are named by their ends. */
const ranges = (values: ReadonlyArray<number>, name: (value: number) => string): string => {
  const parts: Array<string> = []
  for (let start = 0; start < values.length;) {
    let end = start
    while (values[end + 1] === values[end]! + 1) end++
    if (end - start >= 2) {
      parts.push(`${name(values[start]!)} to ${name(values[end]!)}`)
    } else {
      for (let index = start; index <= end; index++) parts.push(name(values[index]!))
    }
    start = end + 1
  }
  return list(parts)
}

/** The step of values that fill their whole range evenly from its first one on. */
const stepOf = (values: ReadonlyArray<number>, size: number): number | undefined => {
  const step = values.length < 2 ? undefined : values[1]! - values[0]!
  return step !== undefined && values[0] === 0 && values.length === Math.ceil(size / step) &&
      values.every((value, index) => value === index * step)
    ? step
    : undefined
}

const two = (value: number): string => String(value).padStart(2, "0")

const every = (step: number, unit: string): string => step === 1 ? `every ${unit}` : `every ${step} ${unit}s`

const hoursOf = (hours: ReadonlyArray<number>): string => {
  const step = stepOf(hours, 24)
  if (step === 1) return "of every hour"
  return step === undefined
    ? `of the ${hours.length === 1 ? "hour" : "hours"} ${ranges(hours, String)}`
    : `of every ${step} hours from 0 on`
}

const timeOf = ({ hours, minutes }: Fields): string => {
  if (minutes.length * hours.length <= 6) {
    return `at ${list(hours.flatMap((hour) => minutes.map((minute) => `${two(hour)}:${two(minute)}`)))}`
  }
  const step = stepOf(minutes, 60)
  if (step !== undefined) {
    return hours.length === 24 ? every(step, "minute") : `${every(step, "minute")} ${hoursOf(hours)}`
  }
  return `at ${minutes.length === 1 ? "minute" : "minutes"} ${ranges(minutes, String)} ${hoursOf(hours)}`
}

const weekdaysOf = (weekdays: ReadonlyArray<number>): string => {
  const fromMonday = weekdays.map((day) => day === 0 ? 7 : day).toSorted((a, b) => a - b)
  return ranges(fromMonday, (day) => dayNames[day % 7]!)
}

/** In plain words when the fields allow a run. */
export const explain = (fields: Fields, timeZone: string): string => {
  const days = fields.days.length === 31
    ? undefined
    : `${fields.days.length === 1 ? "day" : "days"} ${ranges(fields.days, String)} of the month`
  const weekdays = fields.weekdays.length === 7 ? undefined : weekdaysOf(fields.weekdays)
  const dates = days === undefined
    ? weekdays === undefined ? undefined : `on ${weekdays}`
    : `on ${days}${weekdays === undefined ? "" : `, or on ${weekdays}`}`
  const months = fields.months.length === 12
    ? undefined
    : `in ${ranges(fields.months, (month) => monthNames[month - 1]!)}`
  const when = [timeOf(fields), dates, months].filter((part) => part !== undefined).join(", ")
  return `${when[0]!.toUpperCase()}${when.slice(1)} (${timeZone})`
}
