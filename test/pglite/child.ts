/**
 * A process of its own for tests of the embedded database: `child.ts <mode> <dataDir>`.
 *
 * - `race`: tries to take the directory on every line of its input, and keeps it.
 * - `open`: opens the database and keeps it.
 * - `write`: inserts rows one after the other and prints the id of each that was committed.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Cause from "effect/Cause"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Readline from "node:readline"
import * as DataDirectory from "../../src/internal/pglite/dataDirectory.ts"
import * as Embedded from "../../src/internal/pglite/layer.ts"
import type { KongTaskError } from "../../src/KongTaskError.ts"

const [mode, dataDir = ""] = process.argv.slice(2)

const report = (cause: Cause.Cause<KongTaskError>) => {
  const error = Cause.squash(cause) as KongTaskError
  const reason = error.reason
  return Console.log(
    reason?._tag === "DataDirectoryInUse" ? `in use by ${reason.pid}` : `failed: ${error.message}`
  )
}

const race = Effect.scoped(
  Effect.andThen(DataDirectory.open(dataDir), Effect.andThen(Console.log("held"), Effect.never))
)

const open = Effect.andThen(Console.log("open"), Effect.never).pipe(Effect.provide(Embedded.layer({ dataDir })))

const write = Effect.gen(function*() {
  const sql = yield* PgClient.PgClient
  yield* sql`create table if not exists written (id int generated always as identity primary key)`
  const insert = sql<{ readonly id: number }>`insert into written default values returning id`
  return yield* Effect.forever(Effect.flatMap(insert, (rows) => Console.log(rows[0]!.id)))
}).pipe(Effect.provide(Embedded.layer({ dataDir })))

switch (mode) {
  case "race":
    Readline.createInterface({ input: process.stdin }).on("line", () => {
      Effect.runFork(Effect.catchCause(race, report))
    })
    break
  case "open":
    Effect.runFork(Effect.catchCause(open, report))
    break
  case "write":
    Effect.runFork(Effect.catchCause(write, (cause) => Console.log(`failed: ${Cause.pretty(cause)}`)))
    break
}
process.stdout.write("ready\n")
