-- breaking: false
--
-- The running worker pools: a row each, by the id that they write into `locked_by`. A pool whose last heartbeat is
-- older than its lease is dead.

create table :schema._private_kongtask_pools (
  id text primary key constraint kongtask_pools_id_check check (length(id) >= 1),
  started_at timestamptz not null default now(),
  -- Since when heartbeats have come without a gap as long as the lease.
  alive_since timestamptz not null default now(),
  heartbeat_at timestamptz not null default now(),
  lease interval not null constraint kongtask_pools_lease_check check (lease > interval '0'),
  metadata jsonb not null default '{}'
)
-- A heartbeat changes no indexed column: with room in its page it leaves the index alone.
with (fillfactor = 50);

alter table :schema._private_kongtask_pools enable row level security;

-- Running jobs that somebody wants to end: the pool that holds one reads it with its heartbeat, at once when notified.
create table :schema._private_kongtask_cancellations (
  job_id bigint primary key,
  requested_at timestamptz not null default now()
);

alter table :schema._private_kongtask_cancellations enable row level security;
