/**
 * Every statement of the data plane on PostgreSQL, one function of the quoted
 * schema name. Ids travel as text, times as milliseconds, so that no statement
 * depends on how a client decodes int8 or timestamptz.
 *
 * Indexes: `jobs_claim_index (task_id, priority, run_at, id)` holds the available jobs without a queue,
 * `jobs_queue_index (job_queue_id, priority, run_at, id)` those with one; `is_available` means not locked, attempts left.
 */
export const make = (schema: string) => ({
  /**
   * $1 task, $2 payload, $3 queue, $4 run_at ms, $5 delay ms, $6 attempts, $7 key, $8 priority, $9 flags, $10 key mode.
   * A task or queue that add_job has just made is not visible to this statement's snapshot: it has the given name.
   */
  add: `
    select job.id::text as id, coalesce(task.identifier, $1::text) as task,
      ${schema}._private_kongtask_state(job.run_at, job.attempts, job.max_attempts, job.locked_at) as state,
      job.payload::text as payload,
      case when job.job_queue_id is not null then coalesce(queue.queue_name, $3::text) end as queue_name,
      job.priority::int4 as priority, ${schema}._private_kongtask_millis(job.run_at) as run_at, job.attempts::int4 as attempts,
      job.max_attempts::int4 as max_attempts, job.last_error, ${schema}._private_kongtask_millis(job.created_at) as created_at,
      ${schema}._private_kongtask_millis(job.updated_at) as updated_at, job.key, ${schema}._private_kongtask_millis(job.locked_at) as locked_at, job.locked_by,
      job.revision::int4 as revision, job.flags::text as flags
    from ${schema}.add_job(
      $1::text, $2::json, $3::text,
      coalesce(to_timestamp($4::float8 / 1000), now() + $5::float8 * interval '1 millisecond'),
      $6::int, $7::text, $8::int, (select array_agg(flag) from json_array_elements_text($9::json) as flag), $10::text
    ) as job
    left join ${schema}._private_tasks as task on task.id = job.task_id
    left join ${schema}._private_job_queues as queue on queue.id = job.job_queue_id`,

  /**
   * $1 the specs, a JSON array of [task, payload, queue, run_at, delay, attempts, key, priority, flags, key mode].
   * add_job is called once a spec, in the order of the array, inside this one statement.
   */
  addMany: `
    select job.id::text as id, coalesce(task.identifier, spec.task) as task,
      ${schema}._private_kongtask_state(job.run_at, job.attempts, job.max_attempts, job.locked_at) as state,
      job.payload::text as payload,
      case when job.job_queue_id is not null then coalesce(queue.queue_name, spec.queue_name) end as queue_name,
      job.priority::int4 as priority, ${schema}._private_kongtask_millis(job.run_at) as run_at, job.attempts::int4 as attempts,
      job.max_attempts::int4 as max_attempts, job.last_error, ${schema}._private_kongtask_millis(job.created_at) as created_at,
      ${schema}._private_kongtask_millis(job.updated_at) as updated_at, job.key, ${schema}._private_kongtask_millis(job.locked_at) as locked_at, job.locked_by,
      job.revision::int4 as revision, job.flags::text as flags
    from (
      select ordinality, item ->> 0 as task, item -> 1 as payload, item ->> 2 as queue_name,
        coalesce(
          to_timestamp((item ->> 3)::float8 / 1000), now() + (item ->> 4)::float8 * interval '1 millisecond'
        ) as run_at,
        (item ->> 5)::int as max_attempts, item ->> 6 as key, (item ->> 7)::int as priority,
        case when json_typeof(item -> 8) = 'array'
          then (select array_agg(flag) from json_array_elements_text(item -> 8) as flag)
        end as flags,
        item ->> 9 as key_mode
      from json_array_elements($1::json) with ordinality as items (item, ordinality)
      order by ordinality
    ) as spec
    cross join lateral ${schema}.add_job(
      spec.task, spec.payload, spec.queue_name, spec.run_at, spec.max_attempts, spec.key, spec.priority, spec.flags,
      spec.key_mode
    ) as job
    left join ${schema}._private_tasks as task on task.id = job.task_id
    left join ${schema}._private_job_queues as queue on queue.id = job.job_queue_id
    order by spec.ordinality`,

  /** $1 id. Primary key. */
  get: `
    select
      job.id::text as id, job.task, job.state, job.payload::text as payload, job.queue_name,
      job.priority::int4 as priority, ${schema}._private_kongtask_millis(job.run_at) as run_at, job.attempts::int4 as attempts,
      job.max_attempts::int4 as max_attempts, job.last_error, ${schema}._private_kongtask_millis(job.created_at) as created_at,
      ${schema}._private_kongtask_millis(job.updated_at) as updated_at, job.key, ${schema}._private_kongtask_millis(job.locked_at) as locked_at, job.locked_by,
      job.revision::int4 as revision, job.flags::text as flags
    from ${schema}.kongtask_jobs as job
    where job.id = $1::text::int8`,

  /** $1 tasks, $2 states, $3 queue, $4 key, $5 after id, $6 limit. Primary key in order, or the key's index. */
  list: `
    select
      job.id::text as id, job.task, job.state, job.payload::text as payload, job.queue_name,
      job.priority::int4 as priority, ${schema}._private_kongtask_millis(job.run_at) as run_at, job.attempts::int4 as attempts,
      job.max_attempts::int4 as max_attempts, job.last_error, ${schema}._private_kongtask_millis(job.created_at) as created_at,
      ${schema}._private_kongtask_millis(job.updated_at) as updated_at, job.key, ${schema}._private_kongtask_millis(job.locked_at) as locked_at, job.locked_by,
      job.revision::int4 as revision, job.flags::text as flags
    from ${schema}.kongtask_jobs as job
    where ($1::text[] is null or job.task = any ($1::text[]))
      and ($2::text[] is null or job.state = any ($2::text[]))
      and ($3::text is null or job.queue_name = $3::text)
      and ($4::text is null or job.key = $4::text)
      and ($5::text is null or job.id > $5::text::int8)
    order by job.id limit $6::int`,

  /** $1 tasks, $2 states, $3 queue, $4 key. Reads every job. */
  count: `
    select count(*)::float8 as count from ${schema}.kongtask_jobs as job
    where ($1::text[] is null or job.task = any ($1::text[]))
      and ($2::text[] is null or job.state = any ($2::text[]))
      and ($3::text is null or job.queue_name = $3::text)
      and ($4::text is null or job.key = $4::text)`,

  /** $1 id or null, $2 key or null. Locks the one row; waits for a claim or settle of it that is in flight. */
  remove: `
    with target as (
      select id from ${schema}._private_jobs
      where ($1::text is not null and id = $1::text::int8) or ($2::text is not null and key = $2::text)
      for update
    ), deleted as (
      delete from ${schema}._private_jobs as job using target
      where job.id = target.id and (job.locked_at is null or job.locked_at = 'infinity')
      returning job.*
    ), spent as (
      update ${schema}._private_jobs as job
      set key = null, attempts = job.max_attempts, updated_at = now()
      from target
      where job.id = target.id and job.locked_at is not null and job.locked_at < 'infinity'
      returning job.*
    )
    select job.id::text as id, task.identifier as task,
      ${schema}._private_kongtask_state(job.run_at, job.attempts, job.max_attempts, job.locked_at) as state,
      job.payload::text as payload, queue.queue_name, job.priority::int4 as priority,
      ${schema}._private_kongtask_millis(job.run_at) as run_at, job.attempts::int4 as attempts, job.max_attempts::int4 as max_attempts,
      job.last_error, ${schema}._private_kongtask_millis(job.created_at) as created_at, ${schema}._private_kongtask_millis(job.updated_at) as updated_at, job.key,
      ${schema}._private_kongtask_millis(job.locked_at) as locked_at, job.locked_by, job.revision::int4 as revision, job.flags::text as flags
    from (select * from deleted union all select * from spent) as job
    join ${schema}._private_tasks as task on task.id = job.task_id
    left join ${schema}._private_job_queues as queue on queue.id = job.job_queue_id`,

  /**
   * $1 pool, $2 tasks, $3 limit. One row a claimed job, or one row that says why there is none.
   *
   * Plan: \`lanes\` finds the priorities in use of each task by a few probes of jobs_claim_index; \`heads\` takes the
   * oldest due job of each lane and so puts the lanes in order; \`free\` walks the lanes in that order, each from its
   * oldest due job on, and locks (SKIP LOCKED) until it has enough: neither future jobs, nor other tasks' jobs, nor
   * failed ones are touched. \`queues\` finds the queues that have jobs by one probe of jobs_queue_index a queue,
   * whatever its backlog; the head of each queue that is free is a candidate, locked together with its queue.
   *
   * Locks: the claimed jobs and the queues of those that have one.
   */
  claim: `
    with recursive tasks as materialized (
      select id from ${schema}._private_tasks where identifier = any ($2::text[])
    ), lanes (task_id, priority) as (
      select tasks.id, (
        select priority from ${schema}._private_jobs
        where task_id = tasks.id and is_available and job_queue_id is null
        order by priority limit 1
      ) from tasks
      union all
      select lanes.task_id, (
        select priority from ${schema}._private_jobs
        where task_id = lanes.task_id and priority > lanes.priority and is_available and job_queue_id is null
        order by priority limit 1
      ) from lanes where lanes.priority is not null
    ), heads as materialized (
      select lanes.task_id, lanes.priority, head.run_at
      from lanes
      cross join lateral (
        select run_at from ${schema}._private_jobs
        where task_id = lanes.task_id and priority = lanes.priority and is_available and job_queue_id is null
          and run_at <= now()
        order by run_at, id limit 1
      ) as head
      order by lanes.priority, head.run_at
    ), free as materialized (
      select job.id, job.priority, job.run_at
      from heads
      cross join lateral (
        select id, priority, run_at from ${schema}._private_jobs
        where task_id = heads.task_id and priority = heads.priority and is_available and job_queue_id is null
          and run_at <= now()
        order by run_at, id limit $3::int
        for update skip locked
      ) as job
      limit $3::int
    ), queues (id) as (
      select (
        select job_queue_id from ${schema}._private_jobs
        where is_available and job_queue_id is not null
        order by job_queue_id limit 1
      )
      union all
      select (
        select job_queue_id from ${schema}._private_jobs
        where is_available and job_queue_id > queues.id
        order by job_queue_id limit 1
      ) from queues where queues.id is not null
    ), queue_heads as materialized (
      select queue.id as queue_id, head.id, head.priority, head.run_at
      from queues
      join ${schema}._private_job_queues as queue on queue.id = queues.id and queue.is_available
      cross join lateral (
        select id, priority, run_at from ${schema}._private_jobs
        where job_queue_id = queues.id and is_available and run_at <= now()
          and task_id in (select tasks.id from tasks)
        order by priority, run_at, id limit 1
      ) as head
      order by head.priority, head.run_at, head.id
    ), queued as materialized (
      select job.id, job.priority, job.run_at
      from (select * from queue_heads limit $3::int) as head
      join ${schema}._private_job_queues as queue on queue.id = head.queue_id and queue.is_available
      join ${schema}._private_jobs as job on job.id = head.id and job.is_available
      for update of queue, job skip locked
    ), chosen as materialized (
      select id from (select * from free union all select * from queued) as candidate
      order by priority, run_at, id limit $3::int
    ), claimed as (
      update ${schema}._private_jobs as job
      set attempts = job.attempts + 1, locked_by = $1::text, locked_at = now()
      from chosen where job.id = chosen.id
      returning job.*
    ), held as (
      update ${schema}._private_job_queues as queue
      set locked_by = $1::text, locked_at = now()
      from claimed where queue.id = claimed.job_queue_id
    )
    select job.id::text as id, task.identifier as task, job.payload::text as payload, queue.queue_name,
      job.priority::int4 as priority, ${schema}._private_kongtask_millis(job.run_at) as run_at, job.attempts::int4 as attempts,
      job.max_attempts::int4 as max_attempts, job.last_error, ${schema}._private_kongtask_millis(job.created_at) as created_at, job.key,
      job.revision::int4 as revision, job.flags::text as flags,
      null::bool as contended, null::float8 as next_due_in
    from claimed as job
    join ${schema}._private_tasks as task on task.id = job.task_id
    left join ${schema}._private_job_queues as queue on queue.id = job.job_queue_id
    union all
    select null, null, null, null, null, null, null, null, null, null, null, null, null,
      exists (select from heads) or exists (select from queue_heads),
      (
        select extract(epoch from least(
          (
            select min(next.run_at) from lanes cross join lateral (
              select run_at from ${schema}._private_jobs
              where task_id = lanes.task_id and priority = lanes.priority and is_available and job_queue_id is null
                and run_at > now()
              order by run_at limit 1
            ) as next
          ),
          (
            select min(next.run_at) from queues
            join ${schema}._private_job_queues as queue on queue.id = queues.id and queue.is_available
            cross join lateral (
              select run_at from ${schema}._private_jobs
              where job_queue_id = queues.id and is_available and run_at > now()
                and task_id in (select tasks.id from tasks)
              order by priority, run_at, id limit 1
            ) as next
          )
        ) - now())::float8 * 1000
      )
    where not exists (select from claimed)`,

  /**
   * $1 tasks, $2 limit, inside an open transaction: \`claim\`'s jobs without a queue, held by their row locks only.
   */
  lockBatch: `
    with recursive tasks as materialized (
      select id, identifier from ${schema}._private_tasks where identifier = any ($1::text[])
    ), lanes (task_id, priority) as (
      select tasks.id, (
        select priority from ${schema}._private_jobs
        where task_id = tasks.id and is_available and job_queue_id is null
        order by priority limit 1
      ) from tasks
      union all
      select lanes.task_id, (
        select priority from ${schema}._private_jobs
        where task_id = lanes.task_id and priority > lanes.priority and is_available and job_queue_id is null
        order by priority limit 1
      ) from lanes where lanes.priority is not null
    ), heads as materialized (
      select lanes.task_id, lanes.priority, head.run_at
      from lanes
      cross join lateral (
        select run_at from ${schema}._private_jobs
        where task_id = lanes.task_id and priority = lanes.priority and is_available and job_queue_id is null
          and run_at <= now()
        order by run_at, id limit 1
      ) as head
      order by lanes.priority, head.run_at
    )
    select job.id::text as id, tasks.identifier as task, job.payload::text as payload, null::text as queue_name,
      job.priority::int4 as priority, ${schema}._private_kongtask_millis(job.run_at) as run_at, job.attempts::int4 + 1 as attempts,
      job.max_attempts::int4 as max_attempts, job.last_error, ${schema}._private_kongtask_millis(job.created_at) as created_at, job.key,
      job.revision::int4 as revision, job.flags::text as flags
    from heads
    join tasks on tasks.id = heads.task_id
    cross join lateral (
      select * from ${schema}._private_jobs
      where task_id = heads.task_id and priority = heads.priority and is_available and job_queue_id is null
        and run_at <= now()
      order by run_at, id limit $2::int
      for update skip locked
    ) as job
    limit $2::int`,

  /** $1 pool, $2 ids, inside a batch's transaction, which holds the rows. Primary key. */
  promote: `
    update ${schema}._private_jobs
    set attempts = attempts + 1, locked_by = $1::text, locked_at = now()
    where id = any ($2::text[]::int8[])`,

  /** $1 completed ids, $2 failures, inside a batch's transaction, which holds the rows. Primary key. */
  settleBatch: `
    with completed as (
      delete from ${schema}._private_jobs where id = any ($1::text[]::int8[])
    )
    update ${schema}._private_jobs as job
    set last_error = failure.error, updated_at = now(),
      attempts = case when failure.retry_in is null then job.max_attempts else job.attempts + 1 end,
      run_at = case when failure.retry_in is null then job.run_at
        else greatest(now(), job.run_at) + failure.retry_in * interval '1 millisecond' end
    from json_to_recordset($2::json) as failure (id int8, error text, retry_in float8)
    where job.id = failure.id`,

  /**
   * $1 pool, $2 completed ids, $3 failures, $4 releases. Primary key; only rows that the pool holds, so it waits for
   * nobody but an administrator. Released jobs are announced, since other pools may be idle.
   */
  settle: `
    with completed as (
      delete from ${schema}._private_jobs
      where id = any ($2::text[]::int8[]) and locked_by = $1::text
      returning id, job_queue_id
    ), failed as (
      update ${schema}._private_jobs as job
      set last_error = failure.error, updated_at = now(), locked_by = null, locked_at = null,
        attempts = case when failure.retry_in is null then job.max_attempts else job.attempts end,
        run_at = case when failure.retry_in is null then job.run_at
          else greatest(now(), job.run_at) + failure.retry_in * interval '1 millisecond' end
      from json_to_recordset($3::json) as failure (id int8, error text, retry_in float8)
      where job.id = failure.id and job.locked_by = $1::text
      returning job.id, job.job_queue_id
    ), released as (
      update ${schema}._private_jobs as job
      set locked_by = null, locked_at = null,
        attempts = case when job.attempts = release.attempt then job.attempts - 1 else job.attempts end
      from json_to_recordset($4::json) as release (id int8, attempt int)
      where job.id = release.id and job.locked_by = $1::text
      returning job.id, job.job_queue_id
    ), settled as (
      select * from completed union all select * from failed union all select * from released
    ), freed as (
      update ${schema}._private_job_queues
      set locked_by = null, locked_at = null
      where id in (select job_queue_id from settled) and locked_by = $1::text
    ), announced as (
      select pg_notify('jobs:insert', json_build_object('r', random(), 'count', count(*))::text)
      from released having count(*) > 0
    )
    select settled.id::text as id, (select count(*) from announced)::int4 as announced from settled`,

  /** $1 pool, $2 known ids. Scans the jobs; only after a claim whose answer was lost. */
  releaseUnknown: `
    with released as (
      update ${schema}._private_jobs
      set locked_by = null, locked_at = null, attempts = greatest(attempts - 1, 0)
      where locked_by = $1::text and id <> all ($2::text[]::int8[])
      returning job_queue_id
    )
    update ${schema}._private_job_queues set locked_by = null, locked_at = null
    where id in (select job_queue_id from released) and locked_by = $1::text`,

  /** $1 pool, $2 lease ms. */
  registerPool: `
    insert into ${schema}._private_kongtask_pools (id, lease)
    values ($1::text, $2::float8 * interval '1 millisecond')`,

  /**
   * $1 pool. Updates the pool's own row (HOT) and reads the others. A pool that was itself silent for half its lease
   * starts its observation anew, so that an outage of the database counts towards nobody's silence.
   */
  heartbeat: `
    with beat as (
      update ${schema}._private_kongtask_pools
      set heartbeat_at = now(),
        alive_since = case when heartbeat_at < now() - lease / 2 then now() else alive_since end
      where id = $1::text
      returning alive_since
    )
    select other.id as dead_pool from beat
    left join ${schema}._private_kongtask_pools as other
      on other.id <> $1::text and other.heartbeat_at < now() - other.lease and beat.alive_since <= now() - other.lease`,

  /** $1 pool. Only its own row: a pool that stops cleanly has settled or released all its jobs. */
  deregisterPool: `delete from ${schema}._private_kongtask_pools where id = $1::text`,

  /**
   * $1 ids, or null for all pools of ours, known or not. Scans the jobs once. A job that has used its attempts fails
   * with an error that says why; the others are due at once.
   */
  releasePools: `
    with dead as (
      delete from ${schema}._private_kongtask_pools as pool
      where $1::text[] is null or (pool.id = any ($1::text[]) and pool.heartbeat_at < now() - pool.lease)
      returning pool.id
    ), released as (
      update ${schema}._private_jobs as job
      set locked_by = null, locked_at = null, updated_at = now(),
        last_error = case when job.attempts >= job.max_attempts
          then 'The pool ' || job.locked_by || ' died while it ran attempt ' || job.attempts || ', the last one.'
          else job.last_error end
      where case when $1::text[] is null then job.locked_by like 'kongtask-%'
        else job.locked_by in (select dead.id from dead) end
      returning job.attempts < job.max_attempts as may_run
    ), freed as (
      update ${schema}._private_job_queues
      set locked_by = null, locked_at = null
      where case when $1::text[] is null then locked_by like 'kongtask-%'
        else locked_by in (select dead.id from dead) end
    ), counts as (
      select count(*) filter (where may_run) as released, count(*) filter (where not may_run) as failed from released
    ), announced as (
      select pg_notify('jobs:insert', json_build_object('r', random(), 'count', released)::text)
      from counts where released > 0
    )
    select (select coalesce(json_agg(dead.id), '[]')::text from dead) as pools,
      counts.released::int4 as released, counts.failed::int4 as failed,
      (select count(*) from announced)::int4 as announced
    from counts`
})

