/**
 * Files of the user's, with errors that name them.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type { PlatformError } from "effect/PlatformError"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import { Problem } from "./problem.ts"

const failed = (verb: string, file: string) => (error: PlatformError): Problem => {
  const isMissing = error.reason._tag === "NotFound"
  return new Problem({
    kind: isMissing ? "notFound" : "input",
    message: isMissing ? "There is no such file." : `The file cannot be ${verb}: ${error.reason.message}`,
    where: file,
    cause: error
  })
}

export const read = (file: string): Effect.Effect<string, Problem, FileSystem.FileSystem> =>
  FileSystem.FileSystem.use((fs) => fs.readFileString(file)).pipe(Effect.mapError(failed("read", file)))

export const write = (file: string, text: string): Effect.Effect<void, Problem, FileSystem.FileSystem> =>
  FileSystem.FileSystem.use((fs) => fs.writeFileString(file, text)).pipe(Effect.mapError(failed("written", file)))

/** The bytes of a file as they are wanted; `-` is standard input. */
export const bytes = (file: string): Stream.Stream<Uint8Array, Problem, FileSystem.FileSystem | Stdio.Stdio> => {
  const source: Stream.Stream<Uint8Array, PlatformError, FileSystem.FileSystem | Stdio.Stdio> = file === "-"
    ? Stream.unwrap(Effect.map(Stdio.Stdio, ({ stdin }) => stdin))
    : Stream.unwrap(Effect.map(FileSystem.FileSystem, (fs) => fs.stream(file)))
  return Stream.mapError(source, failed("read", file === "-" ? "standard input" : file))
}

/** All of standard input. */
export const readInput: Effect.Effect<string, Problem, FileSystem.FileSystem | Stdio.Stdio> = Stream.mkString(
  Stream.decodeText(bytes("-"))
)
