/**
 * Times, durations and numbers as people read them.
 */
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"

const steps = [
  [86_400_000, "d"],
  [3_600_000, "h"],
  [60_000, "m"],
  [1000, "s"]
] as const

/** `2h`, `45s`, `120ms`: the largest unit that there is one of. */
export const duration = (input: Duration.Duration): string => {
  const millis = Math.abs(Duration.toMillis(input))
  for (const [size, unit] of steps) {
    if (millis >= size) {
      return `${size === 1000 && millis < 10_000 ? (millis / size).toFixed(1) : Math.floor(millis / size)}${unit}`
    }
  }
  return `${millis < 10 ? Number(millis.toFixed(1)) : Math.round(millis)}ms`
}

/** `in 5m`, `2h ago`, `now`. */
export const relative = (time: DateTime.Utc, now: DateTime.Utc): string => {
  const millis = time.epochMilliseconds - now.epochMilliseconds
  if (Math.abs(millis) < 1000) return "now"
  const text = duration(Duration.millis(Math.floor(Math.abs(millis) / 1000) * 1000)).replace(".0s", "s")
  return millis > 0 ? `in ${text}` : `${text} ago`
}

/** `2026-01-31T08:00:00Z`, with milliseconds where there are some. */
export const iso = (time: DateTime.Utc): string => DateTime.formatIso(time).replace(".000Z", "Z")

/** `1,234,567` */
export const count = (value: number): string => value.toLocaleString("en-US")

/** `1 job`, `3 jobs` */
export const many = (value: number, noun: string): string => `${count(value)} ${noun}${value === 1 ? "" : "s"}`

/** `2.3 MB` */
export const bytes = (value: number): string => {
  for (const [size, unit] of [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]] as const) {
    if (value >= size) return `${(value / size).toFixed(1)} ${unit}`
  }
  return `${value} bytes`
}
