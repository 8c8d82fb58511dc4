import { describe, expect, it } from "@effect/vitest"
import { DateTime, Effect, Exit, type Layer, Option, Ref, Schema, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { Queue, Retry, Task, Worker } from "kongtask"
import * as Test from "./support/kongtask.ts"

const test = <E>(
  name: string,
  effect: () => Effect.Effect<unknown, E, Layer.Success<ReturnType<typeof Test.layer>> | Scope.Scope>
) => it.live(name, () => Effect.scoped(effect()).pipe(Effect.provide(Test.layer())))

class Bounced extends Schema.TaggedError<Bounced>()("Bounced", { to: Schema.String }) {}
class Unknown extends Schema.TaggedError<Unknown>()("Unknown", { to: Schema.String }) {}

const Mail = Task.batch("mail", {
  entry: { to: Schema.String, at: Schema.Date },
  success: Schema.Number.check(Schema.isFinite()),
  error: Schema.Union([Bounced, Unknown])
})

const at = new Date("2026-01-02T03:04:05Z")
const letter = (to: string) => ({ to, at })

/** Runs what is due with a handler that answers each entry's exit, and remembers the entries that it was given. */
const runOnce = Effect.fnUntraced(function*(
  exitOf: (to: string) => Exit.Exit<number, Bounced | Unknown>,
  options?: Task.HandlerOptions<Bounced | Unknown>
) {
  const seen = yield* Ref.make<ReadonlyArray<string>>([])
  const MailLive = Mail.toLayer((entries) =>
    Effect.as(
      Ref.update(seen, (tos) => [...tos, ...entries.map(({ to }) => to)]),
      entries.map(({ to }) => exitOf(to))
    ), options)
  const summary = yield* Worker.runOnce({ tasks: [Mail] }).pipe(Effect.provide(MailLive))
  return { seen: yield* Ref.get(seen), summary }
})

const bounce = (to: string) => Exit.fail(new Bounced({ to }))

describe("a batch task", () => {
  test("completes when all its entries do, each decoded", () =>
    Effect.gen(function*() {
      yield* Queue.add(Mail, [letter("ada"), letter("bob")])
      const decoded = yield* Ref.make<ReadonlyArray<unknown>>([])
      const summary = yield* Worker.runOnce({ tasks: [Mail] }).pipe(
        Effect.provide(
          Mail.toLayer((entries) => Effect.as(Ref.set(decoded, entries), entries.map(() => Exit.succeed(1))))
        )
      )
      expect(summary).toEqual({ completed: 1, failed: 0, retried: 0, snoozed: 0, cancelled: 0, lost: 0 })
      expect(yield* Ref.get(decoded)).toEqual([letter("ada"), letter("bob")])
      expect(yield* Queue.count()).toBe(0)
    }))

  test("retries the entries that failed, and no others", () =>
    Effect.gen(function*() {
      const { id } = yield* Queue.add(Mail, ["ada", "bob", "eve", "dan"].map(letter))
      const first = yield* runOnce((to) => to === "bob" || to === "dan" ? bounce(to) : Exit.succeed(1), {
        retry: Retry.after("0 millis")
      })
      // It is due at once, so the second attempt is part of the same run, until it has failed for good or completed.
      expect(first.seen.slice(0, 6)).toEqual(["ada", "bob", "eve", "dan", "bob", "dan"])
      const job = Option.getOrThrow(yield* Queue.get(id))
      expect(job).toMatchObject({ state: "failed", payload: [{ to: "bob" }, { to: "dan" }] })
      expect(job.lastError).toBe("BatchFailed: 2 of 2 entries failed:\n[0] Bounced\n[1] Bounced")

      yield* Queue.retry([id])
      const second = yield* runOnce(() => Exit.succeed(1))
      expect(second).toMatchObject({ seen: ["bob", "dan"], summary: { completed: 1 } })
      expect(yield* Queue.count()).toBe(0)
    }))

  test("keeps the entries as they were written, to the digit", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`select 1 from graphile_worker.add_job('mail', '[{"to":"a","at":"2026-01-02T03:04:05.000Z"},
        {"to":"b", "at":"2026-01-02T03:04:05.000Z", "n":12345678901234567890.10}]')`
      yield* runOnce((to) => to === "b" ? bounce(to) : Exit.succeed(1), { retry: Retry.after("1 hour") })
      const [row] = yield* sql<{ payload: string }>`select payload::text from graphile_worker._private_jobs`
      expect(row!.payload).toBe(`[{"to":"b", "at":"2026-01-02T03:04:05.000Z", "n":12345678901234567890.10}]`)
    }))

  test("waits for the longest of its entries' delays, and fails for good when none is to be retried", () =>
    Effect.gen(function*() {
      const retry = Retry.byTag({
        Bounced: (error: Bounced) => Retry.after(error.to === "slow" ? "2 hours" : "1 hour"),
        Unknown: () => Retry.never
      })
      const exitOf = (to: string) => to === "unknown" ? Exit.fail(new Unknown({ to })) : bounce(to)
      const mixed = yield* Queue.add(Mail, ["quick", "unknown", "slow"].map(letter))
      const hopeless = yield* Queue.add(Mail, ["unknown"].map(letter))
      const before = yield* DateTime.now
      const { summary } = yield* runOnce(exitOf, { retry })
      expect(summary).toMatchObject({ retried: 1, failed: 1 })
      const waiting = Option.getOrThrow(yield* Queue.get(mixed.id))
      expect(waiting).toMatchObject({ state: "retrying", attempts: 1 })
      expect(waiting.payload).toHaveLength(3)
      expect(DateTime.toEpochMillis(waiting.runAt) - DateTime.toEpochMillis(before)).toBeGreaterThan(7_100_000)
      expect(Option.getOrThrow(yield* Queue.get(hopeless.id)).state).toBe("failed")
    }))

  test("records the typed errors of its entries", () =>
    Effect.gen(function*() {
      const { id } = yield* Queue.add(Mail, ["ada", "bob"].map(letter))
      yield* runOnce((to) => to === "bob" ? bounce(to) : Exit.die("broken"), { retry: Retry.after("1 hour") })
      const [attempt, ...others] = yield* Queue.failedAttempts(id)
      expect(others).toEqual([])
      expect(attempt).toMatchObject({
        attempt: 1,
        tag: "BatchFailed",
        data: [{ index: 0 }, { index: 1, error: { _tag: "Bounced", to: "bob" } }]
      })
      expect(attempt!.message).toMatch(/^BatchFailed: 2 of 2 entries failed:\n\[0\] Defect: .*broken/)
    }))

  test("fails as a whole when the handler does, or answers too few exits", () =>
    Effect.gen(function*() {
      const { id } = yield* Queue.add(Mail, ["ada", "bob"].map(letter), { maxAttempts: 1 })
      const short = Mail.toLayer(() => Effect.succeed([Exit.succeed(1)]))
      yield* Worker.runOnce({ tasks: [Mail] }).pipe(Effect.provide(short))
      const job = Option.getOrThrow(yield* Queue.get(id))
      expect(job).toMatchObject({ state: "failed", payload: [{ to: "ada" }, { to: "bob" }] })
      expect(job.lastError).toContain(`the batch task "mail" answered 1 exits for 2 entries`)
    }))

  test("retries an entry whose result does not encode", () =>
    Effect.gen(function*() {
      const { id } = yield* Queue.add(Mail, ["ada", "bob"].map(letter))
      yield* runOnce((to) => Exit.succeed(to === "bob" ? Number.NaN : 1), { retry: Retry.after("1 hour") })
      expect(Option.getOrThrow(yield* Queue.get(id)).payload).toMatchObject([{ to: "bob" }])
    }))

  test("keeps all entries when a transactional handler answers a failure, for all its writes are undone", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`create table sent ("to" text)`
      const { id } = yield* Queue.add(Mail, ["ada", "bob"].map(letter))
      const MailLive = Mail.toLayer(
        (entries) =>
          Effect.forEach(entries, ({ to }) =>
            sql`insert into sent values (${to})`.pipe(
              Effect.orDie,
              Effect.andThen(to === "bob" ? Effect.fail(new Bounced({ to })) : Effect.succeed(1)),
              Effect.exit
            )),
        { transactional: true, retry: Retry.after("1 hour") }
      )
      yield* Worker.runOnce({ tasks: [Mail] }).pipe(Effect.provide(MailLive))
      expect(yield* sql`select * from sent`).toEqual([])
      expect(Option.getOrThrow(yield* Queue.get(id))).toMatchObject({
        state: "retrying",
        payload: [{ to: "ada" }, { to: "bob" }]
      })
    }))

  test("gathers the entries that are added under one key", () =>
    Effect.gen(function*() {
      for (const to of ["ada", "bob"]) yield* Queue.add(Mail, [letter(to)], { jobKey: "mails" })
      const { seen, summary } = yield* runOnce(() => Exit.succeed(1))
      expect(seen).toEqual(["ada", "bob"])
      expect(summary.completed).toBe(1)
    }))
})
