/**
 * What a server says of which KongTask is told that it is too old. Only
 * `npm run test:matrix` runs it, for it needs that server.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as KongTask from "../../src/KongTask.ts"
import type { KongTaskError } from "../../src/KongTaskError.ts"
import * as Migrator from "../../src/Migrator.ts"
import { findBinaries } from "../support/binaries.ts"
import { makeDirectory } from "../support/directory.ts"
import { makeServer } from "../support/server.ts"
import { directoryOf, tooOld } from "./programs.ts"

const reasonOf = <A, R>(effect: Effect.Effect<A, KongTaskError, R>) =>
  Effect.map(Effect.flip(effect), ({ reason }) => `${reason._tag}: ${reason.message}`)

it.live(`a PostgreSQL ${tooOld} is refused by everything, and nothing is created`, () =>
  Effect.gen(function*() {
    process.env["KONGTASK_TEST_POSTGRES"] = yield* directoryOf(tooOld)
    const { host, port, username } = yield* makeServer(yield* findBinaries, yield* makeDirectory("data"))
    const client = PgClient.layer({ host, port, username, database: "postgres" })
    yield* Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const refused = new RegExp(`^ServerTooOld: .*\\b${tooOld}\\.\\d+\\b.*\\b12\\b`)
      const check = Effect.gen(function*() {
        const { dump, finishAdoption, migrate, status, verify } = Migrator
        for (const effect of [migrate, status, verify, dump, finishAdoption]) {
          assert.match(yield* reasonOf<unknown, Migrator.Migrator>(effect), refused)
        }
        assert.match(yield* reasonOf(Layer.build(KongTask.layer())), refused)
        assert.match(yield* reasonOf(Layer.build(KongTask.layer({ migrate: false }))), refused)
      })
      yield* check
      assert.deepStrictEqual(
        yield* sql`select nspname::text as name from pg_namespace where nspname = 'graphile_worker'`,
        []
      )
      yield* sql`create schema graphile_worker`
      yield* check
      assert.deepStrictEqual(
        yield* sql`
          select relname::text as name from pg_class where relnamespace = 'graphile_worker'::regnamespace
          union all
          select proname::text from pg_proc where pronamespace = 'graphile_worker'::regnamespace`,
        []
      )
    }).pipe(Effect.provide(Layer.provideMerge(Migrator.Migrator.layer(), client)))
  }))
