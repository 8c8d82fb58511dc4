// @effect-diagnostics floatingEffect:off
import { type Effect, type Layer, Schema } from "effect"
import { type KongTaskError, type Queue, type Scheduler, Task, type Worker } from "kongtask"
import * as Testing from "kongtask/testing"
import { describe, expect, test } from "tstyche"

const Resize = Task.make("resize", { payload: { file: Schema.String, at: Schema.DateTimeUtc } })
const Names = Task.make("names", { payload: Schema.Array(Schema.String) })

describe("what was added", () => {
  test("has the payload's decoded type", () => {
    expect(Testing.added(Resize)).type.toBe<
      Effect.Effect<ReadonlyArray<Testing.Added<typeof Resize>>, never, Testing.Kit>
    >()
    expect<Testing.Added<typeof Resize>["payload"]>().type.toBe<(typeof Resize.payloadSchema)["Type"]>()
  })

  test("is expected by some fields of the right type, or a predicate", () => {
    Testing.assertAdded(Resize, { payload: { file: "a.png" }, times: 1 })
    Testing.assertAdded(Resize, { payload: ({ file }) => file.endsWith(".png") })
    Testing.assertAdded(Names, { payload: ["a"] })
    // @ts-expect-error Type 'number' is not assignable to type 'string'
    Testing.assertAdded(Resize, { payload: { file: 1 } })
    // @ts-expect-error 'width' does not exist
    Testing.refuteAdded(Resize, { payload: { width: 1 } })
  })
})

describe("running", () => {
  test("requires the handlers of its tasks", () => {
    expect(Testing.drain({ tasks: [Resize] })).type.toBe<
      Effect.Effect<Worker.Summary, KongTaskError.KongTaskError, Worker.Worker | Task.Handler<"resize">>
    >()
    expect(Testing.layerInline({ tasks: [Resize] })).type.toBe<
      Layer.Layer<never, never, Testing.Kit | Worker.Worker | Task.Handler<"resize">>
    >()
  })

  test("a layer without a database needs nothing and cannot fail", () => {
    expect(Testing.layerNothing()).type.toBe<
      Layer.Layer<Queue.Queue | Worker.Worker | Scheduler.Scheduler | Testing.Kit>
    >()
  })
})
