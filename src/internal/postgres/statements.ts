/**
 * Every statement of the data plane on PostgreSQL, one function of the quoted
 * schema name. Ids travel as text, times as milliseconds, so that no statement
 * depends on how a client decodes int8 or timestamptz.
 *
 * Claims and settlements are functions of the schema (migrations/0003_kongtask_jobs.sql), for the settings that they
 * are planned with: a prepared statement keeps the plan of the day on which the table was empty, which is to read it in
 * whole.
 */
export const make = (schema: string) => ({
  /**
   * $1 task, $2 payload, $3 queue, $4 run_at ms, $5 delay ms, $6 attempts, $7 key, $8 priority, $9 flags, $10 key mode.
   * A task or queue that add_job has just made is not in this statement's snapshot: a function looks its name up.
   */
  add: `
    select job.id::text as id, coalesce(task.identifier, ${schema}._private_kongtask_task_name(job.task_id)) as task,
      ${schema}._private_kongtask_state(job.run_at, job.attempts, job.max_attempts, job.locked_at) as state,
      job.payload::text as payload,
      coalesce(queue.queue_name, ${schema}._private_kongtask_queue_name(job.job_queue_id)) as queue_name,
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
   * $1 distinct specs, $2 which one is each job's, $3 the payloads, a JSON array of its own, because `->>` reads every
   * string beside the one that it takes and refuses `\u0000`; $4 whether to wait for others. Jobs without keys.
   */
  insertJobs: `
    select ids, created_at, specs_added
    from ${schema}._private_kongtask_insert_jobs($1::json, $2::int[], $3::json, $4::bool)`,

  /** The same for jobs some of which have details: $5 those, or null, of each in turn. */
  insertDetailedJobs: `
    with added as materialized (
      select ids, created_at, specs_added
      from ${schema}._private_kongtask_insert_jobs($1::json, $2::int[], $3::json, $4::bool)
    ), detailed as materialized (
      select ${schema}._private_kongtask_put_details(string_to_array(ids, ',')::int8[], $5::json) from added
    )
    select ids, created_at, specs_added from added where (select count(*) from detailed) > 0`,

  /**
   * $1 the specs, a JSON array of [task, queue, run_at, delay, attempts, key, priority, flags, key mode]; $2 their
   * payloads; $3 whether one that is refused refuses all: then its row is the job that has the key, and the other rows
   * are void; $4 their details, or null. Names as in `add`.
   */
  addJobs: `
    select added.place, added.refused, job.id::text as id,
      coalesce(task.identifier, ${schema}._private_kongtask_task_name(job.task_id)) as task,
      ${schema}._private_kongtask_state(job.run_at, job.attempts, job.max_attempts, job.locked_at) as state,
      job.payload::text as payload,
      coalesce(queue.queue_name, ${schema}._private_kongtask_queue_name(job.job_queue_id)) as queue_name,
      job.priority::int4 as priority, ${schema}._private_kongtask_millis(job.run_at) as run_at, job.attempts::int4 as attempts,
      job.max_attempts::int4 as max_attempts, job.last_error, ${schema}._private_kongtask_millis(job.created_at) as created_at,
      ${schema}._private_kongtask_millis(job.updated_at) as updated_at, job.key, ${schema}._private_kongtask_millis(job.locked_at) as locked_at, job.locked_by,
      job.revision::int4 as revision, job.flags::text as flags
    from ${schema}._private_kongtask_add_jobs($1::json, $2::json, $3::bool, $4::json) as added
    cross join lateral (select (added.job).*) as job
    left join ${schema}._private_tasks as task on task.id = job.task_id
    left join ${schema}._private_job_queues as queue on queue.id = job.job_queue_id
    order by added.place`,

  /** $1 id. Primary key. */
  get: `
    select
      job.id::text as id, job.task, job.state, job.payload::text as payload, job.queue_name,
      job.priority::int4 as priority, ${schema}._private_kongtask_millis(job.run_at) as run_at, job.attempts::int4 as attempts,
      job.max_attempts::int4 as max_attempts, job.last_error, ${schema}._private_kongtask_millis(job.created_at) as created_at,
      ${schema}._private_kongtask_millis(job.updated_at) as updated_at, job.key, ${schema}._private_kongtask_millis(job.locked_at) as locked_at, job.locked_by,
      job.revision::int4 as revision, job.flags::text as flags, job.origin,
      job.bundle_id::text as bundle
    from ${schema}.kongtask_jobs as job
    where job.id = $1::text::int8`,

  /**
   * $1 to $11 the filter, $12 after id, $13 limit. Primary key in order, or the key's index; a page starts at its id
   * whichever way it was planned.
   */
  list: `
    select
      job.id::text as id, job.task, job.state, job.payload::text as payload, job.queue_name,
      job.priority::int4 as priority, ${schema}._private_kongtask_millis(job.run_at) as run_at, job.attempts::int4 as attempts,
      job.max_attempts::int4 as max_attempts, job.last_error, ${schema}._private_kongtask_millis(job.created_at) as created_at,
      ${schema}._private_kongtask_millis(job.updated_at) as updated_at, job.key, ${schema}._private_kongtask_millis(job.locked_at) as locked_at, job.locked_by,
      job.revision::int4 as revision, job.flags::text as flags, job.origin,
      job.bundle_id::text as bundle
    from ${schema}.kongtask_jobs as job
    where ($1::text[] is null or job.task = any ($1::text[]))
      and ($2::text[] is null or job.state = any ($2::text[]))
      and ($3::text is null or job.queue_name = $3::text)
      and ($4::text is null or job.key = $4::text)
      and ($5::text is null or job.flags ? $5::text)
      and ($6::float8 is null or job.created_at >= to_timestamp($6::float8 / 1000))
      and ($7::float8 is null or job.created_at < to_timestamp($7::float8 / 1000))
      and ($8::float8 is null or job.run_at >= to_timestamp($8::float8 / 1000))
      and ($9::float8 is null or job.run_at < to_timestamp($9::float8 / 1000))
      and ($10::text is null or job.origin = $10::text)
      and ($11::text is null or job.bundle_id = $11::text::int8)
      and job.id > coalesce($12::text::int8, 0)
    order by job.id limit $13::int`,

  /** $1 to $13 as in `list`: one page of jobs, locked in the order of their ids. Waits for claims and settles of them. */
  removeMany: `
    with found as materialized (
      select job.id
      from ${schema}.kongtask_jobs as job
      where ($1::text[] is null or job.task = any ($1::text[]))
        and ($2::text[] is null or job.state = any ($2::text[]))
        and ($3::text is null or job.queue_name = $3::text)
        and ($4::text is null or job.key = $4::text)
        and ($5::text is null or job.flags ? $5::text)
        and ($6::float8 is null or job.created_at >= to_timestamp($6::float8 / 1000))
        and ($7::float8 is null or job.created_at < to_timestamp($7::float8 / 1000))
        and ($8::float8 is null or job.run_at >= to_timestamp($8::float8 / 1000))
        and ($9::float8 is null or job.run_at < to_timestamp($9::float8 / 1000))
        and ($10::text is null or job.origin = $10::text)
        and ($11::text is null or job.bundle_id = $11::text::int8)
        and job.id > coalesce($12::text::int8, 0)
      order by job.id limit $13::int
    ), removed as materialized (
      select found.id, (
        select count(*) from ${schema}._private_kongtask_remove_job(found.id, null)
      ) as count
      from (select found.id from found order by found.id) as found
    )
    select count(*)::int as count, max(removed.id)::text as last from removed where removed.count >= 0`,

  /**
   * The filter: $1 tasks, $2 states, $3 queue, $4 key, $5 flag, $6 and $7 bounds of created_at, $8 and $9 of run_at in ms,
   * $10 origin, $11 bundle.
   * Reads every job.
   */
  count: `
    select count(*)::float8 as count from ${schema}.kongtask_jobs as job
    where ($1::text[] is null or job.task = any ($1::text[]))
      and ($2::text[] is null or job.state = any ($2::text[]))
      and ($3::text is null or job.queue_name = $3::text)
      and ($4::text is null or job.key = $4::text)
      and ($5::text is null or job.flags ? $5::text)
      and ($6::float8 is null or job.created_at >= to_timestamp($6::float8 / 1000))
      and ($7::float8 is null or job.created_at < to_timestamp($7::float8 / 1000))
      and ($8::float8 is null or job.run_at >= to_timestamp($8::float8 / 1000))
      and ($9::float8 is null or job.run_at < to_timestamp($9::float8 / 1000))
      and ($10::text is null or job.origin = $10::text)
      and ($11::text is null or job.bundle_id = $11::text::int8)`,

  /** $1 to $9 the filter. One row a state, a task's state, and a queue's state. Reads every job once. */
  stats: `
    select job.state, grouping(job.task) = 0 as of_task, job.task, grouping(job.queue_name) = 0 as of_queue,
      job.queue_name, count(*)::float8 as count
    from ${schema}.kongtask_jobs as job
    where ($1::text[] is null or job.task = any ($1::text[]))
      and ($2::text[] is null or job.state = any ($2::text[]))
      and ($3::text is null or job.queue_name = $3::text)
      and ($4::text is null or job.key = $4::text)
      and ($5::text is null or job.flags ? $5::text)
      and ($6::float8 is null or job.created_at >= to_timestamp($6::float8 / 1000))
      and ($7::float8 is null or job.created_at < to_timestamp($7::float8 / 1000))
      and ($8::float8 is null or job.run_at >= to_timestamp($8::float8 / 1000))
      and ($9::float8 is null or job.run_at < to_timestamp($9::float8 / 1000))
      and ($10::text is null or job.origin = $10::text)
      and ($11::text is null or job.bundle_id = $11::text::int8)
    group by grouping sets ((job.state), (job.state, job.task), (job.state, job.queue_name))`,

  /** $1 milliseconds. One row when nobody has measured within them; locks the one row of `measure` for its own moment. */
  turnToMeasure: `
    insert into ${schema}._private_kongtask_housekeeping as task (name, done_at) values ('measure', now())
    on conflict (name) do update set done_at = now()
    where task.done_at <= now() - $1::float8 * interval '1 millisecond'
    returning 1 as turn`,

  /**
   * $1 how many jobs to read. One sequential scan, without payloads, and no locks: a million jobs take a quarter of a second.
   * One row says by \`task is null\` how many were read.
   */
  depths: `
    select task.identifier as task, depth.state, depth.count, depth.oldest
    from (
      select job.task_id, job.state, count(*)::float8 as count,
        (extract(epoch from now() - min(job.run_at)) * 1000)::float8 as oldest
      from (
        select job.task_id, job.run_at,
          ${schema}._private_kongtask_state(job.run_at, job.attempts, job.max_attempts, job.locked_at) as state
        from ${schema}._private_jobs as job
        limit $1::int8
      ) as job
      group by grouping sets ((job.task_id, job.state), ())
    ) as depth
    left join ${schema}._private_tasks as task on task.id = depth.task_id`,

  /** $1 id or null, $2 key or null. Locks the one row; waits for a claim or settle of it that is in flight. */
  remove: `
    select job.id::text as id, task.identifier as task,
      ${schema}._private_kongtask_state(job.run_at, job.attempts, job.max_attempts, job.locked_at) as state,
      job.payload::text as payload, queue.queue_name, job.priority::int4 as priority,
      ${schema}._private_kongtask_millis(job.run_at) as run_at, job.attempts::int4 as attempts, job.max_attempts::int4 as max_attempts,
      job.last_error, ${schema}._private_kongtask_millis(job.created_at) as created_at, ${schema}._private_kongtask_millis(job.updated_at) as updated_at, job.key,
      ${schema}._private_kongtask_millis(job.locked_at) as locked_at, job.locked_by, job.revision::int4 as revision, job.flags::text as flags
    from ${schema}._private_kongtask_remove_job($1::text::int8, $2::text) as job
    join ${schema}._private_tasks as task on task.id = job.task_id
    left join ${schema}._private_job_queues as queue on queue.id = job.job_queue_id`,

  /** $1 id. Locks the one row; waits for a claim or settle of it that is in flight. */
  cancel: `
    select job.id::text as id, task.identifier as task,
      case when job.locked_at < 'infinity' then 'running' else 'cancelled' end as state,
      job.payload::text as payload, queue.queue_name, job.priority::int4 as priority,
      ${schema}._private_kongtask_millis(job.run_at) as run_at, job.attempts::int4 as attempts, job.max_attempts::int4 as max_attempts,
      job.last_error, ${schema}._private_kongtask_millis(job.created_at) as created_at, ${schema}._private_kongtask_millis(job.updated_at) as updated_at, job.key,
      ${schema}._private_kongtask_millis(job.locked_at) as locked_at, job.locked_by, job.revision::int4 as revision, job.flags::text as flags
    from ${schema}._private_kongtask_cancel($1::text::int8) as job
    join ${schema}._private_tasks as task on task.id = job.task_id
    left join ${schema}._private_job_queues as queue on queue.id = job.job_queue_id`,

  /**
   * $1 pool, $2 tasks, $3 limit, $4 how many start at once, $5 forbidden flags, $6 how long runs are, $7 the time in ms at
   * which they are due, or null for now. One row a claimed job, or one that says why there is none.
   */
  claim: `
    select id, task, payload, queue_name, priority, run_at, attempts, max_attempts, last_error, created_at, key, revision,
      flags, details, contended, next_due_in
    from ${schema}._private_kongtask_claim($1::text, $2::text[], $3::int, $4::int, $5::text[], $6::int[],
      to_timestamp($7::float8 / 1000))`,

  /**
   * $1 tasks, $2 limit, $3 as $7 of `claim`, $4 whether to wait for a turn, $5 how many jobs a row may have, inside an open
   * transaction: jobs without a queue, held by their row locks only. A row or more a lane; one without a task when others
   * hold so many that it has no turn.
   */
  holdBatch: `
    select task, priority, ids, payloads, run_at, created_at, rests
    from ${schema}._private_kongtask_hold_batch($1::text[], $2::int, to_timestamp($3::float8 / 1000), $4::boolean,
      $5::int)`,

  /**
   * $1 task, $2 priority, $3 run_at in microseconds and $4 id of the last job before, $5 limit, $6 as $7 of `claim`, $7 and
   * $8 as $4 and $5 of `holdBatch`, inside an open transaction.
   */
  holdMore: `
    select task, priority, ids, payloads, run_at, created_at, rests
    from ${schema}._private_kongtask_hold_more($1::text, $2::int, $3::float8, $4::text::int8, $5::int,
      to_timestamp($6::float8 / 1000), $7::boolean, $8::int)`,

  /**
   * $1 stream, $2 pool, $3 ranges of ids as an array's text, outside the batch's transaction. One row a suspect, one
   * without an id a job of another stream of this pool, and one with its details a job that has any.
   */
  noteBatch: `
    select suspect as id, null::text as details
    from ${schema}._private_kongtask_note_batch($1::text, $2::text, $3::text::int8[]) as suspect
    union all
    select id, details from ${schema}._private_kongtask_hand_over_batch($3::text::int8[])`,

  /** $1 pool, $2 ids, inside a batch's transaction. */
  chargeSuspects: `select ${schema}._private_kongtask_charge_suspects($1::text, $2::text[]::int8[])::text`,

  /**
   * $1 stream, $2 pool, $3 completed ids, $4 cancelled ids, $5 ids that have completed with something to keep, $6 those and
   * the ids of $7 failures and $8 releases, $9 what there is to say of cancelled jobs and $10 of others, inside a batch's
   * transaction. One row a job that was claimed instead.
   */
  settleBatch: `
    select claimed::text as id
    from ${schema}._private_kongtask_settle_batch(
      $1::text, $2::text, $3::text[]::int8[], $4::text[]::int8[], $5::text[]::int8[], $6::text[]::int8[], $7::json, $8::json,
      $9::json, $10::json
    ) as claimed`,

  /** $1 stream, inside a batch's transaction: all of its jobs. */
  completeHeld: `select ${schema}._private_kongtask_complete_held($1::text)::text`,

  /** $1 stream. One row when there was something noted. Waits for a settle of that stream in flight. */
  forgetBatch: `
    update ${schema}._private_kongtask_batches set id_ranges = null
    where stream = $1::text and id_ranges is not null
    returning stream`,

  /** $1 pool. */
  endBatches: `delete from ${schema}._private_kongtask_batches where pool = $1::text`,

  /** $1 pool, $2 [{id, attempts, revision}]; $3 to $6 as $2 to $5 of \`settle\`; $7 as its $7. */
  settleLate: `
    select settled::text as id
    from ${schema}._private_kongtask_settle_late(
      $1::text, $2::json, $3::text[]::int8[], $4::text[]::int8[], $5::json, $6::json, $7::json
    ) as settled`,

  /** $1 pool, $2 ids, inside a batch's transaction. One row a claimed job. */
  promote: `
    select claimed::text as id from ${schema}._private_kongtask_promote($1::text, $2::text[]::int8[]) as claimed`,

  /**
   * The claim as \`claim\` has it, and the pool's heartbeat in the same statement, for workers that are idle. A row of the
   * heartbeat has \`beat\`; see \`heartbeat\`.
   */
  claimAndBeat: `
    select id, task, payload, queue_name, priority, run_at, attempts, max_attempts, last_error, created_at, key, revision,
      flags, details, contended, next_due_in, false as beat, null::text as dead_pool, null::text as cancelled_job
    from ${schema}._private_kongtask_claim($1::text, $2::text[], $3::int, $4::int, $5::text[], $6::int[],
      to_timestamp($7::float8 / 1000))
    union all
    select null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, true, dead_pool,
      cancelled_job
    from ${schema}._private_kongtask_heartbeat($1::text)`,

  /**
   * $1 pool; $2 completed ids, $3 cancelled ids, $4 failures, $5 releases; $6 ids of held jobs that keep their queues; $7
   * what there is to say of jobs that end, or null. One row a settled job.
   */
  settle: `
    select settled::text as id
    from ${schema}._private_kongtask_settle(
      $1::text, $2::text[]::int8[], $3::text[]::int8[], $4::json, $5::json, $6::text[]::int8[], $7::json
    ) as settled`,

  /** $1 pool, $2 id. Waits for a transaction in flight that deletes the job. Primary key. */
  holds: `
    select id::text as id from ${schema}._private_jobs
    where id = $2::text::int8 and locked_by = $1::text
    for update`,

  /**
   * $1 pool, $2 known ids. Scans the jobs once, and the queues: one whose job was unlocked or deleted by hand is freed
   * too.
   */
  releaseUnknown: `
    with released as (
      update ${schema}._private_jobs
      set locked_by = null, locked_at = null,
        attempts = ${schema}._private_kongtask_uncharged(attempts, max_attempts, key, updated_at, locked_at)
      where locked_by = $1::text and id <> all ($2::text[]::int8[])
      returning job_queue_id
    ), freed as (
      update ${schema}._private_job_queues
      set locked_by = null, locked_at = null
      where locked_by = $1::text and id <> all (array(
        select job_queue_id from ${schema}._private_jobs
        where id = any ($2::text[]::int8[]) and locked_by = $1::text and job_queue_id is not null
      ))
    )
    select pg_notify('jobs:insert', json_build_object('r', random(), 'count', count(*))::text)::text as announced
    from released having count(*) > 0`,

  /** $1 pool, $2 lease ms. Whoever does not know whether it has registered does it again. */
  registerPool: `
    insert into ${schema}._private_kongtask_pools (id, lease)
    values ($1::text, $2::float8 * interval '1 millisecond')
    on conflict (id) do update set heartbeat_at = now(), alive_since = now()`,

  /** $1 pool. A row a dead pool and a job to cancel, or one without either; none when the pool was declared dead. */
  heartbeat: `select dead_pool, cancelled_job from ${schema}._private_kongtask_heartbeat($1::text)`,

  /** $1 pool. No job is announced, so that nobody else looks for one. */
  probe: `
    select pg_notify('jobs:insert', json_build_object('r', random(), 'count', 0, 'probe', $1::text)::text)::text`,

  /** $1 lease ms. One row when it was this pool's turn. Scans the jobs once then. */
  sweep: `select released, failed from ${schema}._private_kongtask_sweep($1::float8 * interval '1 millisecond')`,

  /** $1 pool, $2 ids. Primary key. */
  renew: `select ${schema}._private_kongtask_renew($1::text, $2::text[]::int8[])::text`,

  /** $1 id, $2 revision or null, $3 whether its end is to be told. One row. */
  observe: `
    select task, revision, state, has_stopped, error, failed_attempts, result, is_retained, progress, progress_at
    from ${schema}._private_kongtask_observe($1::text::int8, $2::int, $3::bool)`,

  /** $1 pool, $2 id, $3 JSON text. */
  report: `select ${schema}._private_kongtask_report($1::text, $2::text::int8, $3::text::json) as is_held`,

  /** $1 job id. Primary key, in order. */
  failedAttempts: `
    select attempt, ${schema}._private_kongtask_millis(failed_at) as failed_at, tag, message, data::text as data
    from ${schema}._private_kongtask_failed_attempts
    where job_id = $1::text::int8
    order by attempt`,

  /**
   * $1 pool. Waits for a claim of that pool that is in flight, and keeps it from claiming anything after; what it holds
   * then is the matter of \`releaseUnknown\` in the same transaction.
   */
  deregisterPool: `delete from ${schema}._private_kongtask_pools where id = $1::text`,

  /** Ends the session that it runs in, if that one will stay read-only; one on a standby may write after its promotion. */
  endReadOnly: `
    select pg_terminate_backend(pg_backend_pid()) as ended
    where current_setting('default_transaction_read_only')::bool and not pg_is_in_recovery()`,

  /** $1 ids, or null for all pools, dead or not. Waits for their claims in flight. */
  buryPools: `
    delete from ${schema}._private_kongtask_pools
    where $1::text[] is null or (id = any ($1::text[]) and heartbeat_at < now() - lease)
    returning id`,

  /** $1 ids of buried pools, $2 whether to release any other pool of ours too. Scans the jobs once. */
  releasePools: `select released, failed from ${schema}._private_kongtask_release_pools($1::text[], $2::bool)`
})
