#!/bin/sh
# Any program: the payload on its input, the job in its environment, its exit code the outcome.
bytes=$(wc -c | tr -d ' ')
echo "Job $GRAPHILE_WORKER_JOB_ID has an input of $bytes bytes."
