-- What a schema that graphile-worker migrated to 16 or later gets instead of 0001_contract.sql. The rest of the
-- migrations follows in the same transaction.
--
-- Nothing here may wait for the workers of a schema at 19 or 20, nor change a column under them.

do $body$
begin
  -- Up to 17 a trigger announces new jobs; add_job does it since.
  if exists (
    select from pg_trigger
    where tgname = '_900_after_insert' and tgrelid = (quote_ident(:schema_literal) || '._private_jobs')::regclass
  ) then
    drop trigger _900_after_insert on :schema._private_jobs;
    drop function if exists :schema.tg_jobs__after_insert();
  end if;

  -- The column came with graphile-worker 0.16.
  if not exists (
    select from pg_attribute
    where attname = 'breaking' and attrelid = (quote_ident(:schema_literal) || '.migrations')::regclass
  ) then
    alter table :schema.migrations add column breaking boolean not null default false;
    update :schema.migrations set breaking = true where id in (1, 3, 11, 13, 14, 16);
  end if;

  -- The workers that cannot work with a schema at 19 stop when they are told, and those at work on one are not told.
  if not exists (select from :schema.migrations where id = 19) then
    perform pg_notify('worker:migrate', '{"migrationNumber":19,"breaking":true}');
  end if;

  insert into :schema.migrations (id, breaking)
  select id, id = 19 from generate_series(17, 20) as id
  on conflict (id) do nothing;
end
$body$;
