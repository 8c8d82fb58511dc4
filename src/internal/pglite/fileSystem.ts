/**
 * `node:fs` as Effects that fail with a `KongTaskError` which says what to do.
 */
import * as Effect from "effect/Effect"
import * as Fs from "node:fs/promises"
import { EmbeddedDatabaseFailed, KongTaskError } from "../../KongTaskError.ts"

export const failed = (dataDir: string | undefined, problem: string, cause: unknown): KongTaskError =>
  new KongTaskError({ reason: new EmbeddedDatabaseFailed({ dataDir, problem, cause }) })

/** The code of a Node.js error: `"ENOENT"`. */
export const codeOf = (cause: unknown): string | undefined =>
  typeof cause === "object" && cause !== null && "code" in cause && typeof cause.code === "string"
    ? cause.code
    : undefined

const problemOf = (cause: unknown): string => {
  switch (codeOf(cause)) {
    case "ENOTDIR":
    case "EEXIST":
      return "a file is in the place of the directory. Remove it, or name another directory."
    case "EACCES":
    case "EPERM":
      return "this process may not read and write there. Give its user the permission, or name another directory."
    case "EROFS":
      return "the file system is read-only. Name a directory on another one."
    case "ENOSPC":
    case "EDQUOT":
      return "the disk is full. Free some space, or name a directory on another disk."
    default:
      return `${cause instanceof Error ? cause.message : String(cause)}.`
  }
}

/** Runs one operation of `node:fs` inside a data directory. */
export const attempt = <A>(
  dataDir: string,
  operation: (fs: typeof Fs) => Promise<A>
): Effect.Effect<A, KongTaskError> =>
  Effect.tryPromise({
    try: () => operation(Fs),
    catch: (cause) => failed(dataDir, problemOf(cause), cause)
  })

/** The code that an operation failed with, or `undefined` when it succeeded or its code is not one of `expected`. */
export const attemptCode = <const Code extends string>(
  dataDir: string,
  expected: ReadonlyArray<Code>,
  operation: (fs: typeof Fs) => Promise<unknown>
): Effect.Effect<Code | undefined, KongTaskError> =>
  Effect.tryPromise({
    try: () => operation(Fs),
    catch: (cause) => ({ code: codeOf(cause), error: failed(dataDir, problemOf(cause), cause) })
  }).pipe(
    Effect.as(undefined),
    Effect.catch(({ code, error }) => {
      const known = expected.find((candidate) => candidate === code)
      return known === undefined ? Effect.fail(error) : Effect.succeed(known)
    })
  )
