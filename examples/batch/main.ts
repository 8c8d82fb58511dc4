/**
 * A batch task: one job with several entries, of which only those that failed are
 * retried. `npm run example examples/batch/main.ts` runs it on
 * PostgreSQL inside the process.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Schema } from "effect"
import { KongTask, Queue, Retry, Task, Worker } from "kongtask"

class Bounced extends Schema.TaggedError<Bounced>()("Bounced", { to: Schema.String }) {}

const SendEmails = Task.batch("send_emails", { entry: { to: Schema.String }, error: Bounced })

/** Stands for a mail service that does not know Bob the first time. */
const send = Effect.fn("send")(function*(to: string, attempt: number) {
  if (to === "bob" && attempt === 1) return yield* new Bounced({ to })
})

const SendEmailsLive = SendEmails.toLayer(
  (entries, job) =>
    Effect.andThen(
      Console.log(`Attempt ${job.attempt}: ${entries.map(({ to }) => to).join(", ")}`),
      Effect.forEach(entries, ({ to }) => Effect.exit(send(to, job.attempt)), { concurrency: 10 })
    ),
  { retry: Retry.byTag({ Bounced: () => Retry.after("1 hour") }) }
)

const program = Effect.gen(function*() {
  const { id } = yield* Queue.add(SendEmails, [{ to: "ada" }, { to: "bob" }, { to: "eve" }])
  const runOnce = Worker.runOnce({ tasks: [SendEmails] })

  yield* Console.log(yield* runOnce)
  for (const { data, message } of yield* Queue.failedAttempts(id)) yield* Console.log(message, data)

  yield* Queue.reschedule([id], { delay: 0 })
  yield* Console.log(yield* runOnce)
})

program.pipe(Effect.provide([SendEmailsLive, KongTask.layerEmbedded()]), NodeRuntime.runMain)
