/**
 * A real Prometheus that scrapes one address every second, on the loopback, with
 * its data in a temporary directory; killed with its scope.
 */
import * as Effect from "effect/Effect"
import { HttpClient, HttpClientResponse } from "effect/http"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import { existsSync, mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { makeDirectory, readOr } from "../support/directory.ts"
import { eventually } from "../support/events.ts"
import { onSudden } from "../support/guard.ts"

const missing = "These tests need Prometheus, and there is none on the PATH: apt-get install prometheus"

const program = Effect.suspend(() => {
  const directories = [...(process.env["PATH"] ?? "").split(":"), "/usr/bin"]
  const found = directories.map((directory) => join(directory, "prometheus")).find(existsSync)
  return found === undefined ? Effect.die(new Error(missing)) : Effect.succeed(found)
})

const Answer = Schema.Struct({
  status: Schema.Literal("success"),
  data: Schema.Struct({
    result: Schema.Array(Schema.Struct({
      metric: Schema.Record(Schema.String, Schema.String),
      value: Schema.Tuple([Schema.Number, Schema.String])
    }))
  })
})

export interface Sample {
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

export interface Prometheus {
  /** What it answers to an instant query. */
  readonly query: (expr: string) => Effect.Effect<ReadonlyArray<Sample>, unknown, HttpClient.HttpClient>
}

export const make = Effect.fnUntraced(function*(options: {
  readonly port: number
  /** The port on the loopback that it scrapes. */
  readonly scrapes: number
}): Effect.fn.Return<Prometheus, never, HttpClient.HttpClient | Scope.Scope> {
  const path = yield* program
  const directory = yield* makeDirectory("data")
  const file = join(directory, "prometheus.yml")
  const data = join(directory, "tsdb")
  mkdirSync(data)
  writeFileSync(
    file,
    JSON.stringify({
      global: { scrape_interval: "1s" },
      scrape_configs: [{ job_name: "kongtask", static_configs: [{ targets: [`127.0.0.1:${options.scrapes}`] }] }]
    })
  )
  const url = `http://127.0.0.1:${options.port}`
  const log = join(directory, "log")
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn("/bin/sh", [
        "-c",
        `exec "$0" "$@" > "${log}" 2>&1`,
        path,
        `--config.file=${file}`,
        `--storage.tsdb.path=${data}`,
        `--web.listen-address=127.0.0.1:${options.port}`
      ], { stdio: "ignore" })
    ),
    (child) =>
      Effect.callback<void>((resume) => {
        if (child.exitCode !== null) return resume(Effect.void)
        child.once("exit", () => resume(Effect.void))
        child.kill("SIGKILL")
      })
  )
  yield* onSudden("kill -KILL \"$1\"", [String(child.pid)])
  yield* Effect.flatMap(HttpClient.get(`${url}/-/ready`), HttpClientResponse.filterStatusOk).pipe(
    (isReady) => eventually(isReady, { what: "Prometheus", within: "60 seconds" }),
    Effect.catch((error) => Effect.die(new Error(`${error.message}\n${readOr(log, "").slice(-4000)}`)))
  )

  return {
    query: Effect.fnUntraced(function*(expr) {
      const response = yield* HttpClient.get(`${url}/api/v1/query`, { urlParams: { query: expr } })
      if (response.status !== 200) return yield* Effect.die(new Error(`${expr}: ${yield* response.text}`))
      const { data } = yield* HttpClientResponse.schemaBodyJson(Answer)(response)
      return data.result.map(({ metric, value }) => ({ labels: metric, value: Number(value[1]) }))
    })
  }
})
