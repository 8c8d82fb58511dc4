/**
 * Temporary directories that a later run can clean up after a killed one.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { pause } from "./events.ts"
import { commandLine, hasEnded, isRunning, onSudden, type Owner, self } from "./guard.ts"

/** Who runs the server when root runs the tests. */
export const nobody = { uid: 65534, gid: 65534 }

/** Whether this process is root's. */
export const isRoot = (): boolean => process.getuid?.() === 0

/** Whether a user that is neither owner nor in the group reaches `path`. */
export const isOpenToOthers = (path: string): boolean => {
  const open = (statSync(path).mode & 0o001) !== 0
  return open && (dirname(path) === path || isOpenToOthers(dirname(path)))
}

/** The text of a file, or `fallback` where there is none. */
export const readOr = (path: string, fallback: string): string =>
  existsSync(path) ? readFileSync(path, "utf8") : fallback

const prefix = "kongtask-test-"
const memory = "/dev/shm"

/** A base short enough for a socket's path (107 bytes, 103 on macOS) and open to the user that runs the server. */
const onDisk = (): string => {
  const base = tmpdir()
  const fits = base.length <= 55 && (!isRoot() || isOpenToOthers(base))
  return fits ? base : "/tmp"
}

/** Memory makes a clone ten times as fast as some disks do, but a container may give it a few megabytes only. */
const hasMemory = (): boolean => {
  if (!existsSync(memory) || (statSync(memory).mode & 0o002) === 0) return false
  const { bavail, bsize } = statfsSync(memory)
  return bavail * bsize >= 4 * 1024 ** 3
}

const removeDirectory = (directory: string): Effect.Effect<void> =>
  Effect.sync(() => rmSync(directory, { recursive: true, force: true, maxRetries: 5 }))

const postmasterOf = (directory: string): number | undefined => {
  const pid = Number.parseInt(readOr(join(directory, "data", "postmaster.pid"), ""), 10)
  return Number.isNaN(pid) || !commandLine(pid).includes(join(directory, "data")) ? undefined : pid
}

/** Whether this is a directory of ours whose owner has ended for certain. */
const isLeft = (directory: string): boolean => {
  const stat = lstatSync(directory, { throwIfNoEntry: false })
  if (stat === undefined || !stat.isDirectory() || stat.uid !== process.getuid?.()) return false
  const owner = readOr(join(directory, "owner"), "")
  return owner !== "" && hasEnded(JSON.parse(owner) as Owner)
}

/** Stops the servers that killed runs have left, and removes their directories. */
const sweep = Effect.gen(function*() {
  const bases = [onDisk(), memory].filter((base) => existsSync(base))
  const all = bases.flatMap((base) => readdirSync(base).map((name) => join(base, name)))
  for (const directory of all.filter((path) => path.includes(`/${prefix}`) && isLeft(path))) {
    const pid = postmasterOf(directory)
    if (pid !== undefined) {
      process.kill(pid, "SIGQUIT")
      for (let look = 0; look < 100 && isRunning(pid); look++) yield* pause("50 millis")
    }
    yield* removeDirectory(directory)
  }
})

/** The same for one directory, by a shell, at the moment its owner is killed. */
const sweepOne = `
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ]; then
  kill -QUIT "$pid"
  for look in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.2
  done
fi
rm -rf "$1"`

/**
 * A directory that is removed with the scope, or with this process, and any
 * server in it stopped. It records its owner, and the server's user may pass
 * through it. One for data is in memory where there is enough of it; one for
 * programs never is, since memory is often mounted `noexec`.
 */
export const makeDirectory = Effect.fnUntraced(function*(
  content: "data" | "programs"
): Effect.fn.Return<string, never, Scope.Scope> {
  yield* Effect.catchCause(sweep, (cause) => Effect.logWarning("A former run's server could not be removed", cause))
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const directory = mkdtempSync(join(content === "data" && hasMemory() ? memory : onDisk(), prefix))
      writeFileSync(join(directory, "owner"), JSON.stringify(self()))
      if (isRoot()) {
        chownSync(directory, -1, nobody.gid)
        chmodSync(directory, 0o710)
      }
      return directory
    }),
    removeDirectory
  )
  yield* onSudden(sweepOne, [directory])
  return directory
})
