import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import type * as Doctor from "../../../Doctor.ts"
import * as Connection from "../connection.ts"
import { Output } from "../Output.ts"
import { Finding } from "../problem.ts"

const width = 14

const show = Effect.fnUntraced(function*({ findings }: Doctor.Report) {
  const { colors, text } = yield* Output
  const paint = { ok: colors.green, problem: colors.red, unknown: colors.yellow }
  const lines = findings.flatMap(({ check, message, status, todo }) => [
    `${paint[status](status.padEnd(8))} ${check.padEnd(width)}${message}`,
    ...(todo === undefined ? [] : [`${" ".repeat(9 + width)}To do: ${todo}`])
  ])
  yield* text(lines.map((line) => `${line}\n`).join(""))
})

export const doctor = Command.make("doctor", {}, () =>
  Effect.gen(function*() {
    const output = yield* Output
    const { examine } = yield* Effect.promise(() => import("../../../Doctor.ts"))
    const { settings } = yield* Connection.resolve()
    const report = yield* Effect.provide(examine({ schema: settings.schema.value }), Connection.database())
    yield* output.answer(report, show(report))
    if (!report.isHealthy) return yield* new Finding({ kind: "unhealthy" })
  })).pipe(
    Command.withDescription("Look for what keeps the queue from working well, and say what to do.")
  )
