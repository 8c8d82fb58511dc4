/**
 * A TCP proxy before a database: it can change where it leads, and mistreat the
 * connections that go through it.
 */
import { Effect, type Scope } from "effect"
import { connect, createServer, type Server, type Socket } from "node:net"
import type { Random } from "./random.ts"

export interface Target {
  readonly host: string
  readonly port: number
}

export interface Proxy {
  readonly port: number
  /** Where new connections lead to; those that are open are broken. */
  readonly leadTo: (target: Target) => Effect.Effect<void>
  /** Refuses new connections, or takes them again. */
  readonly refuse: (isRefusing: boolean) => Effect.Effect<void>
  /** Breaks about so many of the open connections, 0 to 1, and answers how many. */
  readonly cut: (part: number, random: Random) => Effect.Effect<number>
  /** Holds back whatever is sent, in both directions, for so long each time; 0 ends it. */
  readonly delay: (millis: number) => Effect.Effect<void>
  /**
   * Forgets one direction of about so many connections: what is sent in it goes nowhere, and neither end is told, until
   * `cut` breaks them or one end gives up. Answers how many.
   */
  readonly halfClose: (part: number, random: Random) => Effect.Effect<number>
  /** Forgets both directions of all open connections; neither end is told. */
  readonly sever: Effect.Effect<void>
}

interface Link {
  readonly client: Socket
  readonly server: Socket
  /** Which directions are forgotten. */
  readonly forgets: { toServer: boolean; toClient: boolean }
}

const listening = (server: Server): Effect.Effect<number> =>
  Effect.callback<number>((resume) => {
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      resume(Effect.succeed(address !== null && typeof address === "object" ? address.port : 0))
    })
  })

export const make = Effect.fnUntraced(function*(initial: Target): Effect.fn.Return<Proxy, never, Scope.Scope> {
  const links = new Set<Link>()
  let target = initial
  let isRefusing = false
  let delayMillis = 0

  const close = (link: Link) => {
    links.delete(link)
    link.client.destroy()
    link.server.destroy()
  }

  const accept = (client: Socket) => {
    if (isRefusing) return void client.destroy()
    const server = connect(target.port, target.host)
    const link: Link = { client, server, forgets: { toServer: false, toClient: false } }
    links.add(link)
    const forward = (from: Socket, to: Socket, direction: keyof Link["forgets"]) => {
      const send = (data: Buffer) => {
        if (!link.forgets[direction] && !to.destroyed) to.write(data)
      }
      // Timers of one length fire in the order in which they were set, so nothing overtakes.
      from.on("data", (data: Buffer) => delayMillis === 0 ? send(data) : void setTimeout(() => send(data), delayMillis))
      from.on("error", () => close(link))
      from.on("close", () => {
        if (!link.forgets.toServer && !link.forgets.toClient) close(link)
      })
    }
    forward(client, server, "toServer")
    forward(server, client, "toClient")
  }

  const server = yield* Effect.acquireRelease(
    Effect.sync(() => createServer({ noDelay: true }, accept)),
    (server) =>
      Effect.sync(() => {
        for (const link of links) close(link)
        server.close()
      })
  )
  const port = yield* listening(server)

  const some = (part: number, random: Random): ReadonlyArray<Link> => [...links].filter(() => random.next() < part)

  return {
    port,
    leadTo: (next) =>
      Effect.sync(() => {
        target = next
        for (const link of links) close(link)
      }),
    refuse: (refusing) =>
      Effect.sync(() => {
        isRefusing = refusing
      }),
    cut: (part, random) =>
      Effect.sync(() => {
        const chosen = some(part, random)
        for (const link of chosen) close(link)
        return chosen.length
      }),
    delay: (millis) =>
      Effect.sync(() => {
        delayMillis = millis
      }),
    halfClose: (part, random) =>
      Effect.sync(() => {
        const chosen = some(part, random)
        for (const { forgets } of chosen) forgets[random.pick(["toServer", "toClient"] as const)] = true
        return chosen.length
      }),
    sever: Effect.sync(() => {
      for (const { forgets } of links) {
        forgets.toServer = true
        forgets.toClient = true
      }
    })
  }
})
