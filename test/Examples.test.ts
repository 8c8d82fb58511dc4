/**
 * The examples do what they say, on the embedded database and on a server.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Schedule } from "effect"
import { FetchHttpClient, HttpBody, HttpClient, HttpClientResponse } from "effect/http"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Cli from "./support/cli.ts"
import { TestDatabase } from "./support/database.ts"
import { makeDirectory } from "./support/directory.ts"
import * as Test from "./support/kongtask.ts"
import { freePort } from "./support/port.ts"
import { spawnScript } from "./support/process.ts"

const examples = Path.resolve(import.meta.dirname, "../examples")

const run = (name: string, env: Readonly<Record<string, string | undefined>> = {}) =>
  spawnScript(Path.join(examples, name, "main.ts"), {
    cwd: Path.dirname(examples),
    env: { DATABASE_URL: undefined, ...env }
  })

const starting = { within: "60 seconds" } as const

/** The same on PostgreSQL in the process and on a server. */
const onBoth = (
  name: string,
  test: (env: Readonly<Record<string, string | undefined>>) => Effect.Effect<void, unknown, HttpClient.HttpClient>
) => {
  it.live(`${name}, on the embedded database`, () => Effect.provide(test({}), FetchHttpClient.layer), 90_000)
  it.live(`${name}, on a server`, () =>
    Effect.gen(function*() {
      const { url } = yield* TestDatabase
      yield* test({ DATABASE_URL: url })
    }).pipe(Effect.provide(Layer.merge(Test.layer(), FetchHttpClient.layer))), 90_000)
}

const ended = { code: 0, signal: null }
const interrupted = { code: 130, signal: null }

describe("examples", () => {
  for (const where of ["the embedded database", "a server"] as const) {
    it.live(`folder has tasks that the command line runs, on ${where}`, () =>
      Effect.gen(function*() {
        const { url } = yield* TestDatabase
        const embedded = Path.join(yield* makeDirectory("data"), "embedded")
        const env = where === "a server" ? { DATABASE_URL: url } : { KONGTASK_EMBEDDED: embedded }
        const kongtask = (...args: ReadonlyArray<string>) => Cli.run(args, { cwd: Path.join(examples, "folder"), env })
        const ok = expect.objectContaining({ code: 0 })
        expect(yield* kongtask("migrate")).toEqual(ok)
        expect(yield* kongtask("add", "greet", "{ \"name\": \"Ada\" }")).toEqual(ok)
        expect(yield* kongtask("add", "mail/welcome", "{ \"to\": \"ada@example.org\" }")).toEqual(ok)
        expect(yield* kongtask("add", "mail/welcome", "{ \"to\": \"nobody\" }")).toEqual(ok)
        expect(yield* kongtask("add", "count", "[1, 2]")).toEqual(ok)
        const worker = yield* kongtask("worker", "--once")
        expect(worker.stdout).toContain("Hello Ada, this is attempt 1.")
        expect(worker.stdout).toContain("Mail to ada@example.org.")
        expect(worker.stdout).toContain("3 jobs completed, 1 failed for good.")
        expect(worker.stdout).toMatch(/Connected to the mail server\.[^]*Disconnected from the mail server\./)
        expect(worker.stderr).toMatch(/Job \d+ has an input of 17 bytes\./)
        expect(worker.code).toBe(10)
        expect((yield* kongtask("jobs", "list")).stdout).toMatch(/mail\/welcome +failed.*InvalidAddress/)
      }).pipe(Effect.scoped, Effect.provide(Test.layer())), 120_000)
  }

  onBoth("outbox places an order and confirms it, both or neither", (env) =>
    Effect.gen(function*() {
      const [port, metricsPort] = [yield* freePort, yield* freePort]
      const child = yield* run("outbox", { ...env, PORT: `${port}`, METRICS_PORT: `${metricsPort}` })
      yield* child.line("Listening on", starting)
      const post = (order: unknown) =>
        HttpClient.post(`http://127.0.0.1:${port}/orders`, { body: HttpBody.jsonUnsafe(order) })
      const get = (id: number) => HttpClient.get(`http://127.0.0.1:${port}/orders/${id}`)

      const placed = yield* post({ customer: "ada", cents: 1250 })
      expect(placed.status).toBe(201)
      expect(yield* placed.json).toEqual({ id: 1, customer: "ada", cents: 1250, status: "placed" })
      yield* child.line("Confirmed order 1")
      const isConfirmed = Effect.flatMap(get(1), ({ json }) => json).pipe(
        Effect.repeat({ until: (order) => (order as { status: string }).status === "confirmed" }),
        Effect.timeout("20 seconds")
      )
      yield* isConfirmed
      expect((yield* post({ customer: "", cents: 1 })).status).toBe(400)
      expect((yield* get(2)).status).toBe(404)

      const ready = yield* HttpClient.get(`http://127.0.0.1:${metricsPort}/ready`).pipe(
        Effect.flatMap(HttpClientResponse.filterStatusOk),
        Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 100 })
      )
      expect(yield* ready.json).toMatchObject({ status: "ok" })
      yield* child.kill("SIGTERM")
      expect(yield* child.exit).toEqual(interrupted)
    }).pipe(Effect.scoped))

  onBoth("mail is sent in the end, or refused", (env) =>
    Effect.gen(function*() {
      const child = yield* run("mail", { ...env, MAIL_PORT: `${yield* freePort}` })
      yield* child.line("Not sent: 1", starting)
      expect(yield* child.exit).toEqual(ended)
      const said = yield* child.stdout
      for (
        const line of ["failed: RateLimited. The next one is due in 1s", "failed: Unavailable. The next one is due"]
      ) {
        expect(said).toContain(line)
      }
      expect(said).toMatch(/Sent to ada@example\.org as message-\d[^]*Sent to bob@example\.org as message-\d/)
      expect(said).toContain("and the job for good: Rejected")
      expect(said).toContain("nobody is no address")
    }).pipe(Effect.scoped))

  onBoth("reports make the first one at once", (env) =>
    Effect.gen(function*() {
      const child = yield* run("reports", env)
      yield* child.line("Report for the day until", starting)
      yield* child.line("north: 10 sales, 165.00")
      yield* child.line("south: 10 sales, 145.00")
      yield* child.kill("SIGTERM")
      expect(yield* child.exit).toEqual(interrupted)
    }).pipe(Effect.scoped))

  onBoth("tenants have one slot each, and suspended ones wait", (env) =>
    Effect.gen(function*() {
      const child = yield* run("tenants", env)
      yield* child.line("Left of initech: 1", starting)
      yield* child.line("initech: not paid for")
      yield* child.line("At once, at most: acme 1, globex 1, initech 1")
      expect(yield* child.exit).toEqual(ended)
      const lines = (yield* child.stdout).split("\n")
      expect(lines.indexOf("globex: a few lines")).toBeLessThan(lines.indexOf("acme: archive 4"))
      expect(lines.indexOf("acme: what somebody waits for")).toBeLessThan(lines.indexOf("acme: archive 1"))
    }).pipe(Effect.scoped))

  onBoth("documents write an index when every page is read, or is not to be", (env) =>
    Effect.gen(function*() {
      const child = yield* run("documents", env)
      yield* child.line(/: \d+ pages, 1 not read$/, starting)
      yield* child.line(/^Retries: \d+ words, \d+ headings$/)
      yield* child.line("Unreadable: docs/a page that is not there.md")
      expect(yield* child.exit).toEqual(ended)
    }).pipe(Effect.scoped))

  it.live("side-by-side runs the jobs of both workers on one schema", () =>
    Effect.gen(function*() {
      const { url } = yield* TestDatabase
      const child = yield* run("side-by-side", { DATABASE_URL: url })
      yield* child.line("All done.", starting)
      expect(yield* child.exit).toEqual(ended)
      expect((yield* child.stdout).split("\n").toSorted().filter((line) => line !== "")).toEqual([
        "All done.",
        "KongTask: resize a.png",
        "KongTask: resize b.png",
        "graphile-worker: notify ada",
        "graphile-worker: notify bob"
      ])
    }).pipe(Effect.scoped, Effect.provide(Test.layer({ interop: true }))), 90_000)

  it("are all tested, and in the README", () => {
    const names = Fs.readdirSync(examples).filter((name) => Fs.existsSync(Path.join(examples, name, "main.ts")))
    const readme = Fs.readFileSync(Path.join(examples, "../README.md"), "utf8")
    const tests = ["Examples", "Docs", "LinkChecker"].map((name) =>
      Fs.readFileSync(Path.join(import.meta.dirname, `${name}.test.ts`), "utf8")
    )
    expect(names.filter((name) => !readme.includes(`examples/${name}/`))).toEqual([])
    expect(names.filter((name) => !tests.some((text) => text.includes(name)))).toEqual([])
  })
})
