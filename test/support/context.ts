/**
 * What the set-up of a run tells every test file, and the names that both sides
 * agree on.
 */
import type { Binaries } from "./binaries.ts"

/** The server of this run, as plain data that reaches the workers. */
export interface TestServer {
  /** Unix socket directory, trusted, for a server that this run started; unset for a given one. */
  readonly socket: { readonly host: string; readonly port: number; readonly username: string } | undefined
  /** The administrative database: over TCP with a password, or as it was given. */
  readonly url: string
  /** As `server_version_num` tells it: 150018. */
  readonly version: number
  /** Part of the name of every database of this run. */
  readonly run: string
  /** The database that `freshDatabase` clones. */
  readonly template: string
  /** What `dedicatedServer` starts, or why it cannot. */
  readonly binaries: Binaries | { readonly unavailable: string }
}

declare module "vitest" {
  interface ProvidedContext {
    readonly kongtaskPostgres: TestServer
  }
}

/** The name of a database of one run; `suffix` is unique within it. */
export const databaseName = (run: string, suffix: string): string => `kongtask_${run}_${suffix}`

/** The `application_name` of the session that keeps the databases of a run from being swept. */
export const runApplicationName = (run: string): string => `kongtask-test-run-${run}`

/** The same server and login as in `url`, another database. */
export const withDatabase = (url: string, database: string): string => {
  const changed = new URL(url)
  changed.pathname = `/${encodeURIComponent(database)}`
  return changed.toString()
}
