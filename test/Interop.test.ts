import { PgClient } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, type Scope } from "effect"
import type { Job as TheirJob } from "graphile-worker"
import { type Job, type KongTaskError, Migrator, Queue } from "kongtask"
import { eventually, pause } from "./support/events.ts"
import * as Graphile from "./support/graphile.ts"
import {
  Both,
  makeGate,
  makeLedger,
  Ours,
  type Run,
  schemas,
  type Services,
  startOurs,
  target,
  Theirs
} from "./support/interop.ts"
import * as Test from "./support/kongtask.ts"

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => ({ n: from + i }))
const numbers = (runs: ReadonlyArray<Run>) => runs.map(({ n }) => n).toSorted((a, b) => a - b)
const jobIs = (state: Job.State) => ({ what: `a ${state} job`, until: (job: Job.Job) => job.state === state })
const jobOf = (id: string) => Effect.flatMap(Queue.get(id as Job.JobId), (job) => Effect.fromOption(job))

/** Waits until no job is left; nothing that locks one may be left then either. */
const drained = Effect.fnUntraced(function*() {
  const sql = yield* PgClient.PgClient
  yield* eventually(Queue.count(), { what: "an empty table", until: (left) => left === 0, within: "60 seconds" })
  yield* eventually(
    sql`select from graphile_worker._private_job_queues where locked_at is not null or locked_by is not null`,
    { what: "free queues", until: (rows) => rows.length === 0 }
  )
})

for (const [name, { adoptedFrom, layer }] of Object.entries(schemas)) {
  const test = <E>(
    name: string,
    effect: () => Effect.Effect<unknown, E, Services | Scope.Scope>,
    timeout = 60_000
  ) => it.live(name, () => Effect.scoped(effect()).pipe(Effect.provide(layer)), timeout)

  describe(`graphile-worker and KongTask on ${name}`, () => {
    test("feed each other, with every option of a job", () =>
      Effect.gen(function*() {
        const at = yield* target
        assert.deepInclude(yield* Migrator.status, { interop: true })
        assert.strictEqual((yield* Migrator.status).adopted?.from, adoptedFrom)
        const utils = yield* Graphile.utils(at)
        const runAt = new Date("2020-02-02T02:02:02.222Z")
        const options = { maxAttempts: 7, priority: -3, flags: ["a", "b"], jobKey: "key", runAt }

        const oneOfOurs: Array<Job.Running> = []
        const oneOfTheirs: Array<TheirJob & { readonly queueName: string | null | undefined }> = []
        const { promise: seen } = Promise.withResolvers<void>()
        void seen
        const added = yield* Effect.promise(() =>
          utils.addJob("ours", { n: -1 }, { ...options, queueName: "queue" })
        )
        yield* Effect.promise(() => utils.addJobs(range(0, 50).map((payload) => ({ identifier: "ours", payload }))))
        void oneOfOurs
        void oneOfTheirs
        void added
      }))
  })
}
