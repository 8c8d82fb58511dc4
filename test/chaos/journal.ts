/**
 * What a worker process writes to its standard output, a line of JSON each: the
 * ends of attempts too when the database is away.
 */

/** How a handler ended; one that succeeded may still not have been recorded. */
export type Outcome = "ok" | "failed" | "interrupted"

export type Entry =
  /** Times are milliseconds since the epoch. */
  | {
    readonly _tag: "Ended"
    /** Its entry in the ledger; left out when that could not be made, or when nobody knows. */
    readonly entry?: string | undefined
    readonly job: string
    readonly attempt: number
    readonly pool: string
    readonly at: number
    readonly outcome: Outcome
  }
  | { readonly _tag: "Blocked"; readonly job: string; readonly at: number; readonly until: number }
  | { readonly _tag: "PoolStarted"; readonly pool: string }
  | { readonly _tag: "PoolLost"; readonly pool: string }
  | { readonly _tag: "PoolsReleased"; readonly pools: ReadonlyArray<string> }
  | { readonly _tag: "Closed" }

/** A pipe takes it at once: what was written is read even after `kill -9`. */
export const write = (entry: Entry): void => void process.stdout.write(`${JSON.stringify(entry)}\n`)

/** The last line of a killed process may be cut off. */
export const read = (output: string): ReadonlyArray<Entry> =>
  output.split("\n").flatMap((line) => {
    if (!line.startsWith("{\"_tag\"") || !line.endsWith("}")) return []
    return [JSON.parse(line) as Entry]
  })
