-- breaking: true
--
-- The tables and the type that KongTask shares with graphile-worker: their names and columns are a contract. A schema
-- that graphile-worker made gets adopt.sql instead. The indexes of the jobs are in indexes.sql.
--
-- The Migrator replaces `:schema` by the quoted name of the schema, `:schema_literal` by that name as a string, and
-- runs the script with the search_path `pg_catalog, pg_temp`.

create table :schema.migrations (
  id int primary key,
  ts timestamptz not null default now(),
  breaking boolean not null default false
);

create table :schema._private_tasks (
  id int generated always as identity primary key,
  identifier text not null unique constraint tasks_identifier_check check (length(identifier) <= 128)
);

create table :schema._private_job_queues (
  id int generated always as identity primary key,
  queue_name text not null unique constraint job_queues_queue_name_check check (length(queue_name) <= 128),
  locked_at timestamptz,
  locked_by text,
  is_available boolean not null generated always as (locked_at is null) stored
);

create table :schema._private_jobs (
  id bigint generated always as identity primary key,
  job_queue_id int,
  task_id int not null,
  payload json not null default '{}',
  priority smallint not null default 0,
  run_at timestamptz not null default now(),
  attempts smallint not null default 0,
  max_attempts smallint not null default 25 constraint jobs_max_attempts_check check (max_attempts >= 1),
  last_error text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  key text unique constraint jobs_key_check check (length(key) between 1 and 512),
  locked_at timestamptz,
  locked_by text,
  revision int not null default 0,
  flags jsonb,
  is_available boolean not null generated always as (locked_at is null and attempts < max_attempts) stored
);

create table :schema._private_known_crontabs (
  identifier text primary key,
  known_since timestamptz not null,
  last_execution timestamptz
);

alter table :schema._private_tasks enable row level security;
alter table :schema._private_job_queues enable row level security;
alter table :schema._private_jobs enable row level security;
alter table :schema._private_known_crontabs enable row level security;

insert into :schema.migrations (id, breaking)
select id, id in (1, 3, 11, 13, 14, 16, 19) from generate_series(1, 20) as id;

create type :schema.job_spec as (
  identifier text,
  payload json,
  queue_name text,
  run_at timestamptz,
  max_attempts smallint,
  job_key text,
  priority smallint,
  flags text[]
);
