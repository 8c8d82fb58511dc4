import { Effect, Schedule, Schema } from "effect"
import { Retry, Task } from "kongtask"
import { describe, expect, test } from "tstyche"

class RateLimited extends Schema.TaggedError<RateLimited>()("RateLimited", { retryAfter: Schema.Duration }) {}
class InvalidAddress extends Schema.TaggedError<InvalidAddress>()("InvalidAddress", { address: Schema.String }) {}

const Send = Task.make("send", { error: Schema.Union([RateLimited, InvalidAddress]) })

const handler = () => Effect.fail(new InvalidAddress({ address: "nowhere" }))

describe("byTag", () => {
  test("gives each case the error of its tag", () => {
    Send.toLayer(handler, {
      retry: Retry.byTag({
        RateLimited: (error) => {
          expect(error).type.toBe<RateLimited>()
          return Retry.after(error.retryAfter)
        },
        InvalidAddress: (error) => {
          expect(error).type.toBe<InvalidAddress>()
          return Retry.never
        }
      })
    })
  })

  test("needs neither all of the tags nor a fallback", () => {
    Send.toLayer(handler, { retry: Retry.byTag({ InvalidAddress: () => Retry.never }) })
    Send.toLayer(handler, { retry: Retry.byTag({ InvalidAddress: undefined }, Retry.fixed("1 minute")) })
    Send.toLayer(handler, {
      retry: Retry.byTag({ RateLimited: (error) => Retry.after(error.retryAfter) }, Retry.never)
    })
  })

  test("refuses a tag that is none of the task's errors", () => {
    // @ts-expect-error 'Busy' does not exist in type
    Send.toLayer(handler, { retry: Retry.byTag({ Busy: () => Retry.never }) })
  })

  test("refuses a case that does not decide", () => {
    // @ts-expect-error Type 'string' is not assignable to type 'Decision'
    Send.toLayer(handler, { retry: Retry.byTag({ InvalidAddress: () => "1 minute" }) })
    // @ts-expect-error Property 'address' does not exist on type 'RateLimited'
    Send.toLayer(handler, { retry: Retry.byTag({ RateLimited: (error) => Retry.after(error.address) }) })
  })
})

describe("retry", () => {
  test("takes any policy, or one decision for all failures", () => {
    for (
      const retry of [
        Retry.never,
        Retry.after("1 minute"),
        Retry.exponential({ base: "1 second", factor: 2, max: undefined, jitter: 0 }),
        Retry.fixed("1 minute"),
        Retry.steps(["1 second", "1 minute"]),
        Retry.fibonacci()
      ]
    ) {
      expect(retry).type.toBeAssignableTo<Retry.Input<RateLimited>>()
      expect(retry).type.toBeAssignableTo<Retry.Input<never>>()
    }
    expect(Retry.steps).type.not.toBeCallableWith([])
  })

  test("takes a policy of one's own, which sees the error where there is one", () => {
    Send.toLayer(handler, {
      retry: (failure) => {
        expect(failure).type.toBe<Retry.Failure<RateLimited | InvalidAddress>>()
        expect(failure.error).type.toBe<RateLimited | InvalidAddress | undefined>()
        return Effect.succeed(failure.attempt > 3 ? Retry.never : Retry.after("1 second"))
      }
    })
    // @ts-expect-error is not assignable to
    Send.toLayer(handler, { retry: (failure) => failure.attempt > 3 })
  })

  test("takes a schedule of any input or of the task's error", () => {
    Send.toLayer(handler, { retry: Retry.fromSchedule(Schedule.spaced("1 second")) })
    Send.toLayer(handler, {
      retry: Retry.fromSchedule(
        Schedule.spaced("1 second").pipe(Schedule.setInputType<RateLimited | InvalidAddress | undefined>())
      )
    })
  })
})
