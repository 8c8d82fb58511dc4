// @effect-diagnostics floatingEffect:off
import { Context, type DateTime, Effect, type Option, Schema, SchemaGetter, type Stream } from "effect"
import { type Job, type JobStore, type KongTaskError, Queue, Task } from "kongtask"
import { describe, expect, test } from "tstyche"

const Resize = Task.make("resize", { payload: { file: Schema.String, width: Schema.Int } })
const Publish = Task.make("publish", { payload: { post: Schema.Int } })
const Tick = Task.make("tick")

class Encrypt extends Context.Service<Encrypt, { readonly encrypt: (text: string) => string }>()("test/Encrypt") {}

const Sealed = Task.make("sealed", {
  payload: {
    text: Schema.String.pipe(Schema.decodeTo(Schema.String, {
      decode: SchemaGetter.passthrough(),
      encode: SchemaGetter.transformEffect((text) => Encrypt.use(({ encrypt }) => Effect.succeed(encrypt(text))))
    }))
  }
})

type Added = Effect.Effect<Job.Job, Job.InvalidJob | Job.DuplicateJobKey | KongTaskError.KongTaskError, Queue.Queue>
type AddedMany = Effect.Effect<
  ReadonlyArray<Job.Job>,
  Job.InvalidJob | Job.DuplicateJobKey | KongTaskError.KongTaskError,
  Queue.Queue
>

describe("add", () => {
  test("answers the job, or says what is wrong with it or with the database", () => {
    expect(Queue.add(Resize, { file: "a.png", width: 100 })).type.toBe<Added>()
  })

  test("refuses a payload of another type", () => {
    // @ts-expect-error Type 'string' is not assignable to type 'number'
    Queue.add(Resize, { file: "a.png", width: "wide" })
    // @ts-expect-error Property 'width' is missing
    Queue.add(Resize, { file: "a.png" })
    // @ts-expect-error 'height' does not exist
    Queue.add(Resize, { file: "a.png", width: 100, height: 100 })
    // @ts-expect-error Argument of type 'undefined' is not assignable
    Queue.add(Resize, undefined)
    // @ts-expect-error Argument of type '{ post: number; }' is not assignable to parameter of type 'void'
    Queue.add(Tick, { post: 1 })
  })

  test("takes undefined as the payload of a task that has none", () => {
    expect(Queue.add(Tick, undefined)).type.toBe<Added>()
    expect(Queue.add(Tick, undefined, { jobKey: "tick" })).type.toBe<Added>()
  })

  test("takes undefined for an option that is left out", () => {
    expect(Queue.add(Tick, undefined, undefined)).type.toBe<Added>()
    expect(
      Queue.add(Tick, undefined, {
        queueName: undefined,
        runAt: undefined,
        delay: undefined,
        maxAttempts: undefined,
        priority: undefined,
        jobKey: undefined,
        jobKeyMode: undefined,
        flags: undefined
      })
    ).type.toBe<Added>()
  })

  test("takes a time as a Date or a DateTime, and a delay as any duration", () => {
    expect(Queue.add).type.toBeCallableWith(Tick, undefined, { runAt: new Date() })
    expect(Queue.add).type.toBeCallableWith(Tick, undefined, { runAt: {} as DateTime.Zoned })
    expect(Queue.add).type.toBeCallableWith(Tick, undefined, { delay: "5 minutes" })
    expect(Queue.add).type.not.toBeCallableWith(Tick, undefined, { runAt: "tomorrow" })
    expect(Queue.add).type.not.toBeCallableWith(Tick, undefined, { delay: "soon" })
  })

  test("requires what encodes the payload", () => {
    expect(Queue.add(Sealed, { text: "secret" })).type.toBe<
      Effect.Effect<Job.Job, Job.InvalidJob | Job.DuplicateJobKey | KongTaskError.KongTaskError, Queue.Queue | Encrypt>
    >()
  })
})

describe("addMany", () => {
  test("takes requests of one task or of several", () => {
    expect(Queue.addMany([1, 2].map((post) => Publish.request({ post })))).type.toBe<AddedMany>()
    expect(Queue.addMany([Publish.request({ post: 1 }), Resize.request({ file: "a.png", width: 1 }), Tick.request()]))
      .type.toBe<AddedMany>()
    expect(Queue.addMany(new Set([Publish.request({ post: 1 })]))).type.toBe<AddedMany>()
    expect(Queue.addMany([])).type.toBe<AddedMany>()
  })

  test("refuses a payload of another type", () => {
    // @ts-expect-error Type 'string' is not assignable to type 'number'
    Queue.addMany([Publish.request({ post: 1 }), Publish.request({ post: "two" })])
    // @ts-expect-error 'post' does not exist in type 'Request<Any>'
    Queue.addMany([{ post: 1 }])
  })

  test("requires what encodes each payload", () => {
    expect(Queue.addMany([Tick.request(), Sealed.request({ text: "secret" })])).type.toBe<
      Effect.Effect<
        ReadonlyArray<Job.Job>,
        Job.InvalidJob | Job.DuplicateJobKey | KongTaskError.KongTaskError,
        Queue.Queue | Encrypt
      >
    >()
  })
})

describe("get, list, count and remove", () => {
  test("know a job by its id, which is no other string", () => {
    expect(Queue.get({} as Job.JobId)).type.toBe<
      Effect.Effect<Option.Option<Job.Job>, KongTaskError.KongTaskError, Queue.Queue>
    >()
    expect(Queue.get).type.not.toBeCallableWith("1")
    expect(Queue.remove).type.toBeCallableWith({} as Job.JobId)
    expect(Queue.remove).type.toBeCallableWith({ key: "welcome:ada" })
    expect(Queue.remove).type.not.toBeCallableWith("welcome:ada")
  })

  test("filter by tasks and states", () => {
    expect(Queue.list()).type.toBe<
      Effect.Effect<ReadonlyArray<Job.Job>, KongTaskError.KongTaskError, Queue.Queue>
    >()
    expect(Queue.list).type.toBeCallableWith({ task: Tick, state: "failed", limit: 10 })
    expect(Queue.list).type.toBeCallableWith({ task: [Tick, Resize], state: undefined, after: {} as Job.JobId })
    expect(Queue.list).type.not.toBeCallableWith({ state: "broken" })
    expect(Queue.count({ queueName: "images" })).type.toBe<
      Effect.Effect<number, KongTaskError.KongTaskError, Queue.Queue>
    >()
    expect(Queue.count).type.not.toBeCallableWith({ task: "resize" })
  })
})

describe("debounce, throttle and dedupe", () => {
  type Keyed = Effect.Effect<Job.Job, Job.InvalidJob | KongTaskError.KongTaskError, Queue.Queue>

  test("are never refused for their key, which they must have", () => {
    expect(Queue.debounce(Resize, { file: "a.png", width: 1 }, { key: "a", delay: "1 second" })).type.toBe<Keyed>()
    expect(Queue.throttle(Tick, undefined, { key: "a", delay: 5, priority: 1 })).type.toBe<Keyed>()
    expect(Queue.dedupe(Tick, undefined, { key: "a" })).type.toBe<Keyed>()
    expect(Queue.dedupe(Tick, undefined, { key: "a", delay: "1 second" })).type.toBe<Keyed>()
    expect(Queue.dedupe).type.not.toBeCallableWith(Tick, undefined, {})
    expect(Queue.debounce).type.not.toBeCallableWith(Tick, undefined, { key: "a" })
    expect(Queue.throttle).type.not.toBeCallableWith(Tick, undefined, { key: "a", delay: 1, jobKeyMode: "reject" })
    expect(Queue.debounce).type.not.toBeCallableWith(Resize, { file: "a.png" }, { key: "a", delay: 1 })
  })
})

describe("administration", () => {
  type Changed = Effect.Effect<ReadonlyArray<Job.Job>, KongTaskError.KongTaskError, Queue.Queue>
  const ids = [{} as Job.JobId]

  test("answers the jobs that it changed", () => {
    expect(Queue.complete(ids)).type.toBe<Changed>()
    expect(Queue.complete(new Set(ids))).type.toBe<Changed>()
    expect(Queue.fail(ids)).type.toBe<Changed>()
    expect(Queue.fail(ids, "wrong address")).type.toBe<Changed>()
    expect(Queue.reschedule(ids, { runAt: new Date(), attempts: 0, priority: undefined })).type.toBe<Changed>()
    expect(Queue.retry(ids)).type.toBe<Changed>()
    expect(Queue.forceUnlock(["pool-1"])).type.toBe<Changed>()
    expect(Queue.complete).type.not.toBeCallableWith(["1"])
    expect(Queue.reschedule).type.not.toBeCallableWith(ids, { attempts: "0" })
  })

  test("reads what there is", () => {
    expect(Queue.getByKey("a")).type.toBe<
      Effect.Effect<Option.Option<Job.Job>, KongTaskError.KongTaskError, Queue.Queue>
    >()
    expect(Queue.stats()).type.toBe<Effect.Effect<JobStore.Stats, KongTaskError.KongTaskError, Queue.Queue>>()
    expect(Queue.stream({ flag: "a", addedBefore: new Date() })).type.toBe<
      Stream.Stream<Job.Job, KongTaskError.KongTaskError, Queue.Queue>
    >()
    expect(Queue.cleanup({ tasks: true, failedJobs: "1 day" })).type.toBe<
      Effect.Effect<JobStore.Cleanup, KongTaskError.KongTaskError, Queue.Queue>
    >()
    expect(Queue.list).type.not.toBeCallableWith({ addedBefore: "yesterday" })
    expect(Queue.cleanup).type.not.toBeCallableWith({ failedJobs: true })
  })
})

class Refused extends Schema.TaggedError<Refused>()("Refused", { code: Schema.BigInt }) {}

const Compute = Task.make("compute", {
  payload: { n: Schema.Int },
  success: Schema.Struct({ at: Schema.Date }),
  error: Refused,
  progress: Schema.Int
})

const Computes = Task.batch("computes", { entry: { n: Schema.Int }, success: Schema.Int, error: Refused })

describe("awaitResult", () => {
  test("answers what the handler answers, and fails with the task's own error among others", () => {
    expect(Queue.awaitResult(Compute, "1" as Job.JobId)).type.toBe<
      Effect.Effect<{ readonly at: Date }, Refused | Job.NoResult | KongTaskError.KongTaskError, Queue.Queue>
    >()
    expect(Queue.awaitResult(Tick, "1" as Job.JobId)).type.toBe<
      Effect.Effect<void, Job.NoResult | KongTaskError.KongTaskError, Queue.Queue>
    >()
  })

  test("answers nothing for a batch task, whose entries have results of their own", () => {
    expect(Queue.awaitResult(Computes, "1" as Job.JobId)).type.toBe<
      Effect.Effect<void, Job.NoResult | KongTaskError.KongTaskError, Queue.Queue>
    >()
  })
})

describe("execute", () => {
  test("may fail as add does, and as awaitResult does", () => {
    expect(Queue.execute(Compute, { n: 1 }, { retain: "1 hour", cancelOnInterrupt: true })).type.toBe<
      Effect.Effect<
        { readonly at: Date },
        Refused | Job.InvalidJob | Job.DuplicateJobKey | Job.NoResult | KongTaskError.KongTaskError,
        Queue.Queue
      >
    >()
    // @ts-expect-error Type 'string' is not assignable to type 'number'
    Queue.execute(Compute, { n: "1" })
  })

  test("needs what encodes its payload", () => {
    expect(Queue.execute(Sealed, { text: "a" })).type.toBe<
      Effect.Effect<
        void,
        Job.InvalidJob | Job.DuplicateJobKey | Job.NoResult | KongTaskError.KongTaskError,
        Queue.Queue | Encrypt
      >
    >()
  })
})

describe("progress", () => {
  test("is a stream of what the handler reports", () => {
    expect(Queue.progress(Compute, "1" as Job.JobId)).type.toBe<
      Stream.Stream<
        number,
        Job.JobNotFound | Job.UndecodableOutcome | Job.AwaitedInTransaction | KongTaskError.KongTaskError,
        Queue.Queue
      >
    >()
  })

  test("is reported in the task's type, and only where it has one", () => {
    Compute.toLayer((_, job) => {
      expect(job.report).type.toBe<(progress: number) => Effect.Effect<void>>()
      return Effect.succeed({ at: new Date(0) })
    })
    Tick.toLayer((_, job) => {
      expect(job).type.not.toHaveProperty("report")
      return Effect.void
    })
  })
})
