import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { SqlError } from "effect/sql/SqlError"
import * as Stream from "effect/Stream"
import * as Job from "../../Job.ts"
import type { Store } from "../../JobStore.ts"
import type { KongTaskError } from "../../KongTaskError.ts"
import type { ListenerFilter, StopNews } from "../listenerStorage.ts"
import { derive } from "./client.ts"
import { quoteIdentifier } from "./schema.ts"

/** One for all schemas of a database. */
const channel = "kongtask:stopped"

/** The functions are in `migrations/0017_listeners.sql`. */
const makeStatements = (schema: string) => ({
  /** $1 name or null, $2 tasks, $3 bundle, $4 its name, $5 origin. */
  listen: `
    insert into ${schema}._private_kongtask_listeners as listener (name, tasks, bundle_id, bundle_name, origin)
    values ($1::text, $2::text[], $3::text::int8, $4::text, $5::text)
    on conflict (name) do update
    set tasks = excluded.tasks, bundle_id = excluded.bundle_id, bundle_name = excluded.bundle_name, origin = excluded.origin
    returning id::text as id`,

  /** $1 id. Primary key. */
  confirm: `
    update ${schema}._private_kongtask_listeners set seen_at = now() where id = $1::text::int8 returning id::text as id`,

  /** $1 id. Primary key. */
  forget: `delete from ${schema}._private_kongtask_listeners where id = $1::text::int8`,

  /** $1 name. */
  unsubscribe: `select ${schema}._private_kongtask_unlisten($1::text) as ended`,

  /** Reads all events that are kept. */
  subscriptions: `
    select listener.name, (
      select count(*) from ${schema}._private_kongtask_events as kept where kept.listener_id = listener.id
    )::float8 as waiting
    from ${schema}._private_kongtask_listeners as listener
    where listener.name is not null
    order by listener.name`,

  /** $1 name, $2 limit, $3 ms. Index; skips what is locked. */
  take: `
    select id, event
    from ${schema}._private_kongtask_take_events($1::text, $2::int, $3::float8 * interval '1 millisecond')`,

  /** $1 ids, $2 ms. Primary key. */
  keep: `
    update ${schema}._private_kongtask_events
    set taken_until = clock_timestamp() + $2::float8 * interval '1 millisecond'
    where id = any ($1::text[]::int8[])`,

  /** $1 ids. Primary key. */
  acknowledge: `delete from ${schema}._private_kongtask_events where id = any ($1::text[]::int8[])`
})

/** Anybody may send to the channel. */
const readNews = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Struct({
  schema: Schema.String,
  events: Schema.optional(Schema.Array(Schema.Unknown)),
  bundle: Schema.optional(Job.BundleId),
  kept: Schema.optional(Schema.Array(Schema.String))
})))

/** The part of the store that tells what has stopped. */
export const make = ({ client, failure, run, schema }: {
  readonly client: PgClient.PgClient
  readonly schema: string
  readonly failure: (operation: string) => (error: SqlError) => KongTaskError
  readonly run: <Row extends object>(
    operation: string,
    text: string,
    params: ReadonlyArray<unknown>
  ) => Effect.Effect<ReadonlyArray<Row>, KongTaskError>
}): Store["listening"] => {
  const statements = makeStatements(quoteIdentifier(schema))

  const listen = (name: string | null, { bundle, bundleName, origin, tasks }: ListenerFilter) =>
    run<{ readonly id: string }>("listen", statements.listen, [
      name,
      tasks ?? null,
      bundle ?? null,
      bundleName ?? null,
      origin ?? null
    ])

  const toNews = (payload: string | null | undefined): ReadonlyArray<StopNews> => {
    const news = Option.getOrUndefined(readNews(payload))
    if (news?.schema !== schema) return []
    if (news.events !== undefined) return [{ _tag: "Stopped", events: news.events }]
    if (news.bundle !== undefined) return [{ _tag: "BundleDone", bundle: news.bundle }]
    return news.kept === undefined ? [] : [{ _tag: "Kept", names: news.kept }]
  }

  return {
    register: (filter) => Effect.map(listen(null, filter), (rows) => rows[0]!.id),
    confirm: (id) => Effect.map(run("listen", statements.confirm, [id]), (rows) => rows.length > 0),
    unregister: (id) => Effect.asVoid(run("stop listening", statements.forget, [id])),
    subscribe: (name, filter) => Effect.asVoid(listen(name, filter)),
    unsubscribe: (name) =>
      Effect.map(
        run<{ readonly ended: boolean }>("unsubscribe", statements.unsubscribe, [name]),
        (rows) => rows[0]!.ended
      ),
    subscriptions: run("list subscriptions", statements.subscriptions, []),
    take: (name, limit, lease) =>
      Effect.map(
        run<{ readonly id: string; readonly event: string }>("take events", statements.take, [
          name,
          limit,
          Duration.toMillis(lease)
        ]),
        (rows) => rows.map(({ event, id }) => ({ id, event: JSON.parse(event) }))
      ),
    keep: (ids, lease) => Effect.asVoid(run("take events", statements.keep, [ids, Duration.toMillis(lease)])),
    acknowledge: (ids) => Effect.asVoid(run("acknowledge events", statements.acknowledge, [ids])),
    news: derive(client, 1).pipe(
      Effect.flatMap((own) => own.listen(channel)),
      Effect.map((queue) =>
        Stream.concat(
          Stream.succeed<StopNews>({ _tag: "Listening" }),
          Stream.flattenIterable(Stream.map(Stream.fromQueue(queue), ({ payload }) => toNews(payload)))
        )
      ),
      Stream.unwrap,
      Stream.mapError(failure("listen"))
    )
  }
}
