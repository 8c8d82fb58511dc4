/**
 * Stands for a mail service: busy at first, down for Bob's first mail, and it
 * knows nobody without an `@`.
 */
import { NodeHttpServer } from "@effect/platform-node"
import { Effect, Schema } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import * as Layer from "effect/Layer"
import { createServer } from "node:http"

const Mail = Schema.Struct({ to: Schema.String, subject: Schema.String })

const routes = HttpRouter.use(Effect.fnUntraced(function*(router) {
  const sent = new Map<string, string>()
  let asked = 0
  let bobs = 0

  yield* router.add(
    "POST",
    "/send",
    Effect.gen(function*() {
      const { headers } = yield* HttpServerRequest.HttpServerRequest
      const { to } = yield* HttpServerRequest.schemaBodyJson(Mail)
      if (!to.includes("@")) return HttpServerResponse.text(`${to} is no address`, { status: 422 })
      if (++asked === 1) return HttpServerResponse.empty({ status: 429, headers: { "retry-after": "1" } })
      if (to.startsWith("bob") && ++bobs === 1) return HttpServerResponse.empty({ status: 503 })
      const key = headers["idempotency-key"] ?? ""
      const messageId = sent.get(key) ?? `message-${sent.size + 1}`
      sent.set(key, messageId)
      return HttpServerResponse.jsonUnsafe({ messageId })
    }).pipe(Effect.orDie)
  )
}))

export const MailServiceLive = (port: number) =>
  HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provide(NodeHttpServer.layer(createServer, { port, host: "127.0.0.1" }))
  )
