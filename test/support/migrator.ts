/**
 * Migrators of databases of the test's own.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Reactivity from "effect/reactivity/Reactivity"
import type * as SqlClient from "effect/sql/SqlClient"
import { randomBytes } from "node:crypto"
import type { KongTaskError } from "../../src/KongTaskError.ts"
import * as Migrator from "../../src/Migrator.ts"
import * as Database from "./database.ts"

export const connect = (config: PgClient.PgPoolConfig) => PgClient.make(config).pipe(Effect.provide(Reactivity.layer))

/** The migrator of one client. */
export const migratorOf = (sql: PgClient.PgClient, options?: Migrator.MigratorOptions) =>
  Layer.build(Migrator.Migrator.layer(options)).pipe(
    Effect.map((context) => Context.get(context, Migrator.Migrator)),
    Effect.provideService(PgClient.PgClient, sql)
  )

/** An empty database, a superuser's client of it, and the migrator of a client with other settings, if any. */
export const empty = Effect.fnUntraced(function*(
  settings?: Partial<PgClient.PgPoolConfig>,
  options?: Migrator.MigratorOptions
) {
  const { config, url } = yield* Database.freshDatabase({ migrated: false })
  const admin = yield* connect(config)
  const sql = settings === undefined ? admin : yield* connect({ ...config, ...settings })
  return { config, url, admin, sql, migrator: yield* migratorOf(sql, options) }
})

/** A role without any privilege, gone with the scope. */
export const makeRole = (admin: PgClient.PgClient) =>
  Effect.acquireRelease(
    Effect.suspend(() => {
      const role = `kongtask_${randomBytes(6).toString("hex")}`
      return Effect.as(admin.unsafe(`create role ${role}`), role)
    }),
    (role) => Effect.orDie(Effect.andThen(admin.unsafe(`drop owned by ${role}`), admin.unsafe(`drop role ${role}`)))
  )

/** Makes every DDL command of the database fail that the condition picks. */
export const refuseDdl = (sql: SqlClient.SqlClient, when: string, code = "P0001") =>
  Effect.andThen(
    sql.unsafe(`
      create function public.refuse() returns event_trigger language plpgsql as $$
      begin
        if ${when} then raise exception 'no DDL here' using errcode = '${code}'; end if;
      end $$`),
    sql.unsafe("create event trigger refuse on ddl_command_start execute function public.refuse()")
  )

/** What the effect fails of. */
export const reasonOf = <A>(effect: Effect.Effect<A, KongTaskError>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason)
