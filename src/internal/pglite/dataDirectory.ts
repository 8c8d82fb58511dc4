/**
 * The directory of an embedded database: whose it is, who uses it now, and
 * whether the database in it is complete.
 *
 * ```text
 * <dataDir>/pgdata/            the database, PGlite's own
 * <dataDir>/kongtask.creating  it is being made for the first time
 * <dataDir>/kongtask.database  it is complete
 * <dataDir>/kongtask.lock/     somebody uses it
 * <dataDir>/.gitignore         "*"
 * ```
 *
 * `kongtask.creating` becomes `kongtask.database` by one rename, before anybody
 * gets a connection. So a database that was left half-made holds nothing that
 * was ever acknowledged and is made anew, and one without either mark is not
 * ours and is not touched.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Path from "node:path"
import type { KongTaskError } from "../../KongTaskError.ts"
import * as DirectoryLock from "./directoryLock.ts"
import { attempt, attemptCode, failed } from "./fileSystem.ts"

const completeMark = "kongtask.database"
const creatingMark = "kongtask.creating"
const databaseName = "pgdata"

/** What a directory may hold without being somebody's: a mounted volume, a folder kept in git. */
const ignored = new Set([".gitignore", ".gitkeep", ".keep", ".DS_Store", "lost+found"])

const markText = "The folder beside this file is the embedded database of KongTask. One process may use it at a time.\n"

/**
 * A directory that this scope has to itself.
 */
export interface DataDirectory {
  /** The absolute path of the directory. */
  readonly path: string
  /** Where the database is, or is to be made. */
  readonly database: string
  /** Records that the database was made; to be run before anything is written to it. */
  readonly complete: Effect.Effect<void, KongTaskError>
}

type State = "Absent" | "Creating" | "Complete"

const stateOf = Effect.fnUntraced(function*(path: string): Effect.fn.Return<State, KongTaskError> {
  const names = new Set(yield* attempt(path, (fs) => fs.readdir(path)))
  if (names.has(completeMark)) {
    if (names.has(databaseName)) return "Complete"
    return yield* failed(
      path,
      `its ${databaseName} folder is gone. Restore it, or remove the whole directory to begin with an empty database.`,
      undefined
    )
  }
  if (names.has(creatingMark)) return "Creating"
  const foreign = [...names].find((name) => !ignored.has(name) && !name.startsWith(DirectoryLock.lockName))
  if (foreign === undefined) return "Absent"
  return yield* failed(
    path,
    `the directory is not empty and holds no database of KongTask (it has "${foreign}"). Name a directory of its own.`,
    undefined
  )
})

const begin = Effect.fnUntraced(function*(path: string) {
  yield* attemptCode(path, ["EEXIST"], (fs) => fs.writeFile(Path.join(path, ".gitignore"), "*\n", { flag: "wx" }))
  yield* attempt(path, (fs) => fs.writeFile(Path.join(path, creatingMark), markText))
  yield* attempt(path, (fs) => fs.rm(Path.join(path, databaseName), { recursive: true, force: true }))
})

/**
 * Takes a data directory for this scope: makes it if it is missing, refuses one
 * that is in use or somebody else's, and clears away a database whose creation
 * was cut off.
 */
export const open = Effect.fnUntraced(
  function*(dataDir: string): Effect.fn.Return<DataDirectory, KongTaskError, Scope.Scope> {
    const path = Path.resolve(dataDir)
    yield* attempt(path, (fs) => fs.mkdir(path, { recursive: true }))
    yield* stateOf(path)
    yield* DirectoryLock.hold(path)
    const state = yield* stateOf(path)
    if (state !== "Complete") yield* begin(path)
    return {
      path,
      database: Path.join(path, databaseName),
      complete: state === "Complete"
        ? Effect.void
        : attempt(path, (fs) => fs.rename(Path.join(path, creatingMark), Path.join(path, completeMark)))
    }
  }
)
