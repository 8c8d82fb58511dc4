-- breaking: true
--
-- The tables, types and functions that KongTask shares with graphile-worker: names, columns and results are a
-- contract, the rest is ours.
--
-- The Migrator replaces `:schema` by the quoted name of the schema, `:schema_literal` by that name as a string, and
-- runs the script with the search_path `pg_catalog, pg_temp`. Each function has that search_path too, so that nothing
-- in the caller's can stand in for a built-in function or operator.

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

create index jobs_claim_index on :schema._private_jobs (task_id, priority, run_at, id)
  where is_available and job_queue_id is null;

create index jobs_queue_index on :schema._private_jobs (job_queue_id, priority, run_at, id) include (task_id)
  where is_available and job_queue_id is not null;

create table :schema._private_known_crontabs (
  identifier text primary key,
  known_since timestamptz not null,
  last_execution timestamptz
);

alter table :schema.migrations enable row level security;
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

-- The names are subqueries, not joins: so the view can be updated as a table can, with the table's own locking
-- (`update jobs set locked_at = null, locked_by = null where …` recovers jobs by hand). No payload, as it may be secret.
create view :schema.jobs as
select
  job.id,
  (select queue.queue_name from :schema._private_job_queues as queue where queue.id = job.job_queue_id) as queue_name,
  (select task.identifier from :schema._private_tasks as task where task.id = job.task_id) as task_identifier,
  job.priority,
  job.run_at,
  job.attempts,
  job.max_attempts,
  job.last_error,
  job.created_at,
  job.updated_at,
  job.key,
  job.locked_at,
  job.locked_by,
  job.revision,
  job.flags
from :schema._private_jobs as job;

-- Whether the admin functions may touch a job: nobody holds it, it is only hidden ('infinity'), or its holder has been
-- silent for the four hours after which graphile-worker gives a job up.
create function :schema._private_kongtask_is_free(locked_at timestamptz)
returns boolean
language sql
stable
as $body$
  select locked_at is null or locked_at = 'infinity' or locked_at < now() - interval '4 hours'
$body$;

-- Refuses what the columns cannot hold, with a code and a message that name the field and its limit.
create function :schema._private_kongtask_check_spec(
  identifier text,
  queue_name text,
  max_attempts int,
  job_key text,
  priority int
)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $body$
begin
  if identifier is null then
    raise exception 'The task identifier is null; it has up to 128 characters' using errcode = 'GWBID';
  elsif length(identifier) > 128 then
    raise exception 'The task identifier has % characters; the limit is 128', length(identifier)
      using errcode = 'GWBID';
  elsif length(queue_name) > 128 then
    raise exception 'The queue name has % characters; the limit is 128', length(queue_name)
      using errcode = 'GWBQN';
  elsif length(job_key) > 512 then
    raise exception 'The job key has % characters; the limit is 512', length(job_key)
      using errcode = 'GWBJK';
  elsif max_attempts not between 1 and 32767 then
    raise exception 'max_attempts is %; it must be from 1 to 32767', max_attempts
      using errcode = 'GWBMA';
  elsif priority not between -32768 and 32767 then
    raise exception 'priority is %; it must be from -32768 to 32767', priority
      using errcode = '22003';
  end if;
end
$body$;

-- Makes the tasks and queues that are missing, in the order of their names so that two callers cannot deadlock. Only
-- the missing ones are inserted: an insert that meets a conflict uses up a number of an int identity.
create function :schema._private_kongtask_create_names(identifiers text[], queue_names text[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
begin
  insert into :schema._private_tasks (identifier)
  select distinct name
  from unnest(identifiers) as name
  where not exists (select from :schema._private_tasks as task where task.identifier = name)
  order by name
  on conflict (identifier) do nothing;

  insert into :schema._private_job_queues (queue_name)
  select distinct name
  from unnest(queue_names) as name
  where name is not null
    and not exists (select from :schema._private_job_queues as queue where queue.queue_name = name)
  order by name
  on conflict (queue_name) do nothing;
end
$body$;

-- The random number keeps PostgreSQL from folding the notifications of one transaction into one.
create function :schema._private_kongtask_notify(count bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
begin
  perform pg_notify('jobs:insert', '{"r":' || random()::text || ',"count":' || count::text || '}');
end
$body$;

-- The payload of a job that is added again: the new one, or the elements of both, each with its own text, when both
-- are arrays.
create function :schema._private_kongtask_merge_payloads(old json, new json)
returns json
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $body$
begin
  if json_typeof(old) is distinct from 'array' or json_typeof(new) is distinct from 'array' then
    return new;
  end if;
  return (
    select coalesce(json_agg(element.value order by element.part, element.ordinality), '[]')
    from (
      select 1 as part, value, ordinality from json_array_elements(old) with ordinality
      union all
      select 2, value, ordinality from json_array_elements(new) with ordinality
    ) as element
  );
end
$body$;

-- Deals with the job that has the spec's key already, if there is one, in the modes `replace` and `preserve_run_at`. A
-- waiting job gets the spec's values and is returned. One that is running or has failed for good loses its key and its
-- remaining attempts, so that the caller can insert a new job; then, and when there is none, the result is null.
create function :schema._private_kongtask_replace_job(spec :schema.job_spec, preserve_run_at boolean)
returns :schema._private_jobs
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $body$
declare
  old :schema._private_jobs;
  replaced :schema._private_jobs;
begin
  select * into old from :schema._private_jobs as job where job.key = spec.job_key for update;
  if not found then
    return null;
  end if;

  if old.attempts >= old.max_attempts or old.locked_at < 'infinity' then
    update :schema._private_jobs as job
    set key = null, attempts = job.max_attempts, updated_at = now()
    where job.id = old.id;
    return null;
  end if;

  loop
    update :schema._private_jobs as job
    set
      job_queue_id = queue.id,
      task_id = task.id,
      payload = :schema._private_kongtask_merge_payloads(job.payload, coalesce(spec.payload, '{}')),
      priority = coalesce(spec.priority, 0),
      run_at = case when preserve_run_at and job.attempts = 0 then job.run_at else coalesce(spec.run_at, now()) end,
      attempts = 0,
      max_attempts = coalesce(spec.max_attempts, 25),
      last_error = null,
      updated_at = now(),
      revision = job.revision + 1,
      flags = (select jsonb_object_agg(flag, true) from unnest(spec.flags) as flag)
    from :schema._private_tasks as task
    left join :schema._private_job_queues as queue on queue.queue_name = spec.queue_name
    where job.id = old.id
      and task.identifier = spec.identifier
      and (spec.queue_name is null or queue.id is not null)
    returning job.* into replaced;
    if found then
      return replaced;
    end if;

    perform :schema._private_kongtask_create_names(array[spec.identifier], array[spec.queue_name]);
  end loop;
end
$body$;

-- Adds jobs of which no two share a key, in the modes `replace` and `preserve_run_at`.
--
-- A pass replaces the jobs that wait under these keys and inserts the rest in one statement. An insert that meets a job
-- which another transaction has added with the key since is tried again in the next pass, and so is a spec whose task
-- or queue a cleanup has deleted: a job must never lose its queue, nor get an id that was looked up before a cleanup.
--
-- Rows are locked and inserted in the order of the keys, against deadlocks. Ids follow the order of the specs, because
-- they decide between jobs of equal priority and run_at.
create function :schema._private_kongtask_add_distinct(specs :schema.job_spec[], preserve_run_at boolean)
returns table (place int, job :schema._private_jobs)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $body$
declare
  ids constant regclass := pg_get_serial_sequence(quote_ident(:schema_literal) || '._private_jobs', 'id');
  is_done boolean[] := array_fill(false, array[cardinality(specs)]);
  left_to_do int := cardinality(specs);
  added record;
begin
  loop
    for place in
      select spec.ordinality::int
      from unnest(specs) with ordinality as spec
      where spec.job_key is not null and not is_done[spec.ordinality::int]
      order by spec.job_key
    loop
      job := :schema._private_kongtask_replace_job(specs[place], preserve_run_at);
      if job.id is not null then
        is_done[place] := true;
        left_to_do := left_to_do - 1;
        return next;
      end if;
    end loop;
    exit when left_to_do = 0;

    -- The lookups are lateral subqueries with an offset so that each stays an index probe, however the tables have
    -- grown since this plan was made.
    for added in
      with fresh as materialized (
        select nextval(ids) as id, spec.*
        from (
          select
            spec.ordinality::int as place,
            queue.id as job_queue_id,
            task.id as task_id,
            coalesce(spec.payload, '{}') as payload,
            coalesce(spec.run_at, now()) as run_at,
            coalesce(spec.max_attempts, 25) as max_attempts,
            spec.job_key,
            coalesce(spec.priority, 0) as priority,
            (select jsonb_object_agg(flag, true) from unnest(spec.flags) as flag) as flags
          from unnest(specs) with ordinality as spec
          cross join lateral (
            select id from :schema._private_tasks where identifier = spec.identifier offset 0
          ) as task
          left join lateral (
            select id from :schema._private_job_queues where queue_name = spec.queue_name offset 0
          ) as queue on true
          where not is_done[spec.ordinality::int] and (spec.queue_name is null or queue.id is not null)
          order by spec.ordinality
        ) as spec
      ), inserted as (
        insert into :schema._private_jobs
          (id, job_queue_id, task_id, payload, run_at, max_attempts, key, priority, flags)
        overriding system value
        select id, job_queue_id, task_id, payload, run_at, max_attempts, job_key, priority, flags
        from fresh
        order by job_key, fresh.place
        on conflict (key) do nothing
        returning *
      )
      select fresh.place, cast(row(inserted.*) as :schema._private_jobs) as job
      from inserted
      join fresh on fresh.id = inserted.id
    loop
      place := added.place;
      job := added.job;
      is_done[place] := true;
      left_to_do := left_to_do - 1;
      return next;
    end loop;
    exit when left_to_do = 0;

    perform :schema._private_kongtask_create_names(array_agg(spec.identifier), array_agg(spec.queue_name))
    from unnest(specs) as spec;
  end loop;
end
$body$;

-- Adds the jobs as if add_job had been called with each spec in turn, and returns their rows in the order of the specs.
-- Specs that share a key are added in rounds, each with one spec of the key.
create function :schema.add_jobs(specs :schema.job_spec[], job_key_preserve_run_at boolean default false)
returns setof :schema._private_jobs
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
begin
  if coalesce(cardinality(specs), 0) = 0 then
    return;
  end if;

  perform :schema._private_kongtask_check_spec(
    spec.identifier, spec.queue_name, spec.max_attempts, spec.job_key, spec.priority
  )
  from unnest(specs) as spec;

  perform :schema._private_kongtask_create_names(array_agg(spec.identifier), array_agg(spec.queue_name))
  from unnest(specs) as spec
  where not exists (select from :schema._private_tasks as task where task.identifier = spec.identifier)
    or (
      spec.queue_name is not null
      and not exists (select from :schema._private_job_queues as queue where queue.queue_name = spec.queue_name)
    )
  having count(*) > 0;

  return query
  select (added.job).*
  from (
    select
      array_agg(numbered.place order by numbered.place) as places,
      array_agg(specs[numbered.place] order by numbered.place) as specs
    from (
      select
        spec.ordinality::int as place,
        case
          when spec.job_key is null then 1
          else row_number() over (partition by spec.job_key order by spec.ordinality)
        end as round
      from unnest(specs) with ordinality as spec
    ) as numbered
    group by numbered.round
    order by numbered.round
  ) as round
  cross join lateral :schema._private_kongtask_add_distinct(
    round.specs, coalesce(job_key_preserve_run_at, false)
  ) as added
  order by round.places[added.place];

  perform :schema._private_kongtask_notify(cardinality(specs));
end
$body$;

-- Adds one job. What becomes of a job that has the same key is decided by job_key_mode:
--
-- - `replace` (the default): a waiting job gets all the new values and starts afresh; one that is running or has failed
--   for good loses its key and its remaining attempts, and a new job is added.
-- - `preserve_run_at`: the same, but a waiting job that was never tried keeps its run_at.
-- - `unsafe_dedupe`: whatever the job's state, only its revision is counted up.
create function :schema.add_job(
  identifier text,
  payload json default null,
  queue_name text default null,
  run_at timestamptz default null,
  max_attempts int default null,
  job_key text default null,
  priority int default null,
  flags text[] default null,
  job_key_mode text default 'replace'
)
returns :schema._private_jobs
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $body$
declare
  added :schema._private_jobs;
begin
  perform :schema._private_kongtask_check_spec(identifier, queue_name, max_attempts, job_key, priority);

  if job_key is not null and job_key_mode not in ('replace', 'preserve_run_at', 'unsafe_dedupe') then
    raise exception 'job_key_mode is ''%''; it must be ''replace'', ''preserve_run_at'' or ''unsafe_dedupe''', job_key_mode
      using errcode = 'GWBKM';
  end if;

  loop
    if job_key is null then
      -- Nothing to look for.
    elsif job_key_mode = 'unsafe_dedupe' then
      update :schema._private_jobs as old
      set revision = old.revision + 1, updated_at = now()
      where old.key = job_key
      returning * into added;
      if found then
        return added;
      end if;
    else
      added := :schema._private_kongtask_replace_job(
        cast(row(identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags) as :schema.job_spec),
        coalesce(job_key_mode = 'preserve_run_at', false)
      );
      if added.id is not null then
        perform :schema._private_kongtask_notify(1);
        return added;
      end if;
    end if;

    insert into :schema._private_jobs (job_queue_id, task_id, payload, run_at, max_attempts, key, priority, flags)
    select
      queue.id,
      task.id,
      coalesce(add_job.payload, '{}'),
      coalesce(add_job.run_at, now()),
      coalesce(add_job.max_attempts, 25),
      job_key,
      coalesce(add_job.priority, 0),
      (select jsonb_object_agg(flag, true) from unnest(add_job.flags) as flag)
    from :schema._private_tasks as task
    left join :schema._private_job_queues as queue on queue.queue_name = add_job.queue_name
    where task.identifier = add_job.identifier
      and (add_job.queue_name is null or queue.id is not null)
    on conflict (key) do nothing
    returning * into added;
    exit when found;

    perform :schema._private_kongtask_create_names(array[identifier], array[queue_name]);
  end loop;

  perform :schema._private_kongtask_notify(1);
  return added;
end
$body$;

-- Deletes the job with this key. One that is running loses its key and its remaining attempts instead. Returns the job,
-- or a row of nulls when there is none.
create function :schema.remove_job(job_key text)
returns :schema._private_jobs
language plpgsql
strict
set search_path = pg_catalog, pg_temp
as $body$
declare
  target :schema._private_jobs;
begin
  loop
    select * into target from :schema._private_jobs as job where job.key = job_key for update;
    exit when found;
    -- The row that was waited for may have lost its key to a row that this select could not see.
    if not exists (select from :schema._private_jobs as job where job.key = job_key) then
      return null;
    end if;
  end loop;

  if :schema._private_kongtask_is_free(target.locked_at) then
    delete from :schema._private_jobs as job where job.id = target.id;
    perform :schema._private_kongtask_notify(-1);
  else
    update :schema._private_jobs as job
    set key = null, attempts = job.max_attempts, updated_at = now()
    where job.id = target.id
    returning * into target;
  end if;
  return target;
end
$body$;

-- Deletes these jobs as if they had succeeded. Jobs that somebody holds are left alone, by this and the next two.
create function :schema.complete_jobs(job_ids bigint[])
returns setof :schema._private_jobs
language sql
set search_path = pg_catalog, pg_temp
as $body$
  delete from :schema._private_jobs as job
  where job.id = any (job_ids) and :schema._private_kongtask_is_free(job.locked_at)
  returning *
$body$;

create function :schema.permanently_fail_jobs(job_ids bigint[], error_message text default null)
returns setof :schema._private_jobs
language sql
set search_path = pg_catalog, pg_temp
as $body$
  update :schema._private_jobs as job
  set
    last_error = coalesce(error_message, 'Manually marked as failed'),
    attempts = job.max_attempts,
    updated_at = now()
  where job.id = any (job_ids) and :schema._private_kongtask_is_free(job.locked_at)
  returning *
$body$;

-- Changes what is given of these jobs; null leaves a value as it is.
create function :schema.reschedule_jobs(
  job_ids bigint[],
  run_at timestamptz default null,
  priority int default null,
  attempts int default null,
  max_attempts int default null
)
returns setof :schema._private_jobs
language sql
set search_path = pg_catalog, pg_temp
as $body$
  update :schema._private_jobs as job
  set
    run_at = coalesce(reschedule_jobs.run_at, job.run_at),
    priority = coalesce(reschedule_jobs.priority, job.priority),
    attempts = coalesce(reschedule_jobs.attempts, job.attempts),
    max_attempts = coalesce(reschedule_jobs.max_attempts, job.max_attempts),
    updated_at = now()
  where job.id = any (job_ids) and :schema._private_kongtask_is_free(job.locked_at)
  returning *
$body$;

-- Unlocks the jobs and queues of worker pools that are known to be gone. Scans both tables.
create function :schema.force_unlock_workers(worker_ids text[])
returns void
language sql
set search_path = pg_catalog, pg_temp
as $body$
  update :schema._private_jobs as job
  set locked_at = null, locked_by = null, updated_at = now()
  where job.locked_by = any (worker_ids) and job.locked_at is distinct from 'infinity';

  update :schema._private_job_queues as queue
  set locked_at = null, locked_by = null
  where queue.locked_by = any (worker_ids);
$body$;
