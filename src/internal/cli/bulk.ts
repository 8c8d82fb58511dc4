/**
 * Jobs in bulk: one for each line of JSON, a statement for each thousand.
 */
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import type * as Job from "../../Job.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import * as Queue from "../../Queue.ts"
import type * as Task from "../../Task.ts"
import { toProblem } from "./failure.ts"
import * as Files from "./files.ts"
import * as Format from "./format.ts"
import { Output } from "./Output.ts"
import { Problem } from "./problem.ts"
import * as Progress from "./progress.ts"
import type * as TaskCheck from "./taskCheck.ts"

/** A task whose payload is any JSON. */
export type Untyped = Task.Task<string, typeof Schema.Json, typeof Schema.Json, typeof Schema.Never>

const maxJobs = 1000
const maxCharacters = 1024 * 1024

const decode = Schema.decodeUnknownResult(Schema.fromJsonString(Schema.Json))

/** The value, or what is wrong with the text. */
export const parse = (text: string): Effect.Effect<Schema.Json, string> => {
  const decoded = decode(text)
  return Result.isSuccess(decoded) ? Effect.succeed(decoded.success) : Effect.fail(syntaxProblem(text))
}

/** As the parser says it, on one line. */
const syntaxProblem = (text: string): string => {
  if (text.trim() === "") return "it is empty"
  const parsed = Result.try(() => JSON.parse(text))
  return Result.isFailure(parsed) && parsed.failure instanceof Error
    ? parsed.failure.message.replace(/\s+/g, " ")
    : "it cannot be read"
}

/** The task refuses a payload. */
export const refused = (problem: string): string => `The payload is not one of this task: ${problem}`

interface Line {
  readonly number: number
  readonly text: string
}

interface State {
  added: number
  chunk: Array<{ readonly number: number; readonly payload: Schema.Json }>
  characters: number
  /** How many jobs the statement under way adds. */
  inFlight: number
}

/** Adds a job a line, and answers how many; an error says the line, and how many were added before it. */
export const addLines = Effect.fnUntraced(function*(
  task: Untyped,
  file: string,
  options: Job.Options,
  check: TaskCheck.Check
): Effect.fn.Return<
  number,
  Problem | KongTaskError,
  Queue.Queue | FileSystem.FileSystem | Stdio.Stdio | Output | Scope.Scope
> {
  const output = yield* Output
  const progress = yield* Progress.make(`Adding ${task.name}`)
  const where = file === "-" ? "standard input" : file
  const state: State = { added: 0, chunk: [], characters: 0, inFlight: 0 }

  const flush = Effect.gen(function*() {
    const { chunk } = state
    if (chunk.length === 0) return
    state.chunk = []
    state.characters = 0
    state.inFlight = chunk.length
    yield* Queue.addMany(chunk.map(({ payload }) => task.request(payload, options))).pipe(
      // All or none: what stands before the bad one is added without it.
      Effect.catchTag("InvalidJob", (error) =>
        Effect.gen(function*() {
          const index = error.index ?? 0
          const before = chunk.slice(0, index).map(({ payload }) => task.request(payload, options))
          if (before.length > 0) state.added += (yield* Queue.addMany(before)).length
          return yield* new Problem({
            kind: "input",
            message: `${error.field} ${error.problem}`,
            where: `${where}, line ${chunk[index]!.number}`,
            cause: error
          })
        }))
    )
    state.added += chunk.length
    state.inFlight = 0
    yield* progress.advance(chunk.length)
  })

  const take = Effect.fnUntraced(function*({ number, text }: Line) {
    if (text.trim() === "") return
    const payload = yield* parse(text).pipe(
      Effect.mapError((problem) => `This is no JSON: ${problem}`),
      Effect.tap((payload) => Effect.mapError(check(payload), refused)),
      Effect.catch((message) =>
        Effect.andThen(flush, new Problem({ kind: "input", message, where: `${where}, line ${number}` }))
      )
    )
    state.chunk.push({ number, payload })
    state.characters += text.length
    if (state.chunk.length >= maxJobs || state.characters >= maxCharacters) yield* flush
  })

  const lines = Files.bytes(file).pipe(
    Stream.decodeText,
    Stream.splitLines,
    Stream.zipWithIndex,
    Stream.map(([text, index]): Line => ({ number: index + 1, text: index === 0 ? text.replace(/^\ufeff/, "") : text }))
  )
  return yield* Stream.runForEach(lines, take).pipe(
    Effect.andThen(flush),
    Effect.mapError((error) => withCount(error, state.added, state.inFlight)),
    Effect.onInterrupt(() => output.note(`${Format.many(state.added, "job")} had been added.`)),
    Effect.map(() => state.added)
  )
}, Effect.scoped)

const withCount = (error: unknown, added: number, waiting: number): Problem => {
  const problem = toProblem(error)
  const rest = added === 0 ? "" : ` To go on, leave out the first ${Format.count(added)} lines that are not empty.`
  // A connection that broke may have been fast enough.
  const inDoubt = problem.kind === "connection" && waiting > 0 ? ` Perhaps ${Format.many(waiting, "job")} more.` : ""
  return new Problem({
    ...problem,
    kind: problem.kind,
    message: problem.message,
    done: `${Format.many(added, "job")} ${added === 1 ? "was" : "were"} added before it, and stay.${inDoubt}${rest}`
  })
}
