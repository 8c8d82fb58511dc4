/**
 * Pages of a folder are read one job a page, on as many machines as there are
 * workers; when all of them are done, whatever became of each, one more job writes
 * an index of them. `npm run example examples/documents/main.ts docs`, on the
 * server of `DATABASE_URL` or on PostgreSQL inside the process; it ends by itself.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, FileSystem, Layer, Path, Schema } from "effect"
import { Bundle, Queue, Retry, Task, Worker } from "kongtask"
import { QueueLive } from "../support/database.ts"

class Unreadable extends Schema.TaggedError<Unreadable>()("Unreadable", { path: Schema.String }) {}

const ReadPage = Task.make("read_page", {
  payload: { path: Schema.String },
  success: Schema.Struct({ title: Schema.String, words: Schema.Int, headings: Schema.Int }),
  error: Unreadable
})

const ReadPageLive = ReadPage.toLayer(
  Effect.fn(function*({ path }) {
    const files = yield* FileSystem.FileSystem
    const text = yield* Effect.mapError(files.readFileString(path), () => new Unreadable({ path }))
    const headings = text.split("\n").filter((line) => line.startsWith("#"))
    return {
      title: headings[0]?.replace(/^#+ /, "") ?? path,
      words: text.split(/\s+/).length,
      headings: headings.length
    }
  }),
  { retry: Retry.byTag({ Unreadable: () => Retry.never }) }
)

/** It is told what each of the pages has come to, in the types of their task. */
const WriteIndex = Task.make("write_index", {
  payload: Bundle.payload({ tasks: [ReadPage], data: { folder: Schema.String } })
})

const WriteIndexLive = WriteIndex.toLayer(Effect.fn(function*({ bundle, data, outcomes }) {
  yield* Console.log(`${data.folder}: ${bundle.completed} pages, ${bundle.failed} not read`)
  for (const outcome of outcomes) {
    if (outcome._tag === "Completed" && outcome.result !== undefined) {
      const { headings, title, words } = outcome.result
      yield* Console.log(`${title}: ${words} words, ${headings} headings`)
    } else if (outcome._tag === "Failed") {
      yield* Console.log(`${outcome.tag}: ${outcome.error?.path}`)
    }
  }
}))

const index = Effect.fn("index")(function*(folder: string) {
  const files = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const names = (yield* files.readDirectory(folder)).filter((name) => name.endsWith(".md")).toSorted()
  yield* Queue.addBundle(
    [...names, "a page that is not there.md"].map((name) => ReadPage.request({ path: path.join(folder, name) })),
    { name: "index", onComplete: Bundle.completion(WriteIndex, { folder }) }
  )
  yield* Console.log(yield* Worker.runOnce({ tasks: [ReadPage, WriteIndex] }))
})

const folder = process.argv[2] ?? "docs"

index(folder).pipe(
  Effect.provide(
    Layer.provideMerge(Layer.merge(ReadPageLive, WriteIndexLive), Layer.merge(QueueLive, NodeServices.layer))
  ),
  NodeRuntime.runMain
)
