-- The schema as the migrations make it, to be read and compared. It is not a migration, and not to be changed by hand:
-- `npm run schema:dump` makes it on PostgreSQL 18, and a test fails when it is not what the migrations make.

SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SET check_function_bodies = off;
SET search_path = pg_catalog, pg_temp;

CREATE SCHEMA graphile_worker;

CREATE TYPE graphile_worker.job_spec AS (
  identifier text,
  payload json,
  queue_name text,
  run_at timestamp with time zone,
  max_attempts smallint,
  job_key text,
  priority smallint,
  flags text[]
);

CREATE TABLE graphile_worker._private_job_queues (
  id integer GENERATED ALWAYS AS IDENTITY NOT NULL,
  queue_name text NOT NULL,
  locked_at timestamp with time zone,
  locked_by text,
  is_available boolean GENERATED ALWAYS AS ((locked_at IS NULL)) STORED NOT NULL,
  CONSTRAINT _private_job_queues_pkey PRIMARY KEY (id),
  CONSTRAINT _private_job_queues_queue_name_key UNIQUE (queue_name),
  CONSTRAINT job_queues_queue_name_check CHECK ((length(queue_name) <= 128))
);

CREATE TABLE graphile_worker._private_jobs (
  id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
  job_queue_id integer,
  task_id integer NOT NULL,
  payload json DEFAULT '{}'::json NOT NULL,
  priority smallint DEFAULT 0 NOT NULL,
  run_at timestamp with time zone DEFAULT now() NOT NULL,
  attempts smallint DEFAULT 0 NOT NULL,
  max_attempts smallint DEFAULT 25 NOT NULL,
  last_error text,
  created_at timestamp with time zone DEFAULT now() NOT NULL,
  updated_at timestamp with time zone DEFAULT now() NOT NULL,
  key text,
  locked_at timestamp with time zone,
  locked_by text,
  revision integer DEFAULT 0 NOT NULL,
  flags jsonb,
  is_available boolean GENERATED ALWAYS AS (((locked_at IS NULL) AND (attempts < max_attempts))) STORED NOT NULL,
  CONSTRAINT _private_jobs_pkey PRIMARY KEY (id),
  CONSTRAINT _private_jobs_key_key UNIQUE (key),
  CONSTRAINT jobs_key_check CHECK (((length(key) >= 1) AND (length(key) <= 512))),
  CONSTRAINT jobs_max_attempts_check CHECK ((max_attempts >= 1))
);

CREATE TABLE graphile_worker._private_known_crontabs (
  identifier text NOT NULL,
  known_since timestamp with time zone NOT NULL,
  last_execution timestamp with time zone,
  CONSTRAINT _private_known_crontabs_pkey PRIMARY KEY (identifier)
);

CREATE TABLE graphile_worker._private_kongtask_batches (
  stream text NOT NULL,
  pool text NOT NULL,
  id_ranges bigint[],
  noted_at timestamp with time zone DEFAULT now() NOT NULL,
  CONSTRAINT _private_kongtask_batches_pkey PRIMARY KEY (stream)
) WITH (fillfactor=10);

CREATE TABLE graphile_worker._private_kongtask_bundle_outcomes (
  bundle_id bigint NOT NULL,
  job_id bigint NOT NULL,
  revision integer NOT NULL,
  task text NOT NULL,
  state text NOT NULL,
  tag text,
  message text,
  data json,
  result json,
  stopped_at timestamp with time zone DEFAULT now() NOT NULL,
  CONSTRAINT _private_kongtask_bundle_outcomes_pkey PRIMARY KEY (bundle_id, job_id, revision),
  CONSTRAINT kongtask_bundle_outcomes_state_check CHECK ((state = ANY (ARRAY['completed'::text, 'failed'::text, 'cancelled'::text])))
);

CREATE TABLE graphile_worker._private_kongtask_bundle_steps (
  txid bigint DEFAULT txid_current() NOT NULL,
  bundle_id bigint NOT NULL,
  jobs integer DEFAULT 0 NOT NULL,
  completed integer DEFAULT 0 NOT NULL,
  failed integer DEFAULT 0 NOT NULL,
  cancelled integer DEFAULT 0 NOT NULL
);

CREATE TABLE graphile_worker._private_kongtask_bundles (
  id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
  name text,
  origin text,
  jobs integer NOT NULL,
  completed integer DEFAULT 0 NOT NULL,
  failed integer DEFAULT 0 NOT NULL,
  cancelled integer DEFAULT 0 NOT NULL,
  completions json,
  retain interval,
  created_at timestamp with time zone DEFAULT now() NOT NULL,
  done_at timestamp with time zone,
  expires_at timestamp with time zone,
  CONSTRAINT _private_kongtask_bundles_pkey PRIMARY KEY (id)
) WITH (fillfactor=50);

CREATE TABLE graphile_worker._private_kongtask_cancellations (
  job_id bigint NOT NULL,
  requested_at timestamp with time zone DEFAULT now() NOT NULL,
  CONSTRAINT _private_kongtask_cancellations_pkey PRIMARY KEY (job_id)
);

CREATE TABLE graphile_worker._private_kongtask_events (
  id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
  listener_id bigint NOT NULL,
  event json NOT NULL,
  taken_until timestamp with time zone,
  CONSTRAINT _private_kongtask_events_pkey PRIMARY KEY (id)
) WITH (fillfactor=80);

CREATE TABLE graphile_worker._private_kongtask_failed_attempts (
  job_id bigint NOT NULL,
  attempt integer NOT NULL,
  failed_at timestamp with time zone DEFAULT now() NOT NULL,
  tag text NOT NULL,
  message text NOT NULL,
  data json,
  CONSTRAINT _private_kongtask_failed_attempts_pkey PRIMARY KEY (job_id, attempt)
);

CREATE TABLE graphile_worker._private_kongtask_history (
  job_id bigint NOT NULL,
  revision integer NOT NULL,
  task text NOT NULL,
  queue_name text,
  state text NOT NULL,
  payload json,
  priority smallint NOT NULL,
  run_at timestamp with time zone NOT NULL,
  attempts smallint NOT NULL,
  max_attempts smallint NOT NULL,
  key text,
  flags jsonb,
  created_at timestamp with time zone NOT NULL,
  started_at timestamp with time zone,
  stopped_at timestamp with time zone NOT NULL,
  error text,
  failed_attempts json,
  result json,
  bundle_id bigint,
  origin text,
  metadata json,
  is_retained boolean NOT NULL,
  expires_at timestamp with time zone NOT NULL,
  CONSTRAINT _private_kongtask_history_pkey PRIMARY KEY (job_id, revision),
  CONSTRAINT kongtask_history_state_check CHECK ((state = ANY (ARRAY['completed'::text, 'failed'::text, 'cancelled'::text])))
);

CREATE TABLE graphile_worker._private_kongtask_housekeeping (
  name text NOT NULL,
  done_at timestamp with time zone NOT NULL,
  CONSTRAINT _private_kongtask_housekeeping_pkey PRIMARY KEY (name)
);

CREATE TABLE graphile_worker._private_kongtask_job_details (
  job_id bigint NOT NULL,
  retain interval,
  awaited boolean DEFAULT false NOT NULL,
  bundle_id bigint,
  origin text,
  metadata json,
  trace text,
  progress json,
  progress_at timestamp with time zone,
  outcome text,
  reason text,
  result json,
  stopped_at timestamp with time zone,
  CONSTRAINT _private_kongtask_job_details_pkey PRIMARY KEY (job_id),
  CONSTRAINT kongtask_job_details_outcome_check CHECK ((outcome = ANY (ARRAY['completed'::text, 'failed'::text, 'cancelled'::text])))
) WITH (fillfactor=80);

CREATE TABLE graphile_worker._private_kongtask_listeners (
  id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
  name text,
  tasks text[],
  bundle_id bigint,
  bundle_name text,
  origin text,
  seen_at timestamp with time zone DEFAULT now() NOT NULL,
  CONSTRAINT _private_kongtask_listeners_pkey PRIMARY KEY (id),
  CONSTRAINT _private_kongtask_listeners_name_key UNIQUE (name)
) WITH (fillfactor=50);

CREATE TABLE graphile_worker._private_kongtask_migrations (
  id integer NOT NULL,
  name text NOT NULL,
  breaking boolean NOT NULL,
  applied_at timestamp with time zone DEFAULT now() NOT NULL,
  adopted_from integer,
  CONSTRAINT _private_kongtask_migrations_pkey PRIMARY KEY (id)
);

CREATE TABLE graphile_worker._private_kongtask_pools (
  id text NOT NULL,
  started_at timestamp with time zone DEFAULT now() NOT NULL,
  alive_since timestamp with time zone DEFAULT now() NOT NULL,
  heartbeat_at timestamp with time zone DEFAULT now() NOT NULL,
  lease interval NOT NULL,
  metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
  CONSTRAINT _private_kongtask_pools_pkey PRIMARY KEY (id),
  CONSTRAINT kongtask_pools_id_check CHECK ((length(id) >= 1)),
  CONSTRAINT kongtask_pools_lease_check CHECK ((lease > '00:00:00'::interval))
) WITH (fillfactor=50);

CREATE TABLE graphile_worker._private_kongtask_schedule_changes (
  is_only boolean DEFAULT true NOT NULL,
  revision bigint NOT NULL,
  CONSTRAINT _private_kongtask_schedule_changes_pkey PRIMARY KEY (is_only),
  CONSTRAINT kongtask_schedule_changes_check CHECK (is_only)
);

CREATE TABLE graphile_worker._private_kongtask_schedule_runs (
  identifier text NOT NULL,
  instant timestamp with time zone NOT NULL,
  job_id bigint NOT NULL,
  added_at timestamp with time zone DEFAULT now() NOT NULL,
  CONSTRAINT _private_kongtask_schedule_runs_pkey PRIMARY KEY (identifier)
);

CREATE TABLE graphile_worker._private_kongtask_schedulers (
  id text NOT NULL,
  started_at timestamp with time zone NOT NULL,
  seen_at timestamp with time zone DEFAULT now() NOT NULL,
  identifiers text[] NOT NULL,
  CONSTRAINT _private_kongtask_schedulers_pkey PRIMARY KEY (id)
);

CREATE TABLE graphile_worker._private_kongtask_schedules (
  id text NOT NULL,
  definition json NOT NULL,
  is_paused boolean DEFAULT false NOT NULL,
  since timestamp with time zone NOT NULL,
  revision bigint NOT NULL,
  created_at timestamp with time zone DEFAULT now() NOT NULL,
  updated_at timestamp with time zone DEFAULT now() NOT NULL,
  CONSTRAINT _private_kongtask_schedules_pkey PRIMARY KEY (id),
  CONSTRAINT kongtask_schedules_id_check CHECK (((length(id) >= 1) AND (length(id) <= 512)))
);

CREATE TABLE graphile_worker._private_tasks (
  id integer GENERATED ALWAYS AS IDENTITY NOT NULL,
  identifier text NOT NULL,
  CONSTRAINT _private_tasks_pkey PRIMARY KEY (id),
  CONSTRAINT _private_tasks_identifier_key UNIQUE (identifier),
  CONSTRAINT tasks_identifier_check CHECK ((length(identifier) <= 128))
);

CREATE TABLE graphile_worker.migrations (
  id integer NOT NULL,
  ts timestamp with time zone DEFAULT now() NOT NULL,
  breaking boolean DEFAULT false NOT NULL,
  CONSTRAINT migrations_pkey PRIMARY KEY (id)
);

ALTER TABLE graphile_worker._private_job_queues ENABLE ROW LEVEL SECURITY;

ALTER TABLE graphile_worker._private_jobs ENABLE ROW LEVEL SECURITY;

ALTER TABLE graphile_worker._private_known_crontabs ENABLE ROW LEVEL SECURITY;

ALTER TABLE graphile_worker._private_kongtask_batches ENABLE ROW LEVEL SECURITY;

ALTER TABLE graphile_worker._private_kongtask_bundle_outcomes ENABLE ROW LEVEL SECURITY;

ALTER TABLE graphile_worker._private_kongtask_bundle_steps ENABLE ROW LEVEL SECURITY;

ALTER TABLE graphile_worker._private_kongtask_bundles ENABLE ROW LEVEL SECURITY;

ALTER TABLE graphile_worker._private_kongtask_cancellations ENABLE ROW LEVEL SECURITY;

ALTER TABLE graphile_worker._private_kongtask_events ENABLE ROW LEVEL SECURITY;

ALTER TABLE graphile_worker._private_kongtask_failed_attempts ENABLE ROW LEVEL SECURITY;

ALTER TABLE graphile_worker._private_kongtask_history ENABLE ROW LEVEL SECURITY;

ALTER TABLE graphile_worker._private_kongtask_housekeeping ENABLE ROW LEVEL SECURITY;

ALTER TABLE graphile_worker._private_kongtask_job_details ENABLE ROW LEVEL SECURITY;

ALTER TABLE graphile_worker._private_kongtask_listeners ENABLE ROW LEVEL SECURITY;

ALTER TABLE graphile_worker._private_kongtask_pools ENABLE ROW LEVEL SECURITY;

ALTER TABLE graphile_worker._private_kongtask_schedule_changes ENABLE ROW LEVEL SECURITY;

ALTER TABLE graphile_worker._private_kongtask_schedule_runs ENABLE ROW LEVEL SECURITY;

ALTER TABLE graphile_worker._private_kongtask_schedulers ENABLE ROW LEVEL SECURITY;

ALTER TABLE graphile_worker._private_kongtask_schedules ENABLE ROW LEVEL SECURITY;

ALTER TABLE graphile_worker._private_tasks ENABLE ROW LEVEL SECURITY;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_add_bundle(bundle_name text, bundle_origin text, bundle_retain double precision, bundle_completions json, specs json, payloads json, details json)
 RETURNS TABLE(bundle graphile_worker._private_kongtask_bundles, place integer, refused boolean, job graphile_worker._private_jobs)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET jit TO 'off'
AS $function$
declare
  result record;
begin
  insert into "graphile_worker"._private_kongtask_bundles (name, origin, jobs, completions, retain)
  values (
    bundle_name, bundle_origin, json_array_length(specs), bundle_completions, bundle_retain * interval '1 millisecond'
  )
  returning * into bundle;

  for result in
    select * from "graphile_worker"._private_kongtask_add_jobs(
      specs, payloads, true, "graphile_worker"._private_kongtask_member_details(bundle, details)
    )
  loop
    place := result.place;
    refused := result.refused;
    job := result.job;
    return next;
    if refused then
      delete from "graphile_worker"._private_kongtask_bundles as added where added.id = bundle.id;
      return;
    end if;
  end loop;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_add_jobs(specs json, payloads json, all_or_none boolean, details json DEFAULT NULL::json)
 RETURNS TABLE(place integer, refused boolean, job graphile_worker._private_jobs)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
AS $function$
#variable_conflict use_column
declare
  parsed "graphile_worker".job_spec[];
  modes text[];
  mode text;
  detail_of json[];
  result record;
begin
  -- The usual refusal: seen before anything uses up an id.
  if all_or_none then
    select item.ordinality::int as place, other as held into result
    from json_array_elements(specs) with ordinality as item (value, ordinality)
    cross join lateral (
      select * from "graphile_worker"._private_jobs as job where job.key = item.value ->> 5 offset 0
    ) as other
    where item.value ->> 8 = 'reject'
    order by item.ordinality
    limit 1;
    if found then
      place := result.place;
      refused := true;
      job := result.held;
      return next;
      return;
    end if;
  end if;

  -- Checked before a spec, whose columns are smaller, is made of it.
  with items as materialized (
    select
      ordinality, payload, item ->> 0 as task, item ->> 1 as queue_name,
      coalesce(
        to_timestamp((item ->> 2)::float8 / 1000), now() + (item ->> 3)::float8 * interval '1 millisecond'
      ) as run_at,
      (item ->> 4)::int as max_attempts, item ->> 5 as key, (item ->> 6)::int as priority,
      case when json_typeof(item -> 7) = 'array'
        then (select array_agg(flag) from json_array_elements_text(item -> 7) as flag)
      end as flags,
      item ->> 8 as key_mode
    from rows from (json_array_elements(specs), json_array_elements(payloads))
      with ordinality as items (item, payload, ordinality)
  ), checked as materialized (
    select count("graphile_worker"._private_kongtask_check_spec(task, queue_name, max_attempts, key, priority)::text) as count
    from items
  )
  select
    array_agg(
      cast(row(task, payload, queue_name, run_at, max_attempts, key, priority, flags) as "graphile_worker".job_spec)
      order by ordinality
    ),
    array_agg(key_mode order by ordinality)
  into parsed, modes
  from checked cross join items
  where checked.count >= 0;

  foreach mode in array modes loop
    if mode not in ('replace', 'preserve_run_at', 'unsafe_dedupe', 'dedupe', 'reject') then
      raise exception 'job_key_mode is "%"', mode using errcode = 'GWBKM';
    end if;
  end loop;

  if all_or_none and 'reject' = any (modes) then
    detail_of := array(
      select item.value from json_array_elements(details) with ordinality as item order by item.ordinality
    );
    begin
      for result in
        select * from "graphile_worker"._private_kongtask_add_specs(parsed, modes) as result order by result.place
      loop
        place := result.place;
        refused := not result.is_added and modes[result.place] = 'reject';
        job := result.job;
        return next;
        if refused then
          raise exception 'the key is taken' using errcode = 'KTDUP';
        end if;
        if result.is_added and json_typeof(detail_of[result.place]) = 'object' then
          perform "graphile_worker"._private_kongtask_put_details(array[job.id], json_build_array(detail_of[result.place]));
        end if;
      end loop;
    exception when sqlstate 'KTDUP' then
      return;
    end;
  elsif details is null then
    return query
    select result.place, not result.is_added and modes[result.place] = 'reject', result.job
    from "graphile_worker"._private_kongtask_add_specs(parsed, modes) as result;
  else
    return query
    with results as materialized (
      select * from "graphile_worker"._private_kongtask_add_specs(parsed, modes)
    ), detailed as materialized (
      select "graphile_worker"._private_kongtask_put_details(
        array_agg((results.job).id order by results.place), json_agg(item.value order by results.place)
      )
      from results
      join json_array_elements(details) with ordinality as item on item.ordinality = results.place
      where results.is_added
    )
    select results.place, not results.is_added and modes[results.place] = 'reject', results.job
    from results where (select count(*) from detailed) > 0;
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_add_keyed(spec graphile_worker.job_spec, mode text, number bigint, OUT added graphile_worker._private_jobs, OUT is_added boolean)
 RETURNS record
 LANGUAGE plpgsql
AS $function$
declare
  held "graphile_worker"._private_jobs;
begin
  loop
    if mode in ('replace', 'preserve_run_at') then
      select * into held from "graphile_worker"._private_jobs as job where job.key = spec.job_key for update;
    elsif mode = 'unsafe_dedupe' then
      update "graphile_worker"._private_jobs as job
      set revision = job.revision + 1, updated_at = now()
      where job.key = spec.job_key
      returning * into added;
      is_added := added.id is null;
      exit when not is_added;
    else
      select * into held from "graphile_worker"._private_jobs as job where job.key = spec.job_key;
      if held.id is not null and (mode = 'reject' or held.attempts < held.max_attempts or held.locked_at < 'infinity') then
        added := held;
        is_added := false;
        exit;
      elsif held.id is not null then
        -- Nobody may revive it between here and its replacement.
        perform from "graphile_worker"._private_jobs as job
        where job.id = held.id and job.key = spec.job_key and job.attempts >= job.max_attempts
          and (job.locked_at is null or job.locked_at = 'infinity')
        for update;
        continue when not found;
      end if;
    end if;

    if held.attempts < held.max_attempts and (held.locked_at is null or held.locked_at = 'infinity') then
      if exists (select from "graphile_worker"._private_kongtask_job_details as detail where detail.job_id = held.id) then
        perform "graphile_worker"._private_kongtask_replace(array[held]);
      end if;
      update "graphile_worker"._private_jobs as job
      set
        job_queue_id = queue.id,
        task_id = task.id,
        payload = "graphile_worker"._private_kongtask_merge_payloads(job.payload, coalesce(spec.payload, '{}')),
        priority = coalesce(spec.priority, 0),
        run_at = case when mode = 'preserve_run_at' and job.attempts = 0
          then job.run_at else coalesce(spec.run_at, now()) end,
        attempts = 0,
        max_attempts = coalesce(spec.max_attempts, 25),
        last_error = null,
        updated_at = now(),
        revision = job.revision + 1,
        flags = (select jsonb_object_agg(flag, true) from unnest(spec.flags) as flag)
      from "graphile_worker"._private_tasks as task
      left join "graphile_worker"._private_job_queues as queue on queue.queue_name = spec.queue_name
      where job.id = held.id
        and task.identifier = spec.identifier
        and (spec.queue_name is null or queue.id is not null)
      returning job.* into added;
    else
      if held.id is not null then
        perform "graphile_worker"._private_kongtask_mark(array[held.id], 'cancelled', 'replaced by its key');
        update "graphile_worker"._private_jobs as job
        set key = null, attempts = job.max_attempts,
          updated_at = greatest(clock_timestamp(), job.locked_at + interval '1 microsecond')
        where job.id = held.id;
      end if;

      insert into "graphile_worker"._private_jobs
        (id, job_queue_id, task_id, payload, run_at, max_attempts, key, priority, flags)
      overriding system value
      select
        coalesce(number, nextval(pg_get_serial_sequence(quote_ident('graphile_worker') || '._private_jobs', 'id'))),
        queue.id,
        task.id,
        coalesce(spec.payload, '{}'),
        coalesce(spec.run_at, now()),
        coalesce(spec.max_attempts, 25),
        spec.job_key,
        coalesce(spec.priority, 0),
        (select jsonb_object_agg(flag, true) from unnest(spec.flags) as flag)
      from "graphile_worker"._private_tasks as task
      left join "graphile_worker"._private_job_queues as queue on queue.queue_name = spec.queue_name
      where task.identifier = spec.identifier
        and (spec.queue_name is null or queue.id is not null)
      on conflict (key) do nothing
      returning * into added;
    end if;

    is_added := true;
    exit when added.id is not null;
    perform "graphile_worker"._private_kongtask_create_names(array[spec.identifier], array[spec.queue_name]);
  end loop;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_add_specs(specs graphile_worker.job_spec[], modes text[])
 RETURNS TABLE(place integer, is_added boolean, job graphile_worker._private_jobs)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
AS $function$
#variable_conflict use_column
declare
  ids constant regclass := pg_get_serial_sequence(quote_ident('graphile_worker') || '._private_jobs', 'id');
  numbers bigint[];
  without_key int;
  key_is_taken boolean;
  all_wait boolean;
  expected int;
  waiting int;
  with_key int := 0;
  added int;
  replaced "graphile_worker"._private_jobs[];
  keyed record;
  result record;
begin
  perform "graphile_worker"._private_kongtask_check_spec(
    spec.identifier, spec.queue_name, spec.max_attempts, spec.job_key, spec.priority
  )
  from unnest(specs) as spec;

  perform "graphile_worker"._private_kongtask_create_names(array_agg(spec.identifier), array_agg(spec.queue_name))
  from unnest(specs) as spec
  left join lateral (
    select id from "graphile_worker"._private_tasks where identifier = spec.identifier offset 0
  ) as task on true
  left join lateral (
    select id from "graphile_worker"._private_job_queues where queue_name = spec.queue_name offset 0
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
      from "graphile_worker"._private_jobs as job
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
        select id from "graphile_worker"._private_tasks where identifier = spec.identifier offset 0
      ) as task
      left join lateral (
        select id from "graphile_worker"._private_job_queues where queue_name = spec.queue_name offset 0
      ) as queue on true
      where spec.job_key is null and (spec.queue_name is null or queue.id is not null)
    ), inserted as (
      insert into "graphile_worker"._private_jobs as job (id, job_queue_id, task_id, payload, run_at, max_attempts, priority, flags)
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
    perform "graphile_worker"._private_kongtask_create_names(array_agg(spec.identifier), array_agg(spec.queue_name))
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
        select id from "graphile_worker"._private_tasks where identifier = spec.identifier offset 0
      ) as task
      left join lateral (
        select id from "graphile_worker"._private_job_queues where queue_name = spec.queue_name offset 0
      ) as queue on true
      where spec.job_key is not null and numbers[spec.ordinality::int] is not null
        and (spec.queue_name is null or queue.id is not null)
    ), inserted as (
      insert into "graphile_worker"._private_jobs as job
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
        from "graphile_worker"._private_jobs as job
        where job.key = any (array(select spec.job_key from unnest(specs) as spec))
        order by job.key
        for update
      )
      select count(*) into waiting
      from locked
      where attempts < max_attempts and (locked_at is null or locked_at = 'infinity');

      replaced := array(
        select job
        from "graphile_worker"._private_jobs as job
        where job.key = any (array(select spec.job_key from unnest(specs) as spec))
          and exists (select from "graphile_worker"._private_kongtask_job_details as detail where detail.job_id = job.id)
      );
      if cardinality(replaced) > 0 then
        perform "graphile_worker"._private_kongtask_replace(replaced);
      end if;

      return query
      with resolved as materialized (
        select
          spec.ordinality, modes[spec.ordinality::int] as mode, queue.id as queue_id, task.id as task_id, spec.payload,
          spec.run_at, spec.max_attempts, spec.job_key, spec.priority, spec.flags
        from unnest(specs) with ordinality as spec
        cross join lateral (
          select id from "graphile_worker"._private_tasks where identifier = spec.identifier offset 0
        ) as task
        left join lateral (
          select id from "graphile_worker"._private_job_queues where queue_name = spec.queue_name offset 0
        ) as queue on true
        where spec.job_key is not null and (spec.queue_name is null or queue.id is not null)
      ), changed as (
        update "graphile_worker"._private_jobs as job
        set
          job_queue_id = spec.queue_id,
          task_id = spec.task_id,
          payload = "graphile_worker"._private_kongtask_merge_payloads(job.payload, coalesce(spec.payload, '{}')),
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
      perform "graphile_worker"._private_kongtask_notify(cardinality(specs));
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
      select job.id from "graphile_worker"._private_jobs as job where job.id = numbers[spec.ordinality::int] and with_key > 0 offset 0
    ) as inserted on true
    where spec.job_key is not null and inserted.id is null
    order by spec.job_key, spec.ordinality
  loop
    place := keyed.place;
    select * into result
    from "graphile_worker"._private_kongtask_add_keyed(specs[keyed.place], modes[keyed.place], numbers[keyed.place]);
    is_added := result.is_added;
    job := result.added;
    return next;
    added := added + is_added::int;
  end loop;

  if added > 0 then
    perform "graphile_worker"._private_kongtask_notify(added);
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_add_to_bundle(of_bundle bigint, specs json, payloads json, details json)
 RETURNS TABLE(bundle graphile_worker._private_kongtask_bundles, place integer, refused boolean, job graphile_worker._private_jobs, problem text)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET jit TO 'off'
AS $function$
declare
  result record;
begin
  select * into bundle from "graphile_worker"._private_kongtask_bundles as known where known.id = of_bundle;
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
    select * from "graphile_worker"._private_kongtask_add_jobs(
      specs, payloads, true, "graphile_worker"._private_kongtask_member_details(bundle, details)
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

  insert into "graphile_worker"._private_kongtask_bundle_steps (bundle_id, jobs) values (bundle.id, json_array_length(specs));
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_announce(events json)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET jit TO 'off'
AS $function$
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
    join "graphile_worker"._private_kongtask_listeners as listener
      on (listener.name is not null or listener.seen_at > now() - interval '2 minutes')
      and (listener.tasks is null or told.task = any (listener.tasks))
      and (listener.bundle_id is null or listener.bundle_id::text = told.bundle_id)
      and (listener.bundle_name is null or listener.bundle_name = told.bundle_name)
      and (listener.origin is null or listener.origin = told.origin)
  ), kept as (
    insert into "graphile_worker"._private_kongtask_events (listener_id, event)
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

  perform pg_notify('kongtask:stopped', json_build_object('schema', 'graphile_worker', 'events', message)::text)
  from unnest(sent) as message;
  if kept_for <> '{}' then
    perform pg_notify('kongtask:stopped', json_build_object('schema', 'graphile_worker', 'kept', kept_for)::text);
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_announce_jobs(jobs graphile_worker._private_jobs[], state text DEFAULT NULL::text)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET jit TO 'off'
AS $function$
declare
  events json;
begin
  select json_agg(json_build_object(
    '_tag', 'JobStopped', 'job', job.id::text, 'task', "graphile_worker"._private_kongtask_task_name(job.task_id),
    'state', coalesce(announce_jobs.state, detail.outcome, 'completed'), 'bundle', detail.bundle_id::text,
    'origin', detail.origin
  ) order by job.id)
  into events
  from (select _private_kongtask_announce_jobs.state as state) as announce_jobs
  cross join unnest(jobs) as job
  left join lateral (
    select known.outcome, known.bundle_id, known.origin from "graphile_worker"._private_kongtask_job_details as known
    where known.job_id = job.id
    offset 0
  ) as detail on true;
  if events is not null then
    perform "graphile_worker"._private_kongtask_announce(events);
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_cancel(job_id bigint)
 RETURNS SETOF graphile_worker._private_jobs
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
AS $function$
declare
  target "graphile_worker"._private_jobs;
begin
  select * into target from "graphile_worker"._private_jobs as job where job.id = job_id for update;
  if not found then
    return;
  end if;

  delete from "graphile_worker"._private_kongtask_cancellations as request
  where not exists (select from "graphile_worker"._private_jobs as job where job.id = request.job_id);

  if target.locked_at is null or target.locked_at = 'infinity' then
    perform "graphile_worker"._private_kongtask_mark(array[target.id], 'cancelled', null);
    delete from "graphile_worker"._private_jobs as job where job.id = target.id;
  elsif exists (select from "graphile_worker"._private_kongtask_pools as pool where pool.id = target.locked_by) then
    insert into "graphile_worker"._private_kongtask_cancellations as request (job_id) values (target.id) on conflict do nothing;
    perform pg_notify('jobs:insert', json_build_object('r', random(), 'count', 0, 'cancel', target.locked_by)::text);
  else
    perform "graphile_worker"._private_kongtask_mark(array[target.id], 'cancelled', null);
    update "graphile_worker"._private_jobs as job
    set key = null, attempts = job.max_attempts,
      updated_at = greatest(clock_timestamp(), job.locked_at + interval '1 microsecond')
    where job.id = target.id
    returning * into target;
  end if;
  return next target;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_change_schedule(schedule text, at double precision, change text)
 RETURNS boolean
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  last_revision bigint;
begin
  update "graphile_worker"._private_kongtask_schedule_changes set revision = revision + 1 returning revision into last_revision;

  if change = 'remove' then
    delete from "graphile_worker"._private_kongtask_schedules as stored where stored.id = schedule;
    return found;
  end if;

  update "graphile_worker"._private_kongtask_schedules as stored
  set
    is_paused = change = 'pause',
    since = case when change = 'resume'
      then timestamptz 'epoch' + at * interval '1 millisecond' else stored.since end,
    revision = last_revision,
    updated_at = now()
  where stored.id = schedule and stored.is_paused <> (change = 'pause');
  return found or exists (select from "graphile_worker"._private_kongtask_schedules as stored where stored.id = schedule);
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_charge_suspects(own_pool text, suspects bigint[])
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
AS $function$
begin
  with charged as (
    update "graphile_worker"._private_jobs as job
    set attempts = job.attempts + 1, updated_at = now(),
      last_error = 'The pool that ran attempt ' || job.attempts + 1 || ' died.'
    where job.id = any (suspects) and job.attempts < job.max_attempts
    returning job.id, job.attempts, job.last_error
  )
  insert into "graphile_worker"._private_kongtask_failed_attempts as record (job_id, attempt, tag, message)
  select charged.id, charged.attempts, 'PoolDied', charged.last_error from charged
  on conflict (job_id, attempt) do update
  set failed_at = now(), tag = excluded.tag, message = excluded.message, data = null;

  update "graphile_worker"._private_kongtask_batches as batch
  set id_ranges = nullif(array(
    select bound
    from "graphile_worker"._private_kongtask_ids_in(batch.id_ranges) as noted (id)
    cross join lateral unnest(array[noted.id, noted.id]) as bound
    where noted.id <> all (suspects)
    order by bound
  ), '{}')
  where batch.pool <> own_pool
    and exists (
      select from "graphile_worker"._private_kongtask_ids_in(batch.id_ranges) as noted (id) where noted.id = any (suspects)
    );
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_check_spec(identifier text, queue_name text, max_attempts integer, job_key text, priority integer)
 RETURNS void
 LANGUAGE plpgsql
 IMMUTABLE
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_claim(pool text, task_names text[], max_jobs integer, max_start integer, forbidden_flags text[], max_runs integer[] DEFAULT NULL::integer[], due_at timestamp with time zone DEFAULT NULL::timestamp with time zone)
 RETURNS TABLE(id text, task text, payload text, queue_name text, priority integer, run_at double precision, attempts integer, max_attempts integer, last_error text, created_at double precision, key text, revision integer, flags text, details text, contended boolean, next_due_in double precision)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET plan_cache_mode TO 'force_generic_plan'
 SET jit TO 'off'
AS $function$
#variable_conflict use_column
declare
  chosen_ids bigint[];
  were_due boolean;
begin
  if forbidden_flags is null and not exists (
    select from "graphile_worker"._private_tasks as task
    cross join lateral (
      select from "graphile_worker"._private_jobs
      where task_id = task.id and is_available and job_queue_id is not null
      order by priority nulls first limit 1
    ) as queued
    where task.identifier = any (task_names)
  ) then
    with recursive tasks as materialized (
      select id from "graphile_worker"._private_tasks where identifier = any (task_names)
    ), lanes (task_id, priority, run_at, id) as (
      select tasks.id, first.priority, first.run_at, first.id
      from tasks
      cross join lateral (
        select priority, run_at, id from "graphile_worker"._private_jobs
        where task_id = tasks.id and is_available and job_queue_id is null
        order by priority nulls first, run_at nulls first, id limit 1
      ) as first
      union all
      select lanes.task_id, first.priority, first.run_at, first.id
      from lanes
      cross join lateral (
        select priority, run_at, id from "graphile_worker"._private_jobs
        where task_id = lanes.task_id and priority > lanes.priority and is_available and job_queue_id is null
        order by priority nulls first, run_at nulls first, id limit 1
      ) as first
    ), heads as materialized (
      select * from lanes where run_at <= coalesce(due_at, now()) order by priority, run_at
    ), free as materialized (
      select job.id, job.priority, job.run_at, job.is_last
      from heads
      cross join lateral (
        select id, priority, run_at, attempts + 1 >= max_attempts as is_last from "graphile_worker"._private_jobs
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
      from "graphile_worker"._private_tasks
      where identifier = any (task_names)
    ), lanes (task_id, priority, run_at, id) as (
      select tasks.id, first.priority, first.run_at, first.id
      from tasks
      cross join lateral (
        select priority, run_at, id from "graphile_worker"._private_jobs
        where task_id = tasks.id and is_available and job_queue_id is null
        order by priority nulls first, run_at nulls first, id limit 1
      ) as first
      union all
      select lanes.task_id, first.priority, first.run_at, first.id
      from lanes
      cross join lateral (
        select priority, run_at, id from "graphile_worker"._private_jobs
        where task_id = lanes.task_id and priority > lanes.priority and is_available and job_queue_id is null
        order by priority nulls first, run_at nulls first, id limit 1
      ) as first
    ), heads as materialized (
      select * from lanes where run_at <= coalesce(due_at, now()) order by priority, run_at
    ), free as materialized (
      select job.id, job.priority, job.run_at, job.is_last
      from heads
      cross join lateral (
        select id, priority, run_at, attempts + 1 >= max_attempts as is_last from "graphile_worker"._private_jobs
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
          select case when random() < 0.5 then heads.id else (select min(id) from "graphile_worker"._private_jobs) end as id offset 0
        ) as first
        cross join (select max(id) as id from "graphile_worker"._private_jobs) as last
        offset 0
      ) as draw
      cross join lateral (
        select run_at, id from "graphile_worker"._private_jobs where id >= draw.id order by id limit 1
      ) as drawn
      where forbidden_flags is not null
    ), allowed as materialized (
      select distinct job.id, job.priority, job.run_at
      from places
      cross join lateral (
        (
          select id, priority, run_at, flags from "graphile_worker"._private_jobs
          where task_id = places.task_id and priority = places.priority and is_available and job_queue_id is null
            and run_at <= coalesce(due_at, now())
          order by run_at nulls first, id limit max_jobs + 1000
        )
        union all
        (
          select id, priority, run_at, flags from "graphile_worker"._private_jobs
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
        select id, priority, run_at, attempts + 1 >= max_attempts as is_last from "graphile_worker"._private_jobs
        where id = candidate.id and is_available and run_at <= coalesce(due_at, now()) and (flags ?| forbidden_flags) is not true
        for update skip locked
      ) as job
      limit max_jobs
    ), queued_lanes (task_id, priority) as (
      select tasks.id, (
        select priority from "graphile_worker"._private_jobs
        where task_id = tasks.id and is_available and job_queue_id is not null
        order by priority nulls first limit 1
      ) from tasks
      union all
      select queued_lanes.task_id, (
        select priority from "graphile_worker"._private_jobs
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
        select job_queue_id, run_at, id, (flags ?| forbidden_flags) is not true as is_allowed from "graphile_worker"._private_jobs
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
      where (select is_available from "graphile_worker"._private_job_queues where id = first.queue_id)
    ), walk (queue_id, start_id, lowest_id, is_second_round, steps) as (
      select start.id, start.id, range.lowest, false, 1
      from (
        select min(queue.lowest) as lowest, max(queue.highest) as highest
        from queue_tasks
        cross join lateral (
          select
            (
              select job_queue_id from "graphile_worker"._private_jobs
              where task_id = queue_tasks.task_id and is_available and job_queue_id is not null
              order by job_queue_id limit 1
            ) as lowest,
            (
              select job_queue_id from "graphile_worker"._private_jobs
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
          select job_queue_id from "graphile_worker"._private_jobs
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
            select job_queue_id from "graphile_worker"._private_jobs
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
            select run_at, id, flags from "graphile_worker"._private_jobs
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
        and (select is_available from "graphile_worker"._private_job_queues where id = walk.queue_id)
    ), queued as materialized (
      select job.id, job.priority, job.run_at, job.is_last, queue.id as queue_id, candidate.turn
      from (
        select free_queue.id
        from (select * from queue_heads order by priority, run_at, id) as head
        cross join lateral (
          select id from "graphile_worker"._private_job_queues
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
                select run_at, id, flags from "graphile_worker"._private_jobs
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
        select id, priority, run_at, attempts + 1 >= max_attempts as is_last from "graphile_worker"._private_jobs
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
      select from "graphile_worker"._private_kongtask_pools where id = pool for key share
    ), claimed as (
      update "graphile_worker"._private_jobs
      set attempts = attempts + 1, locked_by = pool, locked_at = greatest(clock_timestamp(), updated_at)
      where id = any (chosen_ids) and exists (select from holder)
      returning *
    ), held as (
      update "graphile_worker"._private_job_queues
      set locked_by = pool, locked_at = clock_timestamp()
      where id = any (array(select claimed.job_queue_id from claimed))
    )
    select job.id::text as id,
      (select identifier from "graphile_worker"._private_tasks where id = job.task_id) as task, job.payload::text as payload,
      (select queue_name from "graphile_worker"._private_job_queues where id = job.job_queue_id) as queue_name,
      job.priority::int4 as priority, "graphile_worker"._private_kongtask_millis(job.run_at) as run_at,
      job.attempts::int4 as attempts, job.max_attempts::int4 as max_attempts, job.last_error,
      "graphile_worker"._private_kongtask_millis(job.created_at) as created_at, job.key, job.revision::int4 as revision,
      job.flags::text as flags,
      (
        select "graphile_worker"._private_kongtask_hand_over(detail) from "graphile_worker"._private_kongtask_job_details as detail
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
    select id from "graphile_worker"._private_tasks where identifier = any (task_names)
  ), lanes (task_id, priority) as (
    select tasks.id, (
      select priority from "graphile_worker"._private_jobs
      where task_id = tasks.id and is_available and job_queue_id is null
      order by priority nulls first limit 1
    ) from tasks
    union all
    select lanes.task_id, (
      select priority from "graphile_worker"._private_jobs
      where task_id = lanes.task_id and priority > lanes.priority and is_available and job_queue_id is null
      order by priority nulls first limit 1
    ) from lanes where lanes.priority is not null
  ), queued_lanes (task_id, priority) as (
    select tasks.id, (
      select priority from "graphile_worker"._private_jobs
      where task_id = tasks.id and is_available and job_queue_id is not null
      order by priority nulls first limit 1
    ) from tasks
    union all
    select queued_lanes.task_id, (
      select priority from "graphile_worker"._private_jobs
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
            select run_at from "graphile_worker"._private_jobs
            where task_id = lanes.task_id and priority = lanes.priority and is_available and job_queue_id is null
              and run_at > coalesce(due_at, now())
            order by run_at nulls first limit 1
          ) as next
        ),
        (
          select min(next.run_at) from queued_lanes as lane cross join lateral (
            select waiting.run_at from (
              select job_queue_id, run_at from "graphile_worker"._private_jobs
              where task_id = lane.task_id and priority = lane.priority and is_available and job_queue_id is not null
                and run_at > coalesce(due_at, now())
              order by run_at nulls first limit 50
            ) as waiting
            where (select is_available from "graphile_worker"._private_job_queues where id = waiting.job_queue_id)
            order by waiting.run_at limit 1
          ) as next
        )
      ) - coalesce(due_at, now()))::float8 * 1000
    );
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_complete_bundle(bundle graphile_worker._private_kongtask_bundles)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET jit TO 'off'
AS $function$
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
      from "graphile_worker"._private_kongtask_bundle_outcomes as known
      where known.bundle_id = bundle.id;
      if not is_too_large then
        select coalesce(json_agg("graphile_worker"._private_kongtask_describe_outcome(known) order by known.job_id, known.revision), '[]')
        into outcomes
        from "graphile_worker"._private_kongtask_bundle_outcomes as known
        where known.bundle_id = bundle.id;
      end if;
    end if;
    payload := case
      when not takes_outcomes then json_build_object(
        'bundle', "graphile_worker"._private_kongtask_summarise_bundle(bundle), 'data', completion -> 'data', 'outcomes', json '[]'
      )
      when is_too_large then json_build_object(
        'bundle', "graphile_worker"._private_kongtask_summarise_bundle(bundle), 'data', completion -> 'data'
      )
      else json_build_object(
        'bundle', "graphile_worker"._private_kongtask_summarise_bundle(bundle), 'data', completion -> 'data', 'outcomes', outcomes
      )
    end;
    perform from "graphile_worker"._private_kongtask_add_jobs(
      json_build_array(completion -> 'spec'), json_build_array(payload), false,
      case when json_typeof(completion -> 'details') = 'object' then json_build_array(completion -> 'details') end
    );
  end loop;

  perform pg_notify(
    'kongtask:stopped', json_build_object('schema', 'graphile_worker', 'bundle', bundle.id::text)::text
  );
  if exists (select from "graphile_worker"._private_kongtask_listeners) then
    perform "graphile_worker"._private_kongtask_announce(json_build_array(json_build_object(
      '_tag', 'BundleDone', 'bundle', "graphile_worker"._private_kongtask_summarise_bundle(bundle)
    )));
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_complete_held(own_stream text)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET plan_cache_mode TO 'force_generic_plan'
 SET jit TO 'off'
AS $function$
declare
  held constant tid[] := '{' || current_setting('kongtask.held') || '}';
  deleted int;
begin
  update "graphile_worker"._private_kongtask_batches as batch set id_ranges = null where batch.stream = own_stream;
  delete from "graphile_worker"._private_jobs as job where job.ctid = any (held);
  get diagnostics deleted = row_count;
  if deleted <> cardinality(held) then
    raise exception 'Of % jobs in a batch, % were there at its end', cardinality(held), deleted;
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_count_history(tasks text[], states text[], queue text, job_key text, stopped_after double precision, stopped_before double precision, added_after double precision, added_before double precision)
 RETURNS double precision
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET plan_cache_mode TO 'force_custom_plan'
AS $function$
begin
  return (
    select count(*) from "graphile_worker"._private_kongtask_history as past
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
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_count_steps()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET jit TO 'off'
AS $function$
declare
  step record;
  bundle "graphile_worker"._private_kongtask_bundles;
begin
  for step in
    with own as (
      delete from "graphile_worker"._private_kongtask_bundle_steps as noted where noted.txid = txid_current() returning *
    )
    select own.bundle_id, sum(own.jobs)::int as jobs, sum(own.completed)::int as completed, sum(own.failed)::int as failed,
      sum(own.cancelled)::int as cancelled, min(own.failed) < 0 or min(own.cancelled) < 0 as has_revived
    from own
    group by own.bundle_id
    order by own.bundle_id
  loop
    update "graphile_worker"._private_kongtask_bundles as known
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
      update "graphile_worker"._private_kongtask_bundles as known
      set done_at = now(), expires_at = now() + known.retain
      where known.id = step.bundle_id
      returning * into bundle;
      perform "graphile_worker"._private_kongtask_complete_bundle(bundle);
    end if;
  end loop;
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_create_names(identifiers text[], queue_names text[])
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
AS $function$
begin
  insert into "graphile_worker"._private_tasks (identifier)
  select distinct name
  from unnest(identifiers) as name
  left join lateral (select id from "graphile_worker"._private_tasks where identifier = name offset 0) as task on true
  where task.id is null
  order by name
  on conflict (identifier) do nothing;

  insert into "graphile_worker"._private_job_queues (queue_name)
  select distinct name
  from unnest(queue_names) as name
  left join lateral (select id from "graphile_worker"._private_job_queues where queue_name = name offset 0) as queue on true
  where name is not null and queue.id is null
  order by name
  on conflict (queue_name) do nothing;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_delete_bundles(bundle_ids bigint[])
 RETURNS SETOF graphile_worker._private_kongtask_bundles
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET jit TO 'off'
AS $function$
begin
  perform "graphile_worker"._private_kongtask_cancel(member.job_id)
  from (
    select detail.job_id from "graphile_worker"._private_kongtask_job_details as detail
    where detail.bundle_id = any (bundle_ids)
    order by detail.job_id
  ) as member;

  update "graphile_worker"._private_kongtask_job_details as detail set bundle_id = null where detail.bundle_id = any (bundle_ids);
  delete from "graphile_worker"._private_kongtask_bundle_outcomes as outcome where outcome.bundle_id = any (bundle_ids);
  return query delete from "graphile_worker"._private_kongtask_bundles as bundle where bundle.id = any (bundle_ids) returning *;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_delete_unused(of_tasks boolean, of_queues boolean)
 RETURNS TABLE(tasks integer, queues integer)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET lock_timeout TO '2s'
 SET enable_nestloop TO 'off'
AS $function$
begin
  tasks := 0;
  queues := 0;
  if exists (
    select from "graphile_worker"._private_tasks as task
    where of_tasks and not exists (select from "graphile_worker"._private_jobs as job where job.task_id = task.id)
  ) or exists (
    select from "graphile_worker"._private_job_queues as queue
    where of_queues and queue.locked_at is null
      and not exists (select from "graphile_worker"._private_jobs as job where job.job_queue_id = queue.id)
  ) then
    lock table "graphile_worker"._private_jobs in share row exclusive mode;

    delete from "graphile_worker"._private_tasks as task
    where of_tasks and not exists (select from "graphile_worker"._private_jobs as job where job.task_id = task.id);
    get diagnostics tasks = row_count;

    delete from "graphile_worker"._private_job_queues as queue
    where of_queues and queue.locked_at is null
      and not exists (select from "graphile_worker"._private_jobs as job where job.job_queue_id = queue.id);
    get diagnostics queues = row_count;
  end if;
  return next;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_describe(job graphile_worker._private_jobs, state text DEFAULT NULL::text)
 RETURNS TABLE(id text, task text, state text, payload text, queue_name text, priority integer, run_at double precision, attempts integer, max_attempts integer, last_error text, created_at double precision, updated_at double precision, key text, locked_at double precision, locked_by text, revision integer, flags text)
 LANGUAGE sql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select
    $1.id::text,
    "graphile_worker"._private_kongtask_task_name($1.task_id),
    coalesce($2, "graphile_worker"._private_kongtask_state($1.run_at, $1.attempts, $1.max_attempts, $1.locked_at)),
    $1.payload::text,
    "graphile_worker"._private_kongtask_queue_name($1.job_queue_id),
    $1.priority::int,
    "graphile_worker"._private_kongtask_millis($1.run_at),
    $1.attempts::int,
    $1.max_attempts::int,
    $1.last_error,
    "graphile_worker"._private_kongtask_millis($1.created_at),
    "graphile_worker"._private_kongtask_millis($1.updated_at),
    $1.key,
    "graphile_worker"._private_kongtask_millis($1.locked_at),
    $1.locked_by,
    $1.revision::int,
    $1.flags::text
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_describe_bundle(bundle graphile_worker._private_kongtask_bundles)
 RETURNS TABLE(id text, name text, origin text, jobs integer, completed integer, failed integer, cancelled integer, created_at double precision, done_at double precision)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select $1.id::text, $1.name, $1.origin, $1.jobs, $1.completed, $1.failed, $1.cancelled,
    "graphile_worker"._private_kongtask_millis($1.created_at), "graphile_worker"._private_kongtask_millis($1.done_at)
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_describe_finished(past graphile_worker._private_kongtask_history)
 RETURNS TABLE(id text, revision integer, task text, queue_name text, state text, payload text, priority integer, run_at double precision, attempts integer, max_attempts integer, key text, flags text, created_at double precision, started_at double precision, stopped_at double precision, error text, failed_attempts text, result text, origin text, metadata text, bundle text, expires_at double precision)
 LANGUAGE sql
 STABLE
AS $function$
  select
    past.job_id::text, past.revision, past.task, past.queue_name, past.state, past.payload::text, past.priority::int,
    "graphile_worker"._private_kongtask_millis(past.run_at), past.attempts::int, past.max_attempts::int, past.key, past.flags::text,
    "graphile_worker"._private_kongtask_millis(past.created_at), "graphile_worker"._private_kongtask_millis(past.started_at),
    "graphile_worker"._private_kongtask_millis(past.stopped_at), past.error, past.failed_attempts::text, past.result::text,
    past.origin, past.metadata::text, past.bundle_id::text, "graphile_worker"._private_kongtask_millis(past.expires_at)
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_describe_outcome(outcome graphile_worker._private_kongtask_bundle_outcomes)
 RETURNS json
 LANGUAGE sql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_expire_bundles()
 RETURNS integer
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET jit TO 'off'
AS $function$
declare
  expired bigint[];
begin
  with chosen as (
    select bundle.id from "graphile_worker"._private_kongtask_bundles as bundle
    where bundle.expires_at < now()
    order by bundle.expires_at limit 100
    for update skip locked
  ), deleted as (
    delete from "graphile_worker"._private_kongtask_bundles as bundle using chosen where bundle.id = chosen.id returning bundle.id
  )
  select array_agg(deleted.id) into expired from deleted;

  delete from "graphile_worker"._private_kongtask_bundle_outcomes as outcome where outcome.bundle_id = any (expired);
  return coalesce(cardinality(expired), 0);
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_failures_of(job_id bigint)
 RETURNS json
 LANGUAGE sql
 STABLE STRICT
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select json_agg(
    json_build_object(
      'attempt', record.attempt, 'failedAt', "graphile_worker"._private_kongtask_millis(record.failed_at), 'tag', record.tag,
      'message', record.message, 'data', record.data
    ) order by record.attempt
  )
  from "graphile_worker"._private_kongtask_failed_attempts as record
  where record.job_id = $1
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_find_finished(wanted bigint)
 RETURNS TABLE(id text, revision integer, task text, queue_name text, state text, payload text, priority integer, run_at double precision, attempts integer, max_attempts integer, key text, flags text, created_at double precision, started_at double precision, stopped_at double precision, error text, failed_attempts text, result text, origin text, metadata text, bundle text, expires_at double precision)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select described.*
  from "graphile_worker"._private_kongtask_history as past
  cross join lateral "graphile_worker"._private_kongtask_describe_finished(past) as described
  where past.job_id = wanted and past.is_retained and past.expires_at > now()
  order by past.revision desc limit 1
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_force_unlock(pools text[])
 RETURNS SETOF graphile_worker._private_jobs
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  unlocked bigint;
begin
  delete from "graphile_worker"._private_kongtask_pools as pool where pool.id = any (pools);

  return query
  update "graphile_worker"._private_jobs as job
  set
    locked_at = null,
    locked_by = null,
    updated_at = now(),
    last_error = case when job.attempts >= job.max_attempts
      then 'The pool ' || job.locked_by || ' was unlocked while it ran attempt ' || job.attempts || ', the last one.'
      else job.last_error end
  where job.locked_by = any (pools) and job.locked_at is distinct from 'infinity'
  returning job.*;
  get diagnostics unlocked = row_count;

  update "graphile_worker"._private_job_queues as queue
  set locked_at = null, locked_by = null
  where queue.locked_by = any (pools);

  if unlocked > 0 then
    perform "graphile_worker"._private_kongtask_notify(unlocked);
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_forget_history(tasks text[], states text[], queue text, job_key text, stopped_after double precision, stopped_before double precision, added_after double precision, added_before double precision, max_jobs integer)
 RETURNS double precision
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET plan_cache_mode TO 'force_custom_plan'
AS $function$
declare
  deleted bigint;
begin
  delete from "graphile_worker"._private_kongtask_history as past
  where past.ctid = any (array(
    select found.ctid from "graphile_worker"._private_kongtask_history as found
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
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_hand_over(details graphile_worker._private_kongtask_job_details)
 RETURNS text
 LANGUAGE sql
 STABLE
AS $function$
  select json_build_object(
    'retains', details.retain > interval '0', 'origin', details.origin, 'metadata', details.metadata,
    'trace', details.trace, 'bundle', details.bundle_id::text
  )::text
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_hand_over_batch(id_ranges bigint[])
 RETURNS TABLE(id text, details text)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET plan_cache_mode TO 'force_generic_plan'
 SET jit TO 'off'
AS $function$
begin
  return query
  select detail.job_id::text, "graphile_worker"._private_kongtask_hand_over(detail)
  from generate_series(1, cardinality(id_ranges), 2) as place
  cross join lateral (
    select * from "graphile_worker"._private_kongtask_job_details as known
    where known.job_id between id_ranges[place] and id_ranges[place + 1]
    offset 0
  ) as detail;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_heartbeat(pool text)
 RETURNS TABLE(dead_pool text, cancelled_job text)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  return query
  with beat as (
    update "graphile_worker"._private_kongtask_pools as own
    set heartbeat_at = now(),
      alive_since = case when own.heartbeat_at < now() - own.lease / 2 then now() else own.alive_since end
    where own.id = pool
    returning own.alive_since
  )
  select other.id, null::text from beat
  left join "graphile_worker"._private_kongtask_pools as other
    on other.id <> pool and other.heartbeat_at < now() - other.lease and beat.alive_since <= now() - other.lease
  union all
  select null, request.job_id::text
  from "graphile_worker"._private_kongtask_cancellations as request
  where (select job.locked_by from "graphile_worker"._private_jobs as job where job.id = request.job_id) = pool;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_hold_batch(task_names text[], max_jobs integer, due_at timestamp with time zone DEFAULT NULL::timestamp with time zone, may_wait boolean DEFAULT true, row_jobs integer DEFAULT NULL::integer)
 RETURNS TABLE(task integer, priority integer, ids text, payloads text, run_at bytea, created_at bytea, rests text)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET plan_cache_mode TO 'force_generic_plan'
 SET jit TO 'off'
AS $function$
#variable_conflict use_column
begin
  perform set_config('idle_in_transaction_session_timeout', '5s', true);
  if not "graphile_worker"._private_kongtask_take_turn(max_jobs, may_wait) then
    return query select null::int, null::int, null::text, null::text, null::bytea, null::bytea, null::text;
    return;
  end if;
  return query
  with recursive tasks as materialized (
    select id, array_position(task_names, identifier) as place from "graphile_worker"._private_tasks
    where identifier = any (task_names)
  ), lanes (task_id, place, priority, run_at, id) as (
    select tasks.id, tasks.place, first.priority, first.run_at, first.id
    from tasks
    cross join lateral (
      select priority, run_at, id from "graphile_worker"._private_jobs
      where task_id = tasks.id and is_available and job_queue_id is null
      order by priority nulls first, run_at nulls first, id limit 1
    ) as first
    union all
    select lanes.task_id, lanes.place, first.priority, first.run_at, first.id
    from lanes
    cross join lateral (
      select priority, run_at, id from "graphile_worker"._private_jobs
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
      select *, ctid as tid from "graphile_worker"._private_jobs
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
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_hold_more(task_name text, lane_priority integer, after_micros double precision, after_id bigint, max_jobs integer, due_at timestamp with time zone DEFAULT NULL::timestamp with time zone, may_wait boolean DEFAULT true, row_jobs integer DEFAULT NULL::integer)
 RETURNS TABLE(task integer, priority integer, ids text, payloads text, run_at bytea, created_at bytea, rests text)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET plan_cache_mode TO 'force_generic_plan'
 SET jit TO 'off'
AS $function$
#variable_conflict use_column
begin
  perform set_config('idle_in_transaction_session_timeout', '5s', true);
  if not "graphile_worker"._private_kongtask_take_turn(max_jobs, may_wait) then
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
        from "graphile_worker"._private_jobs as job
        where task_id = (select known.id from "graphile_worker"._private_tasks as known where known.identifier = task_name)
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
      select *, ctid as tid from "graphile_worker"._private_jobs as job
      where task_id = (select known.id from "graphile_worker"._private_tasks as known where known.identifier = task_name)
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
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_ids_in(id_ranges bigint[])
 RETURNS SETOF bigint
 LANGUAGE sql
 IMMUTABLE
AS $function$
  select id
  from pg_catalog.generate_series(1, pg_catalog.cardinality(id_ranges), 2) as place
  cross join lateral pg_catalog.generate_series(id_ranges[place], id_ranges[place + 1]) as id
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_insert_jobs(specs json, spec_places integer[], payloads json, may_wait boolean)
 RETURNS TABLE(ids text, created_at double precision, specs_added text)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
AS $function$
#variable_conflict use_column
begin
  perform "graphile_worker"._private_kongtask_check_spec(
    spec.value ->> 0, spec.value ->> 1, (spec.value ->> 4)::int, null, (spec.value ->> 5)::int
  )
  from json_array_elements(specs) as spec;

  loop
    return query
    with resolved as materialized (
      select
        spec.ordinality, task.id as task_id, queue.id as queue_id,
        coalesce(
          to_timestamp((spec.value ->> 2)::float8 / 1000),
          now() + (spec.value ->> 3)::float8 * interval '1 millisecond',
          now()
        ) as run_at,
        coalesce((spec.value ->> 4)::int, 25) as max_attempts, coalesce((spec.value ->> 5)::int, 0) as priority,
        case when json_typeof(spec.value -> 6) = 'array'
          then (select jsonb_object_agg(flag, true) from json_array_elements_text(spec.value -> 6) as flag)
        end as flags
      from json_array_elements(specs) with ordinality as spec
      cross join lateral (
        select id from "graphile_worker"._private_tasks where identifier = spec.value ->> 0 offset 0
      ) as task
      left join lateral (
        select id from "graphile_worker"._private_job_queues where queue_name = spec.value ->> 1 offset 0
      ) as queue on true
      where spec.value ->> 1 is null or queue.id is not null
    ), added as (
      insert into "graphile_worker"._private_jobs as job
        (job_queue_id, task_id, payload, run_at, max_attempts, priority, flags)
      select spec.queue_id, spec.task_id, item.payload, spec.run_at, spec.max_attempts, spec.priority, spec.flags
      from json_array_elements(payloads) with ordinality as item (payload, ordinality)
      join resolved as spec on spec.ordinality = coalesce(spec_places[item.ordinality], 1)
      where (select count(*) from resolved) = json_array_length(specs)
      order by item.ordinality
      returning job.id
    )
    select
      added.ids, "graphile_worker"._private_kongtask_millis(now()),
      (
        select json_agg(
          json_build_array(
            "graphile_worker"._private_kongtask_millis(run_at),
            "graphile_worker"._private_kongtask_state(run_at, 0, max_attempts, null),
            flags::text
          )
          order by ordinality
        )::text
        from resolved
      )
    from (select string_agg(id::text, ',') as ids from added) as added
    where added.ids is not null;

    if found then
      perform "graphile_worker"._private_kongtask_notify(json_array_length(payloads));
      return;
    end if;
    exit when not may_wait;
    perform "graphile_worker"._private_kongtask_create_names(array_agg(spec.value ->> 0), array_agg(spec.value ->> 1))
    from json_array_elements(specs) as spec;
  end loop;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_is_free(locked_at timestamp with time zone)
 RETURNS boolean
 LANGUAGE sql
 STABLE
AS $function$
  select locked_at is null or locked_at = 'infinity' or locked_at < now() - interval '4 hours'
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_job_turned()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET jit TO 'off'
AS $function$
declare
  detail "graphile_worker"._private_kongtask_job_details;
begin
  if new.attempts >= new.max_attempts and (new.locked_at is null or new.locked_at = 'infinity') then
    update "graphile_worker"._private_kongtask_job_details as known
    set outcome = coalesce(known.outcome, 'failed'), stopped_at = now()
    where known.job_id = new.id and known.stopped_at is null
    returning * into detail;
    if detail.awaited then
      perform "graphile_worker"._private_kongtask_tell(array[new.id]);
    end if;
    if detail.bundle_id is not null then
      perform "graphile_worker"._private_kongtask_member_failed(detail.bundle_id, new, detail.outcome);
    end if;
    if exists (select from "graphile_worker"._private_kongtask_listeners) then
      perform "graphile_worker"._private_kongtask_announce_jobs(array[new], coalesce(detail.outcome, 'failed'));
    end if;
  else
    update "graphile_worker"._private_kongtask_job_details as known
    set outcome = null, reason = null, stopped_at = null
    where known.job_id = new.id and known.stopped_at is not null
    returning * into detail;
    if detail.bundle_id is not null then
      perform "graphile_worker"._private_kongtask_member_lives(detail.bundle_id, new);
    end if;
  end if;
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_jobs_deleted()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET jit TO 'off'
AS $function$
declare
  first_id bigint;
  last_id bigint;
  ids bigint[];
begin
  -- A job that had failed had stopped.
  if exists (select from "graphile_worker"._private_kongtask_listeners) then
    perform "graphile_worker"._private_kongtask_announce_jobs(array(
      select cast(row(gone.*) as "graphile_worker"._private_jobs) from gone
      where not (gone.attempts >= gone.max_attempts and (gone.locked_at is null or gone.locked_at = 'infinity'))
    ));
  end if;

  -- Most jobs have no details, and then one look does for all of the statement's.
  select min(id), max(id) into first_id, last_id from gone;
  if not exists (
    select from "graphile_worker"._private_kongtask_job_details as known where known.job_id between first_id and last_id
  ) then
    return null;
  end if;

  ids := array(
    select detail.job_id
    from gone
    cross join lateral (
      select known.job_id from "graphile_worker"._private_kongtask_job_details as known where known.job_id = gone.id offset 0
    ) as detail
    order by detail.job_id
  );
  if ids <> '{}' then
    perform from "graphile_worker"._private_kongtask_job_details as detail
    where detail.job_id = any (ids)
    order by detail.job_id
    for update;
    perform "graphile_worker"._private_kongtask_stop(array(
      select cast(row(gone.*) as "graphile_worker"._private_jobs) from gone where gone.id = any (ids)
    ));
  end if;
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_mark(job_ids bigint[], new_outcome text, new_reason text)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET jit TO 'off'
AS $function$
begin
  update "graphile_worker"._private_kongtask_job_details as detail
  set outcome = case when new_outcome = 'completed' then new_outcome else coalesce(detail.outcome, new_outcome) end,
    reason = coalesce(detail.reason, new_reason)
  where detail.job_id = any (job_ids);

  -- Who listens must be told of what has no details, too.
  if new_outcome = 'cancelled' and exists (select from "graphile_worker"._private_kongtask_listeners) then
    insert into "graphile_worker"._private_kongtask_job_details (job_id, outcome, reason)
    select job.id, new_outcome, new_reason from unnest(job_ids) as job (id) order by job.id
    on conflict (job_id) do nothing;
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_member_details(bundle graphile_worker._private_kongtask_bundles, details json)
 RETURNS json
 LANGUAGE sql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select json_agg(json_build_object(
    'bundle', $1.id::text, 'retain', detail.value -> 'retain', 'awaited', detail.value -> 'awaited',
    'origin', coalesce(detail.value ->> 'origin', $1.origin), 'metadata', detail.value -> 'metadata',
    'trace', detail.value -> 'trace'
  ) order by detail.ordinality)
  from json_array_elements($2) with ordinality as detail
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_member_failed(of_bundle bigint, job graphile_worker._private_jobs, state text)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET jit TO 'off'
AS $function$
#variable_conflict use_column
begin
  with noted as (
    insert into "graphile_worker"._private_kongtask_bundle_outcomes (bundle_id, job_id, revision, task, state, tag, message, data)
    select bundle.id, job.id, job.revision, "graphile_worker"._private_kongtask_task_name(job.task_id),
      _private_kongtask_member_failed.state, coalesce(record.tag, 'Error'), coalesce(job.last_error, ''), record.data
    from "graphile_worker"._private_kongtask_bundles as bundle
    left join lateral (
      select known.tag, known.data from "graphile_worker"._private_kongtask_failed_attempts as known
      -- Written by the transaction that fails the job.
      where known.job_id = job.id and known.failed_at = now()
      order by known.attempt desc limit 1
    ) as record on true
    where bundle.id = of_bundle and bundle.done_at is null
    on conflict (bundle_id, job_id, revision) do nothing
    returning bundle_id, state
  )
  insert into "graphile_worker"._private_kongtask_bundle_steps (bundle_id, failed, cancelled)
  select bundle_id, (state = 'failed')::int, (state = 'cancelled')::int from noted;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_member_lives(of_bundle bigint, job graphile_worker._private_jobs)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET jit TO 'off'
AS $function$
begin
  if exists (
    select from "graphile_worker"._private_kongtask_bundles as bundle where bundle.id = of_bundle and bundle.done_at is null
  ) then
    with revived as (
      delete from "graphile_worker"._private_kongtask_bundle_outcomes as outcome
      where outcome.bundle_id = of_bundle and outcome.job_id = job.id
        and outcome.revision = (
          select max(last.revision) from "graphile_worker"._private_kongtask_bundle_outcomes as last
          where last.bundle_id = of_bundle and last.job_id = job.id
        )
      returning outcome.state
    )
    insert into "graphile_worker"._private_kongtask_bundle_steps (bundle_id, failed, cancelled)
    select of_bundle, -(revived.state = 'failed')::int, -(revived.state = 'cancelled')::int from revived;
  else
    update "graphile_worker"._private_kongtask_job_details as detail set bundle_id = null where detail.job_id = job.id;
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_merge_payloads(first json, second json)
 RETURNS json
 LANGUAGE plpgsql
 IMMUTABLE
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_millis(at timestamp with time zone)
 RETURNS double precision
 LANGUAGE sql
 STABLE PARALLEL SAFE
AS $function$
  select extract(epoch from case
    when at > timestamptz '9999-12-31 23:59:59.999Z' then timestamptz '9999-12-31 23:59:59.999Z'
    when at < timestamptz '0001-01-01Z' then timestamptz '0001-01-01Z'
    else at
  end)::float8 * 1000
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_note_batch(own_stream text, own_pool text, own_ranges bigint[])
 RETURNS SETOF text
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET plan_cache_mode TO 'force_generic_plan'
 SET jit TO 'off'
AS $function$
begin
  perform set_config('synchronous_commit', 'off', true);
  -- The streams of a pool one after the other, so that each sees the others' notes.
  perform pg_advisory_xact_lock(
    format('%I._private_kongtask_batches', 'graphile_worker')::regclass::oid::int8::bit(32)::int, hashtext(own_pool)
  );
  insert into "graphile_worker"._private_kongtask_batches as batch (stream, pool, id_ranges)
  values (own_stream, own_pool, own_ranges)
  on conflict (stream) do update set id_ranges = excluded.id_ranges, noted_at = now();

  return query
  with others as materialized (
    select batch.id_ranges, batch.pool = own_pool as is_own from "graphile_worker"._private_kongtask_batches as batch
    where batch.stream <> own_stream and batch.id_ranges[1] <= own_ranges[cardinality(own_ranges)]
      and batch.id_ranges[cardinality(batch.id_ranges)] >= own_ranges[1]
  ), noted as materialized (
    select noted.id, others.is_own from others cross join lateral "graphile_worker"._private_kongtask_ids_in(others.id_ranges) as noted (id)
  ), own as materialized (
    select own.id from "graphile_worker"._private_kongtask_ids_in(own_ranges) as own (id) where exists (select from others)
  )
  select case when not noted.is_own then noted.id::text end from noted join own on own.id = noted.id;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_notify(count bigint)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  perform pg_notify('jobs:insert', '{"r":' || random()::text || ',"count":' || count::text || '}');
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_observe(job_id bigint, from_revision integer, announce boolean)
 RETURNS TABLE(task text, revision integer, state text, has_stopped boolean, error text, failed_attempts text, result text, is_retained boolean, progress text, progress_at double precision)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
AS $function$
#variable_conflict use_column
declare
  wanted constant bigint := job_id;
  live "graphile_worker"._private_jobs;
  known "graphile_worker"._private_kongtask_job_details;
  past "graphile_worker"._private_kongtask_history;
begin
  if announce then
    insert into "graphile_worker"._private_kongtask_job_details as detail (job_id, awaited)
    select job.id, true from "graphile_worker"._private_jobs as job
    where job.id = wanted and not (job.attempts >= job.max_attempts and job.locked_at is null)
    on conflict (job_id) do update set awaited = true where not detail.awaited;
  end if;

  select * into live from "graphile_worker"._private_jobs as job where job.id = wanted;
  if live.id is null and announce then
    delete from "graphile_worker"._private_kongtask_job_details as detail
    where detail.job_id = wanted and not exists (select from "graphile_worker"._private_jobs as job where job.id = wanted);
  end if;

  if from_revision is not null then
    select * into past from "graphile_worker"._private_kongtask_history as kept
    where kept.job_id = wanted and kept.revision >= from_revision and kept.expires_at > now()
    order by kept.revision limit 1;
  elsif live.id is null then
    select * into past from "graphile_worker"._private_kongtask_history as kept
    where kept.job_id = wanted and kept.expires_at > now()
    order by kept.revision desc limit 1;
  end if;

  if past.job_id is not null then
    return query select
      past.task, past.revision, past.state, true, past.error, past.failed_attempts::text, past.result::text,
      past.is_retained, null::text, null::float8;
  elsif live.id is not null then
    select * into known from "graphile_worker"._private_kongtask_job_details as detail where detail.job_id = wanted;
    state := "graphile_worker"._private_kongtask_state(live.run_at, live.attempts, live.max_attempts, live.locked_at);
    has_stopped := state = 'failed';
    state := case when has_stopped then coalesce(known.outcome, state) else state end;
    return query select
      "graphile_worker"._private_kongtask_task_name(live.task_id), live.revision, state, has_stopped,
      case when state = 'cancelled' then known.reason else live.last_error end,
      case when has_stopped then "graphile_worker"._private_kongtask_failures_of(live.id)::text end, null::text, true,
      known.progress::text, "graphile_worker"._private_kongtask_millis(known.progress_at);
  else
    return query select
      null::text,
      (wanted <= coalesce(
        pg_sequence_last_value(pg_get_serial_sequence(quote_ident('graphile_worker') || '._private_jobs', 'id')), 0
      ))::int,
      null::text, true, null::text, null::text, null::text, false, null::text, null::float8;
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_promote(pool text, job_ids bigint[])
 RETURNS SETOF bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET plan_cache_mode TO 'force_generic_plan'
 SET jit TO 'off'
AS $function$
#variable_conflict use_column
begin
  return query
  with holder as materialized (
    select from "graphile_worker"._private_kongtask_pools where id = pool for key share
  )
  update "graphile_worker"._private_jobs
  set attempts = attempts + 1, locked_by = pool, locked_at = greatest(clock_timestamp(), updated_at)
  where id = any (job_ids) and exists (select from holder)
  returning id;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_put_details(job_ids bigint[], details json)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
AS $function$
begin
  insert into "graphile_worker"._private_kongtask_job_details as known
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
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_put_schedule(schedule text, at double precision, new_definition json)
 RETURNS boolean
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  last_revision bigint;
begin
  update "graphile_worker"._private_kongtask_schedule_changes set revision = revision + 1 returning revision into last_revision;

  insert into "graphile_worker"._private_kongtask_schedules as stored (id, definition, since, revision)
  values (schedule, new_definition, timestamptz 'epoch' + at * interval '1 millisecond', last_revision)
  on conflict (id) do update
  set definition = excluded.definition, since = excluded.since, revision = excluded.revision, updated_at = now()
  where stored.definition::text <> excluded.definition::text;
  return found;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_queue_name(queue_id integer)
 RETURNS text
 LANGUAGE sql
 STRICT
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select queue.queue_name from "graphile_worker"._private_job_queues as queue where queue.id = queue_id
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_read_history(tasks text[], states text[], queue text, job_key text, stopped_after double precision, stopped_before double precision, added_after double precision, added_before double precision, after_millis double precision, after_id bigint, max_jobs integer)
 RETURNS TABLE(id text, revision integer, task text, queue_name text, state text, payload text, priority integer, run_at double precision, attempts integer, max_attempts integer, key text, flags text, created_at double precision, started_at double precision, stopped_at double precision, error text, failed_attempts text, result text, origin text, metadata text, bundle text, expires_at double precision)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET plan_cache_mode TO 'force_custom_plan'
 SET jit TO 'off'
AS $function$
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
      select * from "graphile_worker"._private_kongtask_history as past
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
      select * from "graphile_worker"._private_kongtask_history as past
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
  cross join lateral "graphile_worker"._private_kongtask_describe_finished(past) as described
  order by past.stopped_at desc, past.job_id desc;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_register_scheduler(scheduler text, at double precision, lease double precision, known_identifiers text[], items json, payloads json)
 RETURNS TABLE(identifier text, known_since double precision, last_execution double precision, alive_since double precision, job_id text)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  moment timestamptz := timestamptz 'epoch' + at * interval '1 millisecond';
  first_items text;
  first_payloads text;
begin
  lock table "graphile_worker"._private_known_crontabs in share row exclusive mode;

  delete from "graphile_worker"._private_kongtask_schedulers as other
  where other.id <> scheduler and other.seen_at < clock_timestamp() - lease * interval '1 millisecond';

  select
    '[' || string_agg(entry.item::text, ',' order by entry.ordinality) || ']',
    '[' || string_agg(entry.payload::text, ',' order by entry.ordinality) || ']'
  into first_items, first_payloads
  from rows from (json_array_elements(items), json_array_elements(payloads))
    with ordinality as entry (item, payload, ordinality)
  where not exists (
    select from "graphile_worker"._private_kongtask_schedulers as other where entry.item ->> 0 = any (other.identifiers)
  );

  insert into "graphile_worker"._private_known_crontabs as known (identifier, known_since)
  select distinct wanted, moment from unnest(known_identifiers) as wanted
  on conflict (identifier) do nothing;

  insert into "graphile_worker"._private_kongtask_schedulers as own (id, started_at, identifiers)
  values (scheduler, moment, known_identifiers)
  on conflict (id) do update set identifiers = excluded.identifiers, seen_at = clock_timestamp();

  return query
  with first as materialized (
    select first_item.item ->> 0 as id, ran.job_id
    from "graphile_worker"._private_kongtask_schedule(coalesce(first_items, '[]')::json, coalesce(first_payloads, '[]')::json) as ran
    join json_array_elements(coalesce(first_items, '[]')::json) with ordinality as first_item (item, place)
      on first_item.place = ran.place
  )
  select
    known.identifier, "graphile_worker"._private_kongtask_millis(known.known_since),
    "graphile_worker"._private_kongtask_millis(known.last_execution), "graphile_worker"._private_kongtask_millis((
      select min(other.started_at) from "graphile_worker"._private_kongtask_schedulers as other
      where other.id <> scheduler and known.identifier = any (other.identifiers)
    )),
    (select first.job_id from first where first.id = known.identifier)
  from "graphile_worker"._private_known_crontabs as known
  where known.identifier = any (known_identifiers);
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_release_pools(pools text[], every_pool boolean, OUT released integer, OUT failed integer)
 RETURNS record
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  select taken.released, taken.failed into released, failed
  from "graphile_worker"._private_kongtask_take_from_dead(array(
    select job.id from "graphile_worker"._private_jobs as job
    where job.locked_by = any (pools) or (every_pool and job.locked_by like 'kongtask-%')
  )) as taken;

  update "graphile_worker"._private_job_queues as queue
  set locked_by = null, locked_at = null
  where queue.locked_by = any (pools) or (every_pool and queue.locked_by like 'kongtask-%');
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_remove_job(job_id bigint, job_key text)
 RETURNS SETOF graphile_worker._private_jobs
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  target "graphile_worker"._private_jobs;
begin
  if job_id is not null then
    select * into target from "graphile_worker"._private_jobs as job where job.id = job_id for update;
  else
    loop
      select * into target from "graphile_worker"._private_jobs as job where job.key = job_key for update;
      exit when found;
      -- The row that was waited for may have lost its key to one that this select could not see.
      exit when not exists (select from "graphile_worker"._private_jobs as job where job.key = job_key);
    end loop;
  end if;

  if target.id is null then
    return;
  end if;
  perform "graphile_worker"._private_kongtask_mark(array[target.id], 'cancelled', 'removed');
  if target.locked_at < 'infinity' then
    update "graphile_worker"._private_jobs as job
    set key = null, attempts = job.max_attempts, updated_at = greatest(clock_timestamp(), job.locked_at + interval '1 microsecond')
    where job.id = target.id
    returning * into target;
  else
    delete from "graphile_worker"._private_jobs as job where job.id = target.id;
  end if;
  return next target;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_renew(pool text, job_ids bigint[])
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
AS $function$
begin
  with renewed as (
    update "graphile_worker"._private_jobs as job
    set locked_at = clock_timestamp()
    where job.id = any (job_ids) and job.locked_by = pool and job.locked_at < now() - interval '1 hour'
      and (job.key is not null or job.updated_at <= job.locked_at)
    returning job.job_queue_id
  )
  update "graphile_worker"._private_job_queues as queue
  set locked_at = clock_timestamp()
  where queue.id = any (array(select renewed.job_queue_id from renewed)) and queue.locked_by = pool;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_replace(jobs graphile_worker._private_jobs[])
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET jit TO 'off'
AS $function$
declare
  ids bigint[];
begin
  ids := array(
    select detail.job_id from "graphile_worker"._private_kongtask_job_details as detail
    where detail.job_id = any (array(select job.id from unnest(jobs) as job))
    order by detail.job_id
    for update
  );
  if ids <> '{}' then
    perform "graphile_worker"._private_kongtask_mark(ids, 'cancelled', 'replaced by its key');
    if exists (select from "graphile_worker"._private_kongtask_listeners) then
      perform "graphile_worker"._private_kongtask_announce_jobs(
        array(select job from unnest(jobs) as job where job.id = any (ids)), 'cancelled'
      );
    end if;
    perform "graphile_worker"._private_kongtask_stop(array(select job from unnest(jobs) as job where job.id = any (ids)), 'cancelled');
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_report(pool text, job_id bigint, new_progress json)
 RETURNS boolean
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
AS $function$
#variable_conflict use_column
declare
  wanted constant bigint := job_id;
  is_awaited boolean;
begin
  insert into "graphile_worker"._private_kongtask_job_details as detail (job_id, progress, progress_at)
  select job.id, new_progress, clock_timestamp() from "graphile_worker"._private_jobs as job
  where job.id = wanted and job.locked_by = pool
  for key share
  on conflict (job_id) do update set progress = excluded.progress, progress_at = excluded.progress_at
  returning detail.awaited into is_awaited;
  if is_awaited then
    perform "graphile_worker"._private_kongtask_tell(array[wanted]);
  end if;
  return is_awaited is not null;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_retry_jobs(job_ids bigint[])
 RETURNS SETOF graphile_worker._private_jobs
 LANGUAGE sql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  update "graphile_worker"._private_jobs as job
  set
    attempts = 0,
    run_at = now(),
    updated_at = now(),
    locked_by = case when job.locked_at = 'infinity' then job.locked_by end,
    locked_at = case when job.locked_at = 'infinity' then job.locked_at end
  where job.id = any (job_ids)
    and "graphile_worker"._private_kongtask_is_free(job.locked_at)
    and not exists (select from "graphile_worker"._private_kongtask_pools as pool where pool.id = job.locked_by)
  returning *
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_schedule(items json, payloads json)
 RETURNS TABLE(place integer, outcome text, job_id text)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  item record;
  places int[] := '{}';
  outcomes text[] := '{}';
  specs text[] := '{}';
  added_payloads text[] := '{}';
  identifiers text[] := '{}';
  instants timestamptz[] := '{}';
  busy text[] := '{}';
begin
  lock table "graphile_worker"._private_known_crontabs in share row exclusive mode;

  for item in
    select
      entry.ordinality::int as place, entry.item ->> 0 as id,
      timestamptz 'epoch' + (entry.item ->> 1)::float8 * interval '1 millisecond' as instant,
      entry.item ->> 2 as how, (entry.item ->> 3)::boolean as skips, (entry.item ->> 4)::bigint as revision,
      (entry.item -> 5)::text as spec, entry.payload::text as payload
    from rows from (json_array_elements(items), json_array_elements(payloads))
      with ordinality as entry (item, payload, ordinality)
    order by entry.ordinality
  loop
    place := item.place;
    job_id := null;
    outcome := null;

    if item.revision is not null then
      perform from "graphile_worker"._private_kongtask_schedules as stored
      where stored.id = item.id and stored.revision = item.revision and not stored.is_paused
      for share skip locked;
      if not found then
        outcome := case when exists (
          select from "graphile_worker"._private_kongtask_schedules as stored
          where stored.id = item.id and stored.revision = item.revision and not stored.is_paused
        ) then 'busy' else 'stale' end;
      end if;
      -- Its later instants must not be recorded before this one.
      if outcome = 'busy' or item.id = any (busy) then
        outcome := 'busy';
        busy := busy || item.id;
      end if;
    end if;

    if outcome is null and item.how <> 'now' then
      insert into "graphile_worker"._private_known_crontabs as known (identifier, known_since, last_execution)
      values (item.id, item.instant, item.instant)
      on conflict (identifier) do update set last_execution = excluded.last_execution
      where known.last_execution is null or known.last_execution < excluded.last_execution;
      if not found then
        outcome := 'known';
      elsif item.how = 'pass' then
        outcome := 'passed';
      end if;
    end if;

    if outcome is null and item.skips and (
      item.id = any (identifiers)
      or exists (
        select from "graphile_worker"._private_kongtask_schedule_runs as run
        join "graphile_worker"._private_jobs as job on job.id = run.job_id
        where run.identifier = item.id and (job.locked_at is not null or job.attempts < job.max_attempts)
      )
    ) then
      outcome := 'overlapping';
    end if;

    if outcome is null then
      places := places || item.place;
      specs := specs || item.spec;
      added_payloads := added_payloads || item.payload;
      identifiers := identifiers || item.id;
      instants := instants || item.instant;
    else
      return next;
    end if;
  end loop;

  if cardinality(places) = 0 then
    return;
  end if;

  return query
  with added as materialized (
    select added.place, (added.job).id as id, added.refused
    from "graphile_worker"._private_kongtask_add_jobs(
      ('[' || array_to_string(specs, ',') || ']')::json, ('[' || array_to_string(added_payloads, ',') || ']')::json, false
    ) as added
  ), noted as (
    insert into "graphile_worker"._private_kongtask_schedule_runs as run (identifier, instant, job_id)
    select distinct on (identifiers[added.place]) identifiers[added.place], instants[added.place], added.id
    from added
    where not added.refused
    order by identifiers[added.place], added.place desc
    on conflict (identifier) do update
    set instant = excluded.instant, job_id = excluded.job_id, added_at = now()
  )
  select places[added.place], 'added', added.id::text from added;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_settle(pool text, completed_ids bigint[], cancelled_ids bigint[], failures json, releases json, held_ids bigint[] DEFAULT NULL::bigint[], endings json DEFAULT NULL::json)
 RETURNS SETOF bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET plan_cache_mode TO 'force_generic_plan'
 SET jit TO 'off'
AS $function$
#variable_conflict use_column
begin
  if endings is not null then
    insert into "graphile_worker"._private_kongtask_job_details as known (job_id, retain, outcome, reason, result)
    select held.id, held.retain * interval '1 millisecond', held.outcome, held.reason, held.result::json
    from (
      select job.id, ending.retain, ending.outcome, ending.reason, ending.result
      from json_to_recordset(endings) as ending (id int8, outcome text, retain float8, result text, reason text)
      join "graphile_worker"._private_jobs as job on job.id = ending.id
      where job.locked_by is not distinct from pool
      order by job.id
      for update of job
    ) as held
    where held.retain > 0 or exists (
      select from "graphile_worker"._private_kongtask_job_details as detail where detail.job_id = held.id
    ) or (held.outcome = 'cancelled' and exists (select from "graphile_worker"._private_kongtask_listeners))
    on conflict (job_id) do update
    set retain = coalesce(known.retain, excluded.retain), outcome = coalesce(known.outcome, excluded.outcome),
      reason = coalesce(known.reason, excluded.reason), result = excluded.result;
  end if;

  return query
  with completed as (
    delete from "graphile_worker"._private_jobs
    where id = any (completed_ids || cancelled_ids) and locked_by is not distinct from pool
    returning id, job_queue_id, last_error is not null as has_failed
  ), requests as (
    delete from "graphile_worker"._private_kongtask_cancellations where job_id = any (cancelled_ids)
  ), failed as (
    update "graphile_worker"._private_jobs as job
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
    insert into "graphile_worker"._private_kongtask_failed_attempts (job_id, attempt, tag, message, data)
    select id, attempt, tag, error, data::json from failed where attempt is not null
    on conflict (job_id, attempt) do update
    set failed_at = now(), tag = excluded.tag, message = excluded.message, data = excluded.data
  ), forgotten as (
    delete from "graphile_worker"._private_kongtask_failed_attempts as record using failed
    where record.job_id = failed.id and record.attempt <= failed.attempt - 100
  ), forgotten_jobs as (
    delete from "graphile_worker"._private_kongtask_failed_attempts
    -- Those of jobs with details go when the history has read them.
    where job_id = any (array(
      select id from completed
      where has_failed and not exists (
        select from "graphile_worker"._private_kongtask_job_details as detail where detail.job_id = completed.id
      )
    ))
  ), released as (
    update "graphile_worker"._private_jobs as job
    set locked_by = null, locked_at = null,
      attempts = case when job.attempts = release.attempt
        then "graphile_worker"._private_kongtask_uncharged(job.attempts, job.max_attempts, job.key, job.updated_at, job.locked_at)
        else job.attempts end,
      run_at = case when release.delay is null then job.run_at
        else coalesce(to_timestamp(release.since / 1000), clock_timestamp()) + release.delay * interval '1 millisecond' end
    from json_to_recordset(releases) as release (id int8, attempt int, delay float8, since float8)
    where job.id = release.id and job.locked_by is not distinct from pool
    returning job.id, job.job_queue_id
  ), settled as (
    select id, job_queue_id from completed union all select id, job_queue_id from failed union all select * from released
  ), kept as materialized (
    select job_queue_id from "graphile_worker"._private_jobs
    where id = any (held_ids) and locked_by = pool and job_queue_id is not null
  ), freed as (
    update "graphile_worker"._private_job_queues
    set locked_by = null, locked_at = null
    where id = any (array(select job_queue_id from settled)) and locked_by = pool
      and id <> all (array(select job_queue_id from kept))
  ), announced as (
    select pg_notify('jobs:insert', json_build_object('r', random(), 'count', count(*))::text)
    from released having count(*) > 0
  )
  select settled.id from settled where (select count(*) from announced) >= 0;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_settle_batch(own_stream text, own_pool text, completed_ids bigint[], cancelled_ids bigint[], kept_ids bigint[], fallible_ids bigint[], failures json, releases json, endings json, fallible_endings json)
 RETURNS SETOF bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  update "graphile_worker"._private_kongtask_batches as batch set id_ranges = null where batch.stream = own_stream;
  perform "graphile_worker"._private_kongtask_settle(null, completed_ids, cancelled_ids, '[]', '[]', null, endings);
  if fallible_ids <> '{}' then
    begin
      perform "graphile_worker"._private_kongtask_settle(null, kept_ids, '{}', failures, releases, null, fallible_endings);
    exception when data_exception or integrity_constraint_violation or program_limit_exceeded then
      return query select "graphile_worker"._private_kongtask_promote(own_pool, fallible_ids);
    end;
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_settle_late(pool text, untouched json, completed_ids bigint[], cancelled_ids bigint[], failures json, releases json, endings json)
 RETURNS SETOF bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
AS $function$
#variable_conflict use_column
declare
  free_ids bigint[];
begin
  free_ids := array(
    select job.id
    from json_to_recordset(untouched) as known (id int8, attempts int, revision int)
    join "graphile_worker"._private_jobs as job on job.id = known.id
    where job.attempts = known.attempts and job.revision = known.revision and job.locked_at is null
    for update of job skip locked
  );
  perform "graphile_worker"._private_kongtask_promote(pool, free_ids);
  return query
  select "graphile_worker"._private_kongtask_settle(pool, completed_ids, cancelled_ids, failures, releases, null, endings);
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_state(run_at timestamp with time zone, attempts integer, max_attempts integer, locked_at timestamp with time zone)
 RETURNS text
 LANGUAGE sql
 STABLE PARALLEL SAFE
AS $function$
  select case
    when locked_at is not null and locked_at < 'infinity' then 'running'
    when attempts >= max_attempts then 'failed'
    when locked_at is null and run_at <= pg_catalog.now() then 'ready'
    when attempts > 0 then 'retrying'
    else 'scheduled'
  end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_stop(jobs graphile_worker._private_jobs[], state text DEFAULT NULL::text)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET jit TO 'off'
AS $function$
#variable_conflict use_column
declare
  awaited_ids bigint[];
begin
  with details as (
    delete from "graphile_worker"._private_kongtask_job_details
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
    insert into "graphile_worker"._private_kongtask_history (
      job_id, revision, task, queue_name, state, payload, priority, run_at, attempts, max_attempts, key, flags, created_at,
      started_at, stopped_at, error, failed_attempts, result, bundle_id, origin, metadata, is_retained, expires_at
    )
    select
      id, revision, "graphile_worker"._private_kongtask_task_name(task_id), "graphile_worker"._private_kongtask_queue_name(job_queue_id), state,
      case when is_retained then payload end, priority, run_at, attempts, max_attempts, key, flags, created_at,
      -- As exact as a JavaScript date, by which pages of the history go on.
      nullif(locked_at, 'infinity'), date_trunc('milliseconds', coalesce(stopped_at, now())),
      case state when 'cancelled' then reason when 'failed' then last_error end,
      case when is_retained or state = 'failed' then "graphile_worker"._private_kongtask_failures_of(id) end,
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
    join "graphile_worker"._private_kongtask_bundles as bundle on bundle.id = stopped.bundle_id and bundle.done_at is null
    where stopped.stopped_at is null or stopped.state = 'completed'
  ), outcomes as (
    insert into "graphile_worker"._private_kongtask_bundle_outcomes as outcome
      (bundle_id, job_id, revision, task, state, tag, message, result)
    select bundle_id, id, revision, "graphile_worker"._private_kongtask_task_name(task_id), state,
      case when state = 'failed' then 'Error' end, case when state = 'failed' then coalesce(last_error, '') end,
      case when state = 'completed' then result end
    from members
    on conflict (bundle_id, job_id, revision) do update
    set state = excluded.state, tag = null, message = null, data = null, result = excluded.result
  ), steps as (
    insert into "graphile_worker"._private_kongtask_bundle_steps (bundle_id, completed, failed, cancelled)
    select bundle_id, count(*) filter (where state = 'completed'),
      count(*) filter (where state = 'failed') - count(*) filter (where is_counted),
      count(*) filter (where state = 'cancelled')
    from members
    group by bundle_id
  )
  select array_agg(id order by id) filter (where awaited) into awaited_ids from stopped;

  -- After the history has read them.
  delete from "graphile_worker"._private_kongtask_failed_attempts as record
  where record.job_id = any (array(select job.id from unnest(jobs) as job where job.last_error is not null));

  if awaited_ids is not null then
    perform "graphile_worker"._private_kongtask_tell(awaited_ids);
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_summarise_bundle(bundle graphile_worker._private_kongtask_bundles)
 RETURNS json
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select json_build_object(
    'id', $1.id::text, 'name', $1.name, 'origin', $1.origin, 'jobs', $1.jobs, 'completed', $1.completed,
    'failed', $1.failed, 'cancelled', $1.cancelled
  )
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_sweep(lease interval)
 RETURNS TABLE(released integer, failed integer)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  insert into "graphile_worker"._private_kongtask_housekeeping as task (name, done_at) values ('sweep', now())
  on conflict (name) do update set done_at = now() where task.done_at < now() - interval '5 minutes';
  if not found then
    return;
  end if;

  select taken.released, taken.failed into released, failed
  from "graphile_worker"._private_kongtask_take_from_dead(array(
    select job.id from "graphile_worker"._private_jobs as job
    where job.locked_by is not null
      and case when job.locked_by like 'kongtask-%'
        then job.locked_at < now() - lease
          and not exists (select from "graphile_worker"._private_kongtask_pools as pool where pool.id = job.locked_by)
        else job.locked_at < now() - interval '4 hours' end
    for update skip locked
  )) as taken;

  update "graphile_worker"._private_job_queues as queue
  set locked_by = null, locked_at = null
  where queue.id in (
    select held.id from "graphile_worker"._private_job_queues as held
    where held.locked_by is not null
      and case when held.locked_by like 'kongtask-%'
        then held.locked_at < now() - lease
          and not exists (select from "graphile_worker"._private_kongtask_pools as pool where pool.id = held.locked_by)
        else held.locked_at < now() - interval '4 hours' end
    for update skip locked
  );

  delete from "graphile_worker"._private_kongtask_failed_attempts as record
  where not exists (select from "graphile_worker"._private_jobs as job where job.id = record.job_id);

  -- Whatever has become of a job that is gone without a trigger's knowing, its bundle does not wait for it.
  with orphans as (
    delete from "graphile_worker"._private_kongtask_job_details as detail
    where not exists (select from "graphile_worker"._private_jobs as job where job.id = detail.job_id)
    returning detail.bundle_id, detail.stopped_at
  )
  insert into "graphile_worker"._private_kongtask_bundle_steps (bundle_id, cancelled)
  select orphans.bundle_id, count(*) from orphans
  where orphans.bundle_id is not null and orphans.stopped_at is null
  group by orphans.bundle_id;

  perform "graphile_worker"._private_kongtask_expire_bundles();

  delete from "graphile_worker"._private_kongtask_listeners as listener
  where listener.name is null and listener.seen_at < now() - interval '2 minutes';

  delete from "graphile_worker"._private_kongtask_batches as batch
  where not exists (select from "graphile_worker"._private_kongtask_pools as pool where pool.id = batch.pool)
    and not exists (
      select from "graphile_worker"._private_kongtask_ids_in(batch.id_ranges) as noted (id)
      join "graphile_worker"._private_jobs as job on job.id = noted.id
      where job.attempts = 0
    );
  return next;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_take_events(listener_name text, max_events integer, lease interval)
 RETURNS TABLE(id text, event text)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET jit TO 'off'
AS $function$
begin
  return query
  with due as materialized (
    select kept.id from "graphile_worker"._private_kongtask_events as kept
    where kept.listener_id = (
        select listener.id from "graphile_worker"._private_kongtask_listeners as listener where listener.name = listener_name
      )
      and (kept.taken_until is null or kept.taken_until < clock_timestamp())
    order by kept.id limit max_events
    for update skip locked
  ), taken as (
    update "graphile_worker"._private_kongtask_events as kept
    set taken_until = clock_timestamp() + lease
    from due
    where kept.id = due.id
    returning kept.id, kept.event
  )
  select taken.id::text, taken.event::text from taken order by taken.id;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_take_from_dead(job_ids bigint[], OUT released integer, OUT failed integer)
 RETURNS record
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
AS $function$
begin
  with taken as (
    update "graphile_worker"._private_jobs as job
    set locked_by = null, locked_at = null, updated_at = now(),
      last_error = case when job.attempts >= job.max_attempts
        then 'The pool ' || held.locked_by || ' died while it ran attempt ' || job.attempts || ', the last one.'
        else job.last_error end
    from (
      select holder.id, holder.locked_by from "graphile_worker"._private_jobs as holder where holder.id = any (job_ids) for update
    ) as held
    where job.id = held.id and job.locked_by = held.locked_by
    returning job.id, job.attempts, job.max_attempts, held.locked_by
  ), recorded as (
    insert into "graphile_worker"._private_kongtask_failed_attempts as record (job_id, attempt, tag, message)
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
    perform "graphile_worker"._private_kongtask_notify(released);
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_take_turn(max_jobs integer, may_wait boolean)
 RETURNS boolean
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  space constant int := format('%I._private_jobs', 'graphile_worker')::regclass::oid::int8::bit(32)::int;
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
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_task_name(task_id integer)
 RETURNS text
 LANGUAGE sql
 STRICT
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select task.identifier from "graphile_worker"._private_tasks as task where task.id = task_id
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_tell(job_ids bigint[])
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  perform pg_notify(
    'kongtask:watched', json_build_object('schema', 'graphile_worker', 'jobs', json_agg(job.id::text order by job.id))::text
  )
  from unnest(job_ids) with ordinality as job (id, place)
  group by job.place / 300;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_uncharged(attempts integer, max_attempts integer, key text, updated_at timestamp with time zone, locked_at timestamp with time zone)
 RETURNS integer
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
AS $function$
  select case
    when attempts >= max_attempts and key is null and updated_at > locked_at then attempts
    else greatest(attempts - 1, 0)
  end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker._private_kongtask_unlisten(listener_name text)
 RETURNS boolean
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET jit TO 'off'
AS $function$
declare
  ended bigint;
begin
  delete from "graphile_worker"._private_kongtask_listeners as listener where listener.name = listener_name
  returning listener.id into ended;
  delete from "graphile_worker"._private_kongtask_events as kept where kept.listener_id = ended;
  return ended is not null;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker.add_job(identifier text, payload json DEFAULT NULL::json, queue_name text DEFAULT NULL::text, run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, max_attempts integer DEFAULT NULL::integer, job_key text DEFAULT NULL::text, priority integer DEFAULT NULL::integer, flags text[] DEFAULT NULL::text[], job_key_mode text DEFAULT 'replace'::text)
 RETURNS graphile_worker._private_jobs
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
AS $function$
declare
  added "graphile_worker"._private_jobs;
  is_added boolean := true;
  result record;
begin
  perform "graphile_worker"._private_kongtask_check_spec(identifier, queue_name, max_attempts, job_key, priority);

  if job_key is not null and job_key_mode not in ('replace', 'preserve_run_at', 'unsafe_dedupe') then
    raise exception 'job_key_mode is ''%''; it must be ''replace'', ''preserve_run_at'' or ''unsafe_dedupe''', job_key_mode
      using errcode = 'GWBKM';
  elsif job_key is not null then
    select * into result
    from "graphile_worker"._private_kongtask_add_keyed(
      cast(row(identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags) as "graphile_worker".job_spec),
      coalesce(job_key_mode, 'replace'),
      null
    );
    added := result.added;
    is_added := result.is_added;
  else
    loop
      insert into "graphile_worker"._private_jobs (job_queue_id, task_id, payload, run_at, max_attempts, priority, flags)
      select
        queue.id,
        task.id,
        coalesce(add_job.payload, '{}'),
        coalesce(add_job.run_at, now()),
        coalesce(add_job.max_attempts, 25),
        coalesce(add_job.priority, 0),
        (select jsonb_object_agg(flag, true) from unnest(add_job.flags) as flag)
      from "graphile_worker"._private_tasks as task
      left join "graphile_worker"._private_job_queues as queue on queue.queue_name = add_job.queue_name
      where task.identifier = add_job.identifier
        and (add_job.queue_name is null or queue.id is not null)
      returning * into added;
      exit when found;
      perform "graphile_worker"._private_kongtask_create_names(array[identifier], array[queue_name]);
    end loop;
  end if;

  if is_added then
    perform "graphile_worker"._private_kongtask_notify(1);
  end if;
  return added;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker.add_jobs(specs graphile_worker.job_spec[], job_key_preserve_run_at boolean DEFAULT false)
 RETURNS SETOF graphile_worker._private_jobs
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  if coalesce(cardinality(specs), 0) = 0 then
    return;
  end if;
  return query
  select (result.job).*
  from "graphile_worker"._private_kongtask_add_specs(
    specs,
    array_fill(case when job_key_preserve_run_at then 'preserve_run_at' else 'replace' end, array[cardinality(specs)])
  ) as result
  order by result.place;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker.complete_jobs(job_ids bigint[])
 RETURNS SETOF graphile_worker._private_jobs
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  return query
  with completed as (
    delete from "graphile_worker"._private_jobs as job
    where job.id = any (job_ids) and "graphile_worker"._private_kongtask_is_free(job.locked_at)
    returning *
  ), marked as materialized (
    select "graphile_worker"._private_kongtask_mark(array(select id from completed), 'completed', null)
  )
  select completed.* from completed where (select count(*) from marked) > 0;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker.force_unlock_workers(worker_ids text[])
 RETURNS void
 LANGUAGE sql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  update "graphile_worker"._private_jobs as job
  set locked_at = null, locked_by = null, updated_at = now()
  where job.locked_by = any (worker_ids) and job.locked_at is distinct from 'infinity';

  update "graphile_worker"._private_job_queues as queue
  set locked_at = null, locked_by = null
  where queue.locked_by = any (worker_ids);
$function$;

CREATE OR REPLACE FUNCTION graphile_worker.permanently_fail_jobs(job_ids bigint[], error_message text DEFAULT NULL::text)
 RETURNS SETOF graphile_worker._private_jobs
 LANGUAGE sql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  update "graphile_worker"._private_jobs as job
  set
    last_error = coalesce(error_message, 'Manually marked as failed'),
    attempts = job.max_attempts,
    updated_at = now()
  where job.id = any (job_ids) and "graphile_worker"._private_kongtask_is_free(job.locked_at)
  returning *
$function$;

CREATE OR REPLACE FUNCTION graphile_worker.remove_job(job_key text)
 RETURNS graphile_worker._private_jobs
 LANGUAGE plpgsql
 STRICT
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
AS $function$
declare
  target "graphile_worker"._private_jobs;
begin
  loop
    select * into target from "graphile_worker"._private_jobs as job where job.key = job_key for update;
    exit when found;
    -- The row that was waited for may have lost its key to a row that this select could not see.
    if not exists (select from "graphile_worker"._private_jobs as job where job.key = job_key) then
      return null;
    end if;
  end loop;

  perform "graphile_worker"._private_kongtask_mark(array[target.id], 'cancelled', 'removed');
  if "graphile_worker"._private_kongtask_is_free(target.locked_at) then
    delete from "graphile_worker"._private_jobs as job where job.id = target.id;
    perform "graphile_worker"._private_kongtask_notify(-1);
  else
    update "graphile_worker"._private_jobs as job
    set key = null, attempts = job.max_attempts,
      updated_at = greatest(clock_timestamp(), job.locked_at + interval '1 microsecond')
    where job.id = target.id
    returning * into target;
  end if;
  return target;
end
$function$;

CREATE OR REPLACE FUNCTION graphile_worker.reschedule_jobs(job_ids bigint[], run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, priority integer DEFAULT NULL::integer, attempts integer DEFAULT NULL::integer, max_attempts integer DEFAULT NULL::integer)
 RETURNS SETOF graphile_worker._private_jobs
 LANGUAGE sql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  update "graphile_worker"._private_jobs as job
  set
    run_at = coalesce(reschedule_jobs.run_at, job.run_at),
    priority = coalesce(reschedule_jobs.priority, job.priority),
    attempts = coalesce(reschedule_jobs.attempts, job.attempts),
    max_attempts = coalesce(reschedule_jobs.max_attempts, job.max_attempts),
    updated_at = now()
  where job.id = any (job_ids) and "graphile_worker"._private_kongtask_is_free(job.locked_at)
  returning *
$function$;

CREATE VIEW graphile_worker.jobs AS
 SELECT id,
    ( SELECT queue.queue_name
           FROM graphile_worker._private_job_queues queue
          WHERE (queue.id = job.job_queue_id)) AS queue_name,
    ( SELECT task.identifier
           FROM graphile_worker._private_tasks task
          WHERE (task.id = job.task_id)) AS task_identifier,
    priority,
    run_at,
    attempts,
    max_attempts,
    last_error,
    created_at,
    updated_at,
    key,
    locked_at,
    locked_by,
    revision,
    flags
   FROM graphile_worker._private_jobs job;

CREATE VIEW graphile_worker.kongtask_jobs AS
 SELECT job.id,
    task.identifier AS task,
    graphile_worker._private_kongtask_state(job.run_at, (job.attempts)::integer, (job.max_attempts)::integer, job.locked_at) AS state,
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
   FROM (((graphile_worker._private_jobs job
     JOIN graphile_worker._private_tasks task ON ((task.id = job.task_id)))
     LEFT JOIN graphile_worker._private_job_queues queue ON ((queue.id = job.job_queue_id)))
     LEFT JOIN graphile_worker._private_kongtask_job_details detail ON ((detail.job_id = job.id)));

CREATE INDEX jobs_claim_index ON graphile_worker._private_jobs USING btree (task_id, priority NULLS FIRST, run_at NULLS FIRST, id) WHERE (is_available AND (job_queue_id IS NULL));

CREATE INDEX jobs_queue_due_index ON graphile_worker._private_jobs USING btree (task_id, priority NULLS FIRST, run_at NULLS FIRST, id) INCLUDE (job_queue_id) WHERE (is_available AND (job_queue_id IS NOT NULL));

CREATE INDEX jobs_queue_index ON graphile_worker._private_jobs USING btree (task_id, job_queue_id, priority, run_at NULLS FIRST, id) WHERE (is_available AND (job_queue_id IS NOT NULL));

CREATE INDEX kongtask_bundle_steps_index ON graphile_worker._private_kongtask_bundle_steps USING btree (txid);

CREATE INDEX kongtask_bundles_expiry_index ON graphile_worker._private_kongtask_bundles USING btree (expires_at) WHERE (expires_at IS NOT NULL);

CREATE INDEX kongtask_events_listener_index ON graphile_worker._private_kongtask_events USING btree (listener_id, id);

CREATE INDEX kongtask_history_expiry_index ON graphile_worker._private_kongtask_history USING btree (expires_at);

CREATE INDEX kongtask_history_index ON graphile_worker._private_kongtask_history USING btree (stopped_at, job_id);

CREATE INDEX kongtask_history_state_index ON graphile_worker._private_kongtask_history USING btree (stopped_at, job_id) WHERE (state <> 'completed'::text);

CREATE INDEX kongtask_history_task_index ON graphile_worker._private_kongtask_history USING btree (task, stopped_at, job_id);

CREATE INDEX kongtask_job_details_bundle_index ON graphile_worker._private_kongtask_job_details USING btree (bundle_id) WHERE (bundle_id IS NOT NULL);

CREATE INDEX kongtask_job_details_origin_index ON graphile_worker._private_kongtask_job_details USING btree (origin, job_id) WHERE (origin IS NOT NULL);

CREATE TRIGGER kongtask_job_turned AFTER UPDATE ON graphile_worker._private_jobs FOR EACH ROW WHEN ((((old.attempts >= old.max_attempts) AND ((old.locked_at IS NULL) OR (old.locked_at = 'infinity'::timestamp with time zone))) IS DISTINCT FROM ((new.attempts >= new.max_attempts) AND ((new.locked_at IS NULL) OR (new.locked_at = 'infinity'::timestamp with time zone))))) EXECUTE FUNCTION graphile_worker._private_kongtask_job_turned();

CREATE TRIGGER kongtask_jobs_deleted AFTER DELETE ON graphile_worker._private_jobs REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION graphile_worker._private_kongtask_jobs_deleted();

CREATE CONSTRAINT TRIGGER kongtask_bundle_steps_noted AFTER INSERT ON graphile_worker._private_kongtask_bundle_steps DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION graphile_worker._private_kongtask_count_steps();

INSERT INTO graphile_worker.migrations (id, breaking) VALUES
  (1, true),
  (2, false),
  (3, true),
  (4, false),
  (5, false),
  (6, false),
  (7, false),
  (8, false),
  (9, false),
  (10, false),
  (11, true),
  (12, false),
  (13, true),
  (14, true),
  (15, false),
  (16, true),
  (17, false),
  (18, false),
  (19, true),
  (20, false);

INSERT INTO graphile_worker._private_kongtask_migrations (id, name, breaking, adopted_from) VALUES
  (1, '0001_contract', true, NULL),
  (2, '0002_functions', false, NULL),
  (3, '0003_kongtask_jobs', false, NULL),
  (4, '0004_pools', false, NULL),
  (5, '0005_administration', false, NULL),
  (6, '0006_failed_attempts', false, NULL),
  (7, '0007_recovery', false, NULL),
  (8, '0008_batches', false, NULL),
  (9, '0009_batches', false, NULL),
  (10, '0010_schedules', false, NULL),
  (11, '0011_schedules', false, NULL),
  (12, '0012_outcomes', false, NULL),
  (13, '0013_outcomes', false, NULL),
  (15, '0015_bundles', false, NULL),
  (16, '0016_bundles', false, NULL),
  (17, '0017_listeners', false, NULL);
