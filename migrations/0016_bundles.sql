-- breaking: false
-- repeatable: true
--
-- Bundles: adding them, counting their jobs, ending and deleting them. Who counts is said in the file that ends jobs.

-- Every job with its names, its state and its payload: for people, and for Queue.get, list and count.
create or replace view :schema.kongtask_jobs as
select
  job.id,
  task.identifier as task,
  :schema._private_kongtask_state(job.run_at, job.attempts, job.max_attempts, job.locked_at) as state,
  queue.queue_name,
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
  job.flags,
  job.payload,
  detail.origin,
  detail.bundle_id
from :schema._private_jobs as job
join :schema._private_tasks as task on task.id = job.task_id
left join :schema._private_job_queues as queue on queue.id = job.job_queue_id
left join :schema._private_kongtask_job_details as detail on detail.job_id = job.id;

-- A bundle as Queue answers it.
create or replace function :schema._private_kongtask_describe_bundle(bundle :schema._private_kongtask_bundles)
returns table (
  id text, name text, origin text, jobs int, completed int, failed int, cancelled int, created_at float8, done_at float8
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $body$
  select $1.id::text, $1.name, $1.origin, $1.jobs, $1.completed, $1.failed, $1.cancelled,
    :schema._private_kongtask_millis($1.created_at), :schema._private_kongtask_millis($1.done_at)
$body$;

-- What a completion job is told of its bundle, and so are listeners.
create or replace function :schema._private_kongtask_summarise_bundle(bundle :schema._private_kongtask_bundles)
returns json
language sql
stable
set search_path = pg_catalog, pg_temp
as $body$
  select json_build_object(
    'id', $1.id::text, 'name', $1.name, 'origin', $1.origin, 'jobs', $1.jobs, 'completed', $1.completed,
    'failed', $1.failed, 'cancelled', $1.cancelled
  )
$body$;

-- What became of a bundle's job, as its completion jobs are told. Only what there is of a result or an error is named.
create or replace function :schema._private_kongtask_describe_outcome(outcome :schema._private_kongtask_bundle_outcomes)
returns json
language sql
immutable
set search_path = pg_catalog, pg_temp
as $body$
  select case
    when $1.state = 'completed' and $1.result is null
      then json_build_object('_tag', 'Completed', 'job', $1.job_id::text, 'task', $1.task)
    when $1.state = 'completed'
      then json_build_object('_tag', 'Completed', 'job', $1.job_id::text, 'task', $1.task, 'result', $1.result)
    when $1.state = 'cancelled'
      then json_build_object('_tag', 'Cancelled', 'job', $1.job_id::text, 'task', $1.task)
    when $1.data is null
      then json_build_object(
        '_tag', 'Failed', 'job', $1.job_id::text, 'task', $1.task, 'tag', $1.tag, 'message', $1.message
      )
    else json_build_object(
      '_tag', 'Failed', 'job', $1.job_id::text, 'task', $1.task, 'tag', $1.tag, 'message', $1.message, 'error', $1.data
    )
  end
$body$;

-- Details of new members of a bundle, whose origin is that of the bundle where they have none.
create or replace function :schema._private_kongtask_member_details(bundle :schema._private_kongtask_bundles, details json)
returns json
language sql
immutable
set search_path = pg_catalog, pg_temp
as $body$
  select json_agg(json_build_object(
    'bundle', $1.id::text, 'retain', detail.value -> 'retain', 'awaited', detail.value -> 'awaited',
    'origin', coalesce(detail.value ->> 'origin', $1.origin), 'metadata', detail.value -> 'metadata',
    'trace', detail.value -> 'trace'
  ) order by detail.ordinality)
  from json_array_elements($2) with ordinality as detail
$body$;

-- Adds a bundle and its jobs, as _private_kongtask_add_jobs adds those: one that is refused refuses the bundle. The details
-- of each job, an object, are there; the keys are different ones.
create or replace function :schema._private_kongtask_add_bundle(
  bundle_name text, bundle_origin text, bundle_retain float8, bundle_completions json, specs json, payloads json, details json
)
returns table (bundle :schema._private_kongtask_bundles, place int, refused boolean, job :schema._private_jobs)
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $body$
declare
  result record;
begin
  insert into :schema._private_kongtask_bundles (name, origin, jobs, completions, retain)
  values (
    bundle_name, bundle_origin, json_array_length(specs), bundle_completions, bundle_retain * interval '1 millisecond'
  )
  returning * into bundle;

  for result in
    select * from :schema._private_kongtask_add_jobs(
      specs, payloads, true, :schema._private_kongtask_member_details(bundle, details)
    )
  loop
    place := result.place;
    refused := result.refused;
    job := result.job;
    return next;
    if refused then
      delete from :schema._private_kongtask_bundles as added where added.id = bundle.id;
      return;
    end if;
  end loop;
end
$body$;

-- Adds jobs to a bundle that is not done; otherwise one row without a job, with the bundle if there is one. They are counted
-- when the transaction commits, which fails if the bundle is done by then.
create or replace function :schema._private_kongtask_add_to_bundle(
  of_bundle bigint, specs json, payloads json, details json
)
returns table (
  bundle :schema._private_kongtask_bundles, place int, refused boolean, job :schema._private_jobs, problem text
)
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $body$
declare
  result record;
begin
  select * into bundle from :schema._private_kongtask_bundles as known where known.id = of_bundle;
  if bundle.id is null or bundle.done_at is not null then
    return next;
    return;
  end if;

  select format('are of task "%s", of which the completion task "%s" takes no outcomes', spec.value ->> 0,
    completion.value -> 'spec' ->> 0)
  into problem
  from json_array_elements(bundle.completions) as completion
  cross join json_array_elements(specs) as spec
  where json_typeof(completion.value -> 'tasks') = 'array' and not exists (
    select from json_array_elements_text(completion.value -> 'tasks') as known where known = spec.value ->> 0
  )
  limit 1;
  if problem is not null then
    return next;
    return;
  end if;

  for result in
    select * from :schema._private_kongtask_add_jobs(
      specs, payloads, true, :schema._private_kongtask_member_details(bundle, details)
    )
  loop
    place := result.place;
    refused := result.refused;
    job := result.job;
    return next;
    if refused then
      return;
    end if;
  end loop;

  insert into :schema._private_kongtask_bundle_steps (bundle_id, jobs) values (bundle.id, json_array_length(specs));
end
$body$;

-- Notes that a job of a bundle has used up its attempts: failed, or cancelled while it ran. What the last attempt said is
-- recorded, or else the job's last error.
create or replace function :schema._private_kongtask_member_failed(
  of_bundle bigint, job :schema._private_jobs, state text
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $body$
#variable_conflict use_column
begin
  with noted as (
    insert into :schema._private_kongtask_bundle_outcomes (bundle_id, job_id, revision, task, state, tag, message, data)
    select bundle.id, job.id, job.revision, :schema._private_kongtask_task_name(job.task_id),
      _private_kongtask_member_failed.state, coalesce(record.tag, 'Error'), coalesce(job.last_error, ''), record.data
    from :schema._private_kongtask_bundles as bundle
    left join lateral (
      select known.tag, known.data from :schema._private_kongtask_failed_attempts as known
      -- Written by the transaction that fails the job.
      where known.job_id = job.id and known.failed_at = now()
      order by known.attempt desc limit 1
    ) as record on true
    where bundle.id = of_bundle and bundle.done_at is null
    on conflict (bundle_id, job_id, revision) do nothing
    returning bundle_id, state
  )
  insert into :schema._private_kongtask_bundle_steps (bundle_id, failed, cancelled)
  select bundle_id, (state = 'failed')::int, (state = 'cancelled')::int from noted;
end
$body$;

-- A failed job of a bundle lives again: the bundle waits for it, unless it is done. That it was done at the same moment is
-- found out when the transaction commits, and is its failure.
create or replace function :schema._private_kongtask_member_lives(of_bundle bigint, job :schema._private_jobs)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $body$
begin
  if exists (
    select from :schema._private_kongtask_bundles as bundle where bundle.id = of_bundle and bundle.done_at is null
  ) then
    with revived as (
      delete from :schema._private_kongtask_bundle_outcomes as outcome
      where outcome.bundle_id = of_bundle and outcome.job_id = job.id
        and outcome.revision = (
          select max(last.revision) from :schema._private_kongtask_bundle_outcomes as last
          where last.bundle_id = of_bundle and last.job_id = job.id
        )
      returning outcome.state
    )
    insert into :schema._private_kongtask_bundle_steps (bundle_id, failed, cancelled)
    select of_bundle, -(revived.state = 'failed')::int, -(revived.state = 'cancelled')::int from revived;
  else
    update :schema._private_kongtask_job_details as detail set bundle_id = null where detail.job_id = job.id;
  end if;
end
$body$;

-- Adds the completion jobs of a bundle that is done, and tells who waits for it. Called with the bundle locked, once.
create or replace function :schema._private_kongtask_complete_bundle(bundle :schema._private_kongtask_bundles)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $body$
declare
  outcome constant text := case when bundle.completed = bundle.jobs then 'success' else 'failure' end;
  completion json;
  outcomes json;
  is_too_large boolean;
  takes_outcomes boolean;
  payload json;
begin
  for completion in
    select item.value from json_array_elements(bundle.completions) with ordinality as item
    where item.value ->> 'on' in ('complete', outcome)
    order by item.ordinality
  loop
    takes_outcomes := json_typeof(completion -> 'tasks') = 'array';
    if takes_outcomes and outcomes is null and is_too_large is not true then
      select coalesce(sum(
        100 + octet_length(known.task) + coalesce(octet_length(known.message), 0)
          + coalesce(octet_length(known.data::text), 0) + coalesce(octet_length(known.result::text), 0)
      ), 0) > 64 * 1024 * 1024
      into is_too_large
      from :schema._private_kongtask_bundle_outcomes as known
      where known.bundle_id = bundle.id;
      if not is_too_large then
        select coalesce(json_agg(:schema._private_kongtask_describe_outcome(known) order by known.job_id, known.revision), '[]')
        into outcomes
        from :schema._private_kongtask_bundle_outcomes as known
        where known.bundle_id = bundle.id;
      end if;
    end if;
    payload := case
      when not takes_outcomes then json_build_object(
        'bundle', :schema._private_kongtask_summarise_bundle(bundle), 'data', completion -> 'data', 'outcomes', json '[]'
      )
      when is_too_large then json_build_object(
        'bundle', :schema._private_kongtask_summarise_bundle(bundle), 'data', completion -> 'data'
      )
      else json_build_object(
        'bundle', :schema._private_kongtask_summarise_bundle(bundle), 'data', completion -> 'data', 'outcomes', outcomes
      )
    end;
    perform from :schema._private_kongtask_add_jobs(
      json_build_array(completion -> 'spec'), json_build_array(payload), false,
      case when json_typeof(completion -> 'details') = 'object' then json_build_array(completion -> 'details') end
    );
  end loop;

  perform pg_notify(
    'kongtask:stopped', json_build_object('schema', :schema_literal, 'bundle', bundle.id::text)::text
  );
  if exists (select from :schema._private_kongtask_listeners) then
    perform :schema._private_kongtask_announce(json_build_array(json_build_object(
      '_tag', 'BundleDone', 'bundle', :schema._private_kongtask_summarise_bundle(bundle)
    )));
  end if;
end
$body$;

-- Counts what this transaction has noted, when it commits: bundles are locked in the order of their ids, each for the rest
-- of the commit. The first of its rows does it for all of them. As the owner of the schema, as whoever ends a job.
create or replace function :schema._private_kongtask_count_steps()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $body$
declare
  step record;
  bundle :schema._private_kongtask_bundles;
begin
  for step in
    with own as (
      delete from :schema._private_kongtask_bundle_steps as noted where noted.txid = txid_current() returning *
    )
    select own.bundle_id, sum(own.jobs)::int as jobs, sum(own.completed)::int as completed, sum(own.failed)::int as failed,
      sum(own.cancelled)::int as cancelled, min(own.failed) < 0 or min(own.cancelled) < 0 as has_revived
    from own
    group by own.bundle_id
    order by own.bundle_id
  loop
    update :schema._private_kongtask_bundles as known
    set jobs = known.jobs + step.jobs, completed = known.completed + step.completed, failed = known.failed + step.failed,
      cancelled = known.cancelled + step.cancelled
    where known.id = step.bundle_id and known.done_at is null
    returning * into bundle;

    if bundle.id is null and step.jobs > 0 then
      raise exception 'bundle % is done or deleted', step.bundle_id using errcode = 'KTBDN';
    elsif bundle.id is null and step.has_revived then
      raise exception 'bundle % was done while one of its failed jobs was made ready', step.bundle_id
        using errcode = 'serialization_failure';
    elsif bundle.completed + bundle.failed + bundle.cancelled = bundle.jobs then
      update :schema._private_kongtask_bundles as known
      set done_at = now(), expires_at = now() + known.retain
      where known.id = step.bundle_id
      returning * into bundle;
      perform :schema._private_kongtask_complete_bundle(bundle);
    end if;
  end loop;
  return null;
end
$body$;

-- Deletes bundles, and their jobs: those that nobody runs at once, those that run are told to end. No completion job is
-- added. Jobs are locked before bundles, as by whoever ends one.
create or replace function :schema._private_kongtask_delete_bundles(bundle_ids bigint[])
returns setof :schema._private_kongtask_bundles
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $body$
begin
  perform :schema._private_kongtask_cancel(member.job_id)
  from (
    select detail.job_id from :schema._private_kongtask_job_details as detail
    where detail.bundle_id = any (bundle_ids)
    order by detail.job_id
  ) as member;

  update :schema._private_kongtask_job_details as detail set bundle_id = null where detail.bundle_id = any (bundle_ids);
  delete from :schema._private_kongtask_bundle_outcomes as outcome where outcome.bundle_id = any (bundle_ids);
  return query delete from :schema._private_kongtask_bundles as bundle where bundle.id = any (bundle_ids) returning *;
end
$body$;

-- Deletes bundles that have been done for longer than they are retained, the oldest hundred. Passes over what is locked.
create or replace function :schema._private_kongtask_expire_bundles()
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $body$
declare
  expired bigint[];
begin
  with chosen as (
    select bundle.id from :schema._private_kongtask_bundles as bundle
    where bundle.expires_at < now()
    order by bundle.expires_at limit 100
    for update skip locked
  ), deleted as (
    delete from :schema._private_kongtask_bundles as bundle using chosen where bundle.id = chosen.id returning bundle.id
  )
  select array_agg(deleted.id) into expired from deleted;

  delete from :schema._private_kongtask_bundle_outcomes as outcome where outcome.bundle_id = any (expired);
  return coalesce(cardinality(expired), 0);
end
$body$;

-- PostgreSQL replaces triggers from version 14 on only, and constraint triggers in none.
do $body$
begin
  if not exists (
    select from pg_trigger
    where tgrelid = format('%I._private_kongtask_bundle_steps', :schema_literal)::regclass
      and tgname = 'kongtask_bundle_steps_noted'
  ) then
    create constraint trigger kongtask_bundle_steps_noted
    after insert on :schema._private_kongtask_bundle_steps
    deferrable initially deferred
    for each row execute function :schema._private_kongtask_count_steps();
  end if;
end
$body$;
