/**
 * The PostgreSQL programs that this folder's package.json brings, by major
 * version.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { spawnSync } from "node:child_process"
import { cpSync } from "node:fs"
import { join } from "node:path"
import { isOpenToOthers, isRoot, makeDirectory } from "../support/directory.ts"
import manifest from "./package.json" with { type: "json" }

const all: ReadonlyArray<number> = Object.keys(manifest.devDependencies).map((name) => Number(name.slice("pg".length)))

/** The one that is refused. */
export const tooOld: number = Math.min(...all)

/** Those that are supported, oldest first. */
export const supported: ReadonlyArray<number> = all.filter((major) => major !== tooOld).toSorted((a, b) => a - b)

/** The directory of the programs, or of a copy that the user who runs them for root can read. */
export const directoryOf = Effect.fnUntraced(function*(major: number): Effect.fn.Return<string, never, Scope.Scope> {
  const native = join(import.meta.dirname, "node_modules", `pg${major}`, "native")
  if (!isRoot() || isOpenToOthers(join(native, "bin", "postgres"))) return join(native, "bin")
  const copy = join(yield* makeDirectory("programs"), "native")
  cpSync(native, copy, { recursive: true, verbatimSymlinks: true })
  spawnSync("chmod", ["-R", "a+rX", copy])
  return join(copy, "bin")
})
