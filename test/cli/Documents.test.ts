/**
 * docs/cli.md has every command and every exit code that there is.
 */
import { describe, expect, it } from "@effect/vitest"
import type { Command } from "effect/cli"
import * as Fs from "node:fs"
import { kongtask } from "../../src/internal/cli/kongtask.ts"
import { exitCodes } from "../../src/internal/cli/problem.ts"

const text = Fs.readFileSync(new URL("../../docs/cli.md", import.meta.url), "utf8")

const section = (heading: string) => text.split(/^## /m).find((section) => section.startsWith(heading))!

/** The names of the commands that do something themselves. */
const commandsOf = (command: Command.Command.Any, path: ReadonlyArray<string> = []): ReadonlyArray<string> => {
  const subcommands = command.subcommands.flatMap(({ commands }) => commands)
  const below = subcommands.flatMap((subcommand) => commandsOf(subcommand, [...path, subcommand.name]))
  const isGroup = subcommands.length > 0 && path.join(" ") !== "workers"
  return isGroup ? below : [path.join(" "), ...below]
}

describe("docs/cli.md", () => {
  it("has every command", () => {
    const described = [...section("Commands").matchAll(/^\| `([a-z -]+?)(?: [A-Z[].*)?` +\|/gm)].map((match) =>
      match[1]!
    )
    const flags = described.filter((name) => !name.startsWith("-"))
    expect(flags.toSorted()).toEqual([...commandsOf(kongtask)].toSorted())
  })

  it("has every exit code", () => {
    const rows = [...section("Exit codes").matchAll(/^\| (\d+) +\| `(\w+)`/gm)].map((
      match
    ) => [match[2], Number(match[1])])
    expect(Object.fromEntries(rows)).toEqual(exitCodes)
  })

  it("has the JSON of every command that prints some", () => {
    const described = new Set([...section("JSON").matchAll(/^\| `([^`]+)`/gm)].map((match) => match[1]!))
    const alike = new Set([
      "jobs cancel",
      "jobs remove",
      "jobs complete",
      "jobs reschedule",
      "jobs fail",
      "schedules resume",
      "schedules remove"
    ])
    const missing = commandsOf(kongtask).filter((name) => !described.has(name) && !alike.has(name))
    expect(missing).toEqual([])
  })
})
