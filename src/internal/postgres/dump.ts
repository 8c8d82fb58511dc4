/**
 * Prints a schema as the SQL that makes it.
 *
 * The server deparses expressions, functions, views and indexes itself; here is
 * what it has no function for, and the order.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { withTransaction } from "./errors.ts"
import { quoteIdentifier } from "./schema.ts"

/** Ends the transaction, and with it the settings below, where it is a savepoint of the caller's too. */
class Printed extends Data.TaggedError("Printed")<{ readonly text: string }> {}

/**
 * What the text depends on. With this search_path the server qualifies every
 * name but those of built-in objects. Names sort by their bytes in any case:
 * the type `name` has the collation "C".
 */
const settingsStatement = `
  select
    pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true),
    pg_catalog.set_config('quote_all_identifiers', 'off', true),
    pg_catalog.set_config('timezone', 'UTC', true),
    pg_catalog.set_config('datestyle', 'ISO, MDY', true),
    pg_catalog.set_config('intervalstyle', 'postgres', true),
    pg_catalog.set_config('extra_float_digits', '1', true)`

/** $1 the schema, as in all that follow. Bodies are not checked, since they name what comes later. */
const headStatement = `
  select pg_catalog.concat_ws(
    E'\\n',
    'SET client_encoding = ''UTF8'';',
    'SET standard_conforming_strings = on;',
    'SET check_function_bodies = off;',
    'SET search_path = pg_catalog, pg_temp;',
    '',
    pg_catalog.format('CREATE SCHEMA %I;', $1::text)
  ) as statement`

const typesStatement = `
  select format(
    E'CREATE TYPE %I.%I AS (\\n%s\\n);', nspname, class.relname,
    (
      select string_agg(format('  %I %s', attname, format_type(atttypid, atttypmod)), E',\\n' order by attnum)
      from pg_attribute
      where attrelid = class.oid and attnum > 0 and not attisdropped
    )
  ) as statement
  from pg_class as class
  join pg_namespace as space on space.oid = class.relnamespace
  where nspname = $1::text and relkind = 'c'
  order by relname`

/** A table with its columns and its constraints. Its identities' sequences are named where the server would not. */
const tablesStatement = `
  with tables as (
    select class.oid, nspname, relname, relpersistence, reloptions
    from pg_class as class
    join pg_namespace as space on space.oid = class.relnamespace
    where nspname = $1::text and relkind = 'r'
  ), columns as (
    select
      attrelid, attnum,
      concat_ws(
        ' ',
        quote_ident(attname),
        format_type(atttypid, atttypmod),
        (
          select format('COLLATE %I.%I', space.nspname, collname)
          from pg_collation join pg_namespace as space on space.oid = collnamespace
          where pg_collation.oid = attcollation
            and attcollation <> (select typcollation from pg_type where oid = atttypid)
        ),
        case
          when attidentity <> '' then
            format('GENERATED %s AS IDENTITY', case attidentity when 'a' then 'ALWAYS' else 'BY DEFAULT' end)
          when attgenerated <> '' then
            format(
              'GENERATED ALWAYS AS (%s)%s', pg_get_expr(adbin, adrelid), case attgenerated when 's' then ' STORED' end
            )
          when adbin is not null then 'DEFAULT ' || pg_get_expr(adbin, adrelid)
        end,
        (
          select '(' || nullif(concat_ws(
            ' ',
            'SEQUENCE NAME '
              || nullif(seqrelid::regclass::text, format('%I.%I', nspname, relname || '_' || attname || '_seq')),
            'START WITH ' || nullif(seqstart, 1),
            'INCREMENT BY ' || nullif(seqincrement, 1),
            'CACHE ' || nullif(seqcache, 1)
          ), '') || ')'
          from pg_depend
          join pg_sequence on seqrelid = objid
          where classid = 'pg_class'::regclass and deptype = 'i'
            and refclassid = 'pg_class'::regclass and refobjid = attrelid and refobjsubid = attnum
        ),
        case when attnotnull then 'NOT NULL' end
      ) as line
    from tables
    join pg_attribute on attrelid = tables.oid
    left join pg_attrdef on adrelid = attrelid and adnum = attnum
    where attnum > 0 and not attisdropped
  ), constraints as (
    select conrelid, contype, conname, format('CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)) as line
    from pg_constraint
    where contype in ('p', 'u', 'x', 'c')
  )
  select format(
    E'CREATE %sTABLE %I.%I (\\n  %s\\n)%s;',
    case relpersistence when 'u' then 'UNLOGGED ' end, nspname, relname,
    concat_ws(
      E',\\n  ',
      (select string_agg(line, E',\\n  ' order by attnum) from columns where attrelid = tables.oid),
      (
        select string_agg(line, E',\\n  ' order by array_position('{p,u,x,c}'::"char"[], contype), conname)
        from constraints
        where conrelid = tables.oid
      )
    ),
    ' WITH (' || array_to_string(reloptions, ', ') || ')'
  ) as statement
  from tables
  order by relname`

/** Row level security, and the options of columns. */
const alterationsStatement = `
  select format('ALTER TABLE %I.%I %s;', nspname, relname, alteration) as statement
  from pg_class as class
  join pg_namespace as space on space.oid = class.relnamespace
  cross join lateral (
    select 1 as place, 'ENABLE ROW LEVEL SECURITY' as alteration where relrowsecurity
    union all
    select 2, 'FORCE ROW LEVEL SECURITY' where relforcerowsecurity
    union all
    select 2 + attnum, format('ALTER COLUMN %I SET (%s)', attname, array_to_string(attoptions, ', '))
    from pg_attribute
    where attrelid = class.oid and attnum > 0 and not attisdropped and attoptions is not null
  ) as alterations
  where nspname = $1::text and relkind = 'r'
  order by relname, place`

const foreignKeysStatement = `
  select format(
    'ALTER TABLE %I.%I ADD CONSTRAINT %I %s;', nspname, relname, conname, pg_get_constraintdef(pg_constraint.oid)
  ) as statement
  from pg_constraint
  join pg_class as class on class.oid = conrelid
  join pg_namespace as space on space.oid = class.relnamespace
  where nspname = $1::text and contype = 'f'
  order by relname, conname`

/** Functions and procedures: `pg_get_functiondef` has none of an aggregate. */
const functionsStatement = `
  select rtrim(pg_get_functiondef(proc.oid), E'\\n') || ';' as statement
  from pg_proc as proc
  join pg_namespace as space on space.oid = pronamespace
  where nspname = $1::text and prokind in ('f', 'p')
  order by proname, pg_get_function_identity_arguments(proc.oid) collate "C"`

const viewsStatement = `
  select format(
    E'CREATE VIEW %I.%I%s AS\\n%s', nspname, relname,
    ' WITH (' || array_to_string(reloptions, ', ') || ')', pg_get_viewdef(class.oid)
  ) as statement
  from pg_class as class
  join pg_namespace as space on space.oid = class.relnamespace
  where nspname = $1::text and relkind = 'v'
  order by relname`

/** The indexes that no constraint makes, without those that were left half-made. */
const indexesStatement = `
  select pg_get_indexdef(indexrelid) || ';' as statement
  from pg_index
  join pg_class as class on class.oid = indexrelid
  join pg_namespace as space on space.oid = class.relnamespace
  where nspname = $1::text and indisvalid and not exists (select from pg_constraint where conindid = indexrelid)
  order by relname`

const triggersStatement = `
  select pg_get_triggerdef(trigger.oid) || ';' as statement
  from pg_trigger as trigger
  join pg_class as class on class.oid = tgrelid
  join pg_namespace as space on space.oid = class.relnamespace
  where nspname = $1::text and not tgisinternal
  order by relname, tgname`

/** An object's type ends with the word that COMMENT knows it by: "composite type", "table column". */
const commentsStatement = `
  select format(
    'COMMENT ON %s %s IS %L;', upper(substring(object.type from '\\w+$')), identity, description
  ) as statement
  from pg_description
  cross join lateral pg_identify_object(classoid, objoid, objsubid) as object
  where objoid >= 16384 and case classoid
    when 'pg_namespace'::regclass then name = quote_ident($1::text)
    when 'pg_trigger'::regclass then objoid in (
      select pg_trigger.oid
      from pg_trigger
      join pg_class as class on class.oid = tgrelid
      join pg_namespace as space on space.oid = class.relnamespace
      where nspname = $1::text
    )
    else schema = quote_ident($1::text)
  end
  order by object.type collate "C", identity collate "C"`

/** The rows by which graphile-worker and the Migrator tell what the schema is; when they were written is left out. */
const rowsStatement = (schema: string): string => `
  select format(
    E'INSERT INTO %I.migrations (id, breaking) VALUES\\n%s;', $1::text,
    string_agg(format('  (%s, %s)', id, breaking::text), E',\\n' order by id)
  ) as statement
  from ${schema}.migrations
  having count(*) > 0
  union all
  select format(
    E'INSERT INTO %I._private_kongtask_migrations (id, name, breaking, adopted_from) VALUES\\n%s;', $1::text,
    string_agg(
      format('  (%s, %L, %s, %s)', id, name, breaking::text, coalesce(adopted_from::text, 'NULL')), E',\\n' order by id
    )
  )
  from ${schema}._private_kongtask_migrations
  having count(*) > 0`

/**
 * The statements that make the schema in an empty database, in an order in which
 * they can be run. It must be one of ours. In a transaction of its own, or in a
 * savepoint of the caller's, which is rolled back in the end.
 */
export const print = (sql: SqlClient.SqlClient, schema: string): Effect.Effect<string, SqlError> =>
  Effect.gen(function*() {
    yield* sql.unsafe(settingsStatement).unprepared
    const parts = yield* Effect.forEach([
      headStatement,
      typesStatement,
      tablesStatement,
      alterationsStatement,
      functionsStatement,
      viewsStatement,
      indexesStatement,
      foreignKeysStatement,
      triggersStatement,
      commentsStatement,
      rowsStatement(quoteIdentifier(schema))
    ], (statement) => sql.unsafe<{ readonly statement: string }>(statement, [schema]).unprepared)
    const statements = parts.flat().map(({ statement }) => statement)
    return yield* new Printed({ text: `${statements.join("\n\n")}\n` })
  }).pipe(
    withTransaction(sql),
    Effect.provideService(SqlClient.BeginTransaction, "begin isolation level repeatable read, read only"),
    Effect.catchTag("Printed", ({ text }) => Effect.succeed(text))
  )
