/**
 * The statements in docs/migrating-from-*.md move what they say from tables as the
 * other systems have them, and leave the rest.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { Queue } from "kongtask"
import { blocks, fixtureOf, statementsOf } from "./support/documents.ts"
import * as Test from "./support/kongtask.ts"

/** Runs the statements of a page on its fixture, and answers the jobs that there are then. */
const move = Effect.fnUntraced(function*(page: string) {
  const sql = yield* SqlClient.SqlClient
  const texts = [
    fixtureOf(page),
    ...blocks.filter((block) => block.page === page && block.language === "sql")
      .map(({ code }) => code)
  ]
  expect(texts).toHaveLength(2)
  for (const statement of texts.flatMap(statementsOf)) yield* sql.unsafe(statement).unprepared
  const jobs = yield* Queue.list()
  return jobs.map(({ attempts, flags, key, maxAttempts, payload, priority, queueName, task }) => ({
    task,
    payload,
    priority,
    attempts,
    maxAttempts,
    key,
    queueName,
    flags
  })).toSorted((a, b) => JSON.stringify(a.payload).localeCompare(JSON.stringify(b.payload)))
})

const plain = { priority: 0, attempts: 0, key: undefined, queueName: undefined, flags: [] }

describe("moving to KongTask", () => {
  it.live("from KongTask for Go takes jobs with their keys, queues and flags, and what attempts they have left", () =>
    Effect.gen(function*() {
      expect(yield* move("docs/migrating-from-kongtask-go.md")).toEqual([
        { ...plain, task: "plain", payload: { n: 1 }, maxAttempts: 25 },
        { ...plain, task: "full", payload: { n: 2 }, maxAttempts: 22, key: "k", queueName: "q", flags: ["slow"] }
      ])
    }).pipe(Effect.provide(Test.layer())))

  it.live("from go-jobqueue takes what has not started, and turns priorities round", () =>
    Effect.gen(function*() {
      expect(yield* move("docs/migrating-from-go-jobqueue.md")).toEqual([
        { ...plain, task: "send_email", payload: { n: 1 }, priority: -7, maxAttempts: 1 },
        { ...plain, task: "send_email", payload: { n: 2 }, maxAttempts: 4 }
      ])
      const sql = yield* SqlClient.SqlClient
      expect(yield* sql`select payload ->> 'n' as n from worker.job order by 1`).toEqual([
        { n: "3" },
        { n: "4" },
        { n: "5" }
      ])
    }).pipe(Effect.provide(Test.layer())))

  it.live("from goque takes what is new or waits for a retry, external ids as keys", () =>
    Effect.gen(function*() {
      expect(yield* move("docs/migrating-from-goque.md")).toEqual([
        { ...plain, task: "email", payload: { n: 1 }, maxAttempts: 5, key: "email:order-1" },
        { ...plain, task: "email", payload: { n: 2 }, maxAttempts: 2 }
      ])
      const sql = yield* SqlClient.SqlClient
      expect(yield* sql`select external_id from goque_task order by 1`).toEqual([
        { external_id: "order-3" },
        { external_id: "order-4" }
      ])
    }).pipe(Effect.provide(Test.layer())))
})
