/**
 * Things that must not outlive this process, however it ends.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import { readFileSync, readlinkSync } from "node:fs"
import { hostname } from "node:os"

/** Which process something belongs to, so that a later run can tell whether it still lives. */
export interface Owner {
  readonly pid: number
  readonly started: string
  readonly machine: string
}

/** `fallback` where the file or link cannot be read. */
const readable = (read: () => string, fallback: string): string => {
  try {
    return read()
  } catch {
    return fallback
  }
}

/** When a process started, in the kernel's ticks; empty where that cannot be known. */
const startedAt = (pid: number): string => {
  const stat = readable(() => readFileSync(`/proc/${pid}/stat`, "latin1"), "")
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? ""
}

/** Process ids mean something only within one machine and one process namespace. */
const machine = (): string => `${hostname()} ${readable(() => readlinkSync("/proc/self/ns/pid"), "")}`

/** This process. */
export const self = (): Owner => ({ pid: process.pid, started: startedAt(process.pid), machine: machine() })

/** Whether a process is there, be it another user's. */
export const isRunning = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"
  }
}

/** Whether the owner has ended for certain: false wherever this process cannot judge it. */
export const hasEnded = (owner: Owner): boolean =>
  owner.machine === machine() && (!isRunning(owner.pid) || startedAt(owner.pid) !== owner.started)

/** The command line of a process; empty when it is gone or cannot be read. */
export const commandLine = (pid: number): string =>
  readable(() => readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " "), "")

/**
 * Runs a shell script when this process ends before the scope closes, be it by
 * `kill -9`: a shell of its own session waits for the end of a pipe that only
 * this process holds open.
 */
export const onSudden = (script: string, args: ReadonlyArray<string>): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(Effect.acquireRelease(
    Effect.sync(() => {
      const shell = spawn("/bin/sh", ["-c", `read -r _; ${script}`, "guard", ...args], {
        cwd: "/",
        detached: true,
        stdio: ["pipe", "ignore", "ignore"]
      })
      shell.unref()
      shell.on("error", () => {})
      shell.stdin.on("error", () => {})
      ;(shell.stdin as unknown as { unref?: () => void }).unref?.()
      return shell
    }),
    (shell) => Effect.sync(() => void shell.kill("SIGKILL"))
  ))
