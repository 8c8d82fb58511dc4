/**
 * Where and with what was measured. No names of hosts or users.
 */
import { spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { availableParallelism, cpus, loadavg, totalmem, type } from "node:os"
import { join } from "node:path"

const root = join(import.meta.dirname, "..", "..")

const versionOf = (directory: string): string =>
  (JSON.parse(readFileSync(join(directory, "package.json"), "utf8")) as { version: string }).version

const commit = (): string => {
  const head = spawnSync("git", ["rev-parse", "--short", "HEAD"], { cwd: root, encoding: "utf8" })
  const changes = spawnSync("git", ["status", "--porcelain", "--", "src", "migrations"], {
    cwd: root,
    encoding: "utf8"
  })
  if (head.status !== 0) return "unknown"
  return `${head.stdout.trim()}${changes.stdout.trim() === "" ? "" : " with changes"}`
}

export interface Machine {
  readonly processor: string
  readonly cores: number
  readonly memoryGB: number
  readonly system: string
  /** Averaged over a minute, when the benchmark started: what else the machine did. */
  readonly load: number
}

export const describeMachine = (): Machine => ({
  processor: cpus()[0]?.model.trim() ?? "unknown",
  cores: availableParallelism(),
  memoryGB: Math.round(totalmem() / 2 ** 30),
  system: type(),
  load: loadavg()[0]!
})

/** What took part, in which version. */
export const describeVersions = (): Readonly<Record<string, string>> => {
  const own = join(root, "node_modules")
  const peers = join(root, "bench", "node_modules")
  return {
    "kongtask": commit(),
    "node": process.versions.node,
    "effect": versionOf(join(own, "effect")),
    "@effect/sql-pg": versionOf(join(own, "@effect/sql-pg")),
    "graphile-worker": versionOf(join(peers, "graphile-worker")),
    "graphile-worker 0.16": versionOf(join(peers, "graphile-worker-0.16")),
    "pg-boss": versionOf(join(peers, "pg-boss")),
    "pg": versionOf(join(peers, "pg"))
  }
}
