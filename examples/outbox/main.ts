/**
 * A transactional outbox behind an HTTP API, with metrics: the service that
 * `deploy/` deploys.
 *
 * - `npm run example examples/outbox/main.ts` runs all of it on PostgreSQL inside the process
 * - `DATABASE_URL=postgres://…` runs it on a server, and `ROLE=api` or `ROLE=worker` one half of it
 *
 * Then: `curl -d '{"customer":"ada","cents":1250}' -H 'content-type: application/json' localhost:3000/orders`
 */
import { NodeRuntime } from "@effect/platform-node"
import { Config, Duration, Effect, Layer } from "effect"
import { FetchHttpClient } from "effect/http"
import { Otlp } from "effect/observability"
import { KongTaskMetrics, Worker } from "kongtask"
import { QueueLive } from "../support/database.ts"
import { ApiLive } from "./Api.ts"
import { ConfirmOrder, ConfirmOrderLive, Orders } from "./Orders.ts"

const settings = Config.all({
  role: Config.Literals(["all", "api", "worker"], "ROLE").pipe(Config.withDefault("all")),
  metricsPort: Config.Port("METRICS_PORT").pipe(Config.withDefault(9464)),
  concurrency: Config.Int("CONCURRENCY").pipe(Config.withDefault(20)),
  shutdownTimeout: Config.Duration("SHUTDOWN_TIMEOUT").pipe(Config.withDefault(Duration.seconds(20))),
  collector: Config.option(Config.String("OTEL_EXPORTER_OTLP_ENDPOINT"))
})

const program = Effect.gen(function*() {
  const { collector, concurrency, metricsPort, role, shutdownTimeout } = yield* settings
  const worker = Worker.run({ tasks: [ConfirmOrder], concurrency, shutdownTimeout }).pipe(
    Effect.provide([ConfirmOrderLive, KongTaskMetrics.layerServer({ port: metricsPort })])
  )
  const api = Layer.launch(ApiLive)
  const Telemetry = collector._tag === "None" ? Layer.empty : Layer.provide(
    Otlp.layerJson({ baseUrl: collector.value, resource: { serviceName: `orders-${role}` } }),
    FetchHttpClient.layer
  )
  return yield* (role === "api" ? api : role === "worker" ? worker : Effect.raceFirst(api, worker)).pipe(
    Effect.provide(Layer.provideMerge(Orders.layer, Layer.provideMerge(QueueLive, Telemetry)))
  )
})

program.pipe(NodeRuntime.runMain)
