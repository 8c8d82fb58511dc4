-- breaking: false
-- repeatable: true
--
-- Listeners: being told of jobs and bundles that have stopped. While nobody listens, the statements that end jobs look into
-- an empty table, once each.

-- Tells those who listen. Events are objects with a `_tag`: of a job with its `job`, `task`, `state`, `bundle` and `origin`,
-- of a bundle with its summary. They are kept for listeners with a name, which are woken, and sent to the others. A message
-- has 8,000 bytes at most, an event fewer than 3,000.
create or replace function :schema._private_kongtask_announce(events json)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $body$
declare
  kept_for text[];
  sent json[];
begin
  with told as materialized (
    select item.value as event, item.ordinality as place, item.value ->> 'task' as task,
      case when item.value ->> '_tag' = 'JobStopped' then item.value ->> 'bundle'
        else item.value -> 'bundle' ->> 'id' end as bundle_id,
      case when item.value ->> '_tag' = 'JobStopped' then item.value ->> 'origin'
        else item.value -> 'bundle' ->> 'origin' end as origin,
      case when item.value ->> '_tag' = 'BundleDone' then item.value -> 'bundle' ->> 'name' end as bundle_name
    from json_array_elements(events) with ordinality as item
  ), matched as materialized (
    select told.event, told.place, listener.id as listener_id, listener.name
    from told
    join :schema._private_kongtask_listeners as listener
      on (listener.name is not null or listener.seen_at > now() - interval '2 minutes')
      and (listener.tasks is null or told.task = any (listener.tasks))
      and (listener.bundle_id is null or listener.bundle_id::text = told.bundle_id)
      and (listener.bundle_name is null or listener.bundle_name = told.bundle_name)
      and (listener.origin is null or listener.origin = told.origin)
  ), kept as (
    insert into :schema._private_kongtask_events (listener_id, event)
    select matched.listener_id, matched.event from matched where matched.name is not null
    order by matched.place
  )
  select
    array(select distinct matched.name from matched where matched.name is not null),
    array(
      select json_agg(part.event order by part.place)
      from (
        select each.event, each.place, sum(octet_length(each.event::text) + 2) over (order by each.place) / 4500 as chunk
        from (
          select distinct on (matched.place) matched.place, matched.event from matched where matched.name is null
          order by matched.place
        ) as each
      ) as part
      group by part.chunk
    )
  into kept_for, sent;

  perform pg_notify('kongtask:stopped', json_build_object('schema', :schema_literal, 'events', message)::text)
  from unnest(sent) as message;
  if kept_for <> '{}' then
    perform pg_notify('kongtask:stopped', json_build_object('schema', :schema_literal, 'kept', kept_for)::text);
  end if;
end
$body$;

-- Tells those who listen of jobs that have stopped, as they last were, their details still there: in that state, or else in
-- the one that the details say. Primary key.
create or replace function :schema._private_kongtask_announce_jobs(jobs :schema._private_jobs[], state text default null)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $body$
declare
  events json;
begin
  select json_agg(json_build_object(
    '_tag', 'JobStopped', 'job', job.id::text, 'task', :schema._private_kongtask_task_name(job.task_id),
    'state', coalesce(announce_jobs.state, detail.outcome, 'completed'), 'bundle', detail.bundle_id::text,
    'origin', detail.origin
  ) order by job.id)
  into events
  from (select _private_kongtask_announce_jobs.state as state) as announce_jobs
  cross join unnest(jobs) as job
  left join lateral (
    select known.outcome, known.bundle_id, known.origin from :schema._private_kongtask_job_details as known
    where known.job_id = job.id
    offset 0
  ) as detail on true;
  if events is not null then
    perform :schema._private_kongtask_announce(events);
  end if;
end
$body$;

-- Takes events that are kept for a listener, the oldest first, and nobody else is at: they are this caller's for so long.
-- Index; passes over what is locked.
create or replace function :schema._private_kongtask_take_events(listener_name text, max_events int, lease interval)
returns table (id text, event text)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $body$
begin
  return query
  with due as materialized (
    select kept.id from :schema._private_kongtask_events as kept
    where kept.listener_id = (
        select listener.id from :schema._private_kongtask_listeners as listener where listener.name = listener_name
      )
      and (kept.taken_until is null or kept.taken_until < clock_timestamp())
    order by kept.id limit max_events
    for update skip locked
  ), taken as (
    update :schema._private_kongtask_events as kept
    set taken_until = clock_timestamp() + lease
    from due
    where kept.id = due.id
    returning kept.id, kept.event
  )
  select taken.id::text, taken.event::text from taken order by taken.id;
end
$body$;

-- Ends a listener, and what is kept for it.
create or replace function :schema._private_kongtask_unlisten(listener_name text)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $body$
declare
  ended bigint;
begin
  delete from :schema._private_kongtask_listeners as listener where listener.name = listener_name
  returning listener.id into ended;
  delete from :schema._private_kongtask_events as kept where kept.listener_id = ended;
  return ended is not null;
end
$body$;
