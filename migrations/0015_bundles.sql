-- breaking: false

-- Jobs that belong together. A bundle is done when all of its jobs have stopped.
create table :schema._private_kongtask_bundles (
  id bigint generated always as identity primary key,
  -- What kind of bundle it is, and who added it, in words of theirs.
  name text,
  origin text,
  jobs int not null,
  completed int not null default 0,
  failed int not null default 0,
  cancelled int not null default 0,
  -- What to add when it is done: [{on, tasks, spec, data, details}].
  completions json,
  -- How long it stays when it is done; null for ever.
  retain interval,
  created_at timestamptz not null default now(),
  done_at timestamptz,
  expires_at timestamptz
)
-- Counted many times, no indexed column: with room in its page that leaves the indexes alone.
with (fillfactor = 50);

create index kongtask_bundles_expiry_index on :schema._private_kongtask_bundles (expires_at) where expires_at is not null;

alter table :schema._private_kongtask_bundles enable row level security;

-- What became of the jobs of bundles, one row a job that has stopped. A job that was replaced by its key goes on under its
-- id with the next revision.
create table :schema._private_kongtask_bundle_outcomes (
  bundle_id bigint not null,
  job_id bigint not null,
  revision int not null,
  task text not null,
  state text not null
    constraint kongtask_bundle_outcomes_state_check check (state in ('completed', 'failed', 'cancelled')),
  -- Of a failed job, what its last attempt said.
  tag text,
  message text,
  data json,
  result json,
  stopped_at timestamptz not null default now(),
  primary key (bundle_id, job_id, revision)
);

alter table :schema._private_kongtask_bundle_outcomes enable row level security;

-- What a transaction has to count when it commits. Its rows are deleted by then, so that each transaction sees its own only:
-- bundles are locked for the time of a commit, in the order of their ids, whatever else the transaction did before.
create table :schema._private_kongtask_bundle_steps (
  txid bigint not null default txid_current(),
  bundle_id bigint not null,
  jobs int not null default 0,
  completed int not null default 0,
  failed int not null default 0,
  cancelled int not null default 0
);

create index kongtask_bundle_steps_index on :schema._private_kongtask_bundle_steps (txid);

alter table :schema._private_kongtask_bundle_steps enable row level security;

-- The members of a bundle that have not stopped, and the jobs of an origin.
create index kongtask_job_details_bundle_index on :schema._private_kongtask_job_details (bundle_id)
where bundle_id is not null;

create index kongtask_job_details_origin_index on :schema._private_kongtask_job_details (origin, job_id)
where origin is not null;

-- Who wants to be told of jobs and bundles that have stopped. One with a name has its events kept until it has taken them;
-- the others are forgotten when they have not been seen for two minutes. Each given condition must hold.
create table :schema._private_kongtask_listeners (
  id bigint generated always as identity primary key,
  name text unique,
  tasks text[],
  bundle_id bigint,
  bundle_name text,
  origin text,
  seen_at timestamptz not null default now()
)
with (fillfactor = 50);

alter table :schema._private_kongtask_listeners enable row level security;

-- What listeners with a name have not taken yet.
create table :schema._private_kongtask_events (
  id bigint generated always as identity primary key,
  listener_id bigint not null,
  event json not null,
  -- Until when somebody is at it.
  taken_until timestamptz
)
with (fillfactor = 80);

create index kongtask_events_listener_index on :schema._private_kongtask_events (listener_id, id);

alter table :schema._private_kongtask_events enable row level security;
