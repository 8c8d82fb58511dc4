import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Connection from "../connection.ts"
import * as Files from "../files.ts"
import { orUndefined } from "../flags.ts"
import { Output } from "../Output.ts"

const dump = Command.make("dump", {
  output: Flag.String("output").pipe(
    Flag.withAlias("o"),
    Flag.withMetavar("file"),
    Flag.withDescription("Write it to a file"),
    orUndefined
  )
}, ({ output: file }) =>
  Effect.gen(function*() {
    const output = yield* Output
    const sql = yield* Effect.provide(
      Effect.flatMap(Connection.migrator, ({ dump }) => dump),
      Connection.database()
    )
    if (file === undefined) return yield* output.answer({ sql }, output.text(sql))
    yield* Files.write(file, sql)
    yield* output.answer({ file }, output.note(`Wrote ${file}.`))
  })).pipe(Command.withDescription("Print the schema as the SQL that makes it, without jobs."))

export const schema = Command.make("schema").pipe(
  Command.withDescription("The database schema."),
  Command.withSubcommands([dump])
)
