/**
 * The documents of this repository, and the code that they show: what a block
 * is, where it stands, and what is wrong with one that can't be right.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Crontab } from "kongtask"
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { parseAllDocuments } from "yaml"
import manifest from "../../package.json" with { type: "json" }
import { makeDirectory } from "./directory.ts"
import { spawnScript } from "./process.ts"

export const root = Path.resolve(import.meta.dirname, "../..")

/** A Markdown file. */
export interface Page {
  /** Its path from the root. */
  readonly name: string
  readonly text: string
}

/** A fenced block. */
export interface Block {
  readonly page: string
  /** The line of its opening fence. */
  readonly line: number
  readonly language: string
  readonly code: string
}

const filesUnder = (directory: string, extension: string): ReadonlyArray<string> =>
  Fs.existsSync(Path.join(root, directory))
    ? Fs.readdirSync(Path.join(root, directory), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(extension) && !name.includes("node_modules"))
      .map((name) => Path.join(directory, name))
    : []

export const pages: ReadonlyArray<Page> = [
  "README.md",
  "CHANGELOG.md",
  ...["docs", "examples", "deploy"].flatMap((directory) => filesUnder(directory, ".md"))
].map((name) => ({ name, text: Fs.readFileSync(Path.join(root, name), "utf8") }))

const lineAt = (text: string, index: number): number => text.slice(0, index).split("\n").length

const blocksOf = (page: Page): ReadonlyArray<Block> =>
  [...page.text.matchAll(/^```([^\n]*)\n(.*?)^```$/gms)].map((match) => ({
    page: page.name,
    line: lineAt(page.text, match.index),
    language: match[1]!,
    code: match[2]!
  }))

export const blocks: ReadonlyArray<Block> = pages.flatMap(blocksOf)

/** The page and the line, as editors and terminals link them. */
export const placeOf = ({ line, page }: Block): string => `${page}:${line}`

export const isProgram = ({ code, language }: Block): boolean =>
  language === "ts" && /NodeRuntime\.runMain|Effect\.run(?:Fork|Promise)\(/.test(code)

/** A project beside this one, in which `kongtask` and its peers are installed. */
export const makeProject: Effect.Effect<string, never, Scope.Scope> = Effect.gen(function*() {
  const directory = yield* makeDirectory("programs")
  Fs.mkdirSync(Path.join(directory, "node_modules"))
  const link = (from: string, name: string) => Fs.symlinkSync(from, Path.join(directory, "node_modules", name), "dir")
  for (const name of ["effect", "@effect", "@electric-sql", "@types", "vitest", "graphile-worker"]) {
    link(Path.join(root, "node_modules", name), name)
  }
  link(root, "kongtask")
  Fs.writeFileSync(Path.join(directory, "package.json"), JSON.stringify({ private: true, type: "module" }))
  return directory
})

export const write = (directory: string, name: string, code: string): string => {
  const path = Path.join(directory, name)
  Fs.mkdirSync(Path.dirname(path), { recursive: true })
  Fs.writeFileSync(path, code)
  return path
}

/** What the compiler says of TypeScript blocks, each a module of its own, at their places in the documents. */
export const compile = Effect.fnUntraced(function*(programs: ReadonlyArray<Block>) {
  const directory = yield* makeProject
  programs.forEach(({ code }, index) => write(directory, `block${index}.ts`, code))
  const tsconfig = {
    extends: Path.join(root, "tsconfig.json"),
    include: ["*.ts"],
    compilerOptions: { noUnusedLocals: false, noUnusedParameters: false }
  }
  write(directory, "tsconfig.json", JSON.stringify(tsconfig))
  const compiler = yield* spawnScript(Path.join(root, "node_modules/typescript/bin/tsc"), {
    args: ["-p", directory, "--pretty", "false"],
    cwd: directory
  })
  yield* compiler.exit
  const said = `${yield* compiler.stdout}${yield* compiler.stderr}`
  return said.replace(/^block(\d+)\.ts\((\d+),(\d+)\): error /gm, (_, index, line, column) => {
    const block = programs[Number(index)]!
    return `${block.page}:${block.line + Number(line)}:${column}: `
  })
})

/** The lines of a shell block that are commands: those after a prompt, or all where there is none. */
const commandsOf = (code: string): ReadonlyArray<string> => {
  const lines = code.replaceAll("\\\n", " ").split("\n")
  const prompted = lines.filter((line) => line.startsWith("$ ")).map((line) => line.slice(2))
  return (prompted.length > 0 ? prompted : lines.filter((line) => line.trim() !== "" && !line.startsWith("#")))
    .flatMap((line) => line.replace(/\s#\s.*$/, "").split(/\s*(?:&&|\|\||[;|&])\s*/))
    .map((command) => command.trim().replace(/^(?:[A-Z_]+=\S+\s+)+/, ""))
    .filter((command) => command !== "")
}

const scripts: Readonly<Record<string, string>> = manifest.scripts
const bins: Readonly<Record<string, string>> = "bin" in manifest ? manifest.bin as Record<string, string> : {}
const packages = new Set(["kongtask", ...Object.keys({ ...manifest.peerDependencies, ...manifest.devDependencies })])

/** Programs that a reader has, which we can't ask about their arguments here. */
const foreign = new Set([
  ...["cd", "cp", "curl", "createdb", "docker", "echo", "export", "git", "helm", "kill", "kubectl", "mkdir", "psql"],
  ...["node", "pg_dump", "prometheus", "source", "touch", "cat", "systemctl"]
])

const helps = new Map<string, string>()

/** What a program of this package says of a subcommand; undefined when it does not know it. */
const helpOf = (bin: string, words: ReadonlyArray<string>): string | undefined => {
  const key = [bin, ...words].join(" ")
  const known = helps.get(key)
  if (known !== undefined) return known
  const source = bins[bin]!.replace(/^(?:\.\/)?dist\//, "src/").replace(/\.js$/, ".ts")
  try {
    const help = execFileSync(process.execPath, [
      "--conditions=kongtask-source",
      Path.join(root, source),
      ...words,
      "--help"
    ], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] })
    helps.set(key, help)
    return help
  } catch {
    return undefined
  }
}

/** Each leading word is a subcommand for as long as the help of those before it lists it. */
const problemOfBin = (bin: string, args: ReadonlyArray<string>): string | undefined => {
  const words: Array<string> = []
  let help = helpOf(bin, words)
  if (help === undefined) return `\`${bin} --help\` fails`
  for (const word of args) {
    if (!/^[a-z][a-z-]*$/.test(word) || !new RegExp(`^\\s+${word}(?:\\s|,|$)`, "m").test(help)) break
    const next = helpOf(bin, [...words, word])
    if (next === undefined || next === help) break
    words.push(word)
    help = next
  }
  const first = args[words.length]
  const usage = /^USAGE\n(.*)$/m.exec(help)?.[1] ?? ""
  if (first !== undefined && !first.startsWith("-") && !usage.includes(words.length === 0 ? "\n" : "<")) {
    return `\`${[bin, ...words].join(" ")}\` has no command or argument "${first}"`
  }
  const flags = args.flatMap((arg) => /^--[a-z][a-z-]*/.exec(arg) ?? [])
  const common = new Set(["--help", "--version", "--log-level", "--completions", "--wizard"])
  const unknown = flags.find((flag) => !help!.includes(flag) && !common.has(flag))
  return unknown === undefined ? undefined : `\`${[bin, ...words].join(" ")}\` has no option ${unknown}`
}

const problemOfNpm = ([first, ...args]: ReadonlyArray<string>): string | undefined => {
  switch (first) {
    case "ci":
      return undefined
    case "start":
    case "test":
      return first in scripts ? undefined : `there is no script "${first}" in package.json`
    case "run":
      return scripts[args[0] ?? ""] !== undefined ? undefined : `there is no script "${args[0]}" in package.json`
    case "install": {
      const unknown = args.find((name) => !name.startsWith("-") && !packages.has(name.replace(/(?<=.)@[^/]*$/, "")))
      return unknown === undefined ? undefined : `"${unknown}" is neither this package nor one that it knows`
    }
    default:
      return `"npm ${first}" is none of ci, start, test, run and install`
  }
}

/** Files of this repository that the command names, and which are not there. */
const missingFile = (args: ReadonlyArray<string>): string | undefined => {
  const missing = args.find((arg) =>
    /^(?:examples|deploy|scripts|test|src|bench)\//.test(arg) && !Fs.existsSync(Path.join(root, arg))
  )
  return missing === undefined ? undefined : `there is no file ${missing}`
}

const problemOfCommand = (command: string): string | undefined => {
  const [program, ...args] = command.split(/\s+/) as [string, ...Array<string>]
  const missing = missingFile(args)
  if (missing !== undefined) return missing
  if (program === "npm") return problemOfNpm(args)
  if (program === "npx") {
    const [bin, ...rest] = args.filter((arg) => arg !== "--yes")
    return bin === undefined || bin in bins ? problemOfBin(bin!, rest) : `npx: this package has no program "${bin}"`
  }
  if (program in bins) return problemOfBin(program, args)
  return foreign.has(program) ? undefined : `"${program}" is no program of this package or that we know`
}

/** What is wrong with a block that is no program: its commands, its syntax, or that nobody knows how to check it. */
export const problemsOf = (block: Block): ReadonlyArray<string> => {
  const at = (problem: string) => `${placeOf(block)}: ${problem}`
  const parsed = (parse: () => unknown) => {
    try {
      parse()
      return []
    } catch (error) {
      return [at(String(error))]
    }
  }
  switch (block.language) {
    case "ts":
    case "sql":
    case "text":
      return []
    case "sh":
      return commandsOf(block.code).flatMap((command) => {
        const problem = problemOfCommand(command)
        return problem === undefined ? [] : [at(`${command}: ${problem}`)]
      })
    case "json":
      return parsed(() => JSON.parse(block.code))
    case "yaml":
      return parseAllDocuments(block.code).flatMap(({ errors }) => errors.map(({ message }) => at(message)))
    case "crontab":
      return parsed(() => Effect.runSync(Effect.fromResult(Crontab.parse(block.code))))
    default:
      return [at(`the language "${block.language}" is not checked: ts, sql, sh, json, yaml, crontab and text are`)]
  }
}

/** Commands of this package that the text names, with what is wrong with them. */
export const inlineProblemsOf = ({ name, text }: Page): ReadonlyArray<string> =>
  Object.keys(bins).flatMap((bin) =>
    [
      ...text.replace(/^```.*?^```$/gms, (block) => "\n".repeat(block.split("\n").length - 1))
        .matchAll(new RegExp(`\`(${bin} [a-z][^\`]*)\``, "g"))
    ].flatMap((match) => {
      const problem = problemOfCommand(match[1]!.replace(/\s+/g, " "))
      return problem === undefined ? [] : [`${name}:${lineAt(text, match.index)}: ${match[1]}: ${problem}`]
    })
  )

/** Statements, each of which ends at a semicolon at the end of a line, outside of function bodies. */
export const statementsOf = (sql: string): ReadonlyArray<string> =>
  sql.split("$$").reduce<ReadonlyArray<string>>((statements, part, index) => {
    if (index % 2 === 1) return [...statements.slice(0, -1), `${statements.at(-1) ?? ""}$$${part}$$`]
    const [head = "", ...tail] = part.split(/;\n/)
    return [...statements.slice(0, -1), `${statements.at(-1) ?? ""}${head}`, ...tail]
  }, []).filter((statement) => statement.trim() !== "")

/** What a page's statements need to be there: \`test/fixtures/docs/<page>.sql\`. */
export const fixtureOf = (page: string): string => {
  const path = Path.join(root, "test/fixtures", page.replace(/\.md$/, ".sql"))
  return Fs.existsSync(path) ? Fs.readFileSync(path, "utf8") : ""
}

/** The names that links may have behind `#`, as GitHub makes them of headings. */
export const anchorsOf = ({ text }: Page): ReadonlySet<string> => {
  const headings = text.replace(/^```.*?^```$/gms, "").matchAll(/^#+ (.+)$/gm)
  const counts = new Map<string, number>()
  return new Set([...headings].map((match) => {
    const name = match[1]!.toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, "").replaceAll(" ", "-")
    const count = counts.get(name) ?? 0
    counts.set(name, count + 1)
    return count === 0 ? name : `${name}-${count}`
  }))
}
