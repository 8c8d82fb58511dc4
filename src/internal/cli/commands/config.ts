import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Predicate from "effect/Predicate"
import { sep } from "node:path"
import type { Name } from "../../configuration/settings.ts"
import * as Template from "../configTemplate.ts"
import * as Connection from "../connection.ts"
import * as Files from "../files.ts"
import { toggle } from "../flags.ts"
import { Output } from "../Output.ts"
import { Problem } from "../problem.ts"

interface Row {
  readonly name: Name
  readonly value: unknown
  readonly source: string
}

const textOf = (value: unknown): string =>
  value === undefined
    ? ""
    : Predicate.isString(value)
    ? value
    : Array.isArray(value)
    ? value.join(", ")
    : JSON.stringify(value)

/** Paths below the working folder as they are from here. */
const nearby = (text: string): string => text.replaceAll(`${process.cwd()}${sep}`, "")

const show = Command.make("show", {}, () =>
  Effect.gen(function*() {
    const output = yield* Output
    const { file, settings } = yield* Connection.resolve()
    const { describeSource, display, names } = yield* Connection.configuration
    const rows = names.map((name): Row => ({
      name,
      value: display(name, settings[name].value),
      source: settings[name].value === undefined ? "not set" : describeSource(settings[name].source)
    }))
    yield* output.answer(
      { file: file ?? null, settings: rows.map((row) => ({ ...row, value: row.value ?? null })) },
      Effect.andThen(
        output.table([
          { title: "SETTING", cell: ({ name }) => name },
          { title: "VALUE", cell: ({ value }) => nearby(textOf(value)), isFlexible: true },
          { title: "FROM", cell: ({ source }) => nearby(source), isFlexible: true }
        ], rows),
        output.note(file === undefined ? "No kongtask.config.* here or above." : `The file is ${nearby(file)}.`)
      )
    )
  })).pipe(Command.withDescription("Show each setting and where it comes from; passwords are not shown."))

const init = Command.make("init", {
  format: Flag.Literals("format", Template.formats).pipe(
    Flag.withDescription("The kind of file (default: ts)"),
    Flag.withDefault("ts" as const)
  ),
  force: toggle("force").pipe(Flag.withDescription("Replace a file that is there"))
}, ({ force, format }) =>
  Effect.gen(function*() {
    const output = yield* Output
    const fs = yield* FileSystem.FileSystem
    const file = `kongtask.config.${format}`
    const others = (yield* Effect.orDie(fs.readDirectory("."))).filter((name) => /^kongtask\.config\.\w+$/.test(name))
    const inTheWay = others.find((name) => name !== file || !force)
    if (inTheWay !== undefined) {
      return yield* new Problem({
        kind: "configuration",
        message: `There is ${inTheWay === file ? "already a" : "another"} configuration file here.`,
        where: inTheWay,
        todo: inTheWay === file
          ? "Edit it, or replace it with --force."
          : "Edit it, or remove it first: only one is read."
      })
    }
    yield* Files.write(file, Template.render(format))
    yield* output.answer({ file }, output.line(`Wrote ${file}. \`kongtask config show\` shows what it says.`))
  })).pipe(Command.withDescription("Write a configuration file into this folder."))

export const config = Command.make("config").pipe(
  Command.withDescription("The settings, and where they come from."),
  Command.withSubcommands([show, init])
)
