/**
 * An exclusive lock of a directory, that a dead owner cannot hold.
 *
 * The lock is the directory `kongtask.lock` with one entry in it, whose name is
 * unique to its owner: `<pid>.<start time>.<nonce>`. To take it is to rename a
 * prepared directory onto it, which the file system refuses while there is an
 * entry. Of a dead owner exactly its own entry is removed. So nobody can ever
 * remove the entry of a living one, however late it acts on what it saw.
 *
 * The entry is a Unix socket on which the owner listens: the kernel knows
 * whether it lives, also across containers and after a pid is reused. Where
 * there are no such sockets, or the path is too long for one, the entry is a
 * file, and the pid and its start time have to tell.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Crypto from "node:crypto"
import * as Fs from "node:fs/promises"
import * as Net from "node:net"
import * as Path from "node:path"
import { DataDirectoryInUse, KongTaskError } from "../../KongTaskError.ts"
import { attempt, attemptCode, codeOf, failed } from "./fileSystem.ts"

/** The name of the lock; the names that prepare one begin with it. */
export const lockName = "kongtask.lock"

/** `sun_path` has 104 bytes on macOS and 108 on Linux, the last of them zero. */
const maxSocketPath = 100

const unknownStart = "0"

interface Owner {
  readonly pid: number
  readonly start: string
}

const parseOwner = (name: string): Owner | undefined => {
  const match = /^(\d+)\.([0-9a-z]+)\.[0-9a-f]+$/.exec(name)
  return match === null ? undefined : { pid: Number(match[1]), start: match[2]! }
}

/** When the process was started, as far as the system tells; `undefined` when there is no such process. */
const startOf = (pid: number): Effect.Effect<string | undefined> =>
  Effect.try({ try: () => process.kill(pid, 0), catch: codeOf }).pipe(
    Effect.as(true),
    Effect.catch((code) => Effect.succeed(code !== "ESRCH")),
    Effect.flatMap((exists) =>
      !exists ? Effect.undefined : Effect.tryPromise(() => Fs.readFile(`/proc/${pid}/stat`, "latin1")).pipe(
        Effect.map((stat) => {
          const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
          return fields[0] === "Z" || fields[0] === "X" ? undefined : Number(fields[19]).toString(36)
        }),
        Effect.orElseSucceed(() => unknownStart)
      )
    )
  )

const isRunning = (owner: Owner): Effect.Effect<boolean> =>
  Effect.map(
    startOf(owner.pid),
    (start) => start !== undefined && (start === unknownStart || owner.start === unknownStart || start === owner.start)
  )

const socketPath = (path: string): string | undefined => {
  if (process.platform === "win32") return undefined
  const relative = Path.relative(process.cwd(), path)
  const shorter = relative.length < path.length ? relative : path
  return Buffer.byteLength(shorter) > maxSocketPath ? undefined : shorter
}

/** Whether somebody listens on a socket; `undefined` when that cannot be told. */
const isListening = (path: string): Effect.Effect<boolean | undefined> =>
  Effect.callback((resume) => {
    const address = socketPath(path)
    if (address === undefined) return resume(Effect.undefined)
    const socket = Net.connect({ path: address })
    const answer = (listening: boolean | undefined) => {
      socket.destroy()
      resume(Effect.succeed(listening))
    }
    socket.once("connect", () => answer(true))
    socket.on("error", (cause) => {
      const code = codeOf(cause)
      // A full backlog is a listener that is busy.
      answer(code === "EAGAIN" ? true : code === "ECONNREFUSED" || code === "ENOENT" ? false : undefined)
    })
    return Effect.sync(() => socket.destroy())
  })

const isAlive = (owner: Owner, path: string): Effect.Effect<boolean> =>
  Effect.tryPromise(() => Fs.lstat(path)).pipe(
    Effect.map((stat) => stat.isSocket()),
    Effect.orElseSucceed(() => false),
    Effect.flatMap((isSocket) => isSocket ? isListening(path) : Effect.undefined),
    Effect.flatMap((listening) => listening === undefined ? isRunning(owner) : Effect.succeed(listening))
  )

const listen = (path: string): Effect.Effect<Net.Server | undefined> =>
  Effect.callback((resume) => {
    const address = socketPath(path)
    if (address === undefined) return resume(Effect.undefined)
    const server = Net.createServer((socket) => socket.destroy())
    server.unref()
    server.once("error", () => resume(Effect.undefined))
    server.listen({ path: address, exclusive: true }, () => resume(Effect.succeed(server)))
  })

const remove = (path: string) => Effect.ignore(Effect.tryPromise(() => Fs.rm(path, { recursive: true, force: true })))

const removeEmpty = (path: string) => Effect.ignore(Effect.tryPromise(() => Fs.rmdir(path)))

/** A prepared claim: a directory with the owner's entry in it, and who listens on that entry. */
interface Claim {
  readonly name: string
  readonly directory: string
  readonly server: Net.Server | undefined
}

const close = (server: Net.Server | undefined): Effect.Effect<void> =>
  server === undefined ? Effect.void : Effect.callback((resume) => {
    server.close(() => resume(Effect.void))
  })

const withdraw = (claim: Claim): Effect.Effect<void> => Effect.andThen(remove(claim.directory), close(claim.server))

const prepare = Effect.fnUntraced(function*(dataDir: string) {
  const start = yield* startOf(process.pid)
  const nonce = yield* Effect.sync(() => Crypto.randomBytes(3).toString("hex"))
  const name = `${process.pid}.${start ?? unknownStart}.${nonce}`
  const directory = Path.join(dataDir, `${lockName}.${name}`)
  yield* attempt(dataDir, (fs) => fs.mkdir(directory))
  const short = Path.join(directory, "s")
  const server = yield* listen(short)
  const claim: Claim = { name, directory, server }
  const entry = Path.join(directory, name)
  yield* attempt(
    dataDir,
    (fs) => server === undefined ? fs.writeFile(entry, "", { flag: "wx" }) : fs.rename(short, entry)
  ).pipe(
    Effect.onError(() => withdraw(claim))
  )
  return claim
})

/** Fails when somebody alive holds the lock; removes the entries of the dead. */
const evictDead = Effect.fnUntraced(function*(dataDir: string, lock: string) {
  let entries: ReadonlyArray<string> = []
  yield* attemptCode(dataDir, ["ENOENT"], (fs) =>
    fs.readdir(lock).then((found) => {
      entries = found
    }))
  for (const name of entries) {
    const owner = parseOwner(name)
    if (owner === undefined) {
      const problem = `${lock} holds ${name}, which is not a lock's. Remove it if no process uses the directory.`
      return yield* failed(dataDir, problem, undefined)
    }
    const path = Path.join(lock, name)
    if (yield* isAlive(owner, path)) {
      return yield* new KongTaskError({ reason: new DataDirectoryInUse({ dataDir, pid: owner.pid }) })
    }
    yield* remove(path)
  }
  // Only Windows needs this: elsewhere a rename replaces an empty directory.
  yield* removeEmpty(lock)
})

const occupied = process.platform === "win32"
  ? ["ENOTEMPTY", "EEXIST", "EPERM", "EACCES", "EBUSY"] as const
  : ["ENOTEMPTY", "EEXIST"] as const

/** Every round either ends or removes a dead owner, so the bound is for a file system that breaks its rules. */
const maxRounds = 100

const take = Effect.fnUntraced(function*(dataDir: string) {
  const lock = Path.join(dataDir, lockName)
  yield* evictDead(dataDir, lock)
  const claim = yield* prepare(dataDir)
  return yield* Effect.gen(function*() {
    for (let round = 0; round < maxRounds; round++) {
      const code = yield* attemptCode(dataDir, occupied, (fs) => fs.rename(claim.directory, lock))
      if (code === undefined) return claim
      yield* evictDead(dataDir, lock)
    }
    return yield* failed(dataDir, `${lock} can be neither taken nor read. Remove it if no process uses it.`, undefined)
  }).pipe(Effect.onError(() => withdraw(claim)))
})

/** Removes what processes left behind that were killed while they prepared a claim. */
const sweep = Effect.fnUntraced(function*(dataDir: string) {
  const names = yield* attempt(dataDir, (fs) => fs.readdir(dataDir))
  for (const name of names) {
    if (!name.startsWith(`${lockName}.`)) continue
    const owner = parseOwner(name.slice(lockName.length + 1))
    if (owner === undefined) continue
    const directory = Path.join(dataDir, name)
    if (!(yield* isAlive(owner, Path.join(directory, name.slice(lockName.length + 1))))) yield* remove(directory)
  }
})

/**
 * Holds the lock of an existing directory until the scope closes.
 *
 * Fails with `DataDirectoryInUse` when a living process holds it, this one
 * included; never waits.
 */
export const hold = (dataDir: string): Effect.Effect<void, KongTaskError, Scope.Scope> =>
  Effect.acquireRelease(take(dataDir), (claim) => {
    const lock = Path.join(dataDir, lockName)
    return remove(Path.join(lock, claim.name)).pipe(
      Effect.andThen(removeEmpty(lock)),
      Effect.andThen(close(claim.server))
    )
  }).pipe(Effect.andThen(sweep(dataDir)))
