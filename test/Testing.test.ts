import { afterAll, describe, expect, it, layer } from "@effect/vitest"
import {
  Cause,
  Clock,
  Context,
  DateTime,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  ManagedRuntime,
  Schema,
  Stream
} from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { Bundle, Job, KongTaskError, Queue, Retry, Scheduler, Task, type Worker } from "kongtask"
import * as Testing from "kongtask/testing"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { it as plainIt } from "vitest"
import * as Database from "./support/database.ts"

class Bounced extends Schema.TaggedError<Bounced>()("Bounced", { to: Schema.String }) {}

const SendEmail = Task.make("send_email", {
  payload: { to: Schema.String, subject: Schema.String, at: Schema.optional(Schema.DateTimeUtc) },
  success: Schema.Struct({ messageId: Schema.String }),
  error: Bounced
})
const Welcome = Task.make("welcome", { payload: { user: Schema.String } })
const Tick = Task.make("tick", { priority: 3 })

const ada = { to: "ada@example.org", subject: "Hello" }
const bob = { to: "bob@example.org", subject: "Hello" }

const Report = Task.make("report", {
  payload: Bundle.payload({ tasks: [SendEmail, Welcome], data: { to: Schema.String } })
})
const Sum = Task.make("sum", { payload: Bundle.payload() })
const reporting = { name: "mailing", onComplete: Bundle.completion(Report, { to: "eve" }) }

/** Bounces what goes to nobody, waits with what is too early, drops what is spam. */
const SendEmailLive = SendEmail.toLayer(({ subject, to }) => {
  if (to === "nobody") return Effect.fail(new Bounced({ to }))
  if (subject === "later") return Job.snooze("1 hour")
  if (subject === "spam") return Job.cancel("spam")
  return Effect.succeed({ messageId: `<${to}>` })
}, { retry: Retry.after("1 hour") })

const WelcomeLive = Welcome.toLayer(
  Effect.fnUntraced(function*({ user }) {
    yield* Effect.orDie(Queue.add(SendEmail, { to: user, subject: "Welcome" }))
  })
)

const message = (exit: Exit.Exit<unknown, unknown>): string =>
  Exit.isFailure(exit) ? String((Cause.squash(exit.cause) as Error).message) : "it succeeded"

const tally = (counts: Partial<Worker.Summary>): Worker.Summary => ({
  completed: 0,
  failed: 0,
  retried: 0,
  snoozed: 0,
  cancelled: 0,
  lost: 0,
  ...counts
})

const Embedded = Layer.orDie(Testing.layerEmbedded())

layer(Layer.provideMerge(SendEmailLive, Layer.provideMerge(WelcomeLive, Embedded)), { timeout: 60_000 })(
  "on a database in the process",
  (it) => {
    describe("drain", () => {
      it.effect("runs what is due, what handlers add included, and counts what became of it", () =>
        Effect.gen(function*() {
          yield* Testing.reset
          yield* Queue.add(Welcome, { user: "ada" })
          yield* Queue.add(SendEmail, { to: "nobody", subject: "a" })
          yield* Queue.add(SendEmail, { to: "nobody", subject: "b" }, { maxAttempts: 1 })
          yield* Queue.add(SendEmail, { to: "ada", subject: "later" })
          yield* Queue.add(SendEmail, { to: "ada", subject: "spam" })
          yield* Queue.add(SendEmail, ada, { delay: "1 hour" })
          expect(yield* Testing.drain({ tasks: [SendEmail, Welcome] })).toEqual(
            tally({ completed: 2, retried: 1, failed: 1, snoozed: 1, cancelled: 1 })
          )
          expect(yield* Testing.drain({ tasks: [SendEmail, Welcome] })).toEqual(tally({}))
        }))

      it.effect("runs one job, the one that a worker would take first", () =>
        Effect.gen(function*() {
          yield* Testing.reset
          yield* Queue.add(SendEmail, ada)
          const first = yield* Queue.add(SendEmail, bob, { priority: -1 })
          expect(yield* Testing.runOne({ tasks: [SendEmail] })).toEqual(tally({ completed: 1 }))
          expect(yield* Queue.get(first.id)).toHaveProperty("_tag", "None")
          expect(yield* Queue.count()).toBe(1)
          expect(yield* Testing.runOne({ tasks: [SendEmail] })).toEqual(tally({ completed: 1 }))
          expect(yield* Testing.runOne({ tasks: [SendEmail] })).toEqual(tally({}))
        }))
    })

    describe("what was added", () => {
      it.effect("is known by its task, decoded, with its options, and is forgotten by reset", () =>
        Effect.gen(function*() {
          yield* Testing.reset
          const at = DateTime.makeUnsafe("2026-01-01T00:00:00Z")
          yield* Queue.add(SendEmail, { ...ada, at }, { delay: "1 hour", jobKey: "hello" })
          yield* Queue.addMany([SendEmail.request(bob), Tick.request(undefined)])
          const mails = yield* Testing.added(SendEmail)
          expect(mails.map(({ payload }) => payload)).toEqual([{ ...ada, at }, bob])
          expect(mails[0]!.options).toMatchObject({ delay: Duration.hours(1), jobKey: "hello" })
          expect(mails[0]!.job).toMatchObject({ key: "hello", state: "scheduled" })
          expect((yield* Testing.added(Tick)).map(({ options, payload }) => [payload, options.priority])).toEqual([
            [undefined, 3]
          ])
          expect((yield* Testing.allAdded).map(({ task }) => task)).toEqual(["send_email", "send_email", "tick"])
          yield* Testing.reset
          expect(yield* Testing.allAdded).toEqual([])
          expect(yield* Queue.count()).toBe(0)
        }))

      it.effect("is nothing that was refused", () =>
        Effect.gen(function*() {
          yield* Testing.reset
          yield* Effect.flip(Queue.add(SendEmail, ada, { priority: 1e6 }))
          yield* Queue.add(SendEmail, ada, { jobKey: "one" })
          yield* Effect.flip(Queue.add(SendEmail, bob, { jobKey: "one", jobKeyMode: "reject" }))
          yield* Testing.assertAdded(SendEmail, { times: 1 })
        }))

      it.effect("is expected by some of its payload and options, or by a predicate", () =>
        Effect.gen(function*() {
          yield* Testing.reset
          const runAt = DateTime.makeUnsafe("2030-01-01T00:00:00Z")
          yield* Queue.add(SendEmail, ada, { delay: "1 hour" })
          yield* Queue.add(SendEmail, bob, { runAt, jobKey: "bob" })
          yield* Testing.assertAdded(SendEmail)
          const [found] = yield* Testing.assertAdded(SendEmail, { payload: { to: bob.to }, times: 1 })
          expect(found!.payload).toEqual(bob)
          yield* Testing.assertAdded(SendEmail, { options: { delay: Duration.minutes(60) } })
          yield* Testing.assertAdded(SendEmail, { options: { runAt: DateTime.toDateUtc(runAt), jobKey: "bob" } })
          yield* Testing.assertAdded(SendEmail, { payload: ({ to }) => to.startsWith("ada"), times: 1 })
          yield* Testing.refuteAdded(SendEmail, { payload: { to: "eve@example.org" } })
          yield* Testing.refuteAdded(SendEmail, { payload: ada, options: { jobKey: "bob" } })
          yield* Testing.refuteAdded(Tick)
        }))

      it.effect("is listed when it is not what was expected", () =>
        Effect.gen(function*() {
          yield* Testing.reset
          expect(message(yield* Effect.exit(Testing.assertAdded(Tick)))).toBe(
            "Expected a job of task \"tick\", but found none. None of this task was added, nor any other job."
          )
          yield* Queue.add(SendEmail, ada, { delay: "1 hour" })
          expect(message(yield* Effect.exit(Testing.assertAdded(Tick)))).toBe(
            "Expected a job of task \"tick\", but found none. None of this task was added; there were jobs of: send_email."
          )
          const one = "1 job of this task was added:\n" +
            "  1. { to: 'ada@example.org', subject: 'Hello' }, options { delay: "
          const missing = message(yield* Effect.exit(Testing.assertAdded(SendEmail, { payload: { to: "eve" } })))
          expect(missing).toContain("Expected a job of task \"send_email\" like { to: 'eve' }, but found none. " + one)
          expect(message(yield* Effect.exit(Testing.assertAdded(SendEmail, { times: 2 })))).toContain(
            "Expected 2 jobs of task \"send_email\", but found 1. " + one
          )
          expect(message(yield* Effect.exit(Testing.refuteAdded(SendEmail)))).toContain(
            "Expected no job of task \"send_email\", but found 1. " + one
          )
        }))
    })

    describe("a bundle", () => {
      it.effect("is known with its jobs and completions, and is forgotten by reset, which completes none", () =>
        Effect.gen(function*() {
          yield* Testing.reset
          const { bundle, jobs } = yield* Queue.addBundle([SendEmail.request(ada, { delay: "1 hour" })], reporting)
          yield* Queue.addToBundle(bundle.id, [SendEmail.request(bob)])
          yield* Queue.add(SendEmail, bob)
          const mails = yield* Testing.assertAdded(SendEmail, { times: 3 })
          expect(mails.map(({ job }) => job.bundle)).toEqual([bundle.id, bundle.id, undefined])
          expect(mails[0]!.job).toEqual(jobs[0])
          yield* Testing.assertAdded(SendEmail, { payload: ada, options: { delay: "1 hour" }, times: 1 })
          const [added, ...others] = yield* Testing.addedBundles
          expect(others).toEqual([])
          expect(added).toMatchObject({
            bundle: { id: bundle.id, name: "mailing", state: "open", jobs: 1 },
            jobs: [{ task: "send_email", payload: ada }, { payload: bob }],
            completions: [{ on: "complete", task: "report", payload: { to: "eve" } }],
            isIgnored: false
          })
          yield* Testing.reset
          expect(yield* Testing.addedBundles).toEqual([])
          expect(yield* Queue.bundles()).toEqual([])
          expect(yield* Queue.count()).toBe(0)
        }))

      it.effect("is drained with its completion job", () =>
        Effect.gen(function*() {
          yield* Testing.reset
          const told = yield* Deferred.make<typeof Report.payloadSchema.Type>()
          const { bundle } = yield* Queue.addBundle(
            [SendEmail.request(ada), Welcome.request({ user: "bob" })],
            reporting
          )
          const ReportLive = Report.toLayer((payload) => Deferred.succeed(told, payload))
          expect(yield* Effect.provide(Testing.drain({ tasks: [SendEmail, Welcome, Report] }), ReportLive)).toEqual(
            tally({ completed: 4 })
          )
          expect(yield* Deferred.await(told)).toMatchObject({
            bundle: { id: bundle.id, completed: 2 },
            data: { to: "eve" }
          })
        }))

      it.effect("that was refused is none", () =>
        Effect.gen(function*() {
          yield* Testing.reset
          yield* Queue.add(SendEmail, ada, { jobKey: "one" })
          const member = SendEmail.request(bob, { jobKey: "one", jobKeyMode: "reject" })
          expect(yield* Effect.flip(Queue.addBundle([member]))).toMatchObject({ _tag: "DuplicateJobKey" })
          expect(yield* Testing.addedBundles).toEqual([])
          yield* Testing.assertAdded(SendEmail, { times: 1 })
        }))

      it.effect("fails where its operations are told to, one of them or all", () =>
        Effect.gen(function*() {
          yield* Testing.reset
          const add = Queue.addBundle([SendEmail.request(ada)])
          yield* Testing.failNext("bundling.add")
          expect((yield* Effect.flip(add)).message).toBe("PostgreSQL refused to bundling.add: the test said so")
          expect(yield* Queue.count()).toBe(0)
          yield* Testing.refuteAdded(SendEmail)
          expect(yield* Testing.addedBundles).toEqual([])
          const { bundle } = yield* add
          yield* Testing.failNext("bundling", { times: 2 })
          yield* Effect.flip(Queue.addToBundle(bundle.id, [SendEmail.request(bob)]))
          yield* Effect.flip(Queue.bundle(bundle.id))
          expect(yield* Queue.bundle(bundle.id)).toMatchObject({ value: { jobs: 1 } })
        }))
    })

    describe("failing", () => {
      it.effect("is what an operation does as often as it was told to", () =>
        Effect.gen(function*() {
          yield* Testing.reset
          yield* Testing.failNext("add", { times: 2 })
          const error = yield* Effect.flip(Queue.add(SendEmail, ada))
          expect(error).toMatchObject({ _tag: "KongTaskError", isTransient: false })
          expect(error.message).toBe("PostgreSQL refused to add: the test said so")
          yield* Effect.flip(Queue.add(SendEmail, ada))
          expect(yield* Queue.count()).toBe(0)
          yield* Testing.refuteAdded(SendEmail)
          yield* Queue.add(SendEmail, ada)
          expect(yield* Queue.count()).toBe(1)
        }))

      it.effect("is what all operations do, with the error that was chosen, until reset", () =>
        Effect.gen(function*() {
          yield* Testing.reset
          const reason = new KongTaskError.SchemaMissing({ schema: "jobs", pending: [] })
          const error = new KongTaskError.KongTaskError({ reason })
          yield* Testing.failNext("all", { error, times: Infinity })
          const scheduler = yield* Scheduler.Scheduler
          expect(yield* Effect.flip(Queue.add(SendEmail, ada))).toBe(error)
          expect(yield* Effect.flip(Queue.count())).toBe(error)
          expect(yield* Effect.flip(scheduler.list)).toBe(error)
          expect(yield* Effect.flip(Testing.drain({ tasks: [SendEmail] }))).toBe(error)
          yield* Testing.reset
          expect(yield* Queue.count()).toBe(0)
        }))

      it.effect("is waited for by a worker where it will pass", () =>
        Effect.gen(function*() {
          yield* Testing.reset
          yield* Queue.add(SendEmail, ada)
          const reason = new KongTaskError.StatementFailed({
            operation: "claim",
            code: "57P03",
            detail: "starting up",
            isTransient: true,
            cause: undefined
          })
          yield* Testing.failNext("claim", { error: new KongTaskError.KongTaskError({ reason }) })
          expect(yield* Testing.drain({ tasks: [SendEmail] })).toEqual(tally({ completed: 1 }))
        }))
    })
  }
)

const Ignoring = (ignore: Testing.Ignored) => Layer.orDie(Testing.layerEmbedded({ ignore }))

describe("ignoring", () => {
  it.effect("some tasks notes them, answers them, and passes the others on", () =>
    Effect.gen(function*() {
      const mail = yield* Queue.add(SendEmail, ada)
      const [tick, other] = yield* Queue.addMany([Tick.request(undefined), SendEmail.request(bob)])
      expect([mail.state, tick!.task, other!.payload]).toEqual(["ready", "tick", bob])
      expect((yield* Queue.list()).map(({ task }) => task)).toEqual(["tick"])
      expect((yield* Testing.added(SendEmail)).map(({ isIgnored }) => isIgnored)).toEqual([true, true])
      expect((yield* Testing.added(Tick)).map(({ isIgnored }) => isIgnored)).toEqual([false])
      expect(yield* Effect.flip(Queue.execute(SendEmail, ada))).toMatchObject({
        _tag: "JobCancelled",
        reason: "the test ignores it"
      })
    }).pipe(Effect.provide(Ignoring([SendEmail]))), 60_000)

  it.effect("some jobs of a bundle leaves the others in it, which complete it", () =>
    Effect.gen(function*() {
      const { bundle, jobs } = yield* Queue.addBundle([
        SendEmail.request(ada),
        Welcome.request({ user: "bob" }),
        SendEmail.request(bob)
      ], { ...reporting, origin: "import", onSuccess: Bundle.completion(Sum) })
      expect(jobs.map(({ bundle, origin, payload }) => ({ bundle, origin, payload }))).toEqual(
        [ada, { user: "bob" }, bob].map((payload) => ({ bundle: bundle.id, origin: "import", payload }))
      )
      expect(bundle).toMatchObject({ jobs: 1, state: "open" })
      yield* Queue.addToBundle(bundle.id, [SendEmail.request(ada)])
      expect((yield* Testing.added(SendEmail)).map(({ isIgnored }) => isIgnored)).toEqual([true, true, true])
      expect((yield* Testing.addedBundles)[0]!.jobs).toHaveLength(4)
      const done = yield* Deferred.make<Bundle.Summary>()
      const Live = Layer.merge(
        Welcome.toLayer(() => Effect.void),
        Sum.toLayer(({ bundle }) => Deferred.succeed(done, bundle))
      )
      const drained = yield* Effect.provide(Testing.drain({ tasks: [Welcome, Sum] }), Live)
      expect(drained).toEqual(tally({ completed: 2 }))
      expect(yield* Deferred.await(done)).toMatchObject({ jobs: 1, completed: 1 })
      // The other completion is ignored too.
      expect(yield* Queue.count()).toBe(0)
      const late = [SendEmail.request(ada)]
      expect(yield* Effect.flip(Queue.addToBundle(bundle.id, late))).toMatchObject({ _tag: "BundleDone" })
      const nowhere = Bundle.BundleId.make("99")
      expect(yield* Effect.flip(Queue.addToBundle(nowhere, late))).toMatchObject({ _tag: "BundleNotFound" })
      yield* Testing.assertAdded(SendEmail, { times: 3 })
    }).pipe(Effect.provide(Ignoring([SendEmail, Report]))), 60_000)

  it.effect(
    "all jobs of a bundle ignores the bundle, which ends cancelled for whoever waits",
    () =>
      Effect.gen(function*() {
        const { bundle, jobs } = yield* Queue.addBundle([SendEmail.request(ada)], {
          ...reporting,
          onFailure: Bundle.completion(Sum)
        })
        expect(bundle).toMatchObject({ state: "open", jobs: 1, cancelled: 0, name: "mailing" })
        const [tick] = yield* Queue.addToBundle(bundle.id, [Tick.request(undefined)])
        expect(yield* Queue.awaitBundle(bundle.id)).toMatchObject({ state: "done", jobs: 2, cancelled: 2 })
        expect(yield* Stream.runCollect(Queue.bundleOutcomes(bundle.id, [SendEmail, Tick]))).toEqual([
          { _tag: "Cancelled", job: jobs[0]!.id, task: "send_email" },
          { _tag: "Cancelled", job: tick!.id, task: "tick" }
        ])
        expect(yield* Testing.addedBundles).toMatchObject([{
          isIgnored: true,
          jobs: [{ payload: ada }, { task: "tick" }]
        }])
        expect((yield* Testing.added(Tick)).map(({ isIgnored }) => isIgnored)).toEqual([true])
        expect(yield* Queue.count()).toBe(0)
        expect(yield* Queue.bundles()).toEqual([])
      }).pipe(Effect.provide(Ignoring([SendEmail]))),
    60_000
  )

  it.effect("by a predicate sees the payload as JSON and the options", () =>
    Effect.gen(function*() {
      yield* Queue.add(SendEmail, ada, { jobKey: "x" })
      yield* Queue.add(SendEmail, bob, { jobKey: "y" })
      expect((yield* Queue.list()).map(({ key }) => key)).toEqual(["y"])
    }).pipe(
      Effect.provide(
        Ignoring(({ options, payload }) => options.jobKey === "x" && (payload as typeof ada).to === ada.to)
      )
    ), 60_000)
})

describe("without a database", () => {
  it.effect("all is noted, and nothing comes of it", () =>
    Effect.gen(function*() {
      const job = yield* Queue.add(SendEmail, ada, { delay: "1 hour" })
      expect(job).toMatchObject({ state: "scheduled", task: "send_email", payload: ada, attempts: 0, maxAttempts: 25 })
      expect(job.runAt.epochMilliseconds).toBe(3_600_000)
      yield* Queue.addMany([Tick.request(undefined), Tick.request(undefined)])
      yield* Testing.assertAdded(Tick, { times: 2 })
      expect(yield* Effect.flip(Queue.add(SendEmail, ada, { priority: 0.5 }))).toMatchObject({ _tag: "InvalidJob" })
      expect(yield* Queue.list()).toEqual([])
      expect(yield* Queue.get(job.id)).toHaveProperty("_tag", "None")
      expect(yield* Effect.flip(Queue.execute(SendEmail, ada))).toMatchObject({ _tag: "JobCancelled" })
      expect(yield* Testing.drain({ tasks: [SendEmail] })).toEqual(tally({}))
      yield* Testing.failNext("add")
      yield* Effect.flip(Queue.add(SendEmail, ada))
      const scheduler = yield* Scheduler.Scheduler
      expect(message(yield* Effect.exit(scheduler.list))).toMatch(/needs a database: use Testing.layerEmbedded/)
    }).pipe(Effect.provide(Layer.merge(SendEmailLive, Testing.layerNothing()))))

  it.effect("a bundle is noted and answered, and ends cancelled", () =>
    Effect.gen(function*() {
      const { bundle, jobs } = yield* Queue.addBundle([SendEmail.request(ada), SendEmail.request(bob)], reporting)
      expect(bundle).toMatchObject({ state: "open", jobs: 2, name: "mailing" })
      expect(jobs.map((job) => job.bundle)).toEqual([bundle.id, bundle.id])
      yield* Queue.addToBundle(bundle.id, [SendEmail.request(ada)])
      yield* Testing.assertAdded(SendEmail, { times: 3 })
      expect((yield* Testing.addedBundles)[0]).toMatchObject({ completions: [{ task: "report" }], isIgnored: false })
      expect(yield* Queue.awaitBundle(bundle.id)).toMatchObject({ state: "done", cancelled: 3 })
      const nowhere = Bundle.BundleId.make("1")
      expect(yield* Queue.bundle(nowhere)).toHaveProperty("_tag", "None")
      expect(yield* Effect.flip(Queue.awaitBundle(nowhere))).toMatchObject({ _tag: "BundleNotFound" })
      const late = Queue.addToBundle(nowhere, [SendEmail.request(ada)])
      expect(yield* Effect.flip(late)).toMatchObject({ _tag: "BundleNotFound" })
      expect(yield* Effect.flip(Queue.addBundle([]))).toMatchObject({ _tag: "InvalidBundle" })
      expect(yield* Queue.deleteBundles({})).toBe(0)
      expect(yield* Queue.subscriptions).toEqual([])
    }).pipe(Effect.provide(Testing.layerNothing())))

  it.effect("two tests know nothing of each other", () =>
    Effect.provide(Testing.refuteAdded(Tick), Testing.layerNothing()))
})

const Extend = Task.make("extend", { payload: { to: Schema.String } })
/** Adds a mail to its own bundle. */
const ExtendLive = Extend.toLayer(({ to }, job) =>
  Effect.orDie(Queue.addToBundle(job.bundle!, [SendEmail.request({ to, subject: "" })]))
)

const ReportLive = Report.toLayer(({ bundle, data, outcomes }) =>
  Effect.orDie(Queue.add(Tick, undefined, {
    flags: [data.to, `${bundle.completed} of ${bundle.jobs}`, ...outcomes.map(({ _tag }) => _tag)]
  }))
)

/** What the completion job has told. */
const reports = Effect.map(Testing.added(Tick), (ticks) => ticks.map(({ options }) => options.flags))

const Inlined = (onFailure?: "die") =>
  Testing.layerInline({ tasks: [SendEmail, Welcome, Report, Extend], onFailure }).pipe(
    Layer.provide([SendEmailLive, WelcomeLive, ReportLive, ExtendLive]),
    Layer.provideMerge(Layer.orDie(Testing.layerEmbedded({ effectClock: true })))
  )

layer(Inlined(), { timeout: 60_000 })("inline", (it) => {
  it.effect("an add answers the job as it is when it has run", () =>
    Effect.gen(function*() {
      yield* Testing.reset
      expect(yield* Queue.add(SendEmail, ada)).toMatchObject({ state: "completed", attempts: 1 })
      expect(yield* Queue.add(SendEmail, { ...ada, subject: "spam" })).toMatchObject({ state: "cancelled" })
      expect(yield* Queue.add(SendEmail, { to: "nobody", subject: "" })).toMatchObject({
        state: "retrying",
        attempts: 1,
        lastError: expect.stringContaining("Bounced")
      })
      expect(yield* Queue.add(SendEmail, { to: "nobody", subject: "" }, { maxAttempts: 1 })).toMatchObject({
        state: "failed"
      })
      expect((yield* Queue.addMany([SendEmail.request(ada), SendEmail.request(bob)])).map(({ state }) => state))
        .toEqual([
          "completed",
          "completed"
        ])
      expect(yield* Queue.add(Tick, undefined)).toMatchObject({ state: "ready" })
    }))

  it.effect("what a handler adds has run when the add answers", () =>
    Effect.gen(function*() {
      yield* Testing.reset
      expect(yield* Queue.add(Welcome, { user: "eve" })).toMatchObject({ state: "completed" })
      yield* Testing.assertAdded(SendEmail, { payload: { to: "eve" }, times: 1 })
      expect(yield* Queue.count()).toBe(0)
    }))

  it.effect("execute answers the result, and fails with the task's own error", () =>
    Effect.gen(function*() {
      yield* Testing.reset
      expect(yield* Queue.execute(SendEmail, ada)).toEqual({ messageId: "<ada@example.org>" })
      const failed = Queue.execute(SendEmail, { to: "nobody", subject: "" }, { maxAttempts: 1 })
      expect(yield* Effect.flip(failed)).toBeInstanceOf(Bounced)
      const job = yield* Queue.add(SendEmail, bob, { retain: "1 hour" })
      expect(yield* Queue.awaitResult(SendEmail, job)).toEqual({ messageId: "<bob@example.org>" })
    }))

  it.effect("many fibers may add at the same time", () =>
    Effect.gen(function*() {
      yield* Testing.reset
      const jobs = yield* Effect.forEach(
        Array.from({ length: 20 }, (_, n) => n),
        (n) => n % 2 === 0 ? Queue.add(Welcome, { user: `${n}` }) : Queue.add(SendEmail, { to: `${n}`, subject: "" }),
        { concurrency: "unbounded" }
      )
      expect(jobs.map(({ state }) => state)).toEqual(Array.from({ length: 20 }, () => "completed"))
      yield* Testing.assertAdded(SendEmail, { times: 20 })
      expect(yield* Queue.count()).toBe(0)
    }))

  it.effect("a delayed job and a retry run when their time has come", () =>
    Effect.gen(function*() {
      yield* Testing.reset
      const later = yield* Queue.add(SendEmail, ada, { delay: "1 hour", jobKey: "later" })
      expect(later).toMatchObject({ state: "scheduled" })
      const retry = yield* Queue.add(SendEmail, { to: "nobody", subject: "" })
      yield* TestClock.adjust("1 hour")
      yield* Queue.add(SendEmail, bob)
      expect(yield* Queue.get(later.id)).toHaveProperty("_tag", "None")
      expect(yield* Queue.get(retry.id)).toMatchObject({ value: { attempts: 2, state: "retrying" } })
    }))

  it.effect("a bundle is done when its add answers, and its completion job has run", () =>
    Effect.gen(function*() {
      yield* Testing.reset
      const requests = [SendEmail.request(ada), SendEmail.request({ to: "nobody", subject: "" }, { maxAttempts: 1 })]
      const { bundle, jobs } = yield* Queue.addBundle(requests, reporting)
      expect(jobs.map(({ bundle, state }) => [bundle, state])).toEqual([[bundle.id, "completed"], [
        bundle.id,
        "failed"
      ]])
      expect(bundle).toMatchObject({ state: "done", completed: 1, failed: 1 })
      expect(yield* reports).toEqual([["eve", "1 of 2", "Completed", "Failed"]])
      expect(yield* Stream.runCollect(Queue.bundleOutcomes(bundle.id, [SendEmail]))).toMatchObject([
        { _tag: "Completed", result: { messageId: "<ada@example.org>" } },
        { _tag: "Failed", error: new Bounced({ to: "nobody" }) }
      ])
      expect(yield* Queue.awaitBundle(bundle.id)).toEqual(bundle)
      const late = Queue.addToBundle(bundle.id, [SendEmail.request(bob)])
      expect(yield* Effect.flip(late)).toMatchObject({ _tag: "BundleDone" })
      expect((yield* Testing.addedBundles)[0]!.bundle).toMatchObject({ id: bundle.id, state: "open" })
    }))

  it.effect("a bundle whose job is delayed is done when the clock has moved", () =>
    Effect.gen(function*() {
      yield* Testing.reset
      const now = yield* Clock.currentTimeMillis
      const { bundle, jobs: [, later] } = yield* Queue.addBundle(
        [SendEmail.request(ada), SendEmail.request(bob, { delay: "1 hour" })],
        reporting
      )
      expect(later).toMatchObject({ state: "scheduled", bundle: bundle.id })
      expect(later!.runAt.epochMilliseconds).toBe(now + Duration.toMillis("1 hour"))
      expect(bundle).toMatchObject({ state: "open", completed: 1 })
      const [more] = yield* Queue.addToBundle(bundle.id, [SendEmail.request(ada, { delay: "30 minutes" })])
      expect(more!.runAt.epochMilliseconds).toBe(now + Duration.toMillis("30 minutes"))
      yield* TestClock.adjust("30 minutes")
      yield* Queue.add(SendEmail, bob)
      expect(yield* Queue.bundle(bundle.id)).toMatchObject({ value: { state: "open", completed: 2 } })
      expect(yield* reports).toEqual([])
      yield* TestClock.adjust("30 minutes")
      yield* Queue.add(SendEmail, bob)
      expect(yield* Queue.bundle(bundle.id)).toMatchObject({ value: { state: "done", completed: 3 } })
      expect(yield* reports).toEqual([["eve", "3 of 3", "Completed", "Completed", "Completed"]])
    }))

  it.effect("what a handler adds to its own bundle has run before the bundle is done", () =>
    Effect.gen(function*() {
      yield* Testing.reset
      const { bundle } = yield* Queue.addBundle([Extend.request({ to: "ada" })], { name: "extended" })
      expect(bundle).toMatchObject({ state: "done", jobs: 2, completed: 2 })
      const [mail] = yield* Testing.assertAdded(SendEmail, { payload: { to: "ada" }, times: 1 })
      expect(mail!.job.bundle).toBe(bundle.id)
    }))

  it.effect("a bundle of a transaction runs after the commit", () =>
    Effect.gen(function*() {
      yield* Testing.reset
      const sql = yield* SqlClient.SqlClient
      const { bundle, jobs } = yield* sql.withTransaction(Queue.addBundle([SendEmail.request(ada)], reporting))
      expect([bundle.state, jobs[0]!.state]).toEqual(["open", "ready"])
      yield* Queue.add(SendEmail, bob)
      expect(yield* Queue.bundle(bundle.id)).toMatchObject({ value: { state: "done", completed: 1 } })
      expect(yield* reports).toEqual([["eve", "1 of 1", "Completed"]])
    }))

  it.effect("a job of a transaction runs after the commit, and never when it is rolled back", () =>
    Effect.gen(function*() {
      yield* Testing.reset
      const sql = yield* SqlClient.SqlClient
      const job = yield* sql.withTransaction(Queue.add(SendEmail, ada))
      expect(job.state).toBe("ready")
      yield* Effect.exit(sql.withTransaction(Effect.andThen(Queue.add(SendEmail, bob), Effect.fail("no"))))
      expect((yield* Queue.list()).map(({ id }) => id)).toEqual([job.id])
      yield* Queue.add(SendEmail, bob)
      expect(yield* Queue.count()).toBe(0)
    }))
})

describe("inline, a failure", () => {
  it.effect("is a defect of the add where that is asked for", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(Queue.add(SendEmail, { to: "nobody", subject: "" }))
      expect(message(exit)).toMatch(/^Job \d+ of task "send_email" has failed for good: /)
      expect(yield* Queue.add(SendEmail, ada)).toMatchObject({ state: "completed" })
    }).pipe(Effect.provide(Inlined("die"))), 60_000)
})

const Clocked = Layer.provideMerge(SendEmailLive, Layer.orDie(Testing.layerEmbedded({ effectClock: true })))

const onClock = (
  name: string,
  live: Layer.Layer<Testing.Kit | Worker.Worker | Queue.Queue | Task.Handler<"send_email">>
) =>
  layer(live, { timeout: 60_000 })(name, (it) => {
    const tasks = [SendEmail]
    const hour = Duration.toMillis("1 hour")
    const nowMillis = Effect.map(DateTime.now, ({ epochMilliseconds }) => epochMilliseconds)

    it.effect("a job is due when the clock has moved, exactly", () =>
      Effect.gen(function*() {
        yield* Testing.reset
        const now = yield* nowMillis
        const job = yield* Queue.add(SendEmail, ada, { delay: "1 hour" })
        expect(job.runAt.epochMilliseconds).toBe(now + hour)
        expect(yield* Testing.drain({ tasks })).toEqual(tally({}))
        yield* TestClock.adjust(hour - 1)
        expect(yield* Testing.drain({ tasks })).toEqual(tally({}))
        expect(yield* Queue.get(job.id)).toMatchObject({ value: { state: "scheduled", runAt: job.runAt } })
        yield* TestClock.adjust(1)
        expect(yield* Queue.get(job.id)).toMatchObject({ value: { state: "ready", runAt: job.runAt } })
        expect(yield* Testing.drain({ tasks })).toEqual(tally({ completed: 1 }))
      }))

    it.effect("so it is with retries and snoozes", () =>
      Effect.gen(function*() {
        yield* Testing.reset
        const retry = yield* Queue.add(SendEmail, { to: "nobody", subject: "" }, { maxAttempts: 2 })
        const snoozed = yield* Queue.add(SendEmail, { to: "ada", subject: "later" })
        const now = yield* nowMillis
        expect(yield* Testing.drain({ tasks })).toEqual(tally({ retried: 1, snoozed: 1 }))
        for (const { id } of [retry, snoozed]) {
          const found = yield* Queue.get(id)
          expect(found._tag === "Some" && found.value.runAt.epochMilliseconds).toBe(now + hour)
        }
        yield* TestClock.adjust("59 minutes")
        expect(yield* Testing.drain({ tasks })).toEqual(tally({}))
        yield* TestClock.adjust("1 minute")
        expect(yield* Testing.drain({ tasks })).toEqual(tally({ failed: 1, snoozed: 1 }))
      }))

    it.effect("so it is with reschedule and retry", () =>
      Effect.gen(function*() {
        yield* Testing.reset
        const { id } = yield* Queue.add(SendEmail, { to: "nobody", subject: "" }, { maxAttempts: 1 })
        yield* Queue.reschedule([id], { delay: "2 hours" })
        expect(yield* Testing.drain({ tasks })).toEqual(tally({}))
        yield* TestClock.adjust("2 hours")
        expect(yield* Testing.drain({ tasks })).toEqual(tally({ failed: 1 }))
        const now = yield* nowMillis
        const [retried] = yield* Queue.retry([id])
        expect(retried!.runAt.epochMilliseconds).toBe(now)
        expect(yield* Testing.runOne({ tasks })).toEqual(tally({ failed: 1 }))
      }))

    it.effect("handlers are told the times that were meant", () =>
      Effect.gen(function*() {
        yield* Testing.reset
        const job = yield* Queue.add(Tick, undefined, { flags: ["a"], delay: "1 hour" })
        yield* TestClock.adjust("1 hour")
        const seen = yield* Deferred.make<Job.Running>()
        const Telling = Tick.toLayer((_, running) => Deferred.succeed(seen, running))
        yield* Effect.provide(Testing.drain({ tasks: [Tick] }), Telling)
        const { createdAt, flags, runAt } = yield* Deferred.await(seen)
        expect({ createdAt, flags, runAt }).toEqual({ createdAt: job.createdAt, flags: ["a"], runAt: job.runAt })
      }))

    it.effect("the jobs of a bundle are due by it, and know their bundle", () =>
      Effect.gen(function*() {
        yield* Testing.reset
        const now = yield* nowMillis
        const { bundle, jobs: [job] } = yield* Queue.addBundle([Tick.request(undefined, { delay: "1 hour" })], {
          origin: "import",
          onSuccess: Bundle.completion(Sum)
        })
        expect([job!.runAt.epochMilliseconds, job!.state]).toEqual([now + hour, "scheduled"])
        expect(message(yield* Effect.exit(Queue.removeMany({ runBefore: job!.runAt })))).toMatch(/use list and remove/)
        const seen: Array<Pick<Job.Running, "bundle" | "origin">> = []
        const summaries: Array<Bundle.Summary> = []
        const Live = Layer.merge(
          Tick.toLayer((_, { bundle, origin }) => Effect.sync(() => seen.push({ bundle, origin }))),
          Sum.toLayer(({ bundle }) => Effect.sync(() => summaries.push(bundle)))
        )
        const drain = Effect.provide(Testing.drain({ tasks: [Tick, Sum] }), Live)
        expect(yield* drain).toEqual(tally({}))
        yield* TestClock.adjust("1 hour")
        expect(yield* drain).toEqual(tally({ completed: 2 }))
        expect(seen).toEqual([{ bundle: bundle.id, origin: "import" }])
        expect(summaries).toMatchObject([{ id: bundle.id, completed: 1 }])
      }))

    it.effect("handlers sleep by it", () =>
      Effect.gen(function*() {
        yield* Testing.reset
        const started = yield* Deferred.make<void>()
        const Slow = Tick.toLayer(() => Effect.andThen(Deferred.succeed(started, undefined), Effect.sleep("1 day")))
        yield* Queue.add(Tick, undefined)
        const fiber = yield* Effect.forkChild(Effect.provide(Testing.drain({ tasks: [Tick] }), Slow))
        yield* Deferred.await(started)
        yield* TestClock.adjust("1 day")
        expect(yield* Fiber.join(fiber)).toEqual(tally({ completed: 1 }))
      }))
  })

onClock("by Effect's clock", Clocked)

describe("by Effect's clock, far away", () => {
  it.effect(
    "jobs have the runAt that they were given: in the past, this year or in 200 years",
    () =>
      Effect.gen(function*() {
        yield* TestClock.setTime(Date.UTC(2100, 0))
        const times = [Date.UTC(1970, 0), Date.UTC(2050, 0), Date.UTC(2300, 0)].map((at) => DateTime.makeUnsafe(at))
        yield* Queue.addMany(times.map((runAt) => SendEmail.request(ada, { runAt })))
        const states = Effect.map(Queue.list(), (jobs) => jobs.map(({ runAt, state }) => [runAt, state]))
        expect(yield* states).toEqual([[times[0], "ready"], [times[1], "ready"], [times[2], "scheduled"]])
        expect(yield* Queue.count({ runAfter: times[1]!, runBefore: times[2]! })).toBe(1)
        expect(yield* Queue.list({ runAfter: times[1]!, limit: 1 })).toHaveLength(1)
        yield* Testing.drain({ tasks: [SendEmail] })
        yield* TestClock.setTime(Date.UTC(2300, 0))
        expect(yield* states).toEqual([[times[2], "ready"]])
      }).pipe(Effect.provide(Clocked)),
    60_000
  )
})

/** A pool of connections looks after them now and then; that is no matter of the test's clock. */
const Server = Layer.provide(
  Layer.orDie(Database.layer()),
  Layer.succeed(Clock.Clock, Context.get(Context.empty(), Clock.Clock))
)

onClock(
  "by Effect's clock, on a server",
  Layer.provideMerge(SendEmailLive, Layer.orDie(Layer.provideMerge(Testing.layer({ effectClock: true }), Server)))
)

describe("without a runner of Effect's", () => {
  const runtime = ManagedRuntime.make(Layer.provideMerge(SendEmailLive, Embedded))
  afterAll(() => runtime.dispose())

  plainIt("a runtime is shared by the tests of a file", () =>
    runtime.runPromise(Effect.gen(function*() {
      yield* Testing.reset
      yield* Queue.add(SendEmail, ada)
      yield* Testing.assertAdded(SendEmail, { payload: ada })
      expect(yield* Testing.drain({ tasks: [SendEmail] })).toEqual(tally({ completed: 1 }))
    })), 60_000)
})

describe("the test kit", () => {
  it("is imported by no other module", () => {
    const src = Path.join(import.meta.dirname, "../src")
    const importers = Fs.readdirSync(src, { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".ts") && !name.startsWith("internal/testing") && name !== "testing.ts")
      .filter((name) =>
        /from "[^"]*\/testing(?:\/[^"]*)?(?:\.ts)?"/.test(Fs.readFileSync(Path.join(src, name), "utf8"))
      )
    expect(importers).toEqual([])
  })

  it("imports public modules, and its own", () => {
    const folder = Path.join(import.meta.dirname, "../src/internal/testing")
    const imports = Fs.readdirSync(folder).flatMap((name) =>
      [...Fs.readFileSync(Path.join(folder, name), "utf8").matchAll(/from "(\.[^"]*)"/g)].map(([, path]) => path!)
    )
    expect(imports.length).toBeGreaterThan(10)
    expect(imports.filter((path) => !/^\.\.\/\.\.\/[A-Z]\w+\.ts$|^\.\/\w+\.ts$/.test(path))).toEqual([])
  })
})
