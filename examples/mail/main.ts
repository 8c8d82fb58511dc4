/**
 * Mail that is sent through an unreliable service:
 * `npm run example examples/mail/main.ts`, on the server of
 * `DATABASE_URL` or on PostgreSQL inside the process. It ends when every mail is
 * sent or refused. `MAIL_URL` names a real service.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Config, ConfigProvider, Console, Effect, Layer, Option } from "effect"
import { FetchHttpClient } from "effect/http"
import { Queue, Worker } from "kongtask"
import { QueueLive } from "../support/database.ts"
import { SendMail, SendMailLive } from "./Mail.ts"
import { MailServiceLive } from "./service.ts"

/** The service of `MAIL_URL`, or one that stands for it, at `MAIL_PORT`. */
const ServiceLive = Layer.unwrap(Effect.gen(function*() {
  const url = yield* Config.option(Config.String("MAIL_URL"))
  if (Option.isSome(url)) return Layer.empty
  const port = yield* Config.Port("MAIL_PORT").pipe(Config.withDefault(3480))
  const address = ConfigProvider.fromUnknown({ MAIL_URL: `http://127.0.0.1:${port}/send` })
  return Layer.merge(MailServiceLive(port), ConfigProvider.layerAdd(address))
}))

const program = Effect.gen(function*() {
  const jobs = yield* Queue.addMany(
    ["ada@example.org", "bob@example.org", "nobody"].map((to) => SendMail.request({ to, subject: "Welcome" }))
  )
  const isOpen = { task: SendMail, state: ["ready", "running", "retrying"] as const }
  yield* Effect.forkScoped(Worker.run({ tasks: [SendMail] }))
  yield* Queue.count(isOpen).pipe(
    Effect.delay("200 millis"),
    Effect.repeat({ until: (open) => open === 0 })
  )
  for (const { id } of jobs) {
    for (const { attempt, data, tag } of yield* Queue.failedAttempts(id)) {
      yield* Console.log(`Job ${id}, attempt ${attempt}: ${tag}`, data)
    }
  }
  yield* Console.log(`Not sent: ${yield* Queue.count({ task: SendMail, state: ["failed"] })}`)
})

program.pipe(
  Effect.scoped,
  Effect.provide(Layer.provideMerge(SendMailLive, Layer.mergeAll(QueueLive, ServiceLive, FetchHttpClient.layer))),
  NodeRuntime.runMain
)
