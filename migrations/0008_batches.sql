-- breaking: false

-- What each stream of batches is about to run, while it runs it: the ids of jobs that are held by row locks alone, as the
-- first and the last one of each range in turn, in order. A row a stream, its ids removed by the commit of the batch. Whoever
-- can lock a job that another pool's row names knows that the transaction which held it has ended badly.
create table :schema._private_kongtask_batches (
  stream text primary key,
  pool text not null,
  id_ranges bigint[],
  noted_at timestamptz not null default now()
)
-- Updated twice a batch, no indexed column: with room in its page that leaves the index alone.
with (fillfactor = 10);

alter table :schema._private_kongtask_batches alter column id_ranges set storage main;

alter table :schema._private_kongtask_batches enable row level security;
