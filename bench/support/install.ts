/**
 * The contestants' packages: they belong to the benchmark alone, so it installs them when it is first run, and again
 * when its lockfile has changed.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { progress } from "./runner.ts"

export class InstallFailed extends Data.TaggedError("InstallFailed")<{ readonly message: string }> {}

const directory = join(import.meta.dirname, "..")
const mark = join(directory, "node_modules", ".kongtask-bench")

export const install: Effect.Effect<void, InstallFailed> = Effect.gen(function*() {
  const lockfile = readFileSync(join(directory, "package-lock.json"))
  const wanted = createHash("sha256").update(lockfile).digest("hex")
  if (existsSync(mark) && readFileSync(mark, "utf8") === wanted) return
  yield* progress("Installing what KongTask is compared with (npm ci in bench).")
  const { status } = spawnSync("npm", ["ci", "--no-audit", "--no-fund"], {
    cwd: directory,
    stdio: ["ignore", 2, "inherit"]
  })
  if (status !== 0) return yield* new InstallFailed({ message: "npm ci in bench failed" })
  writeFileSync(mark, wanted)
})
