/**
 * The example `outbox`, scraped by a real Prometheus: every query of the Grafana
 * dashboard has an answer, and every alert can be evaluated. `npm run test:system`
 * runs it, for it needs that program.
 */
import { expect, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { FetchHttpClient, HttpBody, HttpClient } from "effect/http"
import { SqlClient } from "effect/sql"
import * as Path from "node:path"
import { alertQueries, panelQueries } from "../support/dashboard.ts"
import { TestDatabase } from "../support/database.ts"
import { eventually } from "../support/events.ts"
import * as Test from "../support/kongtask.ts"
import { freePort } from "../support/port.ts"
import { spawnScript } from "../support/process.ts"
import * as Prometheus from "./prometheus.ts"

const main = Path.resolve(import.meta.dirname, "../../examples/outbox/main.ts")

const show = ({ labels, value }: Prometheus.Sample) =>
  `${Object.entries(labels).map(([name, label]) => `${name}=${label}`).join(" ") || "all"}: ${value}`

it.live("Prometheus scrapes an example, and the dashboard and the alerts get answers", () =>
  Effect.gen(function*() {
    const { url } = yield* TestDatabase
    const sql = yield* SqlClient.SqlClient
    const [port, metricsPort, prometheusPort] = [yield* freePort, yield* freePort, yield* freePort]
    // A job that waits, for nobody runs its task.
    yield* sql`select id::text from graphile_worker.add_job('of_nobody')`
    const child = yield* spawnScript(main, {
      env: { DATABASE_URL: url, PORT: `${port}`, METRICS_PORT: `${metricsPort}` }
    })
    yield* child.line("Listening on", { within: "60 seconds" })
    const prometheus = yield* Prometheus.make({ port: prometheusPort, scrapes: metricsPort })

    // Orders, and jobs that cannot succeed, for as long as there are questions.
    const traffic = Effect.gen(function*() {
      yield* HttpClient.post(`http://127.0.0.1:${port}/orders`, {
        body: HttpBody.jsonUnsafe({ customer: "ada", cents: 1250 })
      })
      yield* sql`select id::text from graphile_worker.add_job('confirm_order', '{"orderId": "?"}')`
      yield* sql`select id::text from graphile_worker.add_job('confirm_order', '{"orderId": "?"}', max_attempts => 1)`
    })
    yield* Effect.forkScoped(Effect.forever(Effect.delay(traffic, "100 millis")))

    const answers: Array<string> = []
    for (const { expr, name } of panelQueries) {
      const samples = yield* eventually(prometheus.query(expr), {
        what: `an answer to ${expr}`,
        until: (samples) => samples.some(({ value }) => Number.isFinite(value)),
        every: "500 millis",
        within: "90 seconds"
      })
      // Where nothing has happened within the window, a quantile is not a number.
      const known = samples.filter(({ value }) => Number.isFinite(value))
      answers.push(`${name}\n${known.map((sample) => `    ${show(sample)}`).join("\n")}`)
    }
    console.log(answers.join("\n"))
    expect(answers.length).toBe(panelQueries.length)

    const failed = yield* prometheus.query("sum(kongtask_processed_tasks_total{status=\"failed\"})")
    expect(failed[0]!.value).toBeGreaterThan(0)
    for (const { expr } of alertQueries) expect(yield* prometheus.query(expr)).toBeInstanceOf(Array)
    yield* child.kill("SIGTERM")
    expect(yield* child.exit).toEqual({ code: 130, signal: null })
  }).pipe(Effect.scoped, Effect.provide(Layer.merge(Test.layer(), FetchHttpClient.layer))), 240_000)
