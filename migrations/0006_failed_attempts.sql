-- breaking: false

-- What the failed attempts of each job said, the last 100 of it; gone with the job.
create table :schema._private_kongtask_failed_attempts (
  job_id bigint not null,
  attempt int not null,
  failed_at timestamptz not null default now(),
  tag text not null,
  message text not null,
  -- The typed error, encoded by the task's error schema.
  data json,
  primary key (job_id, attempt)
);

alter table :schema._private_kongtask_failed_attempts enable row level security;

-- When each kind of housekeeping was last done, by whichever pool came first.
create table :schema._private_kongtask_housekeeping (
  name text primary key,
  done_at timestamptz not null
);

alter table :schema._private_kongtask_housekeeping enable row level security;
