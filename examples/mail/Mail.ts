/**
 * Sending mail over the API of a mail service. What can go wrong is a type, and
 * the type decides when it is tried again.
 */
import { Config, Duration, Effect, Schema } from "effect"
import { HttpClient, HttpClientRequest } from "effect/http"
import { Retry, Task } from "kongtask"

/** The service wants us to slow down, and says for how long. */
export class RateLimited extends Schema.TaggedError<RateLimited>()("RateLimited", { retryAfter: Schema.Duration }) {}

/** It will never take this mail. */
export class Rejected extends Schema.TaggedError<Rejected>()("Rejected", { reason: Schema.String }) {}

/** It is down, or not to be reached. */
export class Unavailable extends Schema.TaggedError<Unavailable>()("Unavailable", { status: Schema.Int }) {}

export const SendMail = Task.make("send_mail", {
  payload: { to: Schema.String, subject: Schema.String },
  success: Schema.Struct({ messageId: Schema.String }),
  error: Schema.Union([RateLimited, Rejected, Unavailable])
})

const Accepted = Schema.Struct({ messageId: Schema.String })

const send = Effect.fn("send")(function*(mail: { readonly to: string; readonly subject: string }, id: string) {
  const url = yield* Effect.orDie(Config.String("MAIL_URL"))
  // The same job is the same mail for the service, however often it has to be sent.
  const request = yield* HttpClientRequest.post(url, { headers: { "idempotency-key": id } }).pipe(
    HttpClientRequest.bodyJson(mail),
    Effect.orDie
  )
  const response = yield* Effect.mapError(HttpClient.execute(request), () => new Unavailable({ status: 0 }))
  if (response.status === 429) {
    return yield* new RateLimited({ retryAfter: Duration.seconds(Number(response.headers["retry-after"] ?? 60)) })
  }
  if (response.status >= 500) return yield* new Unavailable({ status: response.status })
  if (response.status >= 400) return yield* new Rejected({ reason: yield* Effect.orDie(response.text) })
  return yield* Effect.orDie(Effect.flatMap(response.json, Schema.decodeUnknownEffect(Accepted)))
})

export const SendMailLive = SendMail.toLayer(
  (mail, job) =>
    Effect.tap(send(mail, job.id), ({ messageId }) => Effect.logInfo(`Sent to ${mail.to} as ${messageId}`)),
  {
    timeout: "30 seconds",
    retry: Retry.byTag({
      RateLimited: ({ retryAfter }) => Retry.after(retryAfter),
      Rejected: () => Retry.never
    }, Retry.exponential({ max: "10 minutes" }))
  }
)
