-- breaking: false
-- repeatable: true

-- Batches: jobs that are held by the locks of an open transaction and nothing else. Planned once a session, as the claim.

-- A batch's turn, until its transaction ends: whoever looks for jobs walks over those that the open batches hold, which costs
-- all the more the more of them are open, however large they are. So three of all pools' batches are open at a time; more of
-- small ones, whose handlers take the time: 2,400 jobs together. Waits for a turn, a quarter of a second at most, if
-- `may_wait`; answers whether it has come. An advisory lock a turn, (oid of the jobs table, turn), taken before any other lock.
create or replace function :schema._private_kongtask_take_turn(max_jobs int, may_wait boolean)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
  space constant int := format('%I._private_jobs', :schema_literal)::regclass::oid::int8::bit(32)::int;
  turns constant int := greatest(3, 2400 / max_jobs);
  own_timeout constant text := current_setting('lock_timeout');
begin
  if turns > 32 then
    return true;
  end if;
  for turn in 1..turns loop
    if pg_try_advisory_xact_lock(space, turn) then
      return true;
    end if;
  end loop;
  if may_wait then
    perform set_config('lock_timeout', '250ms', true);
    begin
      perform pg_advisory_xact_lock(space, 1 + floor(random() * turns)::int);
    exception when lock_not_available then
      may_wait := false;
    end;
    perform set_config('lock_timeout', own_timeout, true);
  end if;
  return may_wait;
end
$body$;

-- `claim`'s jobs without a queue, in its order, held by their row locks until the transaction ends, which the server ends
-- itself when it is idle for seconds. Plan and indexes as in the claim. A row has the jobs of a lane, since a row a job would
-- cost both sides as much as all the rest, but `row_jobs` of them at most: a row of megabytes costs half as much again as many
-- of some ten kilobytes. `task` is the place of the task's name, `payloads` the members of a JSON array, without its brackets,
-- which would cost another copy, the times 8 bytes each as timestamptz is sent, `rests` a JSON array with an entry for each
-- job that is not as most are, [id, the attempt to come, max_attempts, key, revision, flags, last_error], or null when there is
-- none. Where the rows are is kept in a setting of the transaction, for `_private_kongtask_complete_held`. One row with
-- nothing in it for who has no turn.
create or replace function :schema._private_kongtask_hold_batch(
  task_names text[], max_jobs int, due_at timestamptz default null, may_wait boolean default true, row_jobs int default null
)
returns table (
  task int, priority int, ids text, payloads text, run_at bytea, created_at bytea, rests text
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
set jit = off
as $body$
#variable_conflict use_column
begin
  perform set_config('idle_in_transaction_session_timeout', '5s', true);
  if not :schema._private_kongtask_take_turn(max_jobs, may_wait) then
    return query select null::int, null::int, null::text, null::text, null::bytea, null::bytea, null::text;
    return;
  end if;
  return query
  with recursive tasks as materialized (
    select id, array_position(task_names, identifier) as place from :schema._private_tasks
    where identifier = any (task_names)
  ), lanes (task_id, place, priority, run_at, id) as (
    select tasks.id, tasks.place, first.priority, first.run_at, first.id
    from tasks
    cross join lateral (
      select priority, run_at, id from :schema._private_jobs
      where task_id = tasks.id and is_available and job_queue_id is null
      order by priority nulls first, run_at nulls first, id limit 1
    ) as first
    union all
    select lanes.task_id, lanes.place, first.priority, first.run_at, first.id
    from lanes
    cross join lateral (
      select priority, run_at, id from :schema._private_jobs
      where task_id = lanes.task_id and priority > lanes.priority and is_available and job_queue_id is null
      order by priority nulls first, run_at nulls first, id limit 1
    ) as first
  ), heads as materialized (
    select * from lanes where run_at <= coalesce(due_at, now()) order by priority, run_at
  ), held as (
    select heads.place, job.*,
      case when job.attempts <> 0 or job.max_attempts <> 25 or job.key is not null or job.revision <> 0
        or job.flags is not null or job.last_error is not null
      then json_build_array(
        job.id::text, job.attempts + 1, job.max_attempts, job.key, job.revision, job.flags, job.last_error
      )::text end as rest
    from heads
    cross join lateral (
      select *, ctid as tid from :schema._private_jobs
      where task_id = heads.task_id and priority = heads.priority and is_available and job_queue_id is null
        and run_at <= coalesce(due_at, now()) and (run_at, id) >= (heads.run_at, heads.id)
      order by run_at nulls first, id limit max_jobs
      for update skip locked
    ) as job
    limit max_jobs
  ), kept as materialized (
    select set_config('kongtask.held', btrim(array_agg(tid)::text, '{}'), true) from held having count(*) > 0
  )
  select place, priority::int, string_agg(id::text, ','), string_agg(payload::text, ','),
    string_agg(timestamptz_send(run_at), ''), string_agg(timestamptz_send(created_at), ''),
    '[' || string_agg(rest, ',') || ']'
  from (select *, (row_number() over () - 1) / coalesce(row_jobs, max_jobs) as part from held) as held
  where exists (select from kept) group by place, priority, part;
end
$body$;

-- The jobs of one lane (a task and a priority) that come after the last one of an earlier batch. The deleted jobs before
-- that one stay in the index until it is vacuumed, and everybody who starts at its beginning walks over them. Only a hint:
-- jobs that are added, retried or given back before that place are not found.
create or replace function :schema._private_kongtask_hold_more(
  task_name text, lane_priority int, after_micros float8, after_id bigint, max_jobs int,
  due_at timestamptz default null, may_wait boolean default true, row_jobs int default null
)
returns table (
  task int, priority int, ids text, payloads text, run_at bytea, created_at bytea, rests text
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
set jit = off
as $body$
#variable_conflict use_column
begin
  perform set_config('idle_in_transaction_session_timeout', '5s', true);
  if not :schema._private_kongtask_take_turn(max_jobs, may_wait) then
    return query select null::int, null::int, null::text, null::text, null::bytea, null::bytea, null::text;
    return;
  end if;
  -- One pass: what is read twice, or counted, is written down in between, which takes as long as finding and locking it. So
  -- only payloads that are worth it come in several rows.
  if row_jobs is null or row_jobs >= max_jobs then
    return query
    select 1, lane_priority, lane.ids, lane.payloads, lane.run_at, lane.created_at, '[' || lane.rests || ']'
    from (
      select array_agg(tid)::text as tids, string_agg(id::text, ',') as ids, string_agg(payload::text, ',') as payloads,
        string_agg(timestamptz_send(run_at), '') as run_at, string_agg(timestamptz_send(created_at), '') as created_at,
        string_agg(rest, ',') as rests
      from (
        select *, ctid as tid,
          case when attempts <> 0 or max_attempts <> 25 or key is not null or revision <> 0 or flags is not null
            or last_error is not null
          then json_build_array(id::text, attempts + 1, max_attempts, key, revision, flags, last_error)::text end as rest
        from :schema._private_jobs as job
        where task_id = (select known.id from :schema._private_tasks as known where known.identifier = task_name)
          and priority = lane_priority and is_available and job_queue_id is null and job.run_at <= coalesce(due_at, now())
          and (job.run_at, job.id) > (timestamptz 'epoch' + after_micros * interval '1 microsecond', after_id)
        -- Qualified: the columns of the result have the same names.
        order by job.run_at nulls first, job.id limit max_jobs
        for update skip locked
      ) as job
      having count(*) > 0
    ) as lane
    where set_config('kongtask.held', btrim(lane.tids, '{}'), true) is not null;
    return;
  end if;

  return query
  with held as (
    select *,
      case when attempts <> 0 or max_attempts <> 25 or key is not null or revision <> 0 or flags is not null
        or last_error is not null
      then json_build_array(id::text, attempts + 1, max_attempts, key, revision, flags, last_error)::text end as rest
    from (
      select *, ctid as tid from :schema._private_jobs as job
      where task_id = (select known.id from :schema._private_tasks as known where known.identifier = task_name)
        and priority = lane_priority and is_available and job_queue_id is null and job.run_at <= coalesce(due_at, now())
        and (job.run_at, job.id) > (timestamptz 'epoch' + after_micros * interval '1 microsecond', after_id)
      order by job.run_at nulls first, job.id limit max_jobs
      for update skip locked
    ) as job
  ), kept as materialized (
    select set_config('kongtask.held', btrim(array_agg(tid)::text, '{}'), true) from held having count(*) > 0
  )
  select 1, lane_priority, string_agg(id::text, ','), string_agg(payload::text, ','),
    string_agg(timestamptz_send(run_at), ''), string_agg(timestamptz_send(created_at), ''),
    '[' || string_agg(rest, ',') || ']'
  from (select *, (row_number() over () - 1) / row_jobs as part from held) as held
  where exists (select from kept) group by part;
end
$body$;

-- The ids in ranges as `_private_kongtask_batches` has them. Inlined.
create or replace function :schema._private_kongtask_ids_in(id_ranges bigint[])
returns setof bigint
language sql
immutable
as $body$
  select id
  from pg_catalog.generate_series(1, pg_catalog.cardinality(id_ranges), 2) as place
  cross join lateral pg_catalog.generate_series(id_ranges[place], id_ranges[place + 1]) as id
$body$;

-- Notes what a stream is about to run, and answers those of the jobs that another pool's stream was running when its
-- transaction ended badly, or null for each that another stream of this pool was running. To be committed on another
-- connection than the batch's, before the first handler starts; a crash of the server may lose it. The statement's snapshot is later than the locks, so that a note of a batch that has
-- ended well is not seen any more. Primary key, and a scan of the streams, of which those are looked into whose first and
-- last ids are not all before or behind.
create or replace function :schema._private_kongtask_note_batch(own_stream text, own_pool text, own_ranges bigint[])
returns setof text
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set jit = off
as $body$
begin
  perform set_config('synchronous_commit', 'off', true);
  -- The streams of a pool one after the other, so that each sees the others' notes.
  perform pg_advisory_xact_lock(
    format('%I._private_kongtask_batches', :schema_literal)::regclass::oid::int8::bit(32)::int, hashtext(own_pool)
  );
  insert into :schema._private_kongtask_batches as batch (stream, pool, id_ranges)
  values (own_stream, own_pool, own_ranges)
  on conflict (stream) do update set id_ranges = excluded.id_ranges, noted_at = now();

  return query
  with others as materialized (
    select batch.id_ranges, batch.pool = own_pool as is_own from :schema._private_kongtask_batches as batch
    where batch.stream <> own_stream and batch.id_ranges[1] <= own_ranges[cardinality(own_ranges)]
      and batch.id_ranges[cardinality(batch.id_ranges)] >= own_ranges[1]
  ), noted as materialized (
    select noted.id, others.is_own from others cross join lateral :schema._private_kongtask_ids_in(others.id_ranges) as noted (id)
  ), own as materialized (
    select own.id from :schema._private_kongtask_ids_in(own_ranges) as own (id) where exists (select from others)
  )
  select case when not noted.is_own then noted.id::text end from noted join own on own.id = noted.id;
end
$body$;

-- Charges jobs that this transaction holds with the death of the pool that was running them, once a note. Primary key.
create or replace function :schema._private_kongtask_charge_suspects(own_pool text, suspects bigint[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $body$
begin
  with charged as (
    update :schema._private_jobs as job
    set attempts = job.attempts + 1, updated_at = now(),
      last_error = 'The pool that ran attempt ' || job.attempts + 1 || ' died.'
    where job.id = any (suspects) and job.attempts < job.max_attempts
    returning job.id, job.attempts, job.last_error
  )
  insert into :schema._private_kongtask_failed_attempts as record (job_id, attempt, tag, message)
  select charged.id, charged.attempts, 'PoolDied', charged.last_error from charged
  on conflict (job_id, attempt) do update
  set failed_at = now(), tag = excluded.tag, message = excluded.message, data = null;

  update :schema._private_kongtask_batches as batch
  set id_ranges = nullif(array(
    select bound
    from :schema._private_kongtask_ids_in(batch.id_ranges) as noted (id)
    cross join lateral unnest(array[noted.id, noted.id]) as bound
    where noted.id <> all (suspects)
    order by bound
  ), '{}')
  where batch.pool <> own_pool
    and exists (
      select from :schema._private_kongtask_ids_in(batch.id_ranges) as noted (id) where noted.id = any (suspects)
    );
end
$body$;

-- Completes all jobs that this transaction holds, and takes the stream's note back. Their rows are where they were when
-- they were locked: nobody else can have changed them. A tid scan.
create or replace function :schema._private_kongtask_complete_held(own_stream text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
set jit = off
as $body$
declare
  held constant tid[] := '{' || current_setting('kongtask.held') || '}';
  deleted int;
begin
  update :schema._private_kongtask_batches as batch set id_ranges = null where batch.stream = own_stream;
  delete from :schema._private_jobs as job where job.ctid = any (held);
  get diagnostics deleted = row_count;
  if deleted <> cardinality(held) then
    raise exception 'Of % jobs in a batch, % were there at its end', cardinality(held), deleted;
  end if;
end
$body$;

-- Claims jobs whose rows this transaction holds. Primary key; for a registered pool only, and answers their ids.
create or replace function :schema._private_kongtask_promote(pool text, job_ids bigint[])
returns setof bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
set jit = off
as $body$
#variable_conflict use_column
begin
  return query
  with holder as materialized (
    select from :schema._private_kongtask_pools where id = pool for key share
  )
  update :schema._private_jobs
  set attempts = attempts + 1, locked_by = pool, locked_at = greatest(clock_timestamp(), updated_at)
  where id = any (job_ids) and exists (select from holder)
  returning id;
end
$body$;

-- Records outcomes of jobs whose rows this transaction holds, and takes back the stream's note. Errors, delays and results
-- that the server refuses for their content must not undo the rest: the jobs that have them, `fallible_ids`, are claimed
-- instead, and answered; `kept_ids` are those of them that have completed with something to keep. Only their updates are in a subtransaction, which makes a multixact of each lock. Primary key.
create or replace function :schema._private_kongtask_settle_batch(
  own_stream text, own_pool text, completed_ids bigint[], cancelled_ids bigint[], kept_ids bigint[],
  fallible_ids bigint[], failures json, releases json, endings json, fallible_endings json
)
returns setof bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
begin
  update :schema._private_kongtask_batches as batch set id_ranges = null where batch.stream = own_stream;
  perform :schema._private_kongtask_settle(null, completed_ids, cancelled_ids, '[]', '[]', null, endings);
  if fallible_ids <> '{}' then
    begin
      perform :schema._private_kongtask_settle(null, kept_ids, '{}', failures, releases, null, fallible_endings);
    exception when data_exception or integrity_constraint_violation or program_limit_exceeded then
      return query select :schema._private_kongtask_promote(own_pool, fallible_ids);
    end;
  end if;
end
$body$;

-- Records outcomes of a batch whose transaction was lost, of those jobs that nobody has touched or holds since: `untouched`
-- are their ids, attempts and revisions. They are claimed and settled in one step. Primary key.
create or replace function :schema._private_kongtask_settle_late(
  pool text, untouched json, completed_ids bigint[], cancelled_ids bigint[], failures json, releases json, endings json
)
returns setof bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $body$
#variable_conflict use_column
declare
  free_ids bigint[];
begin
  free_ids := array(
    select job.id
    from json_to_recordset(untouched) as known (id int8, attempts int, revision int)
    join :schema._private_jobs as job on job.id = known.id
    where job.attempts = known.attempts and job.revision = known.revision and job.locked_at is null
    for update of job skip locked
  );
  perform :schema._private_kongtask_promote(pool, free_ids);
  return query
  select :schema._private_kongtask_settle(pool, completed_ids, cancelled_ids, failures, releases, null, endings);
end
$body$;
