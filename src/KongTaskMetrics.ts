/**
 * Metrics of workers and queues, and a way to look at them from outside.
 *
 * Workers and queues update their metrics all the time, whether anybody reads them
 * or not: they are ordinary `Metric`s of Effect, which `effect/observability` exports
 * as Prometheus text or by OTLP. What each of them says is in `docs/operations.md`.
 *
 * - `layer` counts what is in the queue, which nobody does otherwise
 * - `routes` are `/metrics`, `/health` and `/ready` on a router of the program's
 * - `layerServer` is all of that, on a port of its own
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpMiddleware from "effect/http/HttpMiddleware"
import * as HttpRouter from "effect/http/HttpRouter"
import type { ServeError } from "effect/http/HttpServerError"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import { createServer } from "node:http"
import * as Measuring from "./internal/measuring.ts"
import * as Metrics from "./internal/metrics.ts"
import { InvalidConfiguration, KongTaskError } from "./KongTaskError.ts"
import * as Worker from "./Worker.ts"

/**
 * The names of all metrics.
 *
 * @category metrics
 * @since 0.1.0
 */
export const names: ReadonlyArray<string> = Metrics.all.map((series) => series().id)

/**
 * How often the queue is counted.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * The time between two measurements of the queue by all processes together, 15 seconds or more; longer where one takes
   * long, for they have at most a fiftieth of the time. Default: 15 seconds.
   */
  readonly measureEvery?: Duration.Input | undefined
}

/**
 * Where the endpoints are.
 *
 * @category models
 * @since 0.1.0
 */
export interface ServerOptions extends Options {
  /** 0 takes a free one. Default: 9464. */
  readonly port?: number | undefined
  /** The address to listen on. Default: `0.0.0.0`. */
  readonly host?: string | undefined
}

const minInterval = Duration.seconds(15)

const intervalOf = Effect.fnUntraced(function*({ measureEvery }: Options) {
  if (measureEvery === undefined) return minInterval
  const given = Duration.fromInput(measureEvery)
  const interval = given._tag === "Some" ? given.value : undefined
  if (interval === undefined || !Duration.isFinite(interval) || Duration.isLessThan(interval, minInterval)) {
    const problem = `must be a finite duration of at least ${Duration.format(minInterval)}`
    return yield* new KongTaskError({ reason: new InvalidConfiguration({ field: "measureEvery", problem }) })
  }
  return interval
})

/**
 * Measures the queue: `kongtask_queue_depth` and `kongtask_oldest_ready_job_age_seconds`.
 *
 * **Details**
 *
 * Of all the processes that have this layer one measures, and shows what it has found; another takes over when it has
 * been silent for three turns. Each other one sends a small statement a turn. A measurement reads the jobs once, without
 * their payloads, a million of them at most: a quarter of a second.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<never, KongTaskError, Worker.Worker> =>
  Layer.effectDiscard(Effect.gen(function*() {
    const interval = yield* intervalOf(options)
    yield* Effect.forkScoped(Measuring.run(yield* Worker.Worker, interval))
  }))

const seconds = (duration: Duration.Duration) => Math.round(Duration.toMillis(duration)) / 1_000

const describe = (pools: ReadonlyArray<Worker.PoolStatus>) =>
  pools.map((pool) => ({ ...pool, lease: seconds(pool.lease), silent: seconds(pool.silent) }))

/** A worker is ready from its registration to its shutdown, while its lease is confirmed. */
const isReady = ({ lease, silent, state }: Worker.PoolStatus) =>
  state === "running" && Duration.isLessThan(silent, lease)

const probes = Layer.effectDiscard(Effect.gen(function*() {
  const router = yield* HttpRouter.HttpRouter
  const worker = yield* Worker.Worker
  let hadPools = false

  const probe = (isGood: (pools: ReadonlyArray<Worker.PoolStatus>) => boolean) =>
    Effect.map(worker.pools, (pools) => {
      hadPools = hadPools || pools.length > 0
      const good = isGood(pools)
      return HttpServerResponse.jsonUnsafe(
        { status: good ? "ok" : "unavailable", pools: describe(pools) },
        { status: good ? 200 : 503 }
      )
    })

  yield* router.add("GET", "/health", probe((pools) => pools.length > 0 || !hadPools))
  yield* router.add("GET", "/ready", probe((pools) => pools.some(isReady)))
}))

/**
 * `/metrics`, `/health` and `/ready` on a router of the program's, with `layer`.
 *
 * **Details**
 *
 * - `/metrics` is Prometheus text: every metric of the program, ours among them.
 * - `/health` is 200, until all the workers of the program have ended: then 503, for it does nothing any more. A database
 *   that is away does not change it, as no restart would help.
 * - `/ready` is 200 while a worker is registered, has confirmed its lease, and is not stopping; else 503.
 *
 * The last two answer the workers as JSON: no payloads, no addresses. Neither asks the database.
 *
 * @category layers
 * @since 0.1.0
 */
export const routes = (options?: Options): Layer.Layer<never, KongTaskError, HttpRouter.HttpRouter | Worker.Worker> =>
  Layer.mergeAll(probes, PrometheusMetrics.layerHttp(), layer(options))

/** Only who serves has to load it; and it does not load where there is no main module, as in a REPL. */
const nodeHttpServer = Effect.promise(() => import("@effect/platform-node/NodeHttpServer"))

/**
 * `routes` on a port of its own.
 *
 * **Details**
 *
 * Requests are neither logged nor traced. It has no authentication: keep the port within the network of your monitoring.
 *
 * **Example**
 *
 * ```ts
 * Worker.run({ tasks: [SendEmail] }).pipe(
 *   Effect.provide(KongTaskMetrics.layerServer({ port: 9464 })),
 *   Effect.provide([SendEmailLive, KongTask.layerConfig])
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerServer = (
  options: ServerOptions = {}
): Layer.Layer<never, KongTaskError | ServeError, Worker.Worker> =>
  HttpRouter.serve(routes(options), { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provide(Layer.succeed(HttpMiddleware.TracerDisabledWhen)(() => true)),
    Layer.provide(Layer.unwrap(Effect.map(
      nodeHttpServer,
      ({ layer }) => layer(createServer, { port: options.port ?? 9464, host: options.host ?? "0.0.0.0" })
    )))
  )
