/**
 * What is only there where somebody watches.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, type Layer, type Scope } from "effect"
import { Queue, Task } from "kongtask"
import { TestDatabase } from "../support/database.ts"
import { eventually } from "../support/events.ts"
import * as Test from "../support/kongtask.ts"
import * as Terminal from "../support/terminal.ts"

const test = <E>(
  name: string,
  effect: () => Effect.Effect<unknown, E, Layer.Success<ReturnType<typeof Test.layer>> | Scope.Scope>
) => it.live(name, () => Effect.scoped(effect()).pipe(Effect.provide(Test.layer())), 60_000)

const Mail = Task.make("mail")

const start = Effect.fnUntraced(function*(args: ReadonlyArray<string>, env: Readonly<Record<string, string>> = {}) {
  const { url } = yield* TestDatabase
  return yield* Terminal.start(args, { DATABASE_URL: url, NO_COLOR: undefined, ...env })
})

const shows = (terminal: Terminal.Terminal, text: string) =>
  eventually(terminal.shown, { what: text, until: (shown) => shown.includes(text) })

describe("in a terminal", () => {
  test("stats --watch draws on the other screen, again and again, and leaves it as it was", () =>
    Effect.gen(function*() {
      const terminal = yield* start(["stats", "--watch", "--interval", "100ms"])
      yield* shows(terminal, "\u001b[?1049h")
      yield* shows(terminal, "0 jobs")
      yield* Queue.addMany([Mail.request(undefined), Mail.request(undefined)])
      yield* shows(terminal, "2 jobs")
      yield* terminal.type("\u0003")
      expect(yield* terminal.end).toBe(130)
      expect(yield* terminal.shown).toContain("\u001b[?25h\u001b[?1049l")
    }))

  test("what takes long has a progress bar, which is gone at the end", () =>
    Effect.gen(function*() {
      yield* Queue.addMany(Array.from({ length: 2000 }, () => Mail.request(undefined)))
      const terminal = yield* start(["jobs", "remove", "--all"])
      expect(yield* terminal.end).toBe(0)
      const shown = yield* terminal.shown
      expect(shown).toMatch(/Removed \[=* *\] +\d+% [\d,]+ of 2,000/)
      expect(shown.trimEnd().endsWith("\r\u001b[K2,000 jobs removed.")).toBe(true)
    }))

  test("colours are there, unless NO_COLOR is", () =>
    Effect.gen(function*() {
      yield* Queue.add(Mail, undefined)
      const coloured = yield* start(["jobs", "list"])
      yield* coloured.end
      expect(yield* coloured.shown).toContain("\u001b[1mID")
      const plain = yield* start(["jobs", "list"], { NO_COLOR: "1" })
      yield* plain.end
      expect(yield* plain.shown).not.toContain("\u001b[")
    }))
})
