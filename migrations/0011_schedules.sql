-- breaking: false
-- repeatable: true

-- Schedules: what is due is recorded and added in one statement.

-- Records that schedules were due and adds their jobs, in the given order. Every instant of an identifier counts once,
-- whoever comes first, graphile-worker too; none that is earlier than one that has been recorded.
--
-- An item is [identifier, instant ms, how, skip, revision, spec], the spec as in _private_kongtask_add_jobs. How: `due`;
-- `pass` records it without a job; `now` adds a job and records nothing. Skip: no job while the last one has not ended.
-- Revision: that of a stored schedule, or null.
--
-- What became of each: `added`, with its job; `passed`; `known`, when it had been recorded before; `overlapping`; `stale`,
-- when the stored schedule is another one now, or paused; `busy`, when somebody is changing it at the moment.
--
-- Two calls that record the same identifiers in different orders would wait for each other, and so would one of
-- graphile-worker's: the table is locked against writers first, theirs and ours.
create or replace function :schema._private_kongtask_schedule(items json, payloads json)
returns table (place int, outcome text, job_id text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
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
  lock table :schema._private_known_crontabs in share row exclusive mode;

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
      perform from :schema._private_kongtask_schedules as stored
      where stored.id = item.id and stored.revision = item.revision and not stored.is_paused
      for share skip locked;
      if not found then
        outcome := case when exists (
          select from :schema._private_kongtask_schedules as stored
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
      insert into :schema._private_known_crontabs as known (identifier, known_since, last_execution)
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
        select from :schema._private_kongtask_schedule_runs as run
        join :schema._private_jobs as job on job.id = run.job_id
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
    from :schema._private_kongtask_add_jobs(
      ('[' || array_to_string(specs, ',') || ']')::json, ('[' || array_to_string(added_payloads, ',') || ']')::json, false
    ) as added
  ), noted as (
    insert into :schema._private_kongtask_schedule_runs as run (identifier, instant, job_id)
    select distinct on (identifiers[added.place]) identifiers[added.place], instants[added.place], added.id
    from added
    where not added.refused
    order by identifiers[added.place], added.place desc
    on conflict (identifier) do update
    set instant = excluded.instant, job_id = excluded.job_id, added_at = now()
  )
  select places[added.place], 'added', added.id::text from added;
end
$body$;

-- Makes a scheduler known, or tells which schedules it has now, and what is known of these. A schedule that nobody has
-- known before is known from now on. `alive_since`: since when another living scheduler has had the schedule, by the same
-- clock as `at`. The jobs of `items`, as above, are added unless another living scheduler has their schedule already, or
-- this one had it.
create or replace function :schema._private_kongtask_register_scheduler(
  scheduler text, at float8, lease float8, known_identifiers text[], items json, payloads json
)
returns table (identifier text, known_since float8, last_execution float8, alive_since float8, job_id text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
#variable_conflict use_column
declare
  moment timestamptz := timestamptz 'epoch' + at * interval '1 millisecond';
  first_items text;
  first_payloads text;
begin
  lock table :schema._private_known_crontabs in share row exclusive mode;

  delete from :schema._private_kongtask_schedulers as other
  where other.id <> scheduler and other.seen_at < clock_timestamp() - lease * interval '1 millisecond';

  select
    '[' || string_agg(entry.item::text, ',' order by entry.ordinality) || ']',
    '[' || string_agg(entry.payload::text, ',' order by entry.ordinality) || ']'
  into first_items, first_payloads
  from rows from (json_array_elements(items), json_array_elements(payloads))
    with ordinality as entry (item, payload, ordinality)
  where not exists (
    select from :schema._private_kongtask_schedulers as other where entry.item ->> 0 = any (other.identifiers)
  );

  insert into :schema._private_known_crontabs as known (identifier, known_since)
  select distinct wanted, moment from unnest(known_identifiers) as wanted
  on conflict (identifier) do nothing;

  insert into :schema._private_kongtask_schedulers as own (id, started_at, identifiers)
  values (scheduler, moment, known_identifiers)
  on conflict (id) do update set identifiers = excluded.identifiers, seen_at = clock_timestamp();

  return query
  with first as materialized (
    select first_item.item ->> 0 as id, ran.job_id
    from :schema._private_kongtask_schedule(coalesce(first_items, '[]')::json, coalesce(first_payloads, '[]')::json) as ran
    join json_array_elements(coalesce(first_items, '[]')::json) with ordinality as first_item (item, place)
      on first_item.place = ran.place
  )
  select
    known.identifier, :schema._private_kongtask_millis(known.known_since),
    :schema._private_kongtask_millis(known.last_execution), :schema._private_kongtask_millis((
      select min(other.started_at) from :schema._private_kongtask_schedulers as other
      where other.id <> scheduler and known.identifier = any (other.identifiers)
    )),
    (select first.job_id from first where first.id = known.identifier)
  from :schema._private_known_crontabs as known
  where known.identifier = any (known_identifiers);
end
$body$;

-- Keeps a schedule, and says whether that changes anything: what is as it was stays so.
create or replace function :schema._private_kongtask_put_schedule(schedule text, at float8, new_definition json)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
  last_revision bigint;
begin
  update :schema._private_kongtask_schedule_changes set revision = revision + 1 returning revision into last_revision;

  insert into :schema._private_kongtask_schedules as stored (id, definition, since, revision)
  values (schedule, new_definition, timestamptz 'epoch' + at * interval '1 millisecond', last_revision)
  on conflict (id) do update
  set definition = excluded.definition, since = excluded.since, revision = excluded.revision, updated_at = now()
  where stored.definition::text <> excluded.definition::text;
  return found;
end
$body$;

-- `pause`, `resume` or `remove`s a schedule, and says whether it is there. One that goes on is not due for what it missed.
create or replace function :schema._private_kongtask_change_schedule(schedule text, at float8, change text)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
  last_revision bigint;
begin
  update :schema._private_kongtask_schedule_changes set revision = revision + 1 returning revision into last_revision;

  if change = 'remove' then
    delete from :schema._private_kongtask_schedules as stored where stored.id = schedule;
    return found;
  end if;

  update :schema._private_kongtask_schedules as stored
  set
    is_paused = change = 'pause',
    since = case when change = 'resume'
      then timestamptz 'epoch' + at * interval '1 millisecond' else stored.since end,
    revision = last_revision,
    updated_at = now()
  where stored.id = schedule and stored.is_paused <> (change = 'pause');
  return found or exists (select from :schema._private_kongtask_schedules as stored where stored.id = schedule);
end
$body$;
