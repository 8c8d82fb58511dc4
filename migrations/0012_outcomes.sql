-- breaking: false

-- What a few jobs have beyond the columns that all jobs have: a row only for those that use something of it, gone with the
-- job. No foreign key: it would halve the rate at which jobs are deleted. Rows are locked in the order of job_id.
create table :schema._private_kongtask_job_details (
  job_id bigint primary key,
  -- How long the history keeps the job when it has stopped; null or zero for not at all.
  retain interval,
  -- Whether somebody waits for its end, so that it is told.
  awaited boolean not null default false,
  -- The bundle that counts it as a member.
  bundle_id bigint,
  -- Who added it, in a word of theirs.
  origin text,
  -- Values of the adder's context, for the handler.
  metadata json,
  -- The adder's sampled span, as a W3C traceparent.
  trace text,
  -- What its handler has last reported.
  progress json,
  progress_at timestamptz,
  -- What becomes of the job, written by the statement that ends it, or by one that takes it back while it runs. Where that
  -- says nothing, a deleted job has completed.
  outcome text constraint kongtask_job_details_outcome_check check (outcome in ('completed', 'failed', 'cancelled')),
  reason text,
  result json,
  -- When the job failed for good, while it stays in the table of jobs.
  stopped_at timestamptz
)
-- Changed once or twice in its life, no indexed column.
with (fillfactor = 80);

alter table :schema._private_kongtask_job_details enable row level security;

-- Jobs that have stopped and left the table of jobs, until they expire. A job that was replaced by its key goes on under
-- its id with the next revision.
create table :schema._private_kongtask_history (
  job_id bigint not null,
  revision int not null,
  task text not null,
  queue_name text,
  state text not null constraint kongtask_history_state_check check (state in ('completed', 'failed', 'cancelled')),
  payload json,
  priority smallint not null,
  run_at timestamptz not null,
  attempts smallint not null,
  max_attempts smallint not null,
  key text,
  flags jsonb,
  created_at timestamptz not null,
  -- When its last attempt was claimed; null where no claim was written.
  started_at timestamptz,
  stopped_at timestamptz not null,
  -- The last error, or why it was cancelled.
  error text,
  -- What its attempts failed with: [{attempt, failedAt, tag, message, data}].
  failed_attempts json,
  result json,
  bundle_id bigint,
  origin text,
  metadata json,
  -- False for what is there for a minute, only to tell those who wait for the job what became of it.
  is_retained boolean not null,
  expires_at timestamptz not null,
  primary key (job_id, revision)
);

create index kongtask_history_index on :schema._private_kongtask_history (stopped_at, job_id);
create index kongtask_history_task_index on :schema._private_kongtask_history (task, stopped_at, job_id);
-- The few that have not completed are found among the many that have.
create index kongtask_history_state_index on :schema._private_kongtask_history (stopped_at, job_id)
where state <> 'completed';
create index kongtask_history_expiry_index on :schema._private_kongtask_history (expires_at);

alter table :schema._private_kongtask_history enable row level security;
