/**
 * Many tenants, one queue of jobs: none of them can keep the others waiting, and
 * one can be suspended. `npm run example examples/tenants/main.ts`,
 * on the server of `DATABASE_URL` or on PostgreSQL inside the process; it ends by
 * itself.
 *
 * - A named queue a tenant: one job of it runs at a time, in order, on whatever
 *   machine; so a tenant has one slot, however much it sends.
 * - A flag a tenant: workers leave the jobs of suspended ones alone.
 * - A batch of jobs at a lower priority gives way to what people wait for.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Ref, Schema } from "effect"
import { type Job, Queue, Task, Worker } from "kongtask"
import { QueueLive } from "../support/database.ts"

const Import = Task.make("import", { payload: { tenant: Schema.String, file: Schema.String } })

const flagOf = (tenant: string) => `tenant:${tenant}`

/** What every job of a tenant has. */
const limitsOf = (tenant: string, isUrgent: boolean): Job.Options => ({
  queueName: `tenant:${tenant}`,
  flags: [flagOf(tenant)],
  priority: isUrgent ? 0 : 10
})

const upload = (tenant: string, file: string, isUrgent = false) =>
  Import.request({ tenant, file }, limitsOf(tenant, isUrgent))

/** How many jobs of each tenant run now, and how many did at most. */
const makeGauge = Effect.gen(function*() {
  const running = new Map<string, number>()
  const most = new Map<string, number>()
  const change = (tenant: string, by: number) =>
    Effect.sync(() => {
      const now = (running.get(tenant) ?? 0) + by
      running.set(tenant, now)
      most.set(tenant, Math.max(now, most.get(tenant) ?? 0))
    })
  return { change, most }
})

const program = Effect.gen(function*() {
  const suspended = yield* Ref.make<ReadonlyArray<string>>(["initech"])
  const { change, most } = yield* makeGauge

  const ImportLive = Import.toLayer(Effect.fn(function*({ file, tenant }) {
    yield* change(tenant, 1)
    yield* Effect.sleep("20 millis")
    yield* Console.log(`${tenant}: ${file}`)
    yield* change(tenant, -1)
  }))

  const worker = Worker.runOnce({
    tasks: [Import],
    concurrency: 4,
    // Asked at most once a second; here it may come from a table of yours.
    forbiddenFlags: Effect.map(Ref.get(suspended), (tenants) => tenants.map(flagOf)),
    forbiddenFlagsTtl: 0
  }).pipe(Effect.provide(ImportLive))

  yield* Queue.addMany(Array.from({ length: 20 }, (_, i) => upload("acme", `archive ${i + 1}`)))
  yield* Queue.addMany([
    upload("acme", "what somebody waits for", true),
    upload("globex", "a few lines"),
    upload("initech", "not paid for")
  ])

  yield* Console.log(yield* worker)
  const left = yield* Queue.list({ flag: flagOf("initech") })
  yield* Console.log(`Left of initech: ${left.length}`)

  yield* Ref.set(suspended, [])
  yield* Console.log(yield* worker)
  yield* Console.log(`At once, at most: ${[...most].map(([tenant, n]) => `${tenant} ${n}`).join(", ")}`)
})

program.pipe(Effect.provide(QueueLive), NodeRuntime.runMain)
