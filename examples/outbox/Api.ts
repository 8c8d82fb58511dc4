/**
 * The HTTP API: `POST /orders` places one, `GET /orders/:id` tells what became of
 * it, `/docs` shows both.
 */
import { NodeHttpServer } from "@effect/platform-node"
import { Config, Effect, Layer, Schema } from "effect"
import { HttpRouter } from "effect/http"
import { HttpApi, HttpApiBuilder, HttpApiEndpoint, HttpApiGroup, HttpApiScalar, HttpApiSchema } from "effect/http-api"
import { createServer } from "node:http"
import { NewOrder, Order, Orders } from "./Orders.ts"

class NoSuchOrder
  extends Schema.TaggedError<NoSuchOrder>()("NoSuchOrder", { id: Schema.Int }, { httpApiStatus: 404 })
{}

const Api = HttpApi.make("orders-api").add(
  HttpApiGroup.make("orders").add(
    HttpApiEndpoint.post("place", "/orders", {
      payload: NewOrder,
      success: Order.pipe(HttpApiSchema.status(201))
    }),
    HttpApiEndpoint.get("find", "/orders/:id", {
      params: { id: Schema.NumberFromString.check(Schema.isInt()) },
      success: Order,
      error: NoSuchOrder
    })
  )
)

const OrdersLive = HttpApiBuilder.group(
  Api,
  "orders",
  Effect.fnUntraced(function*(handlers) {
    const orders = yield* Orders
    return handlers
      .handle("place", ({ payload }) => orders.place(payload))
      .handle("find", ({ params: { id } }) =>
        Effect.flatMap(
          orders.find(id),
          (order) => order === undefined ? Effect.fail(new NoSuchOrder({ id })) : Effect.succeed(order)
        ))
  })
)

/** Listens on `PORT`, 3000 by default. */
export const ApiLive = HttpRouter.serve(
  Layer.mergeAll(
    Layer.provide(HttpApiBuilder.layer(Api, { openapiPath: "/openapi.json" }), OrdersLive),
    HttpApiScalar.layer(Api, { path: "/docs" })
  ),
  { disableLogger: true }
).pipe(
  Layer.provide(Layer.unwrap(Effect.map(
    Config.Port("PORT").pipe(Config.withDefault(3000)),
    (port) => NodeHttpServer.layer(createServer, { port })
  )))
)
