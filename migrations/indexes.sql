-- The indexes that the claims of KongTask use, each one statement `create index … on …`. The Migrator makes those that
-- are missing and makes an invalid one again: in the transaction that makes the tables, and CONCURRENTLY afterwards.
--
-- Whoever changes an index gives it another name, and drops the old one in a migration.

create index jobs_claim_index on :schema._private_jobs (task_id, priority nulls first, run_at nulls first, id)
  where is_available and job_queue_id is null;

create index jobs_queue_due_index on :schema._private_jobs (task_id, priority nulls first, run_at nulls first, id)
  include (job_queue_id)
  where is_available and job_queue_id is not null;

create index jobs_queue_index on :schema._private_jobs (task_id, job_queue_id, priority, run_at nulls first, id)
  where is_available and job_queue_id is not null;
