import { describe, expect, it } from "@effect/vitest"
import { DateTime, Duration } from "effect"
import type { JobStore } from "kongtask"
import { parseTime } from "../../src/internal/cli/flags.ts"
import * as Format from "../../src/internal/cli/format.ts"
import { colors } from "../../src/internal/cli/Output.ts"
import * as Progress from "../../src/internal/cli/progress.ts"
import * as View from "../../src/internal/cli/statsView.ts"
import * as Table from "../../src/internal/cli/table.ts"
import { parseDuration } from "../../src/internal/configuration/settings.ts"

const at = (text: string) => DateTime.makeUnsafe(text)

describe("a table", () => {
  const columns: ReadonlyArray<Table.Column<{ readonly n: number; readonly text: string; readonly none?: string }>> = [
    { title: "N", cell: ({ n }) => String(n), isNumber: true },
    { title: "TEXT", cell: ({ text }) => text, isFlexible: true },
    { title: "NONE", cell: ({ none }) => none ?? "" }
  ]

  it("aligns numbers to the right, and leaves out columns without content", () => {
    expect(Table.render(columns, [{ n: 5, text: "a" }, { n: 120, text: "bc" }], 80)).toEqual([
      "  N  TEXT",
      "  5  a",
      "120  bc"
    ])
  })

  it("cuts the widest column until it fits", () => {
    const lines = Table.render(columns, [{ n: 1, text: "x".repeat(200) }], 40)
    expect(lines[1]).toHaveLength(40)
    expect(lines[1]).toMatch(/x…$/)
  })

  it("counts wide characters as two", () => {
    expect(Table.render(columns, [{ n: 1, text: "日本" }, { n: 2, text: "abcd" }], 80).slice(1)).toEqual([
      "1  日本",
      "2  abcd"
    ])
    expect(Table.fit("日本語", 5)).toBe("日本…")
  })

  it("shows what a terminal would obey, and keeps a row on its line", () => {
    expect(Table.plain("a\u001b[31mb\nc\u0007")).toBe("a\\x1b[31mb c\\x07")
  })
})

describe("formats", () => {
  it("times", () => {
    const now = at("2026-01-31T08:00:00Z")
    expect(
      [500, 90_000, -7_200_000, 86_400_000 * 3].map((by) =>
        Format.relative(DateTime.add(now, { milliseconds: by }), now)
      )
    )
      .toEqual(["now", "in 1m", "2h ago", "in 3d"])
    expect(Format.iso(at("2026-01-31T08:00:00.500Z"))).toBe("2026-01-31T08:00:00.500Z")
  })

  it("durations", () => {
    expect([1.26, 480, 1500, 42_000, 3_600_000].map((ms) => Format.duration(Duration.millis(ms)))).toEqual([
      "1.3ms",
      "480ms",
      "1.5s",
      "42s",
      "1h"
    ])
  })

  it("reads durations and times, or refuses them", () => {
    const millis = (text: string) =>
      parseDuration(text).pipe((read) => read._tag === "Some" ? Duration.toMillis(read.value) : undefined)
    expect(["1500", "30s", "5 minutes", "1.5h", "2d", "-1s", "soon", "5 parsecs", ""].map(millis)).toEqual([
      1500,
      30_000,
      300_000,
      5_400_000,
      172_800_000,
      undefined,
      undefined,
      undefined,
      undefined
    ])
    const iso = (text: string) =>
      parseTime(text).pipe((read) => read._tag === "Some" ? Format.iso(read.value) : undefined)
    expect(["2026-01-31", "2026-01-31 08:00", "2026-01-31T08:00:00+02:00", "2026-13-31", "tomorrow"].map(iso)).toEqual([
      "2026-01-31T00:00:00Z",
      "2026-01-31T08:00:00Z",
      "2026-01-31T06:00:00Z",
      undefined,
      undefined
    ])
  })
})

describe("a progress bar", () => {
  it("shows how much is done, and how fast", () => {
    expect(Progress.render({ label: "Retried", done: 500, total: 2000, elapsedMillis: 2000 }, 80)).toBe(
      "Retried [=======                       ]  25% 500 of 2,000  250/s"
    )
  })

  it("counts where no total is known, and fits a narrow terminal", () => {
    expect(Progress.render({ label: "Adding mail", done: 1234, total: undefined, elapsedMillis: 10 }, 80)).toBe(
      "Adding mail 1,234"
    )
    expect(Progress.render({ label: "Adding mail", done: 1, total: 9, elapsedMillis: 0 }, 12).length).toBeLessThan(12)
  })
})

const none: JobStore.Counts = { scheduled: 0, ready: 0, running: 0, retrying: 0, completed: 0, failed: 0, cancelled: 0 }

const snapshot = (ready: number, tasks: number, second: number): View.Snapshot => ({
  at: at(`2026-01-31T08:00:0${second}Z`),
  stats: {
    all: { ...none, ready, failed: 2 },
    tasks: new Map(Array.from({ length: tasks }, (_, i) => [`task_${i}`, { ...none, ready: i + 1 }])),
    queues: new Map([["serial", { ...none, ready: 1 }]])
  },
  pools: [{
    id: "kongtask-1",
    isAlive: true,
    startedAt: at("2026-01-31T07:00:00Z"),
    heartbeatAt: at("2026-01-31T08:00:00Z"),
    lease: Duration.seconds(60),
    jobs: 3,
    queues: 0,
    oldestClaim: undefined
  }]
})

describe("the screen of stats", () => {
  it("has states, how fast they change, tasks and queues", () => {
    const lines = View.render(snapshot(900, 2, 2), snapshot(1000, 2, 0), { columns: 80, rows: 40 }, colors(false))
    expect(lines.join("\n")).toBe(`902 jobs  1 worker, 3 jobs held  2026-01-31T08:00:02Z

STATE   JOBS  CHANGE
ready    900   −50/s
failed     2

TASK    READY  TOTAL
task_0      1      1
task_1      2      2

QUEUE   READY  TOTAL
serial      1      1`)
  })

  it("is no higher than the terminal, and shows the largest", () => {
    const lines = View.render(snapshot(10, 100, 1), undefined, { columns: 80, rows: 20 }, colors(false))
    expect(lines.length).toBeLessThanOrEqual(20)
    expect(lines.join("\n")).toContain("task_99")
    expect(lines.join("\n")).toMatch(/… and \d+ more/)
  })
})
