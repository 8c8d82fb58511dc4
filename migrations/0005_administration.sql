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

-- Adds jobs without keys, in their order, and announces them. A spec, [task, queue, run_at, delay, attempts, priority,
-- flags], is often that of many jobs: `spec_places` says which one, from 1, is each payload's, null that it is the first of
-- all. So the answer is short too: the new ids as they were inserted, which is in order, separated by commas, when they were
-- added, and for each spec [run_at, state, flags].
--
-- With `may_wait` it makes tasks and queues that are missing, as others may be doing at the same moment. Without it there
-- is no row then: it waits for nobody's transaction, and so many callers can share it.
create or replace function :schema._private_kongtask_insert_jobs(
  specs json, spec_places int[], payloads json, may_wait boolean
)
returns table (ids text, created_at float8, specs_added text)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $body$
#variable_conflict use_column
begin
  perform :schema._private_kongtask_check_spec(
    spec.value ->> 0, spec.value ->> 1, (spec.value ->> 4)::int, null, (spec.value ->> 5)::int
  )
  from json_array_elements(specs) as spec;

  loop
    return query
    with resolved as materialized (
      select
        spec.ordinality, task.id as task_id, queue.id as queue_id,
        coalesce(
          to_timestamp((spec.value ->> 2)::float8 / 1000),
          now() + (spec.value ->> 3)::float8 * interval '1 millisecond',
          now()
        ) as run_at,
        coalesce((spec.value ->> 4)::int, 25) as max_attempts, coalesce((spec.value ->> 5)::int, 0) as priority,
        case when json_typeof(spec.value -> 6) = 'array'
          then (select jsonb_object_agg(flag, true) from json_array_elements_text(spec.value -> 6) as flag)
        end as flags
      from json_array_elements(specs) with ordinality as spec
      cross join lateral (
        select id from :schema._private_tasks where identifier = spec.value ->> 0 offset 0
      ) as task
      left join lateral (
        select id from :schema._private_job_queues where queue_name = spec.value ->> 1 offset 0
      ) as queue on true
      where spec.value ->> 1 is null or queue.id is not null
    ), added as (
      insert into :schema._private_jobs as job
        (job_queue_id, task_id, payload, run_at, max_attempts, priority, flags)
      select spec.queue_id, spec.task_id, item.payload, spec.run_at, spec.max_attempts, spec.priority, spec.flags
      from json_array_elements(payloads) with ordinality as item (payload, ordinality)
      join resolved as spec on spec.ordinality = coalesce(spec_places[item.ordinality], 1)
      where (select count(*) from resolved) = json_array_length(specs)
      order by item.ordinality
      returning job.id
    )
    select
      added.ids, :schema._private_kongtask_millis(now()),
      (
        select json_agg(
          json_build_array(
            :schema._private_kongtask_millis(run_at),
            :schema._private_kongtask_state(run_at, 0, max_attempts, null),
            flags::text
          )
          order by ordinality
        )::text
        from resolved
      )
    from (select string_agg(id::text, ',') as ids from added) as added
    where added.ids is not null;

    if found then
      perform :schema._private_kongtask_notify(json_array_length(payloads));
      return;
    end if;
    exit when not may_wait;
    perform :schema._private_kongtask_create_names(array_agg(spec.value ->> 0), array_agg(spec.value ->> 1))
    from json_array_elements(specs) as spec;
  end loop;
end
$body$;

-- Adds jobs in the order of the specs, each in its key mode (see _private_kongtask_add_keyed), and announces them. With
-- `all_or_none` a job that is refused, in the mode `reject`, refuses the whole call. A refusal is a row, not an error, so
-- that the caller's transaction goes on: whatever was added before it is undone by the end of the block, and the rows of
-- those jobs are to be ignored. `details` are those of _private_kongtask_put_details, written for jobs that are added or
-- replaced, and not for those that the answer finds.
--
-- The specs are arrays of [task, queue, run_at, delay, attempts, key, priority, flags, key mode].
create or replace function :schema._private_kongtask_add_jobs(
  specs json, payloads json, all_or_none boolean, details json default null
)
returns table (place int, refused boolean, job :schema._private_jobs)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $body$
#variable_conflict use_column
declare
  parsed :schema.job_spec[];
  modes text[];
  mode text;
  detail_of json[];
  result record;
begin
  -- The usual refusal: seen before anything uses up an id.
  if all_or_none then
    select item.ordinality::int as place, other as held into result
    from json_array_elements(specs) with ordinality as item (value, ordinality)
    cross join lateral (
      select * from :schema._private_jobs as job where job.key = item.value ->> 5 offset 0
    ) as other
    where item.value ->> 8 = 'reject'
    order by item.ordinality
    limit 1;
    if found then
      place := result.place;
      refused := true;
      job := result.held;
      return next;
      return;
    end if;
  end if;

  -- Checked before a spec, whose columns are smaller, is made of it.
  with items as materialized (
    select
      ordinality, payload, item ->> 0 as task, item ->> 1 as queue_name,
      coalesce(
        to_timestamp((item ->> 2)::float8 / 1000), now() + (item ->> 3)::float8 * interval '1 millisecond'
      ) as run_at,
      (item ->> 4)::int as max_attempts, item ->> 5 as key, (item ->> 6)::int as priority,
      case when json_typeof(item -> 7) = 'array'
        then (select array_agg(flag) from json_array_elements_text(item -> 7) as flag)
      end as flags,
      item ->> 8 as key_mode
    from rows from (json_array_elements(specs), json_array_elements(payloads))
      with ordinality as items (item, payload, ordinality)
  ), checked as materialized (
    select count(:schema._private_kongtask_check_spec(task, queue_name, max_attempts, key, priority)::text) as count
    from items
  )
  select
    array_agg(
      cast(row(task, payload, queue_name, run_at, max_attempts, key, priority, flags) as :schema.job_spec)
      order by ordinality
    ),
    array_agg(key_mode order by ordinality)
  into parsed, modes
  from checked cross join items
  where checked.count >= 0;

  foreach mode in array modes loop
    if mode not in ('replace', 'preserve_run_at', 'unsafe_dedupe', 'dedupe', 'reject') then
      raise exception 'job_key_mode is "%"', mode using errcode = 'GWBKM';
    end if;
  end loop;

  if all_or_none and 'reject' = any (modes) then
    detail_of := array(
      select item.value from json_array_elements(details) with ordinality as item order by item.ordinality
    );
    begin
      for result in
        select * from :schema._private_kongtask_add_specs(parsed, modes) as result order by result.place
      loop
        place := result.place;
        refused := not result.is_added and modes[result.place] = 'reject';
        job := result.job;
        return next;
        if refused then
          raise exception 'the key is taken' using errcode = 'KTDUP';
        end if;
        if result.is_added and json_typeof(detail_of[result.place]) = 'object' then
          perform :schema._private_kongtask_put_details(array[job.id], json_build_array(detail_of[result.place]));
        end if;
      end loop;
    exception when sqlstate 'KTDUP' then
      return;
    end;
  elsif details is null then
    return query
    select result.place, not result.is_added and modes[result.place] = 'reject', result.job
    from :schema._private_kongtask_add_specs(parsed, modes) as result;
  else
    return query
    with results as materialized (
      select * from :schema._private_kongtask_add_specs(parsed, modes)
    ), detailed as materialized (
      select :schema._private_kongtask_put_details(
        array_agg((results.job).id order by results.place), json_agg(item.value order by results.place)
      )
      from results
      join json_array_elements(details) with ordinality as item on item.ordinality = results.place
      where results.is_added
    )
    select results.place, not results.is_added and modes[results.place] = 'reject', results.job
    from results where (select count(*) from detailed) > 0;
  end if;
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
