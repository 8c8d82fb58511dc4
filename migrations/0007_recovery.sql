-- breaking: false
-- repeatable: true

-- A pool's sign of life: updates the pool's own row (HOT), reads the others, and looks up the holders of the few jobs that
-- are to be cancelled. A pool that was itself silent for half its lease starts its observation anew, so that an outage of
-- the database counts towards nobody's silence. A row a dead pool and a cancelled job, or one without either.
create or replace function :schema._private_kongtask_heartbeat(pool text)
returns table (dead_pool text, cancelled_job text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
begin
  return query
  with beat as (
    update :schema._private_kongtask_pools as own
    set heartbeat_at = now(),
      alive_since = case when own.heartbeat_at < now() - own.lease / 2 then now() else own.alive_since end
    where own.id = pool
    returning own.alive_since
  )
  select other.id, null::text from beat
  left join :schema._private_kongtask_pools as other
    on other.id <> pool and other.heartbeat_at < now() - other.lease and beat.alive_since <= now() - other.lease
  union all
  select null, request.job_id::text
  from :schema._private_kongtask_cancellations as request
  where (select job.locked_by from :schema._private_jobs as job where job.id = request.job_id) = pool;
end
$body$;

-- Takes these jobs from whoever holds them, as attempts that failed by the death of their pool: they are due at once, the
-- attempt stays charged, and one that has used its attempts fails with an error that says why. Primary key; waits for
-- settles in flight. `job_ids` were held by a pool that is gone, and may have changed since they were looked up.
create or replace function :schema._private_kongtask_take_from_dead(job_ids bigint[], out released int, out failed int)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $body$
begin
  with taken as (
    update :schema._private_jobs as job
    set locked_by = null, locked_at = null, updated_at = now(),
      last_error = case when job.attempts >= job.max_attempts
        then 'The pool ' || held.locked_by || ' died while it ran attempt ' || job.attempts || ', the last one.'
        else job.last_error end
    from (
      select holder.id, holder.locked_by from :schema._private_jobs as holder where holder.id = any (job_ids) for update
    ) as held
    where job.id = held.id and job.locked_by = held.locked_by
    returning job.id, job.attempts, job.max_attempts, held.locked_by
  ), recorded as (
    insert into :schema._private_kongtask_failed_attempts as record (job_id, attempt, tag, message)
    select taken.id, taken.attempts, 'PoolDied', 'The pool ' || taken.locked_by || ' died while it held the job.'
    from taken
    on conflict (job_id, attempt) do update
    set failed_at = now(), tag = excluded.tag, message = excluded.message, data = null
  )
  select count(*) filter (where taken.attempts < taken.max_attempts),
    count(*) filter (where taken.attempts >= taken.max_attempts)
  into released, failed
  from taken;

  if released > 0 then
    perform :schema._private_kongtask_notify(released);
  end if;
end
$body$;

-- Releases what buried pools held, or, with `every_pool`, all pools of ours. Scans the jobs once, and the queues.
create or replace function :schema._private_kongtask_release_pools(
  pools text[], every_pool boolean, out released int, out failed int
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
begin
  select taken.released, taken.failed into released, failed
  from :schema._private_kongtask_take_from_dead(array(
    select job.id from :schema._private_jobs as job
    where job.locked_by = any (pools) or (every_pool and job.locked_by like 'kongtask-%')
  )) as taken;

  update :schema._private_job_queues as queue
  set locked_by = null, locked_at = null
  where queue.locked_by = any (pools) or (every_pool and queue.locked_by like 'kongtask-%');
end
$body$;

-- What heartbeats don't find, once in five minutes in all, whichever pool comes first: locks of ids of ours that no pool
-- has (after that pool's lease, which is not known any more: `lease`), locks of other systems' pools that are older than
-- four hours, records of jobs that somebody else has deleted, and notes of batches that say nothing any more. One row when it was this pool's turn. Scans the jobs
-- and the queues once; locks what it releases, and passes over what somebody has locked.
create or replace function :schema._private_kongtask_sweep(lease interval)
returns table (released int, failed int)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
begin
  insert into :schema._private_kongtask_housekeeping as task (name, done_at) values ('sweep', now())
  on conflict (name) do update set done_at = now() where task.done_at < now() - interval '5 minutes';
  if not found then
    return;
  end if;

  select taken.released, taken.failed into released, failed
  from :schema._private_kongtask_take_from_dead(array(
    select job.id from :schema._private_jobs as job
    where job.locked_by is not null
      and case when job.locked_by like 'kongtask-%'
        then job.locked_at < now() - lease
          and not exists (select from :schema._private_kongtask_pools as pool where pool.id = job.locked_by)
        else job.locked_at < now() - interval '4 hours' end
    for update skip locked
  )) as taken;

  update :schema._private_job_queues as queue
  set locked_by = null, locked_at = null
  where queue.id in (
    select held.id from :schema._private_job_queues as held
    where held.locked_by is not null
      and case when held.locked_by like 'kongtask-%'
        then held.locked_at < now() - lease
          and not exists (select from :schema._private_kongtask_pools as pool where pool.id = held.locked_by)
        else held.locked_at < now() - interval '4 hours' end
    for update skip locked
  );

  delete from :schema._private_kongtask_failed_attempts as record
  where not exists (select from :schema._private_jobs as job where job.id = record.job_id);

  -- Whatever has become of a job that is gone without a trigger's knowing, its bundle does not wait for it.
  with orphans as (
    delete from :schema._private_kongtask_job_details as detail
    where not exists (select from :schema._private_jobs as job where job.id = detail.job_id)
    returning detail.bundle_id, detail.stopped_at
  )
  insert into :schema._private_kongtask_bundle_steps (bundle_id, cancelled)
  select orphans.bundle_id, count(*) from orphans
  where orphans.bundle_id is not null and orphans.stopped_at is null
  group by orphans.bundle_id;

  perform :schema._private_kongtask_expire_bundles();

  delete from :schema._private_kongtask_listeners as listener
  where listener.name is null and listener.seen_at < now() - interval '2 minutes';

  delete from :schema._private_kongtask_batches as batch
  where not exists (select from :schema._private_kongtask_pools as pool where pool.id = batch.pool)
    and not exists (
      select from :schema._private_kongtask_ids_in(batch.id_ranges) as noted (id)
      join :schema._private_jobs as job on job.id = noted.id
      where job.attempts = 0
    );
  return next;
end
$body$;

-- Renews the locks that a pool has held for an hour, for graphile-worker's workers free what was locked four hours ago. A
-- job that was superseded while it ran keeps its time, by which that is known. Primary key.
create or replace function :schema._private_kongtask_renew(pool text, job_ids bigint[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $body$
begin
  with renewed as (
    update :schema._private_jobs as job
    set locked_at = clock_timestamp()
    where job.id = any (job_ids) and job.locked_by = pool and job.locked_at < now() - interval '1 hour'
      and (job.key is not null or job.updated_at <= job.locked_at)
    returning job.job_queue_id
  )
  update :schema._private_job_queues as queue
  set locked_at = clock_timestamp()
  where queue.id = any (array(select renewed.job_queue_id from renewed)) and queue.locked_by = pool;
end
$body$;
