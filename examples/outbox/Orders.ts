/**
 * Orders, and the job that confirms each: both are written in one transaction, so
 * that there is a confirmation if and only if there is an order.
 */
import { Context, Effect, Layer, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { Queue, Task } from "kongtask"

export class Order extends Schema.Class<Order>("Order")({
  id: Schema.Int,
  customer: Schema.String,
  cents: Schema.Int,
  status: Schema.Literals(["placed", "confirmed"])
}) {}

export const NewOrder = Schema.Struct({
  customer: Schema.NonEmptyString,
  cents: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 100_000_00 }))
})

export const ConfirmOrder = Task.make("confirm_order", { payload: { orderId: Schema.Int } })

/** Confirms in the transaction in which its job completes: exactly once. */
export const ConfirmOrderLive = ConfirmOrder.toLayer(
  Effect.fn(function*({ orderId }) {
    const sql = yield* SqlClient.SqlClient
    yield* Effect.orDie(sql`update orders set status = 'confirmed' where id = ${orderId}`)
    yield* Effect.logInfo(`Confirmed order ${orderId}`)
  }),
  { transactional: true }
)

const create = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  // Two that start at once would both find it missing.
  yield* sql`select pg_advisory_xact_lock(hashtext('example orders'))::text`
  yield* sql`create table if not exists orders (
    id int primary key generated always as identity,
    customer text not null,
    cents int not null,
    status text not null default 'placed'
  )`
})

export class Orders extends Context.Service<Orders, {
  readonly place: (order: typeof NewOrder.Type) => Effect.Effect<Order>
  readonly find: (id: number) => Effect.Effect<Order | undefined>
}>()("examples/Orders") {
  static readonly layer = Layer.effect(
    Orders,
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const queue = yield* Queue.Queue
      yield* sql.withTransaction(create)

      return Orders.of({
        place: Effect.fn("Orders.place")(
          function*({ cents, customer }) {
            const rows = yield* sql<{ readonly id: number }>`
              insert into orders (customer, cents) values (${customer}, ${cents}::int) returning id`
            const id = rows[0]!.id
            yield* queue.add(ConfirmOrder, { orderId: id })
            return new Order({ id, customer, cents, status: "placed" })
          },
          sql.withTransaction,
          Effect.orDie
        ),
        find: Effect.fn("Orders.find")(function*(id) {
          const rows = yield* sql<Order>`select id, customer, cents, status from orders where id = ${id}::int`
          return rows[0] === undefined ? undefined : new Order(rows[0])
        }, Effect.orDie)
      })
    })
  )
}
