/**
 * The frames of PostgreSQL's wire protocol, as far as the virtual server has to
 * look at them: where a message ends, and what a few of them say.
 */

/** The first byte of a message. */
export const MessageType = {
  close: 0x43,
  error: 0x45,
  notification: 0x41,
  parse: 0x50,
  query: 0x51,
  ready: 0x5a,
  sync: 0x53,
  terminate: 0x58
} as const

/** The codes that take the version's place in the first message of a connection. */
export const StartupCode = {
  cancel: 80877102,
  ssl: 80877103,
  gss: 80877104
} as const

/** What `ReadyForQuery` says when no transaction is open. */
export const idleStatus = 0x49

const frame = (type: number, ...parts: ReadonlyArray<Uint8Array>): Buffer => {
  const length = parts.reduce((sum, part) => sum + part.length, 4)
  const header = Buffer.alloc(5)
  header[0] = type
  header.writeInt32BE(length, 1)
  return Buffer.concat([header, ...parts])
}

const text = (value: string): Buffer => Buffer.from(`${value}\0`)

const int32 = (...values: ReadonlyArray<number>): Buffer => {
  const buffer = Buffer.alloc(values.length * 4)
  values.forEach((value, index) => buffer.writeInt32BE(value, index * 4))
  return buffer
}

export const sync = frame(MessageType.sync)

export const rollback = frame(MessageType.query, text("ROLLBACK"))

export const closeStatement = (name: string): Buffer => frame(MessageType.close, text(`S${name}`))

export const readyIdle = frame(MessageType.ready, Buffer.of(idleStatus))

/** A `Parse` of `sql` under the name, and with the parameter types, of another one. */
export const parseAs = (name: string, sql: string, types: Uint8Array): Buffer =>
  frame(MessageType.parse, text(name), text(sql), types)

export const queryOf = (sql: string): Buffer => frame(MessageType.query, text(sql))

/** `AuthenticationOk`, `BackendKeyData`, `ReadyForQuery`. */
export const welcome = (processId: number): Buffer =>
  Buffer.concat([frame(0x52, int32(0)), frame(0x4b, int32(processId, 0)), readyIdle])

/** The refusal of TLS. */
export const noEncryption = Buffer.from("N")

export const canceled = Buffer.concat([
  frame(
    MessageType.error,
    text("SERROR"),
    text("VERROR"),
    text("C57014"),
    text("Mcanceling statement due to user request"),
    Buffer.of(0)
  ),
  readyIdle
])

/** The string that begins at `offset`. */
export const textAt = (buffer: Buffer, offset: number): string =>
  buffer.toString("utf8", offset, buffer.indexOf(0, offset))

/**
 * Calls `visit` for every whole message in `buffer` and returns where the first
 * incomplete one begins.
 */
export const forEachMessage = (
  buffer: Buffer,
  visit: (type: number, start: number, end: number) => void
): number => {
  let start = 0
  while (start + 5 <= buffer.length) {
    const end = start + 1 + buffer.readInt32BE(start + 1)
    if (end > buffer.length) break
    visit(buffer[start]!, start, end)
    start = end
  }
  return start
}
