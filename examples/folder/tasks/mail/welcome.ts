/**
 * A typed task: its payload is checked, its error decides about the retry, and what its layer acquires is released when
 * the worker stops. Programs can import `Welcome` to add jobs of it.
 */
import { Console, Effect, Schema } from "effect"
import { Retry, Task } from "kongtask"
import { address } from "../../lib/address.ts"

export class InvalidAddress extends Schema.TaggedError<InvalidAddress>("InvalidAddress")("InvalidAddress", {
  address: Schema.String
}) {}

export const Welcome = Task.make("mail/welcome", {
  payload: { to: Schema.String },
  error: InvalidAddress
})

const connect = Effect.acquireRelease(
  Effect.as(Console.log("Connected to the mail server."), { send: (to: string) => Console.log(`Mail to ${to}.`) }),
  () => Console.log("Disconnected from the mail server.")
)

export default Welcome.toLayer(
  Effect.map(
    connect,
    (server) => ({ to }) => address.test(to) ? server.send(to) : Effect.fail(new InvalidAddress({ address: to }))
  ),
  { timeout: "30 seconds", retry: Retry.byTag({ InvalidAddress: () => Retry.never }) }
)
