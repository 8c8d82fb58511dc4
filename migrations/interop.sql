-- The indexes that the claims of graphile-worker use. A schema that it made has them until Migrator.finishAdoption drops
-- them; a new one gets them with `interop: true`.

create index jobs_main_index on :schema._private_jobs (priority, run_at) include (id, task_id, job_queue_id)
  where is_available = true;

create index jobs_no_queue_index on :schema._private_jobs (priority, run_at) include (id, task_id)
  where is_available = true and job_queue_id is null;
