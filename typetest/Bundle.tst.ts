// @effect-diagnostics floatingEffect:off
import { Effect, Schema } from "effect"
import { Bundle, type Job, Queue, Task } from "kongtask"
import { describe, expect, test } from "tstyche"

const Import = Task.make("import", { payload: { path: Schema.String }, success: Schema.Struct({ rows: Schema.Int }) })
const Clean = Task.make("clean")
const Report = Task.make("report", { payload: Bundle.payload({ tasks: [Import, Clean], data: { to: Schema.String } }) })
const Cleaned = Task.make("cleaned", { payload: Bundle.payload({ tasks: [Clean] }) })
const Tell = Task.make("tell", { payload: Bundle.payload() })

describe("a completion", () => {
  test("is given its data, if it has any", () => {
    expect(Bundle.completion(Tell)).type.not.toRaiseError()
    expect(Bundle.completion(Report, { to: "ada" }, { priority: 1 })).type.not.toRaiseError()
    // @ts-expect-error Expected 2-3 arguments, but got 1
    Bundle.completion(Report)
    // @ts-expect-error Type 'number' is not assignable to type 'string'
    Bundle.completion(Report, { to: 1 })
    // @ts-expect-error 'jobKey' does not exist
    Bundle.completion(Tell, undefined, { jobKey: "once" })
    // @ts-expect-error is not assignable to parameter of type 'CompletionTask'
    Bundle.completion(Clean)
  })

  test("takes bundles of its own tasks, of some of them, and without tasks of any", () => {
    const both = [Import.request({ path: "a" }), Clean.request()]
    expect(Queue.addBundle(both, { onComplete: Bundle.completion(Report, { to: "ada" }) })).type.not.toRaiseError()
    expect(Queue.addBundle([Clean.request()], { onComplete: Bundle.completion(Report, { to: "ada" }) }))
      .type.not.toRaiseError()
    expect(Queue.addBundle(both, { onSuccess: Bundle.completion(Tell) })).type.not.toRaiseError()
    // @ts-expect-error is not assignable to type
    Queue.addBundle(both, { onFailure: Bundle.completion(Cleaned) })
  })

  test("gets outcomes in the types of their tasks", () => {
    Report.toLayer(({ bundle, data, outcomes }) => {
      expect(bundle.id).type.toBe<Bundle.BundleId>()
      expect(data.to).type.toBe<string>()
      expect(outcomes).type.toBe<ReadonlyArray<Bundle.Outcome<typeof Import> | Bundle.Outcome<typeof Clean>>>()
      for (const outcome of outcomes) {
        expect(outcome.job).type.toBe<Job.JobId>()
        if (outcome._tag === "Completed" && outcome.task === "import") {
          expect(outcome.result).type.toBe<{ readonly rows: number } | undefined>()
        }
      }
      return Effect.void
    })
  })
})
