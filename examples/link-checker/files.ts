/**
 * Finds the files to check.
 */
import { Console, Effect, FileSystem, Path, Schema } from "effect"
import { isChecked } from "./links.ts"

/** A file or folder was named that cannot be checked. */
export class InvalidPath extends Schema.TaggedError<InvalidPath>()("InvalidPath", {
  path: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `${this.path} cannot be checked: ${this.problem}.`
  }
}

/** Nothing was named and nothing was found. */
export class NoFiles extends Schema.TaggedError<NoFiles>()("NoFiles", { folder: Schema.String }) {
  override get message(): string {
    return `There are no Markdown or source files in ${this.folder}. Name the files or folders to check.`
  }
}

const ignored = new Set(["node_modules", "dist", "coverage", ".git", ".kongtask"])

/** Whether a relative path leads to something that is installed, built or kept by a tool. */
export const isIgnored = (path: string): boolean => path.split(/[/\\]/).some((name) => ignored.has(name))

/** The files of a folder and its folders. Symbolic links are not followed, so there are no circles. */
const filesOf = Effect.fn("filesOf")(function*(folder: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const files: Array<string> = []
  const folders = [folder]
  for (let next = folders.pop(); next !== undefined; next = folders.pop()) {
    const current = next
    const entries = yield* Effect.catch(
      fs.readDirectoryEntries(current),
      (error) => Effect.as(Console.error(`Skipped a folder: ${error.message}`), [])
    )
    for (const { name, type } of entries) {
      if (type === "Directory" && !ignored.has(name)) folders.push(path.join(current, name))
      if (type === "File" && isChecked(name)) files.push(path.join(current, name))
    }
  }
  return files
})

/**
 * The Markdown and source files of `root`, and what else is named: files of any
 * kind, and folders. Answers paths relative to `root`, or absolute ones outside
 * of it, sorted.
 */
export const findFiles = Effect.fn("findFiles")(function*(root: string, named: ReadonlyArray<string>) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path

  const more = yield* Effect.forEach(named, (name) => {
    const absolute = path.resolve(name)
    return fs.stat(absolute).pipe(
      Effect.mapError((error) =>
        new InvalidPath({
          path: name,
          problem: error.reason._tag === "NotFound" ? "there is no such file or folder" : error.message
        })
      ),
      Effect.flatMap(({ type }) => {
        if (type === "Directory") return filesOf(absolute)
        return type === "File"
          ? Effect.succeed([absolute])
          : Effect.fail(new InvalidPath({ path: name, problem: "it is neither a file nor a folder" }))
      })
    )
  })

  const all = new Set([...yield* filesOf(root), ...more.flat()])
  if (all.size === 0) return yield* new NoFiles({ folder: root })
  return Array.from(all, (file) => {
    const relative = path.relative(root, file)
    return /^\.\.(?:[/\\]|$)/.test(relative) ? file : relative
  }).toSorted()
})
