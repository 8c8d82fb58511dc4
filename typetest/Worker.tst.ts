// @effect-diagnostics missingEffectContext:off
import { PgClient } from "@effect/sql-pg"
import { Context, Effect, Layer, type Schema, type Stream } from "effect"
import type { SqlClient } from "effect/sql"
import {
  KongTask,
  KongTaskError,
  KongTaskLive,
  type Migrator,
  type Queue,
  type Scheduler,
  Task,
  Worker,
  WorkerEvent
} from "kongtask"
import { describe, expect, test } from "tstyche"

const Resize = Task.make("resize")
const Publish = Task.make("publish")

class Disk extends Context.Service<Disk, { readonly free: number }>()("test/Disk") {}

const ResizeLive = Resize.toLayer(() => Effect.void)
const PublishLive = Publish.toLayer(() => Effect.asVoid(Disk))
const Database = PgClient.layer({})

const worker = Worker.run({ tasks: [Resize, Publish] })

describe("a worker", () => {
  test("requires the handler of each of its tasks", () => {
    expect(worker).type.toBe<
      Effect.Effect<
        never,
        KongTaskError.KongTaskError,
        Worker.Worker | Task.Handler<"resize"> | Task.Handler<"publish">
      >
    >()
    expect(Worker.runOnce({ tasks: [Resize] })).type.toBe<
      Effect.Effect<Worker.Summary, KongTaskError.KongTaskError, Worker.Worker | Task.Handler<"resize">>
    >()
    expect(Worker.layer({ tasks: [Resize, Publish] })).type.toBe<
      Layer.Layer<never, never, Worker.Worker | Task.Handler<"resize"> | Task.Handler<"publish">>
    >()
  })

  test("requires what its effect of forbidden flags does", () => {
    expect(Worker.run({ tasks: [Resize], forbiddenFlags: ["a"] })).type.toBe<
      Effect.Effect<never, KongTaskError.KongTaskError, Worker.Worker | Task.Handler<"resize">>
    >()
    const forbiddenFlags = Effect.map(Disk, ({ free }) => free === 0 ? ["writes"] : [])
    expect(Worker.run({ tasks: [Resize], forbiddenFlags })).type.toBe<
      Effect.Effect<never, KongTaskError.KongTaskError, Worker.Worker | Task.Handler<"resize"> | Disk>
    >()
    expect(Worker.layer({ tasks: [Resize], forbiddenFlags })).type.toBe<
      Layer.Layer<never, never, Worker.Worker | Task.Handler<"resize"> | Disk>
    >()
    expect(Worker.run).type.not.toBeCallableWith({ tasks: [Resize], forbiddenFlags: Effect.fail("no") })
    expect(Worker.run).type.not.toBeCallableWith({ tasks: [Resize], forbiddenFlags: [1] })
  })

  test("requires exactly the handlers that are missing", () => {
    expect(worker.pipe(Effect.provide([ResizeLive, KongTaskLive]))).type.toBe<
      Effect.Effect<never, KongTaskError.KongTaskError, Task.Handler<"publish"> | PgClient.PgClient>
    >()
    expect(worker.pipe(Effect.provide([ResizeLive, PublishLive, KongTask.layerConfig]))).type.toBe<
      Effect.Effect<never, KongTaskError.KongTaskError, Disk>
    >()
  })

  test("runs with all of its handlers, and does not compile without one", () => {
    const complete = worker.pipe(
      Effect.provide([
        ResizeLive,
        Layer.provide(PublishLive, Layer.succeed(Disk, { free: 1 })),
        KongTask.layerEmbedded()
      ])
    )
    expect(complete).type.toBe<Effect.Effect<never, KongTaskError.KongTaskError>>()
    expect(Effect.runFork).type.toBeCallableWith(complete)

    const incomplete = worker.pipe(Effect.provide([ResizeLive, KongTask.layerEmbedded()]))
    // @ts-expect-error Type 'Handler<"publish">' is not assignable to type 'never'
    Effect.runFork(incomplete)
    // @ts-expect-error Type 'Handler<"publish">' is not assignable to type 'never'
    const assigned: Effect.Effect<never, KongTaskError.KongTaskError> = incomplete
    expect(assigned).type.toBe<Effect.Effect<never, KongTaskError.KongTaskError>>()
  })

  test("does not compile with a handler whose service is missing", () => {
    const incomplete = worker.pipe(Effect.provide([ResizeLive, PublishLive, KongTask.layerEmbedded()]))
    // @ts-expect-error Type 'Disk' is not assignable to type 'never'
    Effect.runFork(incomplete)
  })

  test("does not take the handler of another task for one of its own", () => {
    const incomplete = Worker.run({ tasks: [Publish] }).pipe(Effect.provide([ResizeLive, KongTask.layerEmbedded()]))
    expect(incomplete).type.toBe<Effect.Effect<never, KongTaskError.KongTaskError, Task.Handler<"publish">>>()
  })

  test("takes tasks of any schemas, and nothing else", () => {
    const tasks: ReadonlyArray<typeof Resize | typeof Publish> = [Resize, Publish]
    expect(Worker.run({ tasks })).type.toBe<typeof worker>()
    expect<Task.Task<"any", Schema.Top, Schema.Top, Schema.Top>>().type.toBeAssignableTo<Task.Any>()
    expect(Worker.run).type.not.toBeCallableWith({ tasks: ["resize"] })
    expect(Worker.run).type.not.toBeCallableWith({ tasks: [ResizeLive] })
  })

  test("takes undefined for an option that is left out", () => {
    expect(
      Worker.run({
        tasks: [Resize],
        concurrency: undefined,
        pollInterval: undefined,
        shutdownTimeout: undefined,
        heartbeatInterval: undefined,
        lease: undefined,
        listen: undefined,
        handleSignals: undefined
      })
    ).type.toBe<Effect.Effect<never, KongTaskError.KongTaskError, Worker.Worker | Task.Handler<"resize">>>()
  })

  test("leaves signals to the program when it is a layer", () => {
    expect(Worker.layer).type.not.toBeCallableWith({ tasks: [Resize], handleSignals: true })
  })

  test("tells its events as tagged data", () => {
    expect<Context.Service.Shape<typeof Worker.Worker>["events"]>().type.toBe<
      Stream.Stream<WorkerEvent.WorkerEvent>
    >()
    const describe = (event: WorkerEvent.WorkerEvent): string => {
      switch (event._tag) {
        case "PoolStopping":
          return String(event.running)
        case "JobFailed":
          return `${event.job.id} ${event.error}`
        default:
          return event.pool
      }
    }
    expect(describe).type.toBeCallableWith(new WorkerEvent.PoolIdle({ pool: "p" }))
  })

  test("requires the services of its hooks", () => {
    class Meter extends Context.Service<Meter, { readonly count: number }>()("Meter") {}
    expect(
      Worker.run({
        tasks: [Resize],
        hooks: {
          before: () => Effect.asVoid(Meter),
          after: (_, outcome) => Effect.log(outcome._tag),
          around: (attempt) => Effect.andThen(Meter, attempt)
        }
      })
    ).type.toBe<
      Effect.Effect<never, KongTaskError.KongTaskError, Worker.Worker | Task.Handler<"resize"> | Meter>
    >()
    expect(Worker.run).type.not.toBeCallableWith({
      tasks: [Resize],
      hooks: { before: () => Effect.fail("no typed errors") }
    })
  })
})

describe("the ready-made layers", () => {
  type Services = Queue.Queue | Worker.Worker | Scheduler.Scheduler | Migrator.Migrator
  type Clients = PgClient.PgClient | SqlClient.SqlClient

  test("need a PgClient or bring one", () => {
    expect(KongTaskLive).type.toBe<Layer.Layer<Services, KongTaskError.KongTaskError, PgClient.PgClient>>()
    expect(KongTask.layer({ schema: "jobs", migrate: undefined })).type.toBe<typeof KongTaskLive>()
    expect(KongTask.layerConfig).type.toBe<Layer.Layer<Services | Clients, KongTaskError.KongTaskError>>()
    expect(KongTask.layerEmbedded({ dataDir: undefined })).type.toBe<typeof KongTask.layerConfig>()
    expect(Layer.provide(KongTaskLive, Database)).type.toBeAssignableTo<Layer.Layer<Services, unknown>>()
  })

  test("fail with one error, whose reasons are matched by their tags", () => {
    const handled = Effect.catchReason(worker, "KongTaskError", "DataDirectoryInUse", (reason) => {
      expect(reason.pid).type.toBe<number>()
      return Effect.succeed("in use" as const)
    })
    expect<Effect.Success<typeof handled>>().type.toBe<"in use">()
    // @ts-expect-error is not assignable to
    Effect.catchReason(worker, "KongTaskError", "NoSuchReason", () => Effect.void)
    expect(KongTaskError.isKongTaskError).type.toBe<(u: unknown) => u is KongTaskError.KongTaskError>()
  })
})
