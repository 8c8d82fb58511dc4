/**
 * Logs as lines that people read, on standard error.
 */
import * as Array from "effect/Array"
import * as Cause from "effect/Cause"
import * as Logger from "effect/Logger"
import * as Predicate from "effect/Predicate"
import * as References from "effect/References"
import type { Colors } from "./Output.ts"

/** The worker's own id is the same in every line; the lines of its start and end have it. */
const untold = new Set(["pool"])

const textOf = (value: unknown): string =>
  Predicate.isString(value) ? value : Predicate.isError(value) ? value.message : JSON.stringify(value) ?? String(value)

const paintOf = (level: string, { dim, red, yellow }: Colors) =>
  level === "Error" || level === "Fatal"
    ? red
    : level === "Warn"
    ? yellow
    : level === "Info"
    ? (text: string) => text
    : dim

/** `12:59:43 INFO  message  task=mail job=1`; the whole of causes and errors only with `debug`. */
export const make = (colors: Colors, debug: boolean): Logger.Logger<unknown, void> =>
  Logger.make(({ cause, date, fiber, logLevel, message }) => {
    const messages = Array.ensure(message).map(textOf)
    const failures = cause.reasons.length === 0 ? [] : debug ? [Cause.pretty(cause)] : [textOf(Cause.squash(cause))]
    const annotations = Object.entries(fiber.getRef(References.CurrentLogAnnotations))
      .filter(([name]) => !untold.has(name)).map(([name, value]) => `${name}=${textOf(value)}`)
    const stacks = debug
      ? Array.ensure(message).filter(Predicate.isError).map((error) => `\n${error.stack ?? ""}`)
      : []
    process.stderr.write(
      [
        colors.dim(date.toISOString().slice(11, 19)),
        paintOf(logLevel, colors)(logLevel.toUpperCase().padEnd(5)),
        [...messages, ...failures].join(" "),
        ...(annotations.length > 0 ? [colors.dim(`(${annotations.join(" ")})`)] : [])
      ].join(" ") + `${stacks.join("")}\n`
    )
  })
