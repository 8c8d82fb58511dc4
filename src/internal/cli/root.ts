import * as Command from "effect/cli/Command"
import { shared } from "./flags.ts"

/** What every command knows of its flags: `yield* root`. */
export const root = Command.make("kongtask").pipe(
  Command.withSharedFlags(shared),
  Command.withDescription("A job queue in PostgreSQL.")
)
