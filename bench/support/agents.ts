/**
 * Contestants' processes, seen from the benchmark: started, asked, ended with their scope.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { fork } from "node:child_process"
import { join } from "node:path"
import { contestants, type Name, now } from "./contestant.ts"
import type { Operation, Operations } from "./operations.ts"

/** A contestant's process did not do what was asked of it. */
export class AgentFailed extends Data.TaggedError("AgentFailed")<{ readonly message: string }> {}

export interface Agent {
  readonly name: Name
  readonly ask: <const O extends Operation>(
    operation: O,
    input: Operations[O]["input"]
  ) => Effect.Effect<Operations[O]["output"], AgentFailed>
  /** Milliseconds from its start to its first answer, with the contestant's module loaded. */
  readonly loadedAfter: number
}

interface Answer {
  readonly id: number
  readonly output?: unknown
  readonly problem?: string
}

const script = join(import.meta.dirname, "..", "agent.ts")

/** Starts a contestant's process. */
export const startAgent = Effect.fnUntraced(function*(
  name: Name,
  url: string
): Effect.fn.Return<Agent, AgentFailed, Scope.Scope> {
  const { module, profile } = contestants[name]
  const start = now()
  const waiting = new Map<number, (answer: Answer) => void>()
  let written = ""
  let ended = false
  let requests = 0

  const child = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const child = fork(script, [module, profile, url], { execArgv: [], stdio: ["ignore", "pipe", "pipe", "ipc"] })
      for (const output of [child.stdout, child.stderr]) {
        output?.setEncoding("utf8").on("data", (text: string) => written = (written + text).slice(-4000))
      }
      child.on("message", (answer: Answer) => {
        waiting.get(answer.id)?.(answer)
        waiting.delete(answer.id)
      })
      child.on("close", () => {
        ended = true
        for (const [id, answer] of waiting) answer({ id, problem: "the process ended" })
      })
      child.on("error", (error) => written += error.message)
      return child
    }),
    (child) =>
      Effect.callback<void>((resume) => {
        if (ended) return resume(Effect.void)
        child.once("close", () => resume(Effect.void))
        child.kill("SIGKILL")
      })
  )

  const ask: Agent["ask"] = (operation, input) =>
    Effect.callback((resume) => {
      const id = ++requests
      const failed = (problem: string) =>
        resume(Effect.fail(new AgentFailed({ message: `${name}, ${operation}: ${problem}\n${written}` })))
      if (ended) return failed("the process has ended")
      waiting.set(id, ({ output, problem }) =>
        problem === undefined ? resume(Effect.succeed(output as never)) : failed(problem))
      child.send({ id, operation, input })
      return Effect.sync(() =>
        void waiting.delete(id)
      )
    })

  yield* ask("configuration", { concurrency: 1 })
  return { name, ask, loadedAfter: now() - start }
})
