#!/usr/bin/env node
/**
 * The command line: `kongtask --help`. A program of its own, not to be imported.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import { createRequire } from "node:module"
import { kongtask } from "./internal/cli/kongtask.ts"
import { run } from "./internal/cli/main.ts"

const { version } = createRequire(import.meta.url)("../package.json") as { readonly version: string }
const args = process.argv.slice(2)

run(
  Command.runWith(kongtask, { version })(args).pipe(Effect.provide(NodeServices.layer)),
  args
)
