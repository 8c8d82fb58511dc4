/**
 * Adds to package-lock.json the binaries for other platforms that npm left out of it. npm does so when the registry in
 * use doesn't have them, and then `npm ci` refuses the lockfile everywhere. Run it after changing a dependency.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"

interface LockedPackage {
  readonly version?: string
  readonly dev?: boolean
  readonly license?: string
  readonly optionalDependencies?: Readonly<Record<string, string>>
}

const systems = ["android", "darwin", "freebsd", "linux", "openharmony", "win32"]
const processors = ["arm64", "arm", "ia32", "loong64", "ppc64", "riscv64", "s390x", "x64"]

const libcOf = (words: ReadonlyArray<string>) => {
  if (words.some((word) => word.startsWith("musl"))) return "musl"
  if (words.some((word) => word === "glibc" || word.startsWith("gnu"))) return "glibc"
  return undefined
}

const file = Path.join(Path.dirname(import.meta.dirname), "package-lock.json")
const lock = JSON.parse(Fs.readFileSync(file, "utf8")) as { packages: Record<string, LockedPackage> }

for (const [parent, { optionalDependencies = {}, ...locked }] of Object.entries(lock.packages)) {
  for (const [name, version] of Object.entries(optionalDependencies)) {
    const path = `node_modules/${name}`
    const words = name.split(/[/-]/)
    const os = systems.find((system) => words.includes(system))
    const cpu = processors.find((processor) => words.includes(processor))
    const libc = libcOf(words)
    if (path in lock.packages || `${parent}/${path}` in lock.packages || !os || !cpu) continue
    lock.packages[path] = {
      version,
      cpu: [cpu],
      ...(locked.dev && { dev: true }),
      ...(libc && { libc: [libc] }),
      ...(locked.license && { license: locked.license }),
      optional: true,
      os: [os]
    } as LockedPackage
    console.log(`added ${name}@${version}`)
  }
}

lock.packages = Object.fromEntries(Object.entries(lock.packages).toSorted(([a], [b]) => a.localeCompare(b, "en")))
Fs.writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`)
