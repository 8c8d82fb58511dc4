/**
 * Files of a user's project.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { makeDirectory } from "./directory.ts"

/** Texts by path; what begins with `#!` is executable. */
export type Files = Readonly<Record<string, string>>

export const writeFiles = (folder: string, files: Files): void => {
  for (const [name, text] of Object.entries(files)) {
    const path = Path.join(folder, name)
    Fs.mkdirSync(Path.dirname(path), { recursive: true })
    // Nobody sees half a file.
    Fs.writeFileSync(`${path}.tmp`, text, { mode: text.startsWith("#!") ? 0o755 : 0o644 })
    Fs.renameSync(`${path}.tmp`, path)
  }
}

const root = Path.dirname(Path.dirname(import.meta.dirname))

/** A folder with these files, in which `kongtask` and its peers can be imported; gone with the scope. */
export const makeProject = Effect.fnUntraced(function*(
  files: Files
): Effect.fn.Return<string, never, Scope.Scope> {
  const folder = Fs.realpathSync(yield* makeDirectory("programs"))
  Fs.mkdirSync(Path.join(folder, "node_modules"))
  for (const name of ["effect", "@effect", "@types"]) {
    Fs.symlinkSync(Path.join(root, "node_modules", name), Path.join(folder, "node_modules", name), "dir")
  }
  Fs.symlinkSync(root, Path.join(folder, "node_modules/kongtask"), "dir")
  writeFiles(folder, { "package.json": "{\"private\": true, \"type\": \"module\"}", ...files })
  return folder
})
