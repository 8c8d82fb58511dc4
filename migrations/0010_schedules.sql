-- breaking: false

-- Schedules that are kept in the database. When each of them, and of those in programs and crontabs, was last due is in
-- `_private_known_crontabs`, as graphile-worker has it.
create table :schema._private_kongtask_schedules (
  id text primary key constraint kongtask_schedules_id_check check (length(id) between 1 and 512),
  -- What to add and when, as the library writes it.
  definition json not null,
  is_paused boolean not null default false,
  -- Nothing before that time is due.
  since timestamptz not null,
  -- Grows with each change, over all schedules.
  revision bigint not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

alter table :schema._private_kongtask_schedules enable row level security;

-- One row: the last revision. Whoever changes a schedule holds its lock, so that revisions are seen in their order.
create table :schema._private_kongtask_schedule_changes (
  is_only boolean primary key default true constraint kongtask_schedule_changes_check check (is_only),
  revision bigint not null
);

alter table :schema._private_kongtask_schedule_changes enable row level security;

insert into :schema._private_kongtask_schedule_changes (revision) values (0);

-- The last job of each schedule, whatever has become of it.
create table :schema._private_kongtask_schedule_runs (
  identifier text primary key,
  instant timestamptz not null,
  job_id bigint not null,
  added_at timestamptz not null default now()
);

alter table :schema._private_kongtask_schedule_runs enable row level security;

-- The running schedulers, and which schedules each of them runs.
create table :schema._private_kongtask_schedulers (
  id text primary key,
  -- By the clock that decides when schedules are due.
  started_at timestamptz not null,
  seen_at timestamptz not null default now(),
  identifiers text[] not null
);

alter table :schema._private_kongtask_schedulers enable row level security;
