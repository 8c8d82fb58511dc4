-- breaking: false
-- repeatable: true
--
-- A job has stopped for good: one mechanism, whoever stops it, graphile-worker and statements by hand included. A job that
-- is deleted has stopped, and so has one whose attempts are used up while nobody holds it; the latter lives again when that
-- changes. Statements of ours say beforehand what becomes of a job, in its details row (`outcome`); a delete without that
-- means completed, because that is how graphile-worker completes jobs. Jobs without a details row are nobody's business
-- here: they cost a probe of an index each, in one statement for all that a statement deletes.
--
-- Bundles are counted in three places: _private_kongtask_stop for members that leave (of those with `stopped_at` the end was
-- counted when they failed), and _private_kongtask_job_turned for members that fail and for failed ones that live again. What
-- is to be counted is noted as a step, and counted when the transaction commits. Listeners are told beside that.

-- What the worker that claims a job is told of its details. Inlined.
create or replace function :schema._private_kongtask_hand_over(details :schema._private_kongtask_job_details)
returns text
language sql
stable
as $body$
  select json_build_object(
    'retains', details.retain > interval '0', 'origin', details.origin, 'metadata', details.metadata,
    'trace', details.trace, 'bundle', details.bundle_id::text
  )::text
$body$;

-- The same of the jobs of a batch, by the ranges of their ids, for those that have any. Primary key, a probe a range.
create or replace function :schema._private_kongtask_hand_over_batch(id_ranges bigint[])
returns table (id text, details text)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
set jit = off
as $body$
begin
  return query
  select detail.job_id::text, :schema._private_kongtask_hand_over(detail)
  from generate_series(1, cardinality(id_ranges), 2) as place
  cross join lateral (
    select * from :schema._private_kongtask_job_details as known
    where known.job_id between id_ranges[place] and id_ranges[place + 1]
    offset 0
  ) as detail;
end
$body$;

-- Writes the details of jobs that this transaction has added. `details` has an object for each job in turn, or null:
-- retain in milliseconds, awaited, origin, metadata as JSON text, trace, bundle.
create or replace function :schema._private_kongtask_put_details(job_ids bigint[], details json)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $body$
begin
  insert into :schema._private_kongtask_job_details as known
    (job_id, retain, awaited, origin, metadata, trace, bundle_id)
  select
    item.job_id, (item.detail ->> 'retain')::float8 * interval '1 millisecond',
    coalesce((item.detail ->> 'awaited')::bool, false), item.detail ->> 'origin', (item.detail ->> 'metadata')::json,
    item.detail ->> 'trace', (item.detail ->> 'bundle')::bigint
  from rows from (unnest(job_ids), json_array_elements(details)) as item (job_id, detail)
  where json_typeof(item.detail) = 'object'
  order by item.job_id
  on conflict (job_id) do update
  set retain = excluded.retain, awaited = known.awaited or excluded.awaited, origin = excluded.origin,
    metadata = excluded.metadata, trace = excluded.trace, bundle_id = excluded.bundle_id;
end
$body$;

-- Says what becomes of jobs, before the statement that ends them or, for those that run, before their end. Of two such
-- words the first one holds, but that a job which has failed may be completed by hand.
create or replace function :schema._private_kongtask_mark(job_ids bigint[], new_outcome text, new_reason text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $body$
begin
  update :schema._private_kongtask_job_details as detail
  set outcome = case when new_outcome = 'completed' then new_outcome else coalesce(detail.outcome, new_outcome) end,
    reason = coalesce(detail.reason, new_reason)
  where detail.job_id = any (job_ids);

  -- Who listens must be told of what has no details, too.
  if new_outcome = 'cancelled' and exists (select from :schema._private_kongtask_listeners) then
    insert into :schema._private_kongtask_job_details (job_id, outcome, reason)
    select job.id, new_outcome, new_reason from unnest(job_ids) as job (id) order by job.id
    on conflict (job_id) do nothing;
  end if;
end
$body$;

-- Tells those who wait for these jobs. A message has 8,000 bytes at most.
create or replace function :schema._private_kongtask_tell(job_ids bigint[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
begin
  perform pg_notify(
    'kongtask:watched', json_build_object('schema', :schema_literal, 'jobs', json_agg(job.id::text order by job.id))::text
  )
  from unnest(job_ids) with ordinality as job (id, place)
  group by job.place / 300;
end
$body$;

-- What is recorded of the failed attempts of a job.
create or replace function :schema._private_kongtask_failures_of(job_id bigint)
returns json
language sql
stable
strict
set search_path = pg_catalog, pg_temp
as $body$
  select json_agg(
    json_build_object(
      'attempt', record.attempt, 'failedAt', :schema._private_kongtask_millis(record.failed_at), 'tag', record.tag,
      'message', record.message, 'data', record.data
    ) order by record.attempt
  )
  from :schema._private_kongtask_failed_attempts as record
  where record.job_id = $1
$body$;

-- Ends these jobs for good, as they last were: each has a details row, which this transaction has locked, and it goes. What
-- is retained goes to the history; of what is only awaited, its end is kept there for a minute. `state` is what has become
-- of all of them, where it is known. Primary keys.
create or replace function :schema._private_kongtask_stop(jobs :schema._private_jobs[], state text default null)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $body$
#variable_conflict use_column
declare
  awaited_ids bigint[];
begin
  with details as (
    delete from :schema._private_kongtask_job_details
    where job_id = any (array(select job.id from unnest(jobs) as job))
    returning *
  ), stopped as (
    select
      job.*, details.retain, details.awaited, details.bundle_id, details.origin, details.metadata, details.reason,
      details.result, details.stopped_at,
      coalesce(details.retain > interval '0', false) as is_retained,
      coalesce(
        _private_kongtask_stop.state, details.outcome,
        case when job.attempts >= job.max_attempts and (job.locked_at is null or job.locked_at = 'infinity')
          then 'failed' else 'completed' end
      ) as state
    from details join unnest(jobs) as job on job.id = details.job_id
  ), kept as (
    insert into :schema._private_kongtask_history (
      job_id, revision, task, queue_name, state, payload, priority, run_at, attempts, max_attempts, key, flags, created_at,
      started_at, stopped_at, error, failed_attempts, result, bundle_id, origin, metadata, is_retained, expires_at
    )
    select
      id, revision, :schema._private_kongtask_task_name(task_id), :schema._private_kongtask_queue_name(job_queue_id), state,
      case when is_retained then payload end, priority, run_at, attempts, max_attempts, key, flags, created_at,
      -- As exact as a JavaScript date, by which pages of the history go on.
      nullif(locked_at, 'infinity'), date_trunc('milliseconds', coalesce(stopped_at, now())),
      case state when 'cancelled' then reason when 'failed' then last_error end,
      case when is_retained or state = 'failed' then :schema._private_kongtask_failures_of(id) end,
      case when is_retained and state = 'completed' then result end, bundle_id, origin,
      case when is_retained then metadata end, is_retained,
      date_trunc('milliseconds', now()) + case when awaited then greatest(retain, interval '1 minute') else retain end
    from stopped
    where is_retained or awaited
    on conflict (job_id, revision) do update
    set state = excluded.state, payload = excluded.payload, attempts = excluded.attempts, started_at = excluded.started_at,
      stopped_at = excluded.stopped_at, error = excluded.error, failed_attempts = excluded.failed_attempts,
      result = excluded.result, is_retained = excluded.is_retained, expires_at = excluded.expires_at
  ), members as materialized (
    -- Those that had failed are counted; one of them may be completed by hand.
    select stopped.id, stopped.revision, stopped.task_id, stopped.state, stopped.bundle_id, stopped.result,
      stopped.last_error, stopped.stopped_at is not null as is_counted
    from stopped
    join :schema._private_kongtask_bundles as bundle on bundle.id = stopped.bundle_id and bundle.done_at is null
    where stopped.stopped_at is null or stopped.state = 'completed'
  ), outcomes as (
    insert into :schema._private_kongtask_bundle_outcomes as outcome
      (bundle_id, job_id, revision, task, state, tag, message, result)
    select bundle_id, id, revision, :schema._private_kongtask_task_name(task_id), state,
      case when state = 'failed' then 'Error' end, case when state = 'failed' then coalesce(last_error, '') end,
      case when state = 'completed' then result end
    from members
    on conflict (bundle_id, job_id, revision) do update
    set state = excluded.state, tag = null, message = null, data = null, result = excluded.result
  ), steps as (
    insert into :schema._private_kongtask_bundle_steps (bundle_id, completed, failed, cancelled)
    select bundle_id, count(*) filter (where state = 'completed'),
      count(*) filter (where state = 'failed') - count(*) filter (where is_counted),
      count(*) filter (where state = 'cancelled')
    from members
    group by bundle_id
  )
  select array_agg(id order by id) filter (where awaited) into awaited_ids from stopped;

  -- After the history has read them.
  delete from :schema._private_kongtask_failed_attempts as record
  where record.job_id = any (array(select job.id from unnest(jobs) as job where job.last_error is not null));

  if awaited_ids is not null then
    perform :schema._private_kongtask_tell(awaited_ids);
  end if;
end
$body$;

-- Ends what a job with a key was, before it is replaced in place and goes on under its id: cancelled, for whoever asked for
-- it. Nothing for a job without details. Primary key.
create or replace function :schema._private_kongtask_replace(jobs :schema._private_jobs[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $body$
declare
  ids bigint[];
begin
  ids := array(
    select detail.job_id from :schema._private_kongtask_job_details as detail
    where detail.job_id = any (array(select job.id from unnest(jobs) as job))
    order by detail.job_id
    for update
  );
  if ids <> '{}' then
    perform :schema._private_kongtask_mark(ids, 'cancelled', 'replaced by its key');
    if exists (select from :schema._private_kongtask_listeners) then
      perform :schema._private_kongtask_announce_jobs(
        array(select job from unnest(jobs) as job where job.id = any (ids)), 'cancelled'
      );
    end if;
    perform :schema._private_kongtask_stop(array(select job from unnest(jobs) as job where job.id = any (ids)), 'cancelled');
  end if;
end
$body$;

-- How a job stands, for those who wait for it; with `announce` its end will be told, and so will what it reports. A job that
-- has been asked for at `from_revision` has stopped when it was replaced since. One row: `state` is null for a job that is
-- not known; then `revision` is 0 if there never was one. Primary keys; writes at most once a job, and waits for nobody but
-- who settles it. The jobs are looked at before the history, so that one that stops meanwhile is found there.
create or replace function :schema._private_kongtask_observe(job_id bigint, from_revision int, announce boolean)
returns table (
  task text, revision int, state text, has_stopped boolean, error text, failed_attempts text, result text,
  is_retained boolean, progress text, progress_at float8
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $body$
#variable_conflict use_column
declare
  wanted constant bigint := job_id;
  live :schema._private_jobs;
  known :schema._private_kongtask_job_details;
  past :schema._private_kongtask_history;
begin
  if announce then
    insert into :schema._private_kongtask_job_details as detail (job_id, awaited)
    select job.id, true from :schema._private_jobs as job
    where job.id = wanted and not (job.attempts >= job.max_attempts and job.locked_at is null)
    on conflict (job_id) do update set awaited = true where not detail.awaited;
  end if;

  select * into live from :schema._private_jobs as job where job.id = wanted;
  if live.id is null and announce then
    delete from :schema._private_kongtask_job_details as detail
    where detail.job_id = wanted and not exists (select from :schema._private_jobs as job where job.id = wanted);
  end if;

  if from_revision is not null then
    select * into past from :schema._private_kongtask_history as kept
    where kept.job_id = wanted and kept.revision >= from_revision and kept.expires_at > now()
    order by kept.revision limit 1;
  elsif live.id is null then
    select * into past from :schema._private_kongtask_history as kept
    where kept.job_id = wanted and kept.expires_at > now()
    order by kept.revision desc limit 1;
  end if;

  if past.job_id is not null then
    return query select
      past.task, past.revision, past.state, true, past.error, past.failed_attempts::text, past.result::text,
      past.is_retained, null::text, null::float8;
  elsif live.id is not null then
    select * into known from :schema._private_kongtask_job_details as detail where detail.job_id = wanted;
    state := :schema._private_kongtask_state(live.run_at, live.attempts, live.max_attempts, live.locked_at);
    has_stopped := state = 'failed';
    state := case when has_stopped then coalesce(known.outcome, state) else state end;
    return query select
      :schema._private_kongtask_task_name(live.task_id), live.revision, state, has_stopped,
      case when state = 'cancelled' then known.reason else live.last_error end,
      case when has_stopped then :schema._private_kongtask_failures_of(live.id)::text end, null::text, true,
      known.progress::text, :schema._private_kongtask_millis(known.progress_at);
  else
    return query select
      null::text,
      (wanted <= coalesce(
        pg_sequence_last_value(pg_get_serial_sequence(quote_ident(:schema_literal) || '._private_jobs', 'id')), 0
      ))::int,
      null::text, true, null::text, null::text, null::text, false, null::text, null::float8;
  end if;
end
$body$;

-- A job of the history as Queue answers it. Inlined.
create or replace function :schema._private_kongtask_describe_finished(past :schema._private_kongtask_history)
returns table (
  id text, revision int, task text, queue_name text, state text, payload text, priority int, run_at float8, attempts int,
  max_attempts int, key text, flags text, created_at float8, started_at float8, stopped_at float8, error text,
  failed_attempts text, result text, origin text, metadata text, bundle text, expires_at float8
)
language sql
stable
as $body$
  select
    past.job_id::text, past.revision, past.task, past.queue_name, past.state, past.payload::text, past.priority::int,
    :schema._private_kongtask_millis(past.run_at), past.attempts::int, past.max_attempts::int, past.key, past.flags::text,
    :schema._private_kongtask_millis(past.created_at), :schema._private_kongtask_millis(past.started_at),
    :schema._private_kongtask_millis(past.stopped_at), past.error, past.failed_attempts::text, past.result::text,
    past.origin, past.metadata::text, past.bundle_id::text, :schema._private_kongtask_millis(past.expires_at)
$body$;

-- The history, newest first, after the job that stopped at `after_millis` with that id. Planned for each call, since the
-- conditions decide about the index: each task is read by its own, all of them by that of stopped_at, and those that have
-- not completed, if only they are wanted, by theirs.
create or replace function :schema._private_kongtask_read_history(
  tasks text[], states text[], queue text, job_key text, stopped_after float8, stopped_before float8, added_after float8,
  added_before float8, after_millis float8, after_id bigint, max_jobs int
)
returns table (
  id text, revision int, task text, queue_name text, state text, payload text, priority int, run_at float8, attempts int,
  max_attempts int, key text, flags text, created_at float8, started_at float8, stopped_at float8, error text,
  failed_attempts text, result text, origin text, metadata text, bundle text, expires_at float8
)
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
as $body$
#variable_conflict use_column
declare
  from_time constant timestamptz := coalesce(to_timestamp(stopped_after / 1000), '-infinity');
  -- What stopped at the time of the last one comes after it by its id.
  to_time constant timestamptz := coalesce(to_timestamp(after_millis / 1000), 'infinity');
  before_time constant timestamptz := coalesce(to_timestamp(stopped_before / 1000), 'infinity');
begin
  return query
  select described.*
  from (
    select past.*
    from unnest(coalesce(tasks, '{null}')) as wanted (name)
    cross join lateral (
      select * from :schema._private_kongtask_history as past
      where past.task = wanted.name
        and (states is null or past.state = any (states))
        and (queue is null or past.queue_name = queue)
        and (job_key is null or past.key = job_key)
        and past.stopped_at >= from_time and past.stopped_at < before_time
        and (past.stopped_at, past.job_id) < (to_time, coalesce(after_id, 0))
        and (added_after is null or past.created_at >= to_timestamp(added_after / 1000))
        and (added_before is null or past.created_at < to_timestamp(added_before / 1000))
        and past.is_retained and past.expires_at > now()
      order by past.stopped_at desc, past.job_id desc limit max_jobs
    ) as past
    where tasks is not null
    union all
    (
      select * from :schema._private_kongtask_history as past
      where tasks is null
        and (states is null or past.state = any (states))
        and (queue is null or past.queue_name = queue)
        and (job_key is null or past.key = job_key)
        and past.stopped_at >= from_time and past.stopped_at < before_time
        and (past.stopped_at, past.job_id) < (to_time, coalesce(after_id, 0))
        and (added_after is null or past.created_at >= to_timestamp(added_after / 1000))
        and (added_before is null or past.created_at < to_timestamp(added_before / 1000))
        and past.is_retained and past.expires_at > now()
      order by past.stopped_at desc, past.job_id desc limit max_jobs
    )
    order by stopped_at desc, job_id desc limit max_jobs
  ) as past
  cross join lateral :schema._private_kongtask_describe_finished(past) as described
  order by past.stopped_at desc, past.job_id desc;
end
$body$;

-- The job as it stopped last. Primary key.
create or replace function :schema._private_kongtask_find_finished(wanted bigint)
returns table (
  id text, revision int, task text, queue_name text, state text, payload text, priority int, run_at float8, attempts int,
  max_attempts int, key text, flags text, created_at float8, started_at float8, stopped_at float8, error text,
  failed_attempts text, result text, origin text, metadata text, bundle text, expires_at float8
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $body$
  select described.*
  from :schema._private_kongtask_history as past
  cross join lateral :schema._private_kongtask_describe_finished(past) as described
  where past.job_id = wanted and past.is_retained and past.expires_at > now()
  order by past.revision desc limit 1
$body$;

-- How many jobs of the history there are. Reads all of them, by an index where only their state, task or time is asked for.
create or replace function :schema._private_kongtask_count_history(
  tasks text[], states text[], queue text, job_key text, stopped_after float8, stopped_before float8, added_after float8,
  added_before float8
)
returns float8
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $body$
begin
  return (
    select count(*) from :schema._private_kongtask_history as past
    where (tasks is null or past.task = any (tasks))
      and (states is null or past.state = any (states))
      and (queue is null or past.queue_name = queue)
      and (job_key is null or past.key = job_key)
      and (stopped_after is null or past.stopped_at >= to_timestamp(stopped_after / 1000))
      and (stopped_before is null or past.stopped_at < to_timestamp(stopped_before / 1000))
      and (added_after is null or past.created_at >= to_timestamp(added_after / 1000))
      and (added_before is null or past.created_at < to_timestamp(added_before / 1000))
      and past.is_retained and past.expires_at > now()
  );
end
$body$;

-- Deletes at most so many jobs of the history that the conditions find, retained or not, and answers how many. Passes over
-- what others are deleting. By the indexes of stopped_at, or of a task's.
create or replace function :schema._private_kongtask_forget_history(
  tasks text[], states text[], queue text, job_key text, stopped_after float8, stopped_before float8, added_after float8,
  added_before float8, max_jobs int
)
returns float8
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $body$
declare
  deleted bigint;
begin
  delete from :schema._private_kongtask_history as past
  where past.ctid = any (array(
    select found.ctid from :schema._private_kongtask_history as found
    where (tasks is null or found.task = any (tasks))
      and (states is null or found.state = any (states))
      and (queue is null or found.queue_name = queue)
      and (job_key is null or found.key = job_key)
      and (stopped_after is null or found.stopped_at >= to_timestamp(stopped_after / 1000))
      and (stopped_before is null or found.stopped_at < to_timestamp(stopped_before / 1000))
      and (added_after is null or found.created_at >= to_timestamp(added_after / 1000))
      and (added_before is null or found.created_at < to_timestamp(added_before / 1000))
    limit max_jobs
    for update skip locked
  ));
  get diagnostics deleted = row_count;
  return deleted;
end
$body$;

-- Writes what the handler of a job reports, if the pool still holds the job, and tells those who wait for it. Primary keys.
create or replace function :schema._private_kongtask_report(pool text, job_id bigint, new_progress json)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $body$
#variable_conflict use_column
declare
  wanted constant bigint := job_id;
  is_awaited boolean;
begin
  insert into :schema._private_kongtask_job_details as detail (job_id, progress, progress_at)
  select job.id, new_progress, clock_timestamp() from :schema._private_jobs as job
  where job.id = wanted and job.locked_by = pool
  for key share
  on conflict (job_id) do update set progress = excluded.progress, progress_at = excluded.progress_at
  returning detail.awaited into is_awaited;
  if is_awaited then
    perform :schema._private_kongtask_tell(array[wanted]);
  end if;
  return is_awaited is not null;
end
$body$;

-- For each statement that deletes jobs. The probe is lateral, with an offset, so that it is an index probe a job in any plan.
-- As the owner of the schema: whoever may delete jobs need not know of our tables.
create or replace function :schema._private_kongtask_jobs_deleted()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $body$
declare
  first_id bigint;
  last_id bigint;
  ids bigint[];
begin
  -- A job that had failed had stopped.
  if exists (select from :schema._private_kongtask_listeners) then
    perform :schema._private_kongtask_announce_jobs(array(
      select cast(row(gone.*) as :schema._private_jobs) from gone
      where not (gone.attempts >= gone.max_attempts and (gone.locked_at is null or gone.locked_at = 'infinity'))
    ));
  end if;

  -- Most jobs have no details, and then one look does for all of the statement's.
  select min(id), max(id) into first_id, last_id from gone;
  if not exists (
    select from :schema._private_kongtask_job_details as known where known.job_id between first_id and last_id
  ) then
    return null;
  end if;

  ids := array(
    select detail.job_id
    from gone
    cross join lateral (
      select known.job_id from :schema._private_kongtask_job_details as known where known.job_id = gone.id offset 0
    ) as detail
    order by detail.job_id
  );
  if ids <> '{}' then
    perform from :schema._private_kongtask_job_details as detail
    where detail.job_id = any (ids)
    order by detail.job_id
    for update;
    perform :schema._private_kongtask_stop(array(
      select cast(row(gone.*) as :schema._private_jobs) from gone where gone.id = any (ids)
    ));
  end if;
  return null;
end
$body$;

-- For each job that fails for good, or lives again after that. As the owner of the schema.
create or replace function :schema._private_kongtask_job_turned()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $body$
declare
  detail :schema._private_kongtask_job_details;
begin
  if new.attempts >= new.max_attempts and (new.locked_at is null or new.locked_at = 'infinity') then
    update :schema._private_kongtask_job_details as known
    set outcome = coalesce(known.outcome, 'failed'), stopped_at = now()
    where known.job_id = new.id and known.stopped_at is null
    returning * into detail;
    if detail.awaited then
      perform :schema._private_kongtask_tell(array[new.id]);
    end if;
    if detail.bundle_id is not null then
      perform :schema._private_kongtask_member_failed(detail.bundle_id, new, detail.outcome);
    end if;
    if exists (select from :schema._private_kongtask_listeners) then
      perform :schema._private_kongtask_announce_jobs(array[new], coalesce(detail.outcome, 'failed'));
    end if;
  else
    update :schema._private_kongtask_job_details as known
    set outcome = null, reason = null, stopped_at = null
    where known.job_id = new.id and known.stopped_at is not null
    returning * into detail;
    if detail.bundle_id is not null then
      perform :schema._private_kongtask_member_lives(detail.bundle_id, new);
    end if;
  end if;
  return null;
end
$body$;

-- PostgreSQL replaces triggers from version 14 on only.
do $body$
begin
  if not exists (
    select from pg_trigger
    where tgrelid = format('%I._private_jobs', :schema_literal)::regclass and tgname = 'kongtask_jobs_deleted'
  ) then
    create trigger kongtask_jobs_deleted
    after delete on :schema._private_jobs
    referencing old table as gone
    for each statement execute function :schema._private_kongtask_jobs_deleted();
  end if;

  if not exists (
    select from pg_trigger
    where tgrelid = format('%I._private_jobs', :schema_literal)::regclass and tgname = 'kongtask_job_turned'
  ) then
    create trigger kongtask_job_turned
    after update on :schema._private_jobs
    for each row
    when (
      (old.attempts >= old.max_attempts and (old.locked_at is null or old.locked_at = 'infinity'))
        is distinct from (new.attempts >= new.max_attempts and (new.locked_at is null or new.locked_at = 'infinity'))
    )
    execute function :schema._private_kongtask_job_turned();
  end if;
end
$body$;
