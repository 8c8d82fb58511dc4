/**
 * The task: what a producer and a worker agree on.
 */
import { Schema } from "effect"
import { Task } from "kongtask"

export const BrokenLink = Schema.Struct({
  line: Schema.Int,
  target: Schema.String,
  problem: Schema.String
})
export type BrokenLink = typeof BrokenLink.Type

/** The file has links that lead nowhere. */
export class BrokenLinks extends Schema.TaggedError<BrokenLinks>()("BrokenLinks", {
  broken: Schema.Array(BrokenLink)
}) {
  override get message(): string {
    return [
      `${this.broken.length} of its links lead nowhere`,
      ...this.broken.map(({ line, problem, target }) => `line ${line}: ${target} (${problem})`)
    ].join("\n")
  }
}

/** The file is gone or closed to us. */
export class UnreadableFile extends Schema.TaggedError<UnreadableFile>()("UnreadableFile", {
  problem: Schema.String
}) {
  override get message(): string {
    return this.problem
  }
}

export const CheckFile = Task.make("check_file", {
  payload: {
    /** The run that the result belongs to. */
    run: Schema.Int,
    /** The folder whose files are checked, absolute. */
    root: Schema.String,
    /** Relative to the folder, or absolute. */
    file: Schema.String
  },
  success: Schema.Struct({
    links: Schema.Int,
    /** How many of them were checked: those that don't lead to the web. */
    local: Schema.Int,
    anchors: Schema.Int
  }),
  error: Schema.Union([BrokenLinks, UnreadableFile]),
  maxAttempts: 5
})
