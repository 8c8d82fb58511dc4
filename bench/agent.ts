/**
 * The process of one contestant: `agent.ts MODULE PROFILE URL`. It does what its parent asks, one request after the
 * other, and ends with it.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import { type Contestant, type Make, now, padding, type Payload, priorities, type Work } from "./support/contestant.ts"
import { committedChannel, type Operation, type Operations, type Used, type WorkSpec } from "./support/operations.ts"
import { percentiles } from "./support/statistics.ts"

const [module = "", profile = "", url = ""] = process.argv.slice(2)

type Handlers = {
  readonly [Name in Operation]: (input: Operations[Name]["input"]) => Effect.Effect<Operations[Name]["output"]>
}

const cpuMillis = () => {
  const { system, user } = process.cpuUsage()
  return (system + user) / 1000
}

const usedSince = (cpu: number): Used => ({
  cpu: cpuMillis() - cpu,
  rss: process.memoryUsage.rss() / 2 ** 20,
  peakRss: process.resourceUsage().maxRSS / 2 ** 10
})

const workOf = (spec: WorkSpec, onStart: Work["onStart"] = () => {}): Work => ({ ...spec, onStart })

const payloadsOf = (count: number, padBytes: number): ReadonlyArray<Payload> => {
  const pad = padBytes > 0 ? { pad: padding(padBytes) } : {}
  return Array.from({ length: count }, (_, n) => ({ n, ...pad }))
}

/** A connection of the measurement's own, beside the contestant's. */
const control = PgClient.layer({
  url: Redacted.make(url),
  maxConnections: 2,
  applicationName: "kongtask-bench-control"
})

const handlersOf = (contestant: Contestant): Handlers => {
  let running: Scope.Closeable | undefined

  const drain: Handlers["drain"] = Effect.fnUntraced(function*({ work, workers }) {
    let last = -1
    let inversions = 0
    const inOrder = (n: number) => {
      const place = (n * 7) % priorities * 1e9 + n
      if (place < last) inversions++
      else last = place
    }
    const cpu = cpuMillis()
    const spans = yield* Effect.all(
      Array.from({ length: workers }, () => contestant.drain(workOf(work, inOrder))),
      { concurrency: "unbounded" }
    )
    return {
      start: Math.min(...spans.map(({ start }) => start)),
      end: Math.max(...spans.map(({ end }) => end)),
      inversions,
      ...usedSince(cpu)
    }
  })

  const until: Handlers["until"] = Effect.fnUntraced(
    function*({ pending, seconds, work }) {
      const sql = yield* PgClient.PgClient
      const cpu = cpuMillis()
      let started = 0
      let end = 0
      const start = now()
      const deadline = start + seconds * 1000
      const committed = Effect.gen(function*() {
        while (now() < deadline) {
          if (started >= work.jobs) {
            const [row] = yield* sql.unsafe<{ pending: boolean }>(pending)
            if (row?.pending === false) break
          }
          yield* Effect.sleep("2 millis")
        }
        end = now()
      })
      yield* contestant.work(workOf(work, (n) => {
        if (n >= 0) started++
      })).pipe(Effect.andThen(committed), Effect.scoped)
      return { start, end, started, ...usedSince(cpu) }
    },
    Effect.provide(control),
    Effect.orDie
  )

  const add: Handlers["add"] = Effect.fnUntraced(function*({ batch, calls, fibers, padBytes }) {
    const producer = yield* contestant.producer(fibers)
    const times: Array<number> = []
    const payloads = payloadsOf(batch, padBytes)
    const one = Effect.suspend(() => {
      const start = now()
      const call = batch === 1 ? producer.add(payloads[0]!) : producer.addMany(payloads)
      return Effect.map(call, () => void times.push(now() - start))
    })
    const all = (count: number) =>
      Effect.forEach(Array.from({ length: count }), () => one, { concurrency: fibers, discard: true })
    yield* all(Math.ceil(calls / 10))
    times.length = 0
    const cpu = cpuMillis()
    const start = now()
    yield* all(calls)
    return { start, end: now(), ...usedSince(cpu), ...percentiles(times) }
  }, Effect.scoped)

  const latency: Handlers["latency"] = Effect.fnUntraced(
    function*({ gap, loadPerSecond, samples, work }) {
      const sql = yield* PgClient.PgClient
      const notifications = yield* sql.listen(committedChannel)
      const producer = yield* contestant.producer(1)
      const startedAt = new Map<number, number>()
      yield* contestant.work(workOf(work, (n) => {
        if (n >= 0) startedAt.set(n, now())
      }))
      if (loadPerSecond > 0) {
        yield* Effect.forkScoped(Effect.forever(
          Effect.andThen(
            Effect.forkScoped(producer.add({ n: -1 }, "load")),
            Effect.sleep(1000 / loadPerSecond)
          )
        ))
      }
      const added: Array<number> = []
      const started: Array<number> = []
      const committed: Array<number> = []
      const warmUp = Math.ceil(samples / 10)
      for (let n = 0; n < samples + warmUp; n++) {
        // Never in step with anybody's poll.
        yield* Effect.sleep(gap * (0.5 + Math.random()))
        const start = now()
        yield* producer.add({ n })
        const returned = now()
        let told = ""
        while (told !== String(n)) told = (yield* Queue.take(notifications)).payload ?? ""
        const end = now()
        if (n < warmUp) continue
        added.push(returned - start)
        started.push(startedAt.get(n)! - start)
        committed.push(end - start)
      }
      return { added: percentiles(added), started: percentiles(started), committed: percentiles(committed) }
    },
    Effect.scoped,
    Effect.provide(control),
    Effect.orDie
  )

  const start: Handlers["start"] = Effect.fnUntraced(function*({ work }) {
    const scope = running = yield* Scope.make()
    const begin = now()
    const first = yield* Queue.unbounded<number>()
    yield* Scope.provide(contestant.work(workOf(work, () => void Queue.offerUnsafe(first, now()))), scope)
    if (work.jobs === 0) return { firstJobAfter: undefined }
    return { firstJobAfter: (yield* Queue.take(first)) - begin }
  })

  const stop: Handlers["stop"] = Effect.fnUntraced(function*() {
    const begin = now()
    if (running !== undefined) yield* Scope.close(running, Exit.void)
    running = undefined
    return now() - begin
  })

  return {
    configuration: (work) => Effect.sync(() => contestant.configuration(work)),
    migrate: () => contestant.migrate,
    fill: ({ jobs, padBytes }) => contestant.fill?.(payloadsOf(jobs, padBytes)) ?? Effect.void,
    drain,
    until,
    add,
    latency,
    claims: ({ count }) => contestant.claims?.(count) ?? Effect.succeed([]),
    start,
    used: () => Effect.sync(() => ({ ...usedSince(0), cpu: cpuMillis() })),
    stop
  }
}

interface Request {
  readonly id: number
  readonly operation: Operation
  readonly input: never
}

const program = Effect.gen(function*() {
  const { make }: { readonly make: Make } = yield* Effect.promise(() => import(`./contestants/${module}.ts`))
  const handlers = handlersOf(make(url, profile))
  const requests = yield* Queue.unbounded<Request>()
  process.on("message", (request: Request) => void Queue.offerUnsafe(requests, request))
  while (true) {
    const { id, input, operation } = yield* Queue.take(requests)
    const exit = yield* Effect.exit(handlers[operation](input) as Effect.Effect<unknown>)
    process.send?.(
      Exit.isSuccess(exit) ? { id, output: exit.value ?? null } : { id, problem: Cause.pretty(exit.cause) }
    )
  }
}).pipe(Effect.provideService(References.MinimumLogLevel, "Warn"))

const fiber = Effect.runFork(program)
fiber.addObserver((exit) => {
  if (Exit.isFailure(exit)) process.stderr.write(`${Cause.pretty(exit.cause)}\n`)
  process.exit(1)
})
process.on("disconnect", () => process.exit(0))
// Ctrl-C reaches the whole group; the parent ends its children itself.
process.on("SIGINT", () => {})
