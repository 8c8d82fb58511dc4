import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Random, Schedule } from "effect"
import { Retry } from "kongtask"

/** A policy's delays in milliseconds after each attempt; `undefined` where it gives up. */
const delays = <E>(policy: Retry.Policy<E>, attempts: number, error?: E) =>
  Effect.forEach(
    Array.from({ length: attempts }, (_, n) => n + 1),
    (attempt) => Effect.map(policy({ attempt, maxAttempts: 25, error }), millis)
  )

const millis = ({ delay }: Retry.Decision): number | undefined =>
  delay === undefined ? undefined : Duration.toMillis(delay)

/** Randomness that always answers the same. */
const always = (value: number) =>
  Effect.provideService(Random.Random, { nextDoubleUnsafe: () => value, nextIntUnsafe: () => 0 } as never)

const minute = 60_000
const hour = 60 * minute

describe("Retry.exponential", () => {
  it.effect("is graphile-worker's backoff by default: e^min(attempt, 10) seconds", () =>
    Effect.gen(function*() {
      const expected = Array.from({ length: 25 }, (_, n) => Math.exp(Math.min(n + 1, 10)) * 1000)
      const got = yield* delays(Retry.exponential({ jitter: 0 }), 25)
      for (const [n, delay] of got.entries()) assert.approximately(delay!, expected[n]!, expected[n]! * 1e-9)
      assert.approximately(got[0]!, 2718, 1)
      assert.approximately(got[24]!, 22_026_466, 1)
    }))

  it.effect("grows by its factor up to its maximum", () =>
    Effect.gen(function*() {
      const policy = Retry.exponential({ base: "1 second", factor: 2, max: "10 seconds", jitter: 0 })
      assert.deepStrictEqual(yield* delays(policy, 6), [1000, 2000, 4000, 8000, 10_000, 10_000])
      assert.deepStrictEqual(
        yield* delays(Retry.exponential({ base: "5 minutes", factor: 1, jitter: 0 }), 3),
        [5 * minute, 5 * minute, 5 * minute]
      )
    }))

  it.effect("stays at its maximum however many attempts there were", () =>
    Effect.gen(function*() {
      const policy = Retry.exponential({ factor: 10, max: "1 hour", jitter: 0 })
      const { delay } = yield* policy({ attempt: 32_767, maxAttempts: 32_767, error: undefined })
      assert.strictEqual(Duration.toMillis(delay!), hour)
    }))
})

describe("jitter", () => {
  it.effect("moves a delay by up to a tenth, by default", () =>
    Effect.gen(function*() {
      const policies: ReadonlyArray<Retry.Policy<unknown>> = [
        Retry.exponential({ base: "10 seconds" }),
        Retry.fixed("10 seconds"),
        Retry.steps(["10 seconds"]),
        Retry.fibonacci({ unit: "10 seconds" })
      ]
      for (const policy of policies) {
        assert.deepStrictEqual(yield* delays(policy, 1).pipe(always(0)), [9000])
        assert.deepStrictEqual(yield* delays(policy, 1).pipe(always(0.5)), [10_000])
        for (const delay of yield* Effect.forEach(Array.from({ length: 200 }), () => delays(policy, 1))) {
          assert.isAtLeast(delay[0]!, 9000)
          assert.isBelow(delay[0]!, 11_000)
        }
      }
    }))

  it.effect("spreads the delays over its whole range", () =>
    Effect.gen(function*() {
      const policy = Retry.fixed("10 seconds", { jitter: 1 })
      assert.deepStrictEqual(yield* delays(policy, 1).pipe(always(0)), [0])
      assert.deepStrictEqual(yield* delays(policy, 1).pipe(always(0.75)), [15_000])
      const many = yield* Effect.forEach(Array.from({ length: 500 }), () => delays(policy, 1))
      assert.isBelow(Math.min(...many.map(([delay]) => delay!)), 2000)
      assert.isAbove(Math.max(...many.map(([delay]) => delay!)), 18_000)
    }))

  it.effect("is none at all when it is 0", () =>
    Effect.gen(function*() {
      const policies: ReadonlyArray<Retry.Policy<unknown>> = [
        Retry.exponential({ base: "10 seconds", jitter: 0 }),
        Retry.fixed("10 seconds", { jitter: 0 }),
        Retry.steps(["10 seconds"], { jitter: 0 }),
        Retry.fibonacci({ unit: "10 seconds", jitter: 0 })
      ]
      for (const policy of policies) assert.deepStrictEqual(yield* delays(policy, 1).pipe(always(0)), [10_000])
    }))
})

describe("the other computed policies", () => {
  it.effect("fixed waits equally long", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* delays(Retry.fixed("3 seconds", { jitter: 0 }), 3), [3000, 3000, 3000])
    }))

  it.effect("steps goes through its delays and stays at the last", () =>
    Effect.gen(function*() {
      const policy = Retry.steps(["1 second", "1 minute", "1 hour"], { jitter: 0 })
      assert.deepStrictEqual(yield* delays(policy, 5), [1000, minute, hour, hour, hour])
    }))

  it.effect("fibonacci counts 1, 2, 3, 5, 8 minutes, up to 6 hours", () =>
    Effect.gen(function*() {
      const counts = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 360, 360]
      assert.deepStrictEqual(yield* delays(Retry.fibonacci({ jitter: 0 }), 14), counts.map((count) => count * minute))
      const small = Retry.fibonacci({ unit: "1 second", max: "6 seconds", jitter: 0 })
      assert.deepStrictEqual(yield* delays(small, 6), [1000, 2000, 3000, 5000, 6000, 6000])
      const { delay } = yield* small({ attempt: 32_767, maxAttempts: 32_767, error: undefined })
      assert.strictEqual(Duration.toMillis(delay!), 6000)
    }))
})

describe("decisions", () => {
  it.effect("after waits exactly so long, at least nothing", () =>
    Effect.gen(function*() {
      assert.strictEqual(millis(Retry.after("5 seconds")), 5000)
      assert.strictEqual(millis(Retry.after(0)), 0)
      assert.strictEqual(millis(Retry.after(Duration.seconds(-5))), 0)
      assert.strictEqual(millis(Retry.after(-1)), 0)
      assert.deepStrictEqual(yield* delays(Retry.toPolicy(Retry.after("5 seconds")), 2).pipe(always(0)), [5000, 5000])
    }))

  it.effect("never fails the job for good", () =>
    Effect.gen(function*() {
      assert.strictEqual(Retry.never.delay, undefined)
      assert.deepStrictEqual(yield* delays(Retry.toPolicy(Retry.never), 2), [undefined, undefined])
    }))

  it.effect("are told from policies and from anything else", () =>
    Effect.sync(() => {
      assert.isTrue(Retry.isDecision(Retry.never))
      assert.isTrue(Retry.isDecision(Retry.after(1)))
      for (const other of [Retry.exponential(), { delay: 1 }, undefined, null, 5]) {
        assert.isFalse(Retry.isDecision(other))
      }
      const policy = Retry.exponential()
      assert.strictEqual(Retry.toPolicy(policy), policy)
    }))
})

describe("Retry.fromSchedule", () => {
  it.effect("takes each delay from the schedule, replayed from its start", () =>
    Effect.gen(function*() {
      const policy = Retry.fromSchedule(Schedule.exponential("1 second"))
      assert.deepStrictEqual(yield* delays(policy, 4), [1000, 2000, 4000, 8000])
      assert.deepStrictEqual(yield* delays(policy, 2), [1000, 2000])
      assert.deepStrictEqual(yield* delays(Retry.fromSchedule(Schedule.spaced("1 minute")), 3), [
        minute,
        minute,
        minute
      ])
    }))

  it.effect("fails the job for good when the schedule is done", () =>
    Effect.gen(function*() {
      const times = Schedule.spaced("1 second").pipe(Schedule.upTo({ times: 2 }))
      assert.deepStrictEqual(yield* delays(Retry.fromSchedule(times), 4), [1000, 1000, undefined, undefined])
      const duration = Schedule.spaced("1 second").pipe(Schedule.upTo({ duration: "2500 millis" }))
      const counted = yield* delays(Retry.fromSchedule(duration), 6)
      assert.deepStrictEqual(counted.slice(0, 2), [1000, 1000])
      assert.strictEqual(counted[5], undefined)
    }))

  it.effect("lets the schedule look at the error", () =>
    Effect.gen(function*() {
      const policy = Retry.fromSchedule<string>(
        Schedule.spaced("1 second").pipe(
          Schedule.setInputType<string | undefined>(),
          Schedule.while(({ input }) => Effect.succeed(input !== "hopeless"))
        )
      )
      assert.deepStrictEqual(yield* delays(policy, 2, "hopeless"), [undefined, undefined])
      assert.deepStrictEqual(yield* delays(policy, 2, "hopeful"), [1000, 1000])
      assert.deepStrictEqual(yield* delays(policy, 1), [1000])
    }))
})

describe("Retry.byTag", () => {
  class RateLimited {
    readonly _tag = "RateLimited"
    readonly after: number
    constructor(after: number) {
      this.after = after
    }
  }
  class Invalid {
    readonly _tag = "Invalid"
  }
  class Other {
    readonly _tag = "Other"
  }
  type Errors = RateLimited | Invalid | Other | string

  const policy = Retry.byTag<Errors>({
    RateLimited: (error) => Retry.after(error.after),
    Invalid: () => Retry.never
  }, Retry.after("1 minute"))

  it.effect("routes each error to its decision", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* delays(policy, 2, new RateLimited(1234)), [1234, 1234])
      assert.deepStrictEqual(yield* delays(policy, 1, new Invalid()), [undefined])
    }))

  it.effect("leaves every other failure to the fallback", () =>
    Effect.gen(function*() {
      for (const error of [new Other(), "text", undefined]) {
        assert.deepStrictEqual(yield* delays(policy, 1, error), [minute])
      }
      const steps = Retry.byTag<Errors>({}, Retry.steps(["1 second", "2 seconds"], { jitter: 0 }))
      assert.deepStrictEqual(yield* delays(steps, 2, new Invalid()), [1000, 2000])
    }))

  it.effect("falls back to the default policy", () =>
    Effect.gen(function*() {
      const byDefault = Retry.byTag<Errors>({ Invalid: () => Retry.never, Other: undefined })
      const expected = yield* delays(Retry.exponential(), 3).pipe(always(0.5))
      for (const error of [new Other(), undefined]) {
        assert.deepStrictEqual(yield* delays(byDefault, 3, error).pipe(always(0.5)), expected)
      }
    }))

  it.effect("is not misled by tags that every object has", () =>
    Effect.gen(function*() {
      for (const _tag of ["toString", "constructor", "__proto__"]) {
        assert.deepStrictEqual(yield* delays(policy, 1, { _tag } as never), [minute])
      }
    }))
})
