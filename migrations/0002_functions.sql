-- breaking: false
-- repeatable: true
--
-- The view and the functions that KongTask shares with graphile-worker: signatures and results are a contract, the rest
-- is ours.
--
-- A repeatable file is run again when something has overwritten one of its functions, or has dropped one. Therefore it
-- only creates or replaces, quotes each function's body with `$body$`, and an object stands in one such file only.
-- Whoever changes a file gives it the next number: the older versions of KongTask that run beside the new one then know
-- that it is not theirs to repair. A view that gets other columns is dropped first.
--
-- Each function that others call has the search_path `pg_catalog, pg_temp`, so that nothing in the caller's can stand in
-- for a built-in function or operator.

-- The names are subqueries, not joins: so the view can be updated as a table can, with the table's own locking
-- (`update jobs set locked_at = null, locked_by = null where …` recovers jobs by hand). No payload, as it may be secret.
create or replace view :schema.jobs as
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
create or replace function :schema._private_kongtask_is_free(locked_at timestamptz)
returns boolean
language sql
stable
as $body$
  select locked_at is null or locked_at = 'infinity' or locked_at < now() - interval '4 hours'
$body$;

-- Refuses what the columns cannot hold, with a code and a message that name the field and its limit. Called for each job:
-- has no settings of its own, for they cost more than the rest; those of the functions that call it hold.
create or replace function :schema._private_kongtask_check_spec(
  identifier text,
  queue_name text,
  max_attempts int,
  job_key text,
  priority int
)
returns void
language plpgsql
immutable
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
--
-- Here and below, `enable_seqscan = off` and lateral lookups with an offset, which cannot become joins, keep each lookup
-- an index probe: a session may have planned the statement when the tables were empty.
create or replace function :schema._private_kongtask_create_names(identifiers text[], queue_names text[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $body$
begin
  insert into :schema._private_tasks (identifier)
  select distinct name
  from unnest(identifiers) as name
  left join lateral (select id from :schema._private_tasks where identifier = name offset 0) as task on true
  where task.id is null
  order by name
  on conflict (identifier) do nothing;

  insert into :schema._private_job_queues (queue_name)
  select distinct name
  from unnest(queue_names) as name
  left join lateral (select id from :schema._private_job_queues where queue_name = name offset 0) as queue on true
  where name is not null and queue.id is null
  order by name
  on conflict (queue_name) do nothing;
end
$body$;

-- The random number keeps PostgreSQL from folding the notifications of one transaction into one.
create or replace function :schema._private_kongtask_notify(count bigint)
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
create or replace function :schema._private_kongtask_merge_payloads(first json, second json)
returns json
language plpgsql
immutable
as $body$
begin
  if json_typeof(first) is distinct from 'array' or json_typeof(second) is distinct from 'array' then
    return second;
  end if;
  return (
    select coalesce(json_agg(element.value order by element.part, element.ordinality), '[]')
    from (
      select 1 as part, value, ordinality from json_array_elements(first) with ordinality
      union all
      select 2, value, ordinality from json_array_elements(second) with ordinality
    ) as element
  );
end
$body$;

-- Adds one job with a key; the spec is checked. `is_added` is false when the job that has the key is the answer. In the
-- modes `replace` and `preserve_run_at` a waiting job gets the spec's values; one that is running or has failed for good
-- loses its key and its remaining attempts, and a new job is inserted, with the given number as its id if there is one.
-- `unsafe_dedupe` counts the revision of the job up, whatever its state. KongTask's own modes leave it as it is, and do
-- not lock it: `reject` whatever its state, `dedupe` unless it has failed for good, for then it loses its key.
--
-- An insert that meets a job which another transaction has added with the key since starts over. So does one whose task
-- or queue does not exist, because it is new or because a cleanup has deleted it: a job must never lose its queue, nor
-- get an id that was looked up before.
--
-- Has no settings of its own either.
create or replace function :schema._private_kongtask_add_keyed(
  spec :schema.job_spec, mode text, number bigint, out added :schema._private_jobs, out is_added boolean
)
language plpgsql
as $body$
declare
  held :schema._private_jobs;
begin
  loop
    if mode in ('replace', 'preserve_run_at') then
      select * into held from :schema._private_jobs as job where job.key = spec.job_key for update;
    elsif mode = 'unsafe_dedupe' then
      update :schema._private_jobs as job
      set revision = job.revision + 1, updated_at = now()
      where job.key = spec.job_key
      returning * into added;
      is_added := added.id is null;
      exit when not is_added;
    else
      select * into held from :schema._private_jobs as job where job.key = spec.job_key;
      if held.id is not null and (mode = 'reject' or held.attempts < held.max_attempts or held.locked_at < 'infinity') then
        added := held;
        is_added := false;
        exit;
      elsif held.id is not null then
        -- Nobody may revive it between here and its replacement.
        perform from :schema._private_jobs as job
        where job.id = held.id and job.key = spec.job_key and job.attempts >= job.max_attempts
          and (job.locked_at is null or job.locked_at = 'infinity')
        for update;
        continue when not found;
      end if;
    end if;

    if held.attempts < held.max_attempts and (held.locked_at is null or held.locked_at = 'infinity') then
      if exists (select from :schema._private_kongtask_job_details as detail where detail.job_id = held.id) then
        perform :schema._private_kongtask_replace(array[held]);
      end if;
      update :schema._private_jobs as job
      set
        job_queue_id = queue.id,
        task_id = task.id,
        payload = :schema._private_kongtask_merge_payloads(job.payload, coalesce(spec.payload, '{}')),
        priority = coalesce(spec.priority, 0),
        run_at = case when mode = 'preserve_run_at' and job.attempts = 0
          then job.run_at else coalesce(spec.run_at, now()) end,
        attempts = 0,
        max_attempts = coalesce(spec.max_attempts, 25),
        last_error = null,
        updated_at = now(),
        revision = job.revision + 1,
        flags = (select jsonb_object_agg(flag, true) from unnest(spec.flags) as flag)
      from :schema._private_tasks as task
      left join :schema._private_job_queues as queue on queue.queue_name = spec.queue_name
      where job.id = held.id
        and task.identifier = spec.identifier
        and (spec.queue_name is null or queue.id is not null)
      returning job.* into added;
    else
      if held.id is not null then
        perform :schema._private_kongtask_mark(array[held.id], 'cancelled', 'replaced by its key');
        update :schema._private_jobs as job
        set key = null, attempts = job.max_attempts,
          updated_at = greatest(clock_timestamp(), job.locked_at + interval '1 microsecond')
        where job.id = held.id;
      end if;

      insert into :schema._private_jobs
        (id, job_queue_id, task_id, payload, run_at, max_attempts, key, priority, flags)
      overriding system value
      select
        coalesce(number, nextval(pg_get_serial_sequence(quote_ident(:schema_literal) || '._private_jobs', 'id'))),
        queue.id,
        task.id,
        coalesce(spec.payload, '{}'),
        coalesce(spec.run_at, now()),
        coalesce(spec.max_attempts, 25),
        spec.job_key,
        coalesce(spec.priority, 0),
        (select jsonb_object_agg(flag, true) from unnest(spec.flags) as flag)
      from :schema._private_tasks as task
      left join :schema._private_job_queues as queue on queue.queue_name = spec.queue_name
      where task.identifier = spec.identifier
        and (spec.queue_name is null or queue.id is not null)
      on conflict (key) do nothing
      returning * into added;
    end if;

    is_added := true;
    exit when added.id is not null;
    perform :schema._private_kongtask_create_names(array[spec.identifier], array[spec.queue_name]);
  end loop;
end
$body$;

-- Adds the jobs as if each spec had been added in turn, with its key in its mode (see _private_kongtask_add_keyed), and
-- announces them. Returns their rows, each with the place of its spec, in no order.
--
-- Keys are locked in their own order, so that two calls with the same keys cannot deadlock: in one insert when no job
-- has any of them, in one update when waiting jobs have all of them, one by one otherwise. The insert locks, and leaves
-- alone, a job that was added at the same moment, so that the order holds when it is dealt with afterwards; where a job
-- has gone or is not waiting any more, the locks of the update are given up first. Ids are given out in the order of the specs beforehand, because
-- they decide between jobs of equal priority and run_at; only those that will be needed, as far as one can tell before
-- the keys are locked.
create or replace function :schema._private_kongtask_add_specs(specs :schema.job_spec[], modes text[])
returns table (place int, is_added boolean, job :schema._private_jobs)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $body$
#variable_conflict use_column
declare
  ids constant regclass := pg_get_serial_sequence(quote_ident(:schema_literal) || '._private_jobs', 'id');
  numbers bigint[];
  without_key int;
  key_is_taken boolean;
  all_wait boolean;
  expected int;
  waiting int;
  with_key int := 0;
  added int;
  replaced :schema._private_jobs[];
  keyed record;
  result record;
begin
  perform :schema._private_kongtask_check_spec(
    spec.identifier, spec.queue_name, spec.max_attempts, spec.job_key, spec.priority
  )
  from unnest(specs) as spec;

  perform :schema._private_kongtask_create_names(array_agg(spec.identifier), array_agg(spec.queue_name))
  from unnest(specs) as spec
  left join lateral (
    select id from :schema._private_tasks where identifier = spec.identifier offset 0
  ) as task on true
  left join lateral (
    select id from :schema._private_job_queues where queue_name = spec.queue_name offset 0
  ) as queue on true
  where task.id is null or (spec.queue_name is not null and queue.id is null)
  having count(*) > 0;

  select
    array_agg(case when spec.is_new then nextval(ids) end order by spec.place),
    count(*) filter (where spec.job_key is null),
    coalesce(bool_or(spec.is_taken), false),
    bool_and(spec.job_key is null or (spec.may_change and not spec.is_new and not spec.is_repeated))
  into numbers, without_key, key_is_taken, all_wait
  from (
    select
      spec.ordinality::int as place, spec.job_key, other.id is not null as is_taken,
      modes[spec.ordinality::int] in ('replace', 'preserve_run_at') as may_change,
      row_number() over (partition by spec.job_key order by spec.ordinality) > 1 as is_repeated,
      spec.job_key is null or (
        row_number() over (partition by spec.job_key order by spec.ordinality) = 1
        and case modes[spec.ordinality::int]
          when 'unsafe_dedupe' then other.id is null
          when 'reject' then other.id is null
          when 'dedupe' then (other.attempts < other.max_attempts or other.locked_at < 'infinity') is not true
          else (other.attempts < other.max_attempts and (other.locked_at is null or other.locked_at = 'infinity'))
            is not true
        end
      ) as is_new
    from unnest(specs) with ordinality as spec
    left join lateral (
      select job.id, job.attempts, job.max_attempts, job.locked_at
      from :schema._private_jobs as job
      where job.key = spec.job_key
      offset 0
    ) as other on true
    order by spec.ordinality
  ) as spec;

  while without_key > 0 loop
    return query
    with resolved as materialized (
      select
        spec.ordinality, numbers[spec.ordinality::int] as number, queue.id as queue_id, task.id as task_id, spec.payload,
        spec.run_at, spec.max_attempts, spec.priority, spec.flags
      from unnest(specs) with ordinality as spec
      cross join lateral (
        select id from :schema._private_tasks where identifier = spec.identifier offset 0
      ) as task
      left join lateral (
        select id from :schema._private_job_queues where queue_name = spec.queue_name offset 0
      ) as queue on true
      where spec.job_key is null and (spec.queue_name is null or queue.id is not null)
    ), inserted as (
      insert into :schema._private_jobs as job (id, job_queue_id, task_id, payload, run_at, max_attempts, priority, flags)
      overriding system value
      select
        number, queue_id, task_id, coalesce(payload, '{}'), coalesce(run_at, now()), coalesce(max_attempts, 25),
        coalesce(priority, 0), (select jsonb_object_agg(flag, true) from unnest(flags) as flag)
      from resolved
      where (select count(*) from resolved) = without_key
      order by ordinality
      returning job.id as number, job as inserted
    )
    select resolved.ordinality::int, true, inserted.inserted
    from inserted join resolved on resolved.number = inserted.number;
    exit when found;

    -- A cleanup has just deleted a task or a queue.
    perform :schema._private_kongtask_create_names(array_agg(spec.identifier), array_agg(spec.queue_name))
    from unnest(specs) as spec;
  end loop;

  if without_key < cardinality(specs) and not key_is_taken then
    return query
    with resolved as materialized (
      select
        spec.ordinality, numbers[spec.ordinality::int] as number, queue.id as queue_id, task.id as task_id, spec.payload,
        spec.run_at, spec.max_attempts, spec.job_key, spec.priority, spec.flags
      from unnest(specs) with ordinality as spec
      cross join lateral (
        select id from :schema._private_tasks where identifier = spec.identifier offset 0
      ) as task
      left join lateral (
        select id from :schema._private_job_queues where queue_name = spec.queue_name offset 0
      ) as queue on true
      where spec.job_key is not null and numbers[spec.ordinality::int] is not null
        and (spec.queue_name is null or queue.id is not null)
    ), inserted as (
      insert into :schema._private_jobs as job
        (id, job_queue_id, task_id, payload, run_at, max_attempts, key, priority, flags)
      overriding system value
      select
        number, queue_id, task_id, coalesce(payload, '{}'), coalesce(run_at, now()), coalesce(max_attempts, 25), job_key,
        coalesce(priority, 0), (select jsonb_object_agg(flag, true) from unnest(flags) as flag)
      from resolved
      -- Without one of its names a key would be locked out of order.
      where (select count(*) from resolved) = (select count(number) from unnest(numbers) as number) - without_key
      order by job_key
      on conflict (key) do update set key = excluded.key where false
      returning job.id as number, job as inserted
    )
    select resolved.ordinality::int, true, inserted.inserted
    from inserted join resolved on resolved.number = inserted.number;
    get diagnostics with_key = row_count;
  elsif without_key < cardinality(specs) and all_wait then
    expected := cardinality(specs) - without_key;
    begin
      with locked as materialized (
        select job.attempts, job.max_attempts, job.locked_at
        from :schema._private_jobs as job
        where job.key = any (array(select spec.job_key from unnest(specs) as spec))
        order by job.key
        for update
      )
      select count(*) into waiting
      from locked
      where attempts < max_attempts and (locked_at is null or locked_at = 'infinity');

      replaced := array(
        select job
        from :schema._private_jobs as job
        where job.key = any (array(select spec.job_key from unnest(specs) as spec))
          and exists (select from :schema._private_kongtask_job_details as detail where detail.job_id = job.id)
      );
      if cardinality(replaced) > 0 then
        perform :schema._private_kongtask_replace(replaced);
      end if;

      return query
      with resolved as materialized (
        select
          spec.ordinality, modes[spec.ordinality::int] as mode, queue.id as queue_id, task.id as task_id, spec.payload,
          spec.run_at, spec.max_attempts, spec.job_key, spec.priority, spec.flags
        from unnest(specs) with ordinality as spec
        cross join lateral (
          select id from :schema._private_tasks where identifier = spec.identifier offset 0
        ) as task
        left join lateral (
          select id from :schema._private_job_queues where queue_name = spec.queue_name offset 0
        ) as queue on true
        where spec.job_key is not null and (spec.queue_name is null or queue.id is not null)
      ), changed as (
        update :schema._private_jobs as job
        set
          job_queue_id = spec.queue_id,
          task_id = spec.task_id,
          payload = :schema._private_kongtask_merge_payloads(job.payload, coalesce(spec.payload, '{}')),
          priority = coalesce(spec.priority, 0),
          run_at = case when spec.mode = 'preserve_run_at' and job.attempts = 0
            then job.run_at else coalesce(spec.run_at, now()) end,
          attempts = 0,
          max_attempts = coalesce(spec.max_attempts, 25),
          last_error = null,
          updated_at = now(),
          revision = job.revision + 1,
          flags = (select jsonb_object_agg(flag, true) from unnest(spec.flags) as flag)
        from resolved as spec
        where job.key = spec.job_key and waiting = expected and (select count(*) from resolved) = expected
        returning spec.ordinality::int, true, job
      )
      select * from changed;
      get diagnostics with_key = row_count;

      if with_key < expected then
        raise exception 'a job has changed' using errcode = 'KTDUP';
      end if;
      perform :schema._private_kongtask_notify(cardinality(specs));
      return;
    exception when sqlstate 'KTDUP' then
      with_key := 0;
    end;
  end if;

  added := without_key + with_key;

  for keyed in
    select spec.ordinality::int as place
    from unnest(specs) with ordinality as spec
    left join lateral (
      select job.id from :schema._private_jobs as job where job.id = numbers[spec.ordinality::int] and with_key > 0 offset 0
    ) as inserted on true
    where spec.job_key is not null and inserted.id is null
    order by spec.job_key, spec.ordinality
  loop
    place := keyed.place;
    select * into result
    from :schema._private_kongtask_add_keyed(specs[keyed.place], modes[keyed.place], numbers[keyed.place]);
    is_added := result.is_added;
    job := result.added;
    return next;
    added := added + is_added::int;
  end loop;

  if added > 0 then
    perform :schema._private_kongtask_notify(added);
  end if;
end
$body$;

-- Adds the jobs as if add_job had been called with each spec in turn, and returns their rows in the order of the specs.
create or replace function :schema.add_jobs(specs :schema.job_spec[], job_key_preserve_run_at boolean default false)
returns setof :schema._private_jobs
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
begin
  if coalesce(cardinality(specs), 0) = 0 then
    return;
  end if;
  return query
  select (result.job).*
  from :schema._private_kongtask_add_specs(
    specs,
    array_fill(case when job_key_preserve_run_at then 'preserve_run_at' else 'replace' end, array[cardinality(specs)])
  ) as result
  order by result.place;
end
$body$;

-- Adds one job. What becomes of a job that has the same key is decided by job_key_mode:
--
-- - `replace` (the default): a waiting job gets all the new values and starts afresh; one that is running or has failed
--   for good loses its key and its remaining attempts, and a new job is added.
-- - `preserve_run_at`: the same, but a waiting job that was never tried keeps its run_at.
-- - `unsafe_dedupe`: whatever the job's state, only its revision is counted up.
create or replace function :schema.add_job(
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
  is_added boolean := true;
  result record;
begin
  perform :schema._private_kongtask_check_spec(identifier, queue_name, max_attempts, job_key, priority);

  if job_key is not null and job_key_mode not in ('replace', 'preserve_run_at', 'unsafe_dedupe') then
    raise exception 'job_key_mode is ''%''; it must be ''replace'', ''preserve_run_at'' or ''unsafe_dedupe''', job_key_mode
      using errcode = 'GWBKM';
  elsif job_key is not null then
    select * into result
    from :schema._private_kongtask_add_keyed(
      cast(row(identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags) as :schema.job_spec),
      coalesce(job_key_mode, 'replace'),
      null
    );
    added := result.added;
    is_added := result.is_added;
  else
    loop
      insert into :schema._private_jobs (job_queue_id, task_id, payload, run_at, max_attempts, priority, flags)
      select
        queue.id,
        task.id,
        coalesce(add_job.payload, '{}'),
        coalesce(add_job.run_at, now()),
        coalesce(add_job.max_attempts, 25),
        coalesce(add_job.priority, 0),
        (select jsonb_object_agg(flag, true) from unnest(add_job.flags) as flag)
      from :schema._private_tasks as task
      left join :schema._private_job_queues as queue on queue.queue_name = add_job.queue_name
      where task.identifier = add_job.identifier
        and (add_job.queue_name is null or queue.id is not null)
      returning * into added;
      exit when found;
      perform :schema._private_kongtask_create_names(array[identifier], array[queue_name]);
    end loop;
  end if;

  if is_added then
    perform :schema._private_kongtask_notify(1);
  end if;
  return added;
end
$body$;

-- Deletes the job with this key. One that is running loses its key and its remaining attempts instead. Returns the job,
-- or a row of nulls when there is none.
create or replace function :schema.remove_job(job_key text)
returns :schema._private_jobs
language plpgsql
strict
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
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

  perform :schema._private_kongtask_mark(array[target.id], 'cancelled', 'removed');
  if :schema._private_kongtask_is_free(target.locked_at) then
    delete from :schema._private_jobs as job where job.id = target.id;
    perform :schema._private_kongtask_notify(-1);
  else
    update :schema._private_jobs as job
    set key = null, attempts = job.max_attempts,
      updated_at = greatest(clock_timestamp(), job.locked_at + interval '1 microsecond')
    where job.id = target.id
    returning * into target;
  end if;
  return target;
end
$body$;

-- Deletes these jobs as if they had succeeded. Jobs that somebody holds are left alone, by this and the next two.
create or replace function :schema.complete_jobs(job_ids bigint[])
returns setof :schema._private_jobs
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
begin
  return query
  with completed as (
    delete from :schema._private_jobs as job
    where job.id = any (job_ids) and :schema._private_kongtask_is_free(job.locked_at)
    returning *
  ), marked as materialized (
    select :schema._private_kongtask_mark(array(select id from completed), 'completed', null)
  )
  select completed.* from completed where (select count(*) from marked) > 0;
end
$body$;

create or replace function :schema.permanently_fail_jobs(job_ids bigint[], error_message text default null)
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
create or replace function :schema.reschedule_jobs(
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
create or replace function :schema.force_unlock_workers(worker_ids text[])
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
