-- breaking: false
-- repeatable: true

-- Where a job stands, in one word. Inlined into the queries that use it.
create or replace function :schema._private_kongtask_state(
  run_at timestamptz, attempts int, max_attempts int, locked_at timestamptz
) returns text language sql stable parallel safe as $body$
  select case
    when locked_at is not null and locked_at < 'infinity' then 'running'
    when attempts >= max_attempts then 'failed'
    when locked_at is null and run_at <= pg_catalog.now() then 'ready'
    when attempts > 0 then 'retrying'
    else 'scheduled'
  end
$body$;

-- Milliseconds since the epoch, within what a JavaScript date can say: infinity is a legal run_at. Stable, as extract is,
-- so that it is inlined.
create or replace function :schema._private_kongtask_millis(at timestamptz) returns float8 language sql stable parallel safe as $body$
  select extract(epoch from case
    when at > timestamptz '9999-12-31 23:59:59.999Z' then timestamptz '9999-12-31 23:59:59.999Z'
    when at < timestamptz '0001-01-01Z' then timestamptz '0001-01-01Z'
    else at
  end)::float8 * 1000
$body$;

-- The attempts of a running job that is given back uncharged. One that was superseded while it ran (it has lost its key
-- and its remaining attempts) must not run again; on its last attempt it is told from others by having no key and having
-- been changed since it was claimed: a claim's locked_at is never before updated_at.
create or replace function :schema._private_kongtask_uncharged(
  attempts int, max_attempts int, key text, updated_at timestamptz, locked_at timestamptz
) returns int language sql immutable parallel safe as $body$
  select case
    when attempts >= max_attempts and key is null and updated_at > locked_at then attempts
    else greatest(attempts - 1, 0)
  end
$body$;

-- The names of a task and of a queue that may be newer than the snapshot of the running statement: volatile functions
-- look anew.
create or replace function :schema._private_kongtask_task_name(task_id int) returns text
language sql volatile strict set search_path = pg_catalog, pg_temp as $body$
  select task.identifier from :schema._private_tasks as task where task.id = task_id
$body$;

create or replace function :schema._private_kongtask_queue_name(queue_id int) returns text
language sql volatile strict set search_path = pg_catalog, pg_temp as $body$
  select queue.queue_name from :schema._private_job_queues as queue where queue.id = queue_id
$body$;

-- Deletes the job that has this id or this key, and returns it as it was. One that a pool holds loses its key and its
-- remaining attempts instead, and is returned as it is then. No row when there is none.
create or replace function :schema._private_kongtask_remove_job(job_id bigint, job_key text)
returns setof :schema._private_jobs
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
  target :schema._private_jobs;
begin
  if job_id is not null then
    select * into target from :schema._private_jobs as job where job.id = job_id for update;
  else
    loop
      select * into target from :schema._private_jobs as job where job.key = job_key for update;
      exit when found;
      -- The row that was waited for may have lost its key to one that this select could not see.
      exit when not exists (select from :schema._private_jobs as job where job.key = job_key);
    end loop;
  end if;

  if target.id is null then
    return;
  end if;
  perform :schema._private_kongtask_mark(array[target.id], 'cancelled', 'removed');
  if target.locked_at < 'infinity' then
    update :schema._private_jobs as job
    set key = null, attempts = job.max_attempts, updated_at = greatest(clock_timestamp(), job.locked_at + interval '1 microsecond')
    where job.id = target.id
    returning * into target;
  else
    delete from :schema._private_jobs as job where job.id = target.id;
  end if;
  return next target;
end
$body$;

-- Ends the job that has this id, and returns it. One that nobody holds is deleted. One that runs is left to its pool, which
-- is told to interrupt it; where the holder cannot be told (another system's), it loses its key and its remaining
-- attempts. Locks the job. Requests whose job has ended otherwise are forgotten on the way.
create or replace function :schema._private_kongtask_cancel(job_id bigint)
returns setof :schema._private_jobs
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $body$
declare
  target :schema._private_jobs;
begin
  select * into target from :schema._private_jobs as job where job.id = job_id for update;
  if not found then
    return;
  end if;

  delete from :schema._private_kongtask_cancellations as request
  where not exists (select from :schema._private_jobs as job where job.id = request.job_id);

  if target.locked_at is null or target.locked_at = 'infinity' then
    perform :schema._private_kongtask_mark(array[target.id], 'cancelled', null);
    delete from :schema._private_jobs as job where job.id = target.id;
  elsif exists (select from :schema._private_kongtask_pools as pool where pool.id = target.locked_by) then
    insert into :schema._private_kongtask_cancellations as request (job_id) values (target.id) on conflict do nothing;
    perform pg_notify('jobs:insert', json_build_object('r', random(), 'count', 0, 'cancel', target.locked_by)::text);
  else
    perform :schema._private_kongtask_mark(array[target.id], 'cancelled', null);
    update :schema._private_jobs as job
    set key = null, attempts = job.max_attempts,
      updated_at = greatest(clock_timestamp(), job.locked_at + interval '1 microsecond')
    where job.id = target.id
    returning * into target;
  end if;
  return next target;
end
$body$;

-- The functions below are planned once a session, for index scans only, however large the tables are by then: a plan
-- that was made for an empty table reads it in whole until the next ANALYZE.
--
-- Indexes, all of available jobs, which are those that are not locked and have attempts left: jobs_claim_index (task_id,
-- priority, run_at, id) holds those without a queue, jobs_queue_due_index the same columns of those with one, and
-- jobs_queue_index (task_id, job_queue_id, priority, run_at, id) them by their queues.

-- Claims the jobs that are due at `due_at`, or now. One row a claimed job, or one row that says why there is none. Beyond the first `max_start` no job on
-- its last attempt is taken: it would wait for its turn, and a crash in the meantime would be the end of it.
--
-- A queue is claimed with a run of jobs: its first one and those that stand behind it in the queue's order, to be executed
-- one after the other. Of each task `max_runs` says how many jobs make a whole run, in the order of `task_names`; without it
-- each run is one job. None but the first of a run is on its last attempt, and `max_jobs` counts the first one only. In all
-- a claim takes 500 jobs of queues, or `max_jobs` if that is more.
--
-- Where no job of the tasks has a queue and no flag is forbidden, which most claims find, a short statement does: to start
-- that of all cases alone takes as long as the short one does in all, and ten milliseconds to plan it in a new session.
--
-- Plan: `lanes` finds the priorities in use of each task and the oldest job of each, by one probe of jobs_claim_index a
-- lane: whoever starts at the beginning of a lane walks over the deleted jobs that are still in the index, so nobody else
-- does. `heads` are those that are due, in order; `free` walks the lanes in that order, each from its head on, and locks
-- (SKIP LOCKED) until it has enough: neither future jobs, nor other tasks' jobs, nor failed ones are touched. Names are looked up
-- for the claimed jobs only, so that a large table of queues is not read.
--
-- The queues: `window_jobs` takes the oldest due jobs of each lane of jobs with a queue, some hundreds in all, and with
-- them the queues that come first. Where these are not enough, since many jobs of few queues stand before the others, `walk`
-- goes from queue to queue, one probe each, from a queue that is drawn anew for each claim, and not on for ever: a claim
-- that found nothing and has not seen all says that it is contended. So a claim's cost is bounded whatever the number of
-- queues and their backlogs. `queued` takes what stands first in each free queue, together with its queue.
--
-- Jobs with a forbidden flag are passed over. To find the others, `allowed` reads at most `max_jobs` + 1000 jobs from the
-- oldest due one of a lane on, and as many from the place in the lane of a job that is drawn anew for each claim (by its
-- id, from those of the lane's oldest on or from all), so that a claim's cost is bounded and yet no job is hidden for
-- good behind others; of a queue, the oldest 500 due jobs of each lane. `free` is empty then; without forbidden flags
-- `places`, and so `allowed`, is.
--
-- Locks: the claimed jobs, the queues of those that have one, and the pool's own row against being declared dead; a
-- pool that is not registered any more gets nothing, for nobody would release it.
create or replace function :schema._private_kongtask_claim(
  pool text, task_names text[], max_jobs int, max_start int, forbidden_flags text[], max_runs int[] default null,
  due_at timestamptz default null
)
returns table (
  id text, task text, payload text, queue_name text, priority int, run_at float8, attempts int, max_attempts int,
  last_error text, created_at float8, key text, revision int, flags text, details text,
  contended boolean, next_due_in float8
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
set jit = off
as $body$
#variable_conflict use_column
declare
  chosen_ids bigint[];
  were_due boolean;
begin
  if forbidden_flags is null and not exists (
    select from :schema._private_tasks as task
    cross join lateral (
      select from :schema._private_jobs
      where task_id = task.id and is_available and job_queue_id is not null
      order by priority nulls first limit 1
    ) as queued
    where task.identifier = any (task_names)
  ) then
    with recursive tasks as materialized (
      select id from :schema._private_tasks where identifier = any (task_names)
    ), lanes (task_id, priority, run_at, id) as (
      select tasks.id, first.priority, first.run_at, first.id
      from tasks
      cross join lateral (
        select priority, run_at, id from :schema._private_jobs
        where task_id = tasks.id and is_available and job_queue_id is null
        order by priority nulls first, run_at nulls first, id limit 1
      ) as first
      union all
      select lanes.task_id, first.priority, first.run_at, first.id
      from lanes
      cross join lateral (
        select priority, run_at, id from :schema._private_jobs
        where task_id = lanes.task_id and priority > lanes.priority and is_available and job_queue_id is null
        order by priority nulls first, run_at nulls first, id limit 1
      ) as first
    ), heads as materialized (
      select * from lanes where run_at <= coalesce(due_at, now()) order by priority, run_at
    ), free as materialized (
      select job.id, job.priority, job.run_at, job.is_last
      from heads
      cross join lateral (
        select id, priority, run_at, attempts + 1 >= max_attempts as is_last from :schema._private_jobs
        where task_id = heads.task_id and priority = heads.priority and is_available and job_queue_id is null
          and run_at <= coalesce(due_at, now()) and (run_at, id) >= (heads.run_at, heads.id)
        order by run_at nulls first, id limit max_jobs
        for update skip locked
      ) as job
      limit max_jobs
    )
    select
      array(
        select placed.id
        from (select id, is_last, row_number() over (order by priority, run_at, id) as place from free) as placed
        where place <= max_start or not is_last
      ),
      exists (select from heads)
    into chosen_ids, were_due;
  else
    with recursive tasks as materialized (
      select id, coalesce(max_runs[array_position(task_names, identifier)], 1) as max_run
      from :schema._private_tasks
      where identifier = any (task_names)
    ), lanes (task_id, priority, run_at, id) as (
      select tasks.id, first.priority, first.run_at, first.id
      from tasks
      cross join lateral (
        select priority, run_at, id from :schema._private_jobs
        where task_id = tasks.id and is_available and job_queue_id is null
        order by priority nulls first, run_at nulls first, id limit 1
      ) as first
      union all
      select lanes.task_id, first.priority, first.run_at, first.id
      from lanes
      cross join lateral (
        select priority, run_at, id from :schema._private_jobs
        where task_id = lanes.task_id and priority > lanes.priority and is_available and job_queue_id is null
        order by priority nulls first, run_at nulls first, id limit 1
      ) as first
    ), heads as materialized (
      select * from lanes where run_at <= coalesce(due_at, now()) order by priority, run_at
    ), free as materialized (
      select job.id, job.priority, job.run_at, job.is_last
      from heads
      cross join lateral (
        select id, priority, run_at, attempts + 1 >= max_attempts as is_last from :schema._private_jobs
        where task_id = heads.task_id and priority = heads.priority and is_available and job_queue_id is null
          and run_at <= coalesce(due_at, now()) and (run_at, id) >= (heads.run_at, heads.id)
        order by run_at nulls first, id limit max_jobs
        for update skip locked
      ) as job
      where forbidden_flags is null
      limit max_jobs
    ), places as materialized (
      select heads.task_id, heads.priority, drawn.run_at, drawn.id
      from heads
      cross join lateral (
        select first.id + floor(random() * (last.id - first.id + 1))::int8 as id
        from (
          select case when random() < 0.5 then heads.id else (select min(id) from :schema._private_jobs) end as id offset 0
        ) as first
        cross join (select max(id) as id from :schema._private_jobs) as last
        offset 0
      ) as draw
      cross join lateral (
        select run_at, id from :schema._private_jobs where id >= draw.id order by id limit 1
      ) as drawn
      where forbidden_flags is not null
    ), allowed as materialized (
      select distinct job.id, job.priority, job.run_at
      from places
      cross join lateral (
        (
          select id, priority, run_at, flags from :schema._private_jobs
          where task_id = places.task_id and priority = places.priority and is_available and job_queue_id is null
            and run_at <= coalesce(due_at, now())
          order by run_at nulls first, id limit max_jobs + 1000
        )
        union all
        (
          select id, priority, run_at, flags from :schema._private_jobs
          where task_id = places.task_id and priority = places.priority and is_available and job_queue_id is null
            and run_at <= coalesce(due_at, now()) and (run_at, id) >= (places.run_at, places.id)
          order by run_at nulls first, id limit max_jobs + 1000
        )
      ) as job
      where (job.flags ?| forbidden_flags) is not true
    ), unflagged as materialized (
      select job.id, job.priority, job.run_at, job.is_last
      from (select * from allowed order by priority, run_at, id) as candidate
      cross join lateral (
        select id, priority, run_at, attempts + 1 >= max_attempts as is_last from :schema._private_jobs
        where id = candidate.id and is_available and run_at <= coalesce(due_at, now()) and (flags ?| forbidden_flags) is not true
        for update skip locked
      ) as job
      limit max_jobs
    ), queued_lanes (task_id, priority) as (
      select tasks.id, (
        select priority from :schema._private_jobs
        where task_id = tasks.id and is_available and job_queue_id is not null
        order by priority nulls first limit 1
      ) from tasks
      union all
      select queued_lanes.task_id, (
        select priority from :schema._private_jobs
        where task_id = queued_lanes.task_id and priority > queued_lanes.priority and is_available and job_queue_id is not null
        order by priority nulls first limit 1
      ) from queued_lanes where queued_lanes.priority is not null
    ), queue_lanes as materialized (
      select task_id, priority, max_run from queued_lanes join tasks on tasks.id = task_id where priority is not null
    ), queue_tasks as materialized (
      select distinct task_id from queue_lanes
    ), window_size as materialized (
      select greatest(10, (max_jobs + 100) / greatest(count(*), 1))::int as size from queue_lanes
    ), window_jobs as materialized (
      select job.job_queue_id as queue_id, lane.task_id, lane.priority, job.run_at, job.id, job.is_allowed
      from queue_lanes as lane
      cross join lateral (
        select job_queue_id, run_at, id, (flags ?| forbidden_flags) is not true as is_allowed from :schema._private_jobs
        where task_id = lane.task_id and priority = lane.priority and is_available and job_queue_id is not null
          and run_at <= coalesce(due_at, now())
        order by run_at nulls first, id limit (select size from window_size)
      ) as job
    ), first_queues as materialized (
      select queue_id, priority, run_at, id from (
        select distinct on (queue_id) queue_id, priority, run_at, id from window_jobs
        where is_allowed
        order by queue_id, priority, run_at, id
      ) as first
      where (select is_available from :schema._private_job_queues where id = first.queue_id)
    ), walk (queue_id, start_id, lowest_id, is_second_round, steps) as (
      select start.id, start.id, range.lowest, false, 1
      from (
        select min(queue.lowest) as lowest, max(queue.highest) as highest
        from queue_tasks
        cross join lateral (
          select
            (
              select job_queue_id from :schema._private_jobs
              where task_id = queue_tasks.task_id and is_available and job_queue_id is not null
              order by job_queue_id limit 1
            ) as lowest,
            (
              select job_queue_id from :schema._private_jobs
              where task_id = queue_tasks.task_id and is_available and job_queue_id is not null
              order by job_queue_id desc limit 1
            ) as highest
        ) as queue
      ) as range
      cross join lateral (
        select range.lowest + floor(random() * (range.highest - range.lowest + 1))::int as id offset 0
      ) as draw
      cross join lateral (
        select job.job_queue_id as id
        from queue_tasks
        cross join lateral (
          select job_queue_id from :schema._private_jobs
          where task_id = queue_tasks.task_id and job_queue_id >= draw.id and is_available
          order by job_queue_id limit 1
        ) as job
        order by job.job_queue_id limit 1
      ) as start
      where (select count(*) from first_queues) < max_jobs and exists (
        select from window_jobs group by task_id, priority having count(*) >= (select size from window_size)
      )
      union all
      select
        coalesce(next.id, walk.lowest_id), walk.start_id, walk.lowest_id, walk.is_second_round or next.id is null,
        walk.steps + 1
      from walk
      cross join lateral (
        select (
          select job.job_queue_id
          from queue_tasks
          cross join lateral (
            select job_queue_id from :schema._private_jobs
            where task_id = queue_tasks.task_id and job_queue_id > walk.queue_id and is_available
            order by job_queue_id limit 1
          ) as job
          order by job.job_queue_id limit 1
        ) as id
      ) as next
      where walk.steps < max_jobs + 50
        and case when walk.is_second_round or next.id is null
          then coalesce(next.id, walk.lowest_id) < walk.start_id and not (walk.is_second_round and next.id is null)
          else true end
    ), queue_heads as materialized (
      select queue_id, priority, run_at, id from first_queues
      union all
      select walk.queue_id, head.priority, head.run_at, head.id
      from walk
      cross join lateral (
        select lane.priority, job.run_at, job.id
        from queue_lanes as lane
        cross join lateral (
          select oldest.run_at, oldest.id from (
            select run_at, id, flags from :schema._private_jobs
            where task_id = lane.task_id and job_queue_id = walk.queue_id and priority = lane.priority and is_available
              and run_at <= coalesce(due_at, now())
            order by run_at nulls first, id limit case when forbidden_flags is null then 1 else 500 end
          ) as oldest
          where (oldest.flags ?| forbidden_flags) is not true
          order by oldest.run_at, oldest.id limit 1
        ) as job
        order by lane.priority, job.run_at, job.id limit 1
      ) as head
      where walk.queue_id not in (select first_queues.queue_id from first_queues)
        and (select is_available from :schema._private_job_queues where id = walk.queue_id)
    ), queued as materialized (
      select job.id, job.priority, job.run_at, job.is_last, queue.id as queue_id, candidate.turn
      from (
        select free_queue.id
        from (select * from queue_heads order by priority, run_at, id) as head
        cross join lateral (
          select id from :schema._private_job_queues
          where id = head.queue_id and is_available
          for update skip locked
        ) as free_queue
        limit max_jobs
      ) as queue
      cross join lateral (
        select id, turn from (
          select due.id, row_number() over place as turn, sum(1.0 / due.max_run) over place as part
          from (
            select job.id, lane.priority, job.run_at, lane.max_run
            from queue_lanes as lane
            cross join lateral (
              select oldest.run_at, oldest.id from (
                select run_at, id, flags from :schema._private_jobs
                where task_id = lane.task_id and job_queue_id = queue.id and priority = lane.priority and is_available
                  and run_at <= coalesce(due_at, now())
                order by run_at nulls first, id
                limit case when forbidden_flags is null then lane.max_run else lane.max_run + 500 end
              ) as oldest
              where (oldest.flags ?| forbidden_flags) is not true
            ) as job
          ) as due
          window place as (order by due.priority, due.run_at, due.id rows unbounded preceding)
        ) as due
        where turn = 1 or part < 1.001
        order by turn
      ) as candidate
      cross join lateral (
        -- Written so that no index but that of the ids can be taken for it.
        select id, priority, run_at, attempts + 1 >= max_attempts as is_last from :schema._private_jobs
        where id = candidate.id and job_queue_id is not distinct from queue.id and is_available
          and run_at <= coalesce(due_at, now())
          and task_id in (select tasks.id from tasks) and (flags ?| forbidden_flags) is not true
        for update skip locked
      ) as job
      limit greatest(max_jobs, 500)
    ), runs as materialized (
      select id, priority, run_at, is_last, queue_id, turn,
        bool_and(turn = place and (turn = 1 or not is_last)) over (partition by queue_id order by turn) as is_unbroken
      from (
        select *, row_number() over (partition by queue_id order by turn) as place from queued
      ) as candidate
    ), first as materialized (
      select id, queue_id from (
        select id, queue_id, is_last, row_number() over (order by priority, run_at, id) as place
        from (
          select *, null::int as queue_id from free
          union all
          select *, null from unflagged
          union all
          select id, priority, run_at, is_last, queue_id from runs where turn = 1 and is_unbroken
        ) as candidate
      ) as candidate
      where place <= max_jobs and (place <= max_start or not is_last)
    ), chosen as materialized (
      select id from first
      union all
      select runs.id from runs
      where turn > 1 and is_unbroken and queue_id in (select first.queue_id from first where first.queue_id is not null)
    )
    select
      array(select chosen.id from chosen),
      case when forbidden_flags is null then exists (select from heads) else exists (select from allowed) end
        or exists (select from queue_heads) or exists (select from walk where steps >= max_jobs + 50)
    into chosen_ids, were_due;
  end if;

  if chosen_ids <> '{}' then
    return query
    with holder as materialized (
      select from :schema._private_kongtask_pools where id = pool for key share
    ), claimed as (
      update :schema._private_jobs
      set attempts = attempts + 1, locked_by = pool, locked_at = greatest(clock_timestamp(), updated_at)
      where id = any (chosen_ids) and exists (select from holder)
      returning *
    ), held as (
      update :schema._private_job_queues
      set locked_by = pool, locked_at = clock_timestamp()
      where id = any (array(select claimed.job_queue_id from claimed))
    )
    select job.id::text as id,
      (select identifier from :schema._private_tasks where id = job.task_id) as task, job.payload::text as payload,
      (select queue_name from :schema._private_job_queues where id = job.job_queue_id) as queue_name,
      job.priority::int4 as priority, :schema._private_kongtask_millis(job.run_at) as run_at,
      job.attempts::int4 as attempts, job.max_attempts::int4 as max_attempts, job.last_error,
      :schema._private_kongtask_millis(job.created_at) as created_at, job.key, job.revision::int4 as revision,
      job.flags::text as flags,
      (
        select :schema._private_kongtask_hand_over(detail) from :schema._private_kongtask_job_details as detail
        where detail.job_id = job.id
      ) as details,
      null::bool as contended, null::float8 as next_due_in
    from claimed as job;
    if found then
      return;
    end if;
  end if;

  return query
  with recursive tasks as materialized (
    select id from :schema._private_tasks where identifier = any (task_names)
  ), lanes (task_id, priority) as (
    select tasks.id, (
      select priority from :schema._private_jobs
      where task_id = tasks.id and is_available and job_queue_id is null
      order by priority nulls first limit 1
    ) from tasks
    union all
    select lanes.task_id, (
      select priority from :schema._private_jobs
      where task_id = lanes.task_id and priority > lanes.priority and is_available and job_queue_id is null
      order by priority nulls first limit 1
    ) from lanes where lanes.priority is not null
  ), queued_lanes (task_id, priority) as (
    select tasks.id, (
      select priority from :schema._private_jobs
      where task_id = tasks.id and is_available and job_queue_id is not null
      order by priority nulls first limit 1
    ) from tasks
    union all
    select queued_lanes.task_id, (
      select priority from :schema._private_jobs
      where task_id = queued_lanes.task_id and priority > queued_lanes.priority and is_available and job_queue_id is not null
      order by priority nulls first limit 1
    ) from queued_lanes where queued_lanes.priority is not null
  )
  select null::text, null::text, null::text, null::text, null::int, null::float8, null::int, null::int, null::text,
    null::float8, null::text, null::int, null::text, null::text, were_due,
    (
      select extract(epoch from least(
        (
          select min(next.run_at) from lanes cross join lateral (
            select run_at from :schema._private_jobs
            where task_id = lanes.task_id and priority = lanes.priority and is_available and job_queue_id is null
              and run_at > coalesce(due_at, now())
            order by run_at nulls first limit 1
          ) as next
        ),
        (
          select min(next.run_at) from queued_lanes as lane cross join lateral (
            select waiting.run_at from (
              select job_queue_id, run_at from :schema._private_jobs
              where task_id = lane.task_id and priority = lane.priority and is_available and job_queue_id is not null
                and run_at > coalesce(due_at, now())
              order by run_at nulls first limit 50
            ) as waiting
            where (select is_available from :schema._private_job_queues where id = waiting.job_queue_id)
            order by waiting.run_at limit 1
          ) as next
        )
      ) - coalesce(due_at, now()))::float8 * 1000
    );
end
$body$;

-- Records outcomes of jobs that the pool holds, and answers their ids. Without a pool: of jobs whose rows this transaction
-- has locked in a batch, which are charged now. Primary key; only rows that the pool holds, so it waits for nobody but an
-- administrator. A failure of another attempt than the one that runs is left out, unless the job was changed since its
-- claim: it has been recorded, its answer was lost, and the pool holds the job again. A queue is freed with its job unless one of `held_ids` is another job of it that the pool holds: those of
-- a run whose outcomes are still to come. `endings` has what there is to say of jobs that end,
-- [{id, outcome, retain (ms), result (JSON text), reason}]: of each that is cancelled, and of others where something is to be
-- kept. Released jobs are announced, since other pools may be idle. `keep` says which entries of a payload that
-- is an array stay in it, counted from 0. Of each job the last 100 failed attempts are kept.
create or replace function :schema._private_kongtask_settle(
  pool text, completed_ids bigint[], cancelled_ids bigint[], failures json, releases json, held_ids bigint[] default null,
  endings json default null
)
returns setof bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
set jit = off
as $body$
#variable_conflict use_column
begin
  if endings is not null then
    insert into :schema._private_kongtask_job_details as known (job_id, retain, outcome, reason, result)
    select held.id, held.retain * interval '1 millisecond', held.outcome, held.reason, held.result::json
    from (
      select job.id, ending.retain, ending.outcome, ending.reason, ending.result
      from json_to_recordset(endings) as ending (id int8, outcome text, retain float8, result text, reason text)
      join :schema._private_jobs as job on job.id = ending.id
      where job.locked_by is not distinct from pool
      order by job.id
      for update of job
    ) as held
    where held.retain > 0 or exists (
      select from :schema._private_kongtask_job_details as detail where detail.job_id = held.id
    ) or (held.outcome = 'cancelled' and exists (select from :schema._private_kongtask_listeners))
    on conflict (job_id) do update
    set retain = coalesce(known.retain, excluded.retain), outcome = coalesce(known.outcome, excluded.outcome),
      reason = coalesce(known.reason, excluded.reason), result = excluded.result;
  end if;

  return query
  with completed as (
    delete from :schema._private_jobs
    where id = any (completed_ids || cancelled_ids) and locked_by is not distinct from pool
    returning id, job_queue_id, last_error is not null as has_failed
  ), requests as (
    delete from :schema._private_kongtask_cancellations where job_id = any (cancelled_ids)
  ), failed as (
    update :schema._private_jobs as job
    set last_error = failure.error, updated_at = now(), locked_by = null, locked_at = null,
      attempts = case
        when failure.retry_in is null then job.max_attempts
        when pool is null then job.attempts + 1
        else job.attempts end,
      run_at = case when failure.retry_in is null then job.run_at
        else greatest(coalesce(to_timestamp(failure.since / 1000), now()), job.run_at)
          + failure.retry_in * interval '1 millisecond' end,
      payload = case when failure.keep is null or json_typeof(job.payload) <> 'array' then job.payload else (
        select json_agg(entry.value order by entry.ordinality)
        from json_array_elements(job.payload) with ordinality as entry
        where entry.ordinality - 1 in (select value::int from json_array_elements_text(failure.keep))
      ) end
    from json_to_recordset(failures) as failure (
      id int8, error text, retry_in float8, since float8, attempt int, tag text, data text, keep json
    )
    where job.id = failure.id and job.locked_by is not distinct from pool
      and (pool is null or failure.attempt is null or failure.attempt = job.attempts or job.updated_at > job.locked_at)
    returning job.id, job.job_queue_id, failure.attempt, failure.tag, failure.error, failure.data
  ), recorded as (
    insert into :schema._private_kongtask_failed_attempts (job_id, attempt, tag, message, data)
    select id, attempt, tag, error, data::json from failed where attempt is not null
    on conflict (job_id, attempt) do update
    set failed_at = now(), tag = excluded.tag, message = excluded.message, data = excluded.data
  ), forgotten as (
    delete from :schema._private_kongtask_failed_attempts as record using failed
    where record.job_id = failed.id and record.attempt <= failed.attempt - 100
  ), forgotten_jobs as (
    delete from :schema._private_kongtask_failed_attempts
    -- Those of jobs with details go when the history has read them.
    where job_id = any (array(
      select id from completed
      where has_failed and not exists (
        select from :schema._private_kongtask_job_details as detail where detail.job_id = completed.id
      )
    ))
  ), released as (
    update :schema._private_jobs as job
    set locked_by = null, locked_at = null,
      attempts = case when job.attempts = release.attempt
        then :schema._private_kongtask_uncharged(job.attempts, job.max_attempts, job.key, job.updated_at, job.locked_at)
        else job.attempts end,
      run_at = case when release.delay is null then job.run_at
        else coalesce(to_timestamp(release.since / 1000), clock_timestamp()) + release.delay * interval '1 millisecond' end
    from json_to_recordset(releases) as release (id int8, attempt int, delay float8, since float8)
    where job.id = release.id and job.locked_by is not distinct from pool
    returning job.id, job.job_queue_id
  ), settled as (
    select id, job_queue_id from completed union all select id, job_queue_id from failed union all select * from released
  ), kept as materialized (
    select job_queue_id from :schema._private_jobs
    where id = any (held_ids) and locked_by = pool and job_queue_id is not null
  ), freed as (
    update :schema._private_job_queues
    set locked_by = null, locked_at = null
    where id = any (array(select job_queue_id from settled)) and locked_by = pool
      and id <> all (array(select job_queue_id from kept))
  ), announced as (
    select pg_notify('jobs:insert', json_build_object('r', random(), 'count', count(*))::text)
    from released having count(*) > 0
  )
  select settled.id from settled where (select count(*) from announced) >= 0;
end
$body$;
