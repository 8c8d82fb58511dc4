/**
 * What can go wrong on the command line, as one screen of text and an exit code of its own kind.
 */
import * as Data from "effect/Data"

/** Each kind of failure and its exit code; `docs/cli.md` says what scripts can do about them. */
export const exitCodes = {
  unexpected: 1,
  usage: 2,
  configuration: 3,
  connection: 4,
  rights: 5,
  schema: 6,
  notFound: 7,
  input: 8,
  tasks: 9,
  jobsFailed: 10,
  unhealthy: 11
} as const

export type Kind = keyof typeof exitCodes

/** What a command fails with: what is wrong, where, and what to do. */
export class Problem extends Data.TaggedError("Problem")<{
  readonly kind: Kind
  /** What is wrong. */
  readonly message: string
  /** The file and place, flag or setting. */
  readonly where?: string | undefined
  /** What to do about it. */
  readonly todo?: string | undefined
  /** What was done before it, so that nobody has to guess. */
  readonly done?: string | undefined
  readonly cause?: unknown
}> {}

/** Ends a command whose answer is printed already, such as that of `doctor`. */
export class Finding extends Data.TaggedError("Finding")<{ readonly kind: Kind }> {}

/** Standard output was closed by whoever read it. */
export class OutputClosed extends Data.TaggedError("OutputClosed")<{}> {}

export const usage = (message: string, todo?: string): Problem => new Problem({ kind: "usage", message, todo })

export const notFound = (message: string, todo?: string): Problem => new Problem({ kind: "notFound", message, todo })
