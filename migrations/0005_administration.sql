-- breaking: false
-- repeatable: true
--
-- What Queue does beyond the functions that KongTask shares with graphile-worker.

-- A job as Queue answers it: with its names, which may be newer than the snapshot of the running statement, and its
-- state, unless one is given.
create or replace function :schema._private_kongtask_describe(job :schema._private_jobs, state text default null)
returns table (
  id text, task text, state text, payload text, queue_name text, priority int, run_at float8, attempts int,
  max_attempts int, last_error text, created_at float8, updated_at float8, key text, locked_at float8, locked_by text,
  revision int, flags text
)
language sql
volatile
set search_path = pg_catalog, pg_temp
as $body$
  select
    $1.id::text,
    :schema._private_kongtask_task_name($1.task_id),
    coalesce($2, :schema._private_kongtask_state($1.run_at, $1.attempts, $1.max_attempts, $1.locked_at)),
    $1.payload::text,
    :schema._private_kongtask_queue_name($1.job_queue_id),
    $1.priority::int,
    :schema._private_kongtask_millis($1.run_at),
    $1.attempts::int,
    $1.max_attempts::int,
    $1.last_error,
    :schema._private_kongtask_millis($1.created_at),
    :schema._private_kongtask_millis($1.updated_at),
    $1.key,
    :schema._private_kongtask_millis($1.locked_at),
    $1.locked_by,
    $1.revision::int,
    $1.flags::text
$body$;

-- Adds jobs in the order of the specs, all or none, in any key mode: those of add_job, and
--
-- - `reject`: a job that has the key, whatever its state, refuses the whole call.
-- - `dedupe`: a job that has the key and waits or runs stays as it is and is the answer. One that has failed for good
--   loses the key, and a new job is added.
--
-- A refusal is a row, not an error, so that the caller's transaction goes on: whatever was added before it is undone by
-- the end of the block, and the rows of those jobs are to be ignored. An insert that races another one of the same key
-- shows by its result: add_job's `unsafe_dedupe` counts up the revision of the job that was there first.
--
-- The specs are arrays of [task, queue, run_at, delay, attempts, key, priority, flags, key mode]. Locks what add_job
-- locks; a job that refuses or answers is not locked, unless it was added at the same moment.
create or replace function :schema._private_kongtask_add_jobs(specs json, payloads json)
returns table (place int, refused boolean, job :schema._private_jobs)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $body$
#variable_conflict use_column
declare
  spec record;
  held :schema._private_jobs;
  added :schema._private_jobs;
begin
  -- The usual refusal: seen before anything uses up an id.
  select item.ordinality::int as place, other as held into spec
  from json_array_elements(specs) with ordinality as item (value, ordinality)
  cross join lateral (
    select * from :schema._private_jobs as job where job.key = item.value ->> 5 offset 0
  ) as other
  where item.value ->> 8 = 'reject'
  order by item.ordinality
  limit 1;
  if found then
    place := spec.place;
    refused := true;
    job := spec.held;
    return next;
    return;
  end if;

  begin
    for spec in
      select
        items.ordinality::int as place, items.item ->> 0 as task, items.payload, items.item ->> 1 as queue_name,
        coalesce(
          to_timestamp((items.item ->> 2)::float8 / 1000),
          now() + (items.item ->> 3)::float8 * interval '1 millisecond'
        ) as run_at,
        (items.item ->> 4)::int as max_attempts, items.item ->> 5 as key, (items.item ->> 6)::int as priority,
        case when json_typeof(items.item -> 7) = 'array'
          then (select array_agg(flag) from json_array_elements_text(items.item -> 7) as flag)
        end as flags,
        items.item ->> 8 as key_mode
      from rows from (json_array_elements(specs), json_array_elements(payloads))
        with ordinality as items (item, payload, ordinality)
      order by items.ordinality
    loop
      loop
        added := null;
        held := null;
        if spec.key is not null and spec.key_mode in ('reject', 'dedupe') then
          select * into held from :schema._private_jobs as other where other.key = spec.key;
        end if;

        if held.id is not null and spec.key_mode = 'reject' then
          raise exception 'the key is taken' using errcode = 'KTDUP';
        elsif held.id is not null and (held.attempts < held.max_attempts or held.locked_at < 'infinity') then
          added := held;
        elsif held.id is not null then
          -- Locked, so that nobody revives it between here and its replacement.
          perform from :schema._private_jobs as other
          where other.id = held.id and other.key = spec.key and other.attempts >= other.max_attempts
            and (other.locked_at is null or other.locked_at = 'infinity')
          for update;
          if found then
            added := :schema.add_job(
              spec.task, spec.payload, spec.queue_name, spec.run_at, spec.max_attempts, spec.key, spec.priority,
              spec.flags, 'replace'
            );
          end if;
        elsif spec.key is null or spec.key_mode not in ('reject', 'dedupe') then
          added := :schema.add_job(
            spec.task, spec.payload, spec.queue_name, spec.run_at, spec.max_attempts, spec.key, spec.priority,
            spec.flags, spec.key_mode
          );
        else
          begin
            held := :schema.add_job(
              spec.task, spec.payload, spec.queue_name, spec.run_at, spec.max_attempts, spec.key, spec.priority,
              spec.flags, 'unsafe_dedupe'
            );
            if held.revision > 0 then
              raise exception 'the key is taken' using errcode = 'KTDUP';
            end if;
            added := held;
          exception when sqlstate 'KTDUP' then
            if spec.key_mode = 'reject' then
              raise;
            end if;
          end;
        end if;
        exit when added.id is not null;
      end loop;
      place := spec.place;
      refused := false;
      job := added;
      return next;
    end loop;
  exception when sqlstate 'KTDUP' then
    place := spec.place;
    refused := true;
    job := held;
    return next;
  end;
end
$body$;

-- Makes these jobs due now, with all their attempts before them; what the last one failed with stays. Jobs that somebody
-- holds are left alone; a holder that has been silent for four hours, and is none of our pools, counts as nobody.
-- Primary key.
create or replace function :schema._private_kongtask_retry_jobs(job_ids bigint[])
returns setof :schema._private_jobs
language sql
set search_path = pg_catalog, pg_temp
as $body$
  update :schema._private_jobs as job
  set
    attempts = 0,
    run_at = now(),
    updated_at = now(),
    locked_by = case when job.locked_at = 'infinity' then job.locked_by end,
    locked_at = case when job.locked_at = 'infinity' then job.locked_at end
  where job.id = any (job_ids)
    and :schema._private_kongtask_is_free(job.locked_at)
    and not exists (select from :schema._private_kongtask_pools as pool where pool.id = job.locked_by)
  returning *
$body$;

-- Takes from these pools, ours or graphile-worker's, whatever they hold, and returns the jobs. A pool of ours that is
-- alive is lost by that: it finds its row gone, and interrupts its handlers. Waits for claims in flight, then scans the
-- jobs once.
create or replace function :schema._private_kongtask_force_unlock(pools text[])
returns setof :schema._private_jobs
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
  unlocked bigint;
begin
  delete from :schema._private_kongtask_pools as pool where pool.id = any (pools);

  return query
  update :schema._private_jobs as job
  set
    locked_at = null,
    locked_by = null,
    updated_at = now(),
    last_error = case when job.attempts >= job.max_attempts
      then 'The pool ' || job.locked_by || ' was unlocked while it ran attempt ' || job.attempts || ', the last one.'
      else job.last_error end
  where job.locked_by = any (pools) and job.locked_at is distinct from 'infinity'
  returning job.*;
  get diagnostics unlocked = row_count;

  update :schema._private_job_queues as queue
  set locked_at = null, locked_by = null
  where queue.locked_by = any (pools);

  if unlocked > 0 then
    perform :schema._private_kongtask_notify(unlocked);
  end if;
end
$body$;

-- Deletes the tasks and queues that no job has, and says how many. A job knows both by number only, so nobody may be
-- adding one that has just read such a number: with the table locked against writers, those in flight have ended, and
-- later ones read the names after this has committed. Nothing is locked when nothing is unused. Gives up after two
-- seconds of waiting for the lock, for writers wait behind it. Scans the jobs, by hash joins even on old statistics.
create or replace function :schema._private_kongtask_delete_unused(of_tasks boolean, of_queues boolean)
returns table (tasks int, queues int)
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '2s'
set enable_nestloop = off
as $body$
begin
  tasks := 0;
  queues := 0;
  if exists (
    select from :schema._private_tasks as task
    where of_tasks and not exists (select from :schema._private_jobs as job where job.task_id = task.id)
  ) or exists (
    select from :schema._private_job_queues as queue
    where of_queues and queue.locked_at is null
      and not exists (select from :schema._private_jobs as job where job.job_queue_id = queue.id)
  ) then
    lock table :schema._private_jobs in share row exclusive mode;

    delete from :schema._private_tasks as task
    where of_tasks and not exists (select from :schema._private_jobs as job where job.task_id = task.id);
    get diagnostics tasks = row_count;

    delete from :schema._private_job_queues as queue
    where of_queues and queue.locked_at is null
      and not exists (select from :schema._private_jobs as job where job.job_queue_id = queue.id);
    get diagnostics queues = row_count;
  end if;
  return next;
end
$body$;
