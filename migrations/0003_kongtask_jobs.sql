-- breaking: false

-- Where a job stands, in one word. Inlined into the queries that use it.
create function :schema._private_kongtask_state(
  run_at timestamptz, attempts int, max_attempts int, locked_at timestamptz
) returns text language sql stable parallel safe as $$
  select case
    when locked_at is not null and locked_at < 'infinity' then 'running'
    when attempts >= max_attempts then 'failed'
    when locked_at is null and run_at <= pg_catalog.now() then 'ready'
    when attempts > 0 then 'retrying'
    else 'scheduled'
  end
$$;

-- Milliseconds since the epoch, within what a JavaScript date can say: infinity is a legal run_at.
create function :schema._private_kongtask_millis(at timestamptz) returns float8 language sql immutable parallel safe as $$
  select extract(epoch from case
    when at > timestamptz '9999-12-31Z' then timestamptz '9999-12-31Z'
    when at < timestamptz '0001-01-01Z' then timestamptz '0001-01-01Z'
    else at
  end)::float8 * 1000
$$;

-- Every job with its names, its state and its payload: for people, and for Queue.get, list and count.
create view :schema.kongtask_jobs as
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
  job.payload
from :schema._private_jobs as job
join :schema._private_tasks as task on task.id = job.task_id
left join :schema._private_job_queues as queue on queue.id = job.job_queue_id;
