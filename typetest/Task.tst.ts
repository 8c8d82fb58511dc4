// @effect-diagnostics missingEffectError:off
import { Context, Effect, type Layer, Schema, SchemaGetter, type Scope } from "effect"
import { type Job, Task } from "kongtask"
import { describe, expect, test } from "tstyche"

const Greet = Task.make("greet", {
  payload: { name: Schema.String, at: Schema.Date },
  success: Schema.Struct({ words: Schema.Int }),
  error: Schema.TaggedStruct("TooLong", { limit: Schema.Int })
})

const Tick = Task.make("tick")

class Encrypt extends Context.Service<Encrypt, { readonly encrypt: (text: string) => string }>()("test/Encrypt") {}
class Decrypt extends Context.Service<Decrypt, { readonly decrypt: (text: string) => string }>()("test/Decrypt") {}

/** A schema that needs one service to encode and another one to decode. */
const Secret = Schema.String.pipe(Schema.decodeTo(Schema.String, {
  decode: SchemaGetter.transformEffect((text) => Decrypt.use(({ decrypt }) => Effect.succeed(decrypt(text)))),
  encode: SchemaGetter.transformEffect((text) => Encrypt.use(({ encrypt }) => Effect.succeed(encrypt(text))))
}))

class Mailer extends Context.Service<Mailer, { readonly send: Effect.Effect<void> }>()("test/Mailer") {}

describe("Task.make", () => {
  test("keeps the name as a literal and takes the fields of a struct for its schema", () => {
    expect(Greet.name).type.toBe<"greet">()
    expect<Task.Request<typeof Greet>["payload"]>().type.toBe<{ readonly name: string; readonly at: Date }>()
  })

  test("has nothing for a payload, a success and an error that are left out", () => {
    expect(Tick).type.toBe<Task.Task<"tick", Schema.Void, Schema.Void, Schema.Never>>()
    expect(Task.make("tick", {})).type.toBe<typeof Tick>()
  })

  test("takes undefined for an option that is left out", () => {
    expect(Task.make("tick", { maxAttempts: undefined, priority: undefined, queueName: undefined }))
      .type.toBe<typeof Tick>()
  })

  test("takes any schema as a payload", () => {
    const Lines = Task.make("lines", { payload: Schema.Array(Schema.String) })
    expect<Task.Request<typeof Lines>["payload"]>().type.toBe<ReadonlyArray<string>>()
  })
})

describe("request", () => {
  test("takes the payload and the options of a job", () => {
    expect(Greet.request({ name: "Ada", at: new Date() })).type.toBe<Task.Request<typeof Greet>>()
    expect(Greet.request({ name: "Ada", at: new Date() }, { jobKey: undefined, delay: "1 minute" }))
      .type.toBe<Task.Request<typeof Greet>>()
    // @ts-expect-error Type 'number' is not assignable to type 'string'
    Greet.request({ name: 1, at: new Date() })
    // @ts-expect-error Property 'at' is missing
    Greet.request({ name: "Ada" })
    // @ts-expect-error 'nam' does not exist
    Greet.request({ name: "Ada", at: new Date(), nam: "Ada" })
    // @ts-expect-error Type '"sometimes"' is not assignable to type '"replace" | "preserve_run_at" | "unsafe_dedupe"
    Greet.request({ name: "Ada", at: new Date() }, { jobKeyMode: "sometimes" })
  })

  test("needs no payload where there is none", () => {
    expect(Tick.request()).type.toBe<Task.Request<typeof Tick>>()
    expect(Tick.request(undefined, { priority: 1 })).type.toBe<Task.Request<typeof Tick>>()
    // @ts-expect-error Argument of type '{}' is not assignable to parameter of type 'void'
    Tick.request({})
  })

  test("leaves out what the schema has a default for", () => {
    const Page = Task.make("page", {
      payload: { size: Schema.Int.pipe(Schema.withConstructorDefault(Effect.succeed(10))) }
    })
    expect(Page.request({})).type.toBe<Task.Request<typeof Page>>()
  })
})

describe("toLayer", () => {
  test("provides the handler of its task, which nothing else is", () => {
    expect(Greet.toLayer(() => Effect.succeed({ words: 2 }))).type.toBe<Layer.Layer<Task.Handler<"greet">>>()
    expect<Task.Handler<"greet">>().type.not.toBeAssignableTo<Task.Handler<"tick">>()
    expect<Task.Handler<"greet">>().type.not.toBeAssignableTo<Task.Handler<string>>()
    expect<Task.ToHandler<typeof Greet | typeof Tick>>().type.toBe<Task.Handler<"greet"> | Task.Handler<"tick">>()
  })

  test("gives the handler the decoded payload and the job", () => {
    Greet.toLayer((payload, job) => {
      expect(payload).type.toBe<{ readonly name: string; readonly at: Date }>()
      expect(job).type.toBe<Job.Running>()
      return Effect.succeed({ words: 2 })
    })
    Tick.toLayer((payload) => {
      expect(payload).type.toBe<void>()
      return Effect.void
    })
  })

  test("refuses a handler of another payload, success or error", () => {
    // @ts-expect-error Type 'string' is not assignable to type 'number'
    Greet.toLayer((_: { readonly name: number }) => Effect.succeed({ words: 2 }))
    // @ts-expect-error Type 'string' is not assignable to type 'number'
    Greet.toLayer(() => Effect.succeed({ words: "two" }))
    // @ts-expect-error Type '"TooShort"' is not assignable to type '"TooLong"'
    Greet.toLayer(() => Effect.fail({ _tag: "TooShort" as const, limit: 1 }))
    // @ts-expect-error Type 'string' is not assignable to type 'Control'
    Tick.toLayer(() => Effect.fail("no error was declared"))
    // @ts-expect-error is not assignable to
    Tick.toLayer(async () => {})
  })

  test("does not mind what a handler without a declared result answers", () => {
    expect(Tick.toLayer(() => Effect.succeed(1))).type.toBe<Layer.Layer<Task.Handler<"tick">>>()
  })

  test("requires the services of the handler, but its scope", () => {
    expect(Tick.toLayer(() => Mailer.use(({ send }) => send)))
      .type.toBe<Layer.Layer<Task.Handler<"tick">, never, Mailer>>()
    expect(Tick.toLayer(() => Effect.acquireRelease(Effect.void, () => Effect.void)))
      .type.toBe<Layer.Layer<Task.Handler<"tick">>>()
    expect(Tick.toLayer(() => Effect.flatMap(Mailer, () => Effect.scope)))
      .type.toBe<Layer.Layer<Task.Handler<"tick">, never, Mailer>>()
  })

  test("takes an effect that makes the handler, with its errors and services", () => {
    const make = Effect.gen(function*() {
      const { send } = yield* Mailer
      yield* Effect.addFinalizer(() => Effect.void)
      if (Math.random() > 2) return yield* Effect.fail("no mail" as const)
      return () => send
    })
    expect(make).type.toBe<Effect.Effect<() => Effect.Effect<void>, "no mail", Mailer | Scope.Scope>>()
    expect(Tick.toLayer(make)).type.toBe<Layer.Layer<Task.Handler<"tick">, "no mail", Mailer>>()
  })

  test("requires what decodes the payload, and what encodes the result and the error", () => {
    const In = Task.make("in", { payload: { text: Secret } })
    expect(In.toLayer(() => Effect.void)).type.toBe<Layer.Layer<Task.Handler<"in">, never, Decrypt>>()
    const Out = Task.make("out", { success: Secret, error: Schema.TaggedStruct("Refused", { why: Secret }) })
    expect(Out.toLayer(() => Effect.succeed("done"))).type.toBe<Layer.Layer<Task.Handler<"out">, never, Encrypt>>()
  })

  test("takes undefined for an option that is left out", () => {
    expect(Tick.toLayer(() => Effect.void, { timeout: undefined, retry: undefined, onInvalidPayload: undefined }))
      .type.toBe<Layer.Layer<Task.Handler<"tick">>>()
  })
})
