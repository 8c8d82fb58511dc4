/**
 * Gives every connection of a pool its own stream to one PGlite.
 *
 * PGlite is one session that runs one statement at a time. Each stream speaks
 * the wire protocol as a server would; what comes in is cut into cycles (up to
 * a `Sync` or a `Query`), and the streams take turns with one cycle each. While
 * a transaction is open only its stream has turns, so transactions of several
 * fibers are serial and isolated, and a fiber that inside one waits for another
 * connection waits for itself. Every cycle runs in a turn of the event loop
 * of its own: timers, signals and sockets are served between any two.
 *
 * What belongs to a session is shared by all streams: settings (`SET`, and the
 * startup parameters, which are not applied), temporary tables, session
 * advisory locks. `LISTEN` too: every stream gets every notification and the
 * driver picks its channels, so `UNLISTEN` is not passed on.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Duplex } from "node:stream"
import type { Engine } from "./engine.ts"
import * as Protocol from "./protocol.ts"

const { MessageType, StartupCode } = Protocol

/**
 * The statement to run in place of one that the shared session must not see.
 */
const replacementFor = (sql: string): string | undefined => {
  if (/^\s*unlisten\b/i.test(sql)) return "UNLISTEN \"kongtask: nothing\""
  // The end of its input would be a FATAL error, which ends the whole engine.
  if (/^\s*copy\b[^;]*\bfrom\s+stdin\b/i.test(sql)) {
    return "DO $$ BEGIN RAISE feature_not_supported USING MESSAGE = "
      + "'COPY FROM STDIN is not supported by the embedded database'; END $$"
  }
  return undefined
}

/** One stream: what it sent and has not been run yet, and what it will leave behind in the session. */
class VirtualConnection extends Duplex {
  readonly cycles: Array<Uint8Array> = []
  readonly statements = new Set<string>()
  started = false
  readonly processId: number
  private readonly server: VirtualServer
  private input: Buffer = Buffer.alloc(0)
  private cycle: Array<Uint8Array> = []

  constructor(server: VirtualServer, processId: number) {
    super()
    this.server = server
    this.processId = processId
    this.on("error", () => {})
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: () => void): void {
    this.input = this.input.length === 0 ? chunk : Buffer.concat([this.input, chunk])
    if (!this.started) this.startUp()
    if (this.started) this.input = this.input.subarray(Protocol.forEachMessage(this.input, this.onMessage))
    callback()
  }

  override _final(callback: () => void): void {
    this.destroy()
    callback()
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    this.server.leave(this)
    callback(error)
  }

  private startUp(): void {
    while (!this.started && this.input.length >= 8) {
      const length = this.input.readInt32BE(0)
      if (this.input.length < length) return
      const message = this.input
      this.input = message.subarray(length)
      switch (message.readInt32BE(4)) {
        case StartupCode.ssl:
        case StartupCode.gss:
          this.push(Protocol.noEncryption)
          break
        case StartupCode.cancel:
          this.server.cancel(message.readInt32BE(8))
          this.destroy()
          return
        default:
          this.started = true
          this.push(Protocol.welcome(this.processId))
      }
    }
  }

  private readonly onMessage = (type: number, start: number, end: number): void => {
    if (this.destroyed) return
    let message: Buffer = this.input.subarray(start, end)
    switch (type) {
      case MessageType.terminate:
        this.destroy()
        return
      case MessageType.parse:
        message = this.onParse(message)
        break
      case MessageType.query: {
        const replacement = replacementFor(Protocol.textAt(message, 5))
        if (replacement !== undefined) message = Protocol.queryOf(replacement)
        break
      }
      case MessageType.close:
        if (message[5] === 0x53) this.statements.delete(Protocol.textAt(message, 6))
        break
    }
    this.cycle.push(message)
    if (type !== MessageType.sync && type !== MessageType.query) return
    this.cycles.push(this.cycle.length === 1 ? message : Buffer.concat(this.cycle))
    this.cycle = []
    this.server.enqueue(this)
  }

  private onParse(message: Buffer): Buffer {
    const name = Protocol.textAt(message, 5)
    if (name !== "") this.statements.add(name)
    const sqlStart = message.indexOf(0, 5) + 1
    const replacement = replacementFor(Protocol.textAt(message, sqlStart))
    return replacement === undefined
      ? message
      : Protocol.parseAs(name, replacement, message.subarray(message.indexOf(0, sqlStart) + 1))
  }
}

class VirtualServer {
  private readonly engine: Engine
  private readonly connections = new Map<number, VirtualConnection>()
  /** Those with a cycle to run, in the order of their turns. */
  private waiting: Array<VirtualConnection> = []
  /** Whose transaction is open. */
  private owner: VirtualConnection | undefined
  private busy = false
  private stopped: Error | undefined
  private lastProcessId = 0

  constructor(engine: Engine) {
    this.engine = engine
  }

  readonly connect = (): Duplex => {
    if (this.stopped !== undefined) throw this.stopped
    const connection = new VirtualConnection(this, ++this.lastProcessId)
    this.connections.set(connection.processId, connection)
    return connection
  }

  enqueue(connection: VirtualConnection): void {
    if (!this.waiting.includes(connection)) this.waiting.push(connection)
    this.schedule()
  }

  /** Drops what a stream did not get to run; what it did in the session is undone in its last turn. */
  leave(connection: VirtualConnection): void {
    this.connections.delete(connection.processId)
    this.waiting = this.waiting.filter((other) => other !== connection)
    if (this.owes(connection)) this.enqueue(connection)
  }

  /**
   * Answers the first statement of a stream that waits for its turn. One inside
   * a transaction waits for nobody and runs.
   */
  cancel(processId: number): void {
    const connection = this.connections.get(processId)
    if (connection === undefined || connection === this.owner || connection.cycles.length === 0) return
    connection.cycles.shift()
    if (connection.cycles.length === 0) this.waiting = this.waiting.filter((other) => other !== connection)
    connection.push(Protocol.canceled)
  }

  /** Ends every stream, and a transaction that one of them had open. */
  stop(reason: Error): Promise<void> {
    if (this.stopped !== undefined) return Promise.resolve()
    this.stopped = reason
    for (const connection of [...this.connections.values()]) connection.destroy(reason)
    this.waiting = []
    return this.owner === undefined ? Promise.resolve() : this.engine.execute(Protocol.rollback, () => {})
  }

  private owes(connection: VirtualConnection): boolean {
    return connection.destroyed
      ? this.owner === connection || connection.statements.size > 0
      : connection.cycles.length > 0
  }

  /** The next cycle of a stream; of one that is gone, the one that undoes what it left in the session. */
  private cycleOf(connection: VirtualConnection): Uint8Array {
    if (!connection.destroyed) return connection.cycles.shift()!
    const statements = Array.from(connection.statements, Protocol.closeStatement)
    connection.statements.clear()
    return Buffer.concat([...(this.owner === connection ? [Protocol.rollback] : []), ...statements, Protocol.sync])
  }

  private next(): VirtualConnection | undefined {
    if (this.owner === undefined) return this.waiting.shift()
    const index = this.waiting.indexOf(this.owner)
    return index < 0 ? undefined : this.waiting.splice(index, 1)[0]
  }

  private schedule(): void {
    if (this.busy) return
    this.busy = true
    setImmediate(this.turn)
  }

  private readonly turn = (): void => {
    const connection = this.stopped === undefined ? this.next() : undefined
    if (connection === undefined) {
      this.busy = false
      return
    }
    const output: Array<Buffer> = []
    this.engine.execute(this.cycleOf(connection), (bytes) => output.push(Buffer.from(bytes))).then(
      () => this.deliver(connection, output.length === 1 ? output[0]! : Buffer.concat(output)),
      (cause) => this.fail(cause)
    )
  }

  private deliver(connection: VirtualConnection, output: Buffer): void {
    let status: number | undefined
    const notifications: Array<Buffer> = []
    Protocol.forEachMessage(output, (type, start, end) => {
      if (type === MessageType.ready) status = output[start + 5]
      else if (type === MessageType.notification) notifications.push(output.subarray(start, end))
    })
    if (status === undefined) return this.fail(new Error("A statement ended without an answer"))
    this.owner = status === Protocol.idleStatus ? undefined : connection
    if (this.owes(connection)) this.enqueue(connection)
    if (!connection.destroyed) connection.push(output)
    if (notifications.length > 0) this.broadcast(Buffer.concat(notifications), connection)
    this.busy = false
    if (this.waiting.length > 0) this.schedule()
  }

  private broadcast(notifications: Buffer, origin: VirtualConnection): void {
    for (const connection of this.connections.values()) {
      if (connection !== origin && connection.started) connection.push(notifications)
    }
  }

  private fail(cause: unknown): void {
    this.busy = false
    this.owner = undefined
    const detail = cause instanceof Error ? cause.message : String(cause)
    void this.stop(
      new Error(
        `The embedded database broke and takes no more statements (${detail}). Restart the process; ` +
          "a database on disk has kept what was committed.",
        { cause }
      )
    )
  }
}

/**
 * Serves streams to an engine until the scope closes, which ends all of them.
 * The result is the `stream` option of `PgClient.make`; once the engine broke or
 * the scope closed, it throws.
 */
export const make = (engine: Engine): Effect.Effect<() => Duplex, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => new VirtualServer(engine)),
      (server) => Effect.ignore(Effect.tryPromise(() => server.stop(new Error("The embedded database was closed"))))
    ),
    (server) => server.connect
  )
