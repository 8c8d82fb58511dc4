import * as Effect from "effect/Effect"
import { type AddressInfo, createServer } from "node:net"

/** A port of the loopback that nobody used a moment ago. */
export const freePort: Effect.Effect<number> = Effect.callback((resume) => {
  const server = createServer()
  server.listen(0, "127.0.0.1", () => {
    const { port } = server.address() as AddressInfo
    server.close(() => resume(Effect.succeed(port)))
  })
})
