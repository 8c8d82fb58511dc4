/**
 * What workers log of the jobs that they run.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Logger, Schema } from "effect"
import { Queue, Retry, Task, Worker } from "kongtask"
import * as Test from "./support/kongtask.ts"

class CardRefused extends Schema.TaggedError<CardRefused>()("CardRefused", { card: Schema.String }) {
  override get message() {
    return `The bank refused ${this.card}`
  }
}

const Pay = Task.make("pay", { payload: { card: Schema.String }, error: CardRefused })
const PayLive = Pay.toLayer(
  ({ card }) => Effect.andThen(Effect.logInfo("paying"), Effect.fail(new CardRefused({ card }))),
  { retry: Retry.fixed("0 seconds") }
)

interface Line {
  readonly level: string
  readonly message: string
  readonly annotations: Record<string, unknown>
}

const collect = (lines: Array<Line>) =>
  Logger.layer([Logger.map(Logger.formatStructured, (line) => {
    lines.push({ level: line.level, message: String(line.message), annotations: line.annotations })
  })])

describe("logs", () => {
  it.live("tell of each failed attempt with its scope: a little while attempts remain, an error at the last", () => {
    const lines: Array<Line> = []
    return Effect.gen(function*() {
      const { id } = yield* Queue.add(Pay, { card: "4111-1111" }, { maxAttempts: 2 })
      expect(yield* Worker.runOnce({ tasks: [Pay] })).toMatchObject({ retried: 1, failed: 1 })
      const scope = (attempt: number) => ({
        pool: expect.stringMatching(/^kongtask-/),
        task: "pay",
        job: id,
        attempt
      })
      expect(lines).toEqual([
        { level: "INFO", message: "paying", annotations: scope(1) },
        {
          level: "INFO",
          message: "Attempt 1 of 2 failed: CardRefused. The next one is due now.",
          annotations: scope(1)
        },
        { level: "INFO", message: "paying", annotations: scope(2) },
        {
          level: "ERROR",
          message: "Attempt 2 of 2 failed, and the job for good: CardRefused",
          annotations: scope(2)
        }
      ])
      expect(JSON.stringify(lines)).not.toContain("4111")
    }).pipe(Effect.provide(Layer.mergeAll(PayLive, Test.layer(), collect(lines))))
  })
})
