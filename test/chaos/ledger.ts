/**
 * What the handlers write down about themselves, and what triggers write down
 * about the queue's own tables: who held which job from when to when, and each
 * pool's heartbeats.
 */
import { PgClient } from "@effect/sql-pg"
import { Context, Effect, Layer, Redacted } from "effect"
import { Reactivity } from "effect/reactivity"
import type { SqlError } from "effect/sql/SqlError"
import type { Job } from "kongtask"
import { LedgerUnavailable } from "./tasks.ts"

/** Fires within the worker's own statement, so that what it writes is committed with it or not at all. */
const script = `
  create schema chaos;

  create table chaos.attempts (
    id bigint generated always as identity primary key,
    job bigint not null,
    queue text,
    attempt int not null,
    pool text not null,
    pid int not null,
    started_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz
  );

  create table chaos.effects (job bigint not null, attempt int not null);

  create table chaos.holds (
    id bigint generated always as identity primary key,
    job bigint not null,
    at timestamptz not null default clock_timestamp(),
    was text,
    is_now text,
    deleted boolean not null,
    attempts_were int not null,
    attempts_are int not null,
    failed_with text
  );

  create table chaos.beats (
    id bigint generated always as identity primary key,
    pool text not null,
    at timestamptz not null
  );

  create function chaos.note_hold() returns trigger language plpgsql as $body$
  begin
    if tg_op = 'DELETE' then
      insert into chaos.holds (job, was, is_now, deleted, attempts_were, attempts_are)
      values (old.id, old.locked_by, null, true, old.attempts, old.attempts);
    else
      insert into chaos.holds (job, was, is_now, deleted, attempts_were, attempts_are, failed_with)
      values (
        new.id, old.locked_by, new.locked_by, false, old.attempts, new.attempts,
        case when new.updated_at is distinct from old.updated_at then new.last_error end
      );
    end if;
    return null;
  end $body$;

  create trigger chaos_note_deletion after delete on graphile_worker._private_jobs
    for each row execute function chaos.note_hold();
  create trigger chaos_note_hold after update on graphile_worker._private_jobs
    for each row when (old.locked_by is distinct from new.locked_by) execute function chaos.note_hold();

  create function chaos.note_beat() returns trigger language plpgsql as $body$
  begin
    insert into chaos.beats (pool, at) values (new.id, new.heartbeat_at);
    return null;
  end $body$;

  create trigger chaos_note_beat after insert or update on graphile_worker._private_kongtask_pools
    for each row execute function chaos.note_beat();
`

/** Makes the ledger in a migrated database. */
export const install = (sql: PgClient.PgClient): Effect.Effect<void, SqlError> =>
  Effect.asVoid(sql.unsafe(`do $script$ begin execute $statements$${script}$statements$; end $script$`))

/** How long a write may take before the attempt fails. */
const patience = "1500 millis"

/** The ledger as a handler sees it, on connections of its own: a transaction of the handler's does not hold it. */
export class Ledger extends Context.Service<Ledger, {
  readonly begin: (job: Job.Running, pool: string) => Effect.Effect<string, LedgerUnavailable>
  readonly end: (entry: string) => Effect.Effect<void, LedgerUnavailable>
}>()("kongtask/test/chaos/Ledger") {
  static readonly layer = (url: string) =>
    Layer.effect(
      Ledger,
      Effect.gen(function*() {
        const sql = yield* PgClient.make({
          url: Redacted.make(url),
          maxConnections: 4,
          applicationName: "chaos-ledger"
        })
        const write = <Row extends object>(statement: Effect.Effect<ReadonlyArray<Row>, SqlError>) =>
          statement.pipe(
            Effect.timeoutOrElse({ duration: patience, orElse: () => Effect.succeed([]) }),
            Effect.mapError((error) => new LedgerUnavailable({ message: error.message })),
            Effect.flatMap(([row]) =>
              row === undefined
                ? Effect.fail(new LedgerUnavailable({ message: "it has no such entry, or does not answer" }))
                : Effect.succeed(row)
            )
          )
        return Ledger.of({
          begin: (job, pool) =>
            Effect.map(
              write(sql<{ readonly id: string }>`
                insert into chaos.attempts (job, queue, attempt, pool, pid)
                values (${job.id}::text::int8, ${job.queueName ?? null}, ${job.attempt}, ${pool}, ${process.pid})
                returning id::text as id`),
              ({ id }) => id
            ),
          end: (entry) =>
            Effect.asVoid(
              write(sql<{ readonly id: string }>`
                update chaos.attempts set ended_at = clock_timestamp()
                where id = ${entry}::text::int8 returning id::text as id`)
            )
        })
      })
    ).pipe(Layer.provide(Reactivity.layer))
}
