import { describe, expect, it } from "@effect/vitest"
import { Effect, Option, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { Queue, Retry, Task, Worker } from "kongtask"
import * as Test from "./support/kongtask.ts"

class Rejected extends Schema.TaggedError<Rejected>()("Rejected", {}) {}

const Book = Task.make("book", { error: Rejected })

describe("a transactional handler whose session is ended", () => {
  it.live("is recorded with its own error, and its policy decides", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const endSession = Effect.ignore(sql`select pg_terminate_backend(pg_backend_pid())`)
      const handlers = Book.toLayer(() => Effect.andThen(endSession, Effect.fail(new Rejected())), {
        transactional: true,
        retry: Retry.byTag({ Rejected: () => Retry.never })
      })
      const job = yield* Queue.add(Book, undefined)
      const done = yield* Worker.runOnce({ tasks: [Book] }).pipe(Effect.provide(handlers))
      expect(done).toMatchObject({ completed: 0, failed: 1 })
      expect(Option.getOrThrow(yield* Queue.get(job.id))).toMatchObject({ state: "failed", lastError: "Rejected" })
    }).pipe(Effect.provide(Test.layer())))
})
