// @effect-diagnostics missingEffectError:off
import { Context, Effect, Exit, type Layer, Schema, SchemaGetter, type Scope } from "effect"
import { type Job, Task, Worker } from "kongtask"
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

const Greetings = Task.batch("greetings", {
  entry: { name: Schema.String, at: Schema.Date },
  success: Schema.Struct({ words: Schema.Int }),
  error: Schema.TaggedStruct("TooLong", { limit: Schema.Int })
})

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

describe("Task.batch", () => {
  test("keeps the name as a literal, and has an array of entries for its payload", () => {
    expect(Greetings.name).type.toBe<"greetings">()
    expect(Greetings.isBatch).type.toBe<true>()
    expect<Task.Request<typeof Greetings>["payload"]>().type.toBe<
      ReadonlyArray<{ readonly name: string; readonly at: Date }>
    >()
    expect<Task.ToHandler<typeof Greetings>>().type.toBe<Task.Handler<"greetings">>()
    expect(Greetings).type.toBeAssignableTo<Task.Any>()
  })

  test("takes any schema as an entry, and needs one", () => {
    expect(Task.batch("lines", { entry: Schema.String })).type.toBe<
      Task.Batch<"lines", Schema.String, Schema.Void, Schema.Never>
    >()
    expect(Task.batch).type.not.toBeCallableWith("lines")
    expect(Task.batch).type.not.toBeCallableWith("lines", {})
    expect(Task.batch).type.not.toBeCallableWith("lines", { entry: Schema.String, payload: Schema.String })
  })

  test("describes a job by its entries", () => {
    expect(Greetings.request([{ name: "Ada", at: new Date() }], { jobKey: "greetings" }))
      .type.toBe<Task.Request<typeof Greetings>>()
    expect(Greetings.request([])).type.toBe<Task.Request<typeof Greetings>>()
    expect(Greetings.request).type.not.toBeCallableWith({ name: "Ada", at: new Date() })
    expect(Greetings.request).type.not.toBeCallableWith([{ name: 1, at: new Date() }])
  })

  test("gives the handler the decoded entries and the job, and wants an exit of each", () => {
    const layer = Greetings.toLayer((entries, job) => {
      expect(entries).type.toBe<ReadonlyArray<{ readonly name: string; readonly at: Date }>>()
      expect(job).type.toBe<Job.Running>()
      return Effect.succeed(entries.map(() => Exit.succeed({ words: 2 })))
    })
    expect(layer).type.toBe<Layer.Layer<Task.Handler<"greetings">>>()
    expect(Greetings.toLayer).type.not.toBeCallableWith(() => Effect.succeed([{ words: 2 }]))
    expect(Greetings.toLayer).type.not.toBeCallableWith(() => Effect.succeed([Exit.succeed({ words: "two" })]))
    expect(Greetings.toLayer).type.not.toBeCallableWith(() => Effect.succeed([Exit.fail("too long")]))
    expect(Greetings.toLayer).type.not.toBeCallableWith(() => Effect.succeed(Exit.succeed({ words: 2 })))
  })

  test("lets the handler fail as a whole, put the job off or end it", () => {
    expect(Greetings.toLayer(() => Effect.fail({ _tag: "TooLong" as const, limit: 1 })))
      .type.toBe<Layer.Layer<Task.Handler<"greetings">>>()
    expect<Job.Control>().type.toBeAssignableTo<
      Effect.Error<ReturnType<Task.BatchHandlerFn<unknown, void, never, never>>>
    >()
    expect(Greetings.toLayer).type.not.toBeCallableWith(() => Effect.fail("no error was declared"))
  })

  test("asks the retry policy about the error of an entry", () => {
    Greetings.toLayer(() => Effect.succeed([]), {
      retry: ({ error }) => {
        expect(error).type.toBe<{ readonly _tag: "TooLong"; readonly limit: number } | undefined>()
        return Effect.die("not run")
      }
    })
  })

  test("requires the services of the handler, and what decodes and encodes", () => {
    const Sealed = Task.batch("sealed", { entry: { text: Secret }, success: Secret })
    expect(Sealed.toLayer((entries) => Mailer.use(() => Effect.succeed(entries.map(({ text }) => Exit.succeed(text))))))
      .type.toBe<Layer.Layer<Task.Handler<"sealed">, never, Mailer | Decrypt | Encrypt>>()
  })
})

describe("delivery", () => {
  test("is durable or automatic, for a task and for a worker", () => {
    for (const delivery of ["auto", "durable", undefined] as const) {
      expect(Tick.toLayer(() => Effect.void, { delivery })).type.toBe<Layer.Layer<Task.Handler<"tick">>>()
      expect(Worker.run).type.toBeCallableWith({ tasks: [Tick, Greetings], delivery })
    }
    expect(Worker.run).type.not.toBeCallableWith({ tasks: [Tick], delivery: "fast" })
    // @ts-expect-error Type '"fast"' is not assignable to type '"auto" | "durable" | undefined'
    Tick.toLayer(() => Effect.void, { delivery: "fast" })
  })
})

describe("hooks", () => {
  test("are told of the job, and afterwards of its outcome", () => {
    const hooks: Worker.Hooks = {
      before: (job) => {
        expect(job).type.toBe<Job.Running>()
        return Effect.void
      },
      after: (job, outcome) => {
        expect(job).type.toBe<Job.Running>()
        expect(outcome).type.toBe<Job.Outcome>()
        return Effect.void
      }
    }
    expect(Worker.run).type.toBeCallableWith({ tasks: [Tick, Greetings], hooks })
  })

  test("have no typed errors, and leave those of the attempt as they are", () => {
    expect<Worker.Hooks>().type.not.toBeAssignableFrom({ before: () => Effect.fail("no") })
    expect<Worker.Hooks>().type.not.toBeAssignableFrom({ after: () => Effect.fail("no") })
    expect<Worker.Hooks>().type.not.toBeAssignableFrom({
      around: <A, E, R>(attempt: Effect.Effect<A, E, R>) => Effect.andThen(attempt, Effect.fail("no"))
    })
    expect<Worker.Hooks>().type.toBeAssignableFrom({
      around: <A, E, R>(attempt: Effect.Effect<A, E, R>, job: Job.Running) =>
        Effect.annotateLogs(attempt, "queue", job.queueName ?? "none")
    })
  })

  test("have to answer what the attempt answers", () => {
    expect<Worker.Hooks>().type.not.toBeAssignableFrom({ around: () => Effect.void })
  })

  test("may need services, which the worker then does", () => {
    expect<Worker.Hooks<Mailer>>().type.toBeAssignableFrom({ before: () => Mailer.use(({ send }) => send) })
    expect<Worker.Hooks>().type.not.toBeAssignableFrom({ before: () => Mailer.use(({ send }) => send) })
    expect(Worker.layer).type.not.toBeCallableWith({ tasks: [Tick], hooks: { before: 1 } })
  })
})
