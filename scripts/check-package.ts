/**
 * Checks the package as it is published: packs it into a temporary directory, lints the tarball and its types, then
 * imports and compiles against every public module of it, and runs its program.
 */
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import manifest from "../package.json" with { type: "json" }

const root = Path.dirname(import.meta.dirname)
const directory = Fs.mkdtempSync(Path.join(Os.tmpdir(), "kongtask-package-"))
const tarball = Path.join(directory, `${manifest.name}-${manifest.version}.tgz`)
const installed = Path.join(directory, "node_modules", manifest.name)

const run = (command: string, ...args: ReadonlyArray<string>) => {
  const result = spawnSync(command, args, { cwd: root, stdio: ["ignore", "inherit", "inherit"] })
  if (result.status !== 0) {
    throw new Error(`${command} ${args.join(" ")}: ${result.error?.message ?? `exit code ${result.status}`}`)
  }
}

/** Lays the package out as an installation would, beside the peers and dependencies that this repository has. */
const install = () => {
  Fs.mkdirSync(installed, { recursive: true })
  run("tar", "-xzf", tarball, "-C", installed, "--strip-components=1")
  for (const peer of Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies })) {
    const link = Path.join(directory, "node_modules", peer)
    Fs.mkdirSync(Path.dirname(link), { recursive: true })
    Fs.symlinkSync(Path.join(root, "node_modules", peer), link, "dir")
  }
}

const filesIn = (folder: string, extension: string) =>
  Fs.readdirSync(Path.join(installed, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(extension))
    .map((file) => file.slice(0, -extension.length))

const check = (modules: ReadonlyArray<string>) => {
  const closed = ["cli", ...filesIn("dist/internal", ".js").map((file) => `internal/${file}`)]
    .map((file) => `${manifest.name}/${file}`)
  const consumer = Path.join(directory, "consumer.mjs")
  Fs.writeFileSync(
    consumer,
    `import { rejects } from "node:assert/strict"
    for (const name of ${JSON.stringify(modules)}) await import(name)
    for (const name of ${JSON.stringify(closed)}) {
      await rejects(import(name), { code: "ERR_PACKAGE_PATH_NOT_EXPORTED" }, name + " can be imported")
    }`
  )
  run(process.execPath, consumer)

  const typed = Path.join(directory, "consumer.mts")
  Fs.writeFileSync(typed, modules.map((name, i) => `export * as m${i} from "${name}"\n`).join(""))
  const compiler = Path.join(root, "node_modules/typescript/bin/tsc")
  const types = ["--types", "node", "--typeRoots", Path.join(root, "node_modules/@types"), "--lib", "ES2024,DOM"]
  run(process.execPath, compiler, "--ignoreConfig", "--noEmit", "--strict", "--module", "NodeNext", ...types, typed)

  console.log(`${modules.length} public modules import and compile, ${closed.length} internal ones are closed`)
}

const checkProgram = () => {
  const program = Path.join(installed, manifest.bin.kongtask)
  const { error, stdout } = spawnSync(process.execPath, [program, "--version"], { encoding: "utf8" })
  if (stdout !== `kongtask v${manifest.version}\n`) throw new Error(`${program}: ${error?.message ?? stdout}`)
  console.log(`${manifest.name} --version: ${stdout.trim()}`)
}

try {
  run("npm", "pack", "--silent", "--pack-destination", directory)
  run("publint", "run", "--strict", tarball)
  install()
  const modules = filesIn("src", ".ts").filter((file) => !file.startsWith("internal/") && file !== "cli")
    .map((file) => file === "index" ? manifest.name : `${manifest.name}/${file}`)
  run("attw", "--profile", "esm-only", "--quiet", tarball, "--entrypoints", ...modules)
  check(modules)
  checkProgram()
} finally {
  Fs.rmSync(directory, { recursive: true, force: true })
}
