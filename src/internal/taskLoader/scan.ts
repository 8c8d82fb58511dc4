/**
 * Which files are tasks, and what they are called.
 */
import { accessSync, constants, readdirSync, realpathSync, statSync } from "node:fs"
import { join, parse, resolve } from "node:path"
import type { Issue } from "../../TaskLoader.ts"

/** A file that is to be loaded. */
export interface Candidate {
  /** The task's name where the file says no other: its path in the folder, without the ending. */
  readonly name: string
  readonly file: string
  readonly kind: "Module" | "Executable"
  /** Whether it was named itself: then each of its exports may be a task. */
  readonly isAlone: boolean
}

export interface Scan {
  readonly candidates: ReadonlyArray<Candidate>
  readonly issues: ReadonlyArray<Issue>
}

const moduleExtensions = [".ts", ".mts", ".cts", ".js", ".mjs", ".cjs"]

/** Hidden files, helpers, and what stands in a folder of modules beside them. */
const isLeftOut = (name: string): boolean =>
  /^[._]|^node_modules$|^package(?:-lock)?\.json$|^tsconfig(?:\.\w+)?\.json$|\.d\.[cm]?ts$|\.map$/.test(name)

const isName = (text: string): boolean => /^[A-Za-z0-9_-]+$/.test(text)

const isExecutable = (file: string, mode: number): boolean => {
  if ((mode & 0o111) === 0) return false
  try {
    accessSync(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}

const unreadable = (file: string, error: unknown): Issue => ({
  reason: "Unreadable",
  file,
  problem: `cannot be read: ${(error as Error).message}. Check the path and its rights`
})

/** Looks at a file, or at all in a folder and below. */
export const scan = (path: string): Scan => {
  const candidates: Array<Candidate> = []
  const issues: Array<Issue> = []

  const addFile = (file: string, mode: number, name: string, isAlone: boolean) => {
    const { base, ext } = parse(file)
    const isModule = moduleExtensions.includes(ext)
    if (!name.split("/").every(isName)) {
      issues.push({
        reason: "InvalidName",
        file,
        problem:
          `gives no name of a task: "${name}" has other characters than letters, digits, _ and -. Rename it, or ` +
          "begin its name with _ to leave it out"
      })
    } else if (isModule || isExecutable(file, mode)) {
      candidates.push({ name, file, kind: isModule ? "Module" : "Executable", isAlone })
    } else {
      issues.push({
        reason: "UnknownFileType",
        file,
        problem: `is no task: neither a module (${moduleExtensions.join(", ")}) nor executable. ` +
          `Make it executable (chmod +x ${base}), or begin its name with _ to leave it out`
      })
    }
  }

  /** `above` are the folders that it is in, which a link may lead back to. */
  const addFolder = (folder: string, prefix: string, above: ReadonlyArray<string>) => {
    const real = realpathSync(folder)
    if (above.includes(real)) return
    for (const entry of readdirSync(folder).toSorted()) {
      if (!isLeftOut(entry)) add(join(folder, entry), prefix, [...above, real])
    }
  }

  const add = (file: string, prefix: string, above: ReadonlyArray<string>) => {
    try {
      const stat = statSync(file)
      if (stat.isDirectory()) {
        addFolder(file, above.length === 0 ? "" : `${prefix}${parse(file).base}/`, above)
      } else addFile(file, stat.mode, `${prefix}${parse(file).name}`, above.length === 0)
    } catch (error) {
      issues.push(unreadable(file, error))
    }
  }

  add(resolve(path), "", [])
  return { candidates, issues }
}

/** A text that changes with any file of these folders, whether it is a task or not. */
export const fingerprint = (paths: Iterable<string>): string => {
  const seen: Array<string> = []
  const visit = (path: string, above: ReadonlyArray<string>) => {
    try {
      const stat = statSync(path)
      if (!stat.isDirectory()) {
        seen.push(`${path} ${stat.mtimeMs} ${stat.size} ${stat.ino} ${stat.mode}`)
        return
      }
      const real = realpathSync(path)
      if (above.includes(real)) return
      for (const entry of readdirSync(path).toSorted()) {
        if (!entry.startsWith(".") && entry !== "node_modules") visit(join(path, entry), [...above, real])
      }
    } catch (error) {
      seen.push(`${path} ${(error as NodeJS.ErrnoException).code}`)
    }
  }
  for (const path of paths) visit(resolve(path), [])
  return seen.join("\n")
}
