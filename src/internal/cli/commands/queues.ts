import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Queue from "../../../Queue.ts"
import * as Connection from "../connection.ts"
import * as Counts from "../counts.ts"
import { Output } from "../Output.ts"

export const queues = Command.make("queues", {}, () =>
  Effect.gen(function*() {
    const output = yield* Output
    const stats = yield* Effect.provide(Queue.stats(), Connection.services)
    const rows = Counts.rowsOf(stats.queues)
    yield* output.answer(
      rows.map(({ counts, name }) => ({ queue: name, ...counts })),
      rows.length === 0
        ? output.note("No named queue has jobs.")
        : output.table(Counts.columns("QUEUE"), rows)
    )
  })).pipe(Command.withDescription("Named queues that have jobs, and how many in each state."))
