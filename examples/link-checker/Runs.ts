/**
 * What the checks found, in tables of this program's own beside the jobs.
 *
 * A run is one pass over the files of a folder. Its row, a row for each file and
 * all its jobs come into being in one transaction, so a process that is killed
 * leaves either no run or a whole one. There is at most one open run a folder: a
 * start that finds it goes on with it, or helps the process that works on it.
 */
import { Array, Context, Effect, Layer, Schema } from "effect"
import { SqlClient, SqlError } from "effect/sql"
import { type Job, type KongTaskError, Queue } from "kongtask"
import { createHash } from "node:crypto"
import { CheckFile } from "./CheckFile.ts"

export interface Run {
  readonly id: number
  /** Whether an earlier start began it. */
  readonly isResumed: boolean
  readonly files: number
  /** Files that are not finished yet. */
  readonly left: number
}

/** One attempt at one file. */
export interface Attempt {
  readonly run: number
  readonly file: string
  readonly links: number
  readonly broken: number
  readonly attempts: number
}

export interface Progress {
  readonly files: number
  readonly left: number
  /** Files that are left because their last attempt failed. */
  readonly failing: number
}

/** What is known of a file. */
export interface Result {
  readonly file: string
  readonly links: number
  readonly broken: number
  readonly attempts: number
  /** Why it has failed; `null` for a good one. */
  readonly problem: string | null
}

type Failure = SqlError.SqlError | KongTaskError.KongTaskError

/** How many finished runs of a folder are kept. */
const keptRuns = 10

/** How many jobs go with one statement. */
const chunk = 1000

const decodePayload = Schema.decodeUnknownEffect(CheckFile.payloadSchema)

/** The same job in all starts of a run; a key has at most 512 characters. */
const jobKey = (run: number, file: string) => {
  const name = file.length <= 400 ? file : createHash("sha256").update(file).digest("hex")
  return `link-checker:${run}:${name}`
}

export class Runs extends Context.Service<Runs, {
  /** Goes on with the open run of this folder, or begins one; adds what is missing of its files and jobs. */
  readonly begin: (
    root: string,
    files: ReadonlyArray<string>
  ) => Effect.Effect<Run, Failure | Job.InvalidJob | Job.DuplicateJobKey>
  /** Puts the counts of one attempt. */
  readonly record: (attempt: Attempt) => Effect.Effect<void, Failure>
  readonly progress: (run: number) => Effect.Effect<Progress, Failure>
  /** Moves failed jobs, which stay in the queue until somebody removes them, to the results. */
  readonly collectFailures: Effect.Effect<void, Failure | Schema.SchemaError>
  readonly finish: (run: number) => Effect.Effect<ReadonlyArray<Result>, Failure>
}>()("link-checker/Runs") {
  static readonly layer = Layer.effect(
    Runs,
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const queue = yield* Queue.Queue

      /** The driver dies of a connection that breaks inside a transaction; here that is a failure like others. */
      const inTransaction = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
        Effect.catchDefect(
          sql.withTransaction(effect),
          (defect) => SqlError.isSqlError(defect) ? Effect.fail(defect) : Effect.die(defect)
        )

      const createTables = Effect.gen(function*() {
        const [found] = yield* sql<{ exists: boolean }>`
          select to_regclass('link_checker.results') is not null as exists`
        if (found?.exists === true) return
        yield* sql`create schema link_checker`
        yield* sql`
          create table link_checker.runs (
            id int generated always as identity primary key,
            root text not null,
            finished boolean not null default false
          )`
        yield* sql`create unique index on link_checker.runs (root) where not finished`
        yield* sql`
          create table link_checker.results (
            run int not null references link_checker.runs on delete cascade,
            file text not null,
            finished boolean not null default false,
            links int not null default 0,
            broken int not null default 0,
            attempts int not null default 0,
            problem text,
            primary key (run, file)
          )`
      })

      const openRun = Effect.fnUntraced(function*(root: string) {
        const [open] = yield* sql<{ id: number }>`
          select id from link_checker.runs where root = ${root} and not finished`
        if (open !== undefined) return { id: open.id, isResumed: true }
        const [made] = yield* sql<{ id: number }>`insert into link_checker.runs (root) values (${root}) returning id`
        yield* sql`
          delete from link_checker.runs where root = ${root} and id in (
            select id from link_checker.runs where root = ${root} and finished order by id desc offset ${keptRuns}::int
          )`
        return { id: made!.id, isResumed: false }
      })

      return Runs.of({
        begin: Effect.fn("Runs.begin")(function*(root, files) {
          // Two processes that start at once must not both begin a run.
          yield* sql`select pg_advisory_xact_lock(hashtext('link-checker'))`
          yield* createTables
          const { id, isResumed } = yield* openRun(root)
          yield* sql`
            insert into link_checker.results (run, file)
            select ${id}::int, file from unnest(${files}::text[]) as file
            on conflict do nothing`
          const rows = yield* sql<{ file: string; finished: boolean }>`
            select file, finished from link_checker.results where run = ${id} order by file collate "C"`
          const left = rows.filter(({ finished }) => !finished)
          const requests = left.map(({ file }) =>
            CheckFile.request({ run: id, root, file }, {
              jobKey: jobKey(id, file),
              // An earlier start's job is left as it is: waiting, running, or failed.
              jobKeyMode: "unsafe_dedupe"
            })
          )
          yield* Effect.forEach(Array.chunksOf(requests, chunk), queue.addMany, { discard: true })
          return { id, isResumed, files: rows.length, left: left.length }
        }, inTransaction),

        record: Effect.fn("Runs.record")(function*({ attempts, broken, file, links, run }) {
          yield* sql`
            insert into link_checker.results as result (run, file, finished, links, broken, attempts)
            values (${run}::int, ${file}, ${broken === 0}, ${links}::int, ${broken}::int, ${attempts}::int)
            on conflict (run, file) do update
            set finished = excluded.finished, links = excluded.links, broken = excluded.broken,
              attempts = excluded.attempts`
        }),

        progress: Effect.fn("Runs.progress")(function*(run) {
          const [progress] = yield* sql<Progress>`
            select count(*)::int as files, (count(*) filter (where not finished))::int as left,
              (count(*) filter (where not finished and attempts > 0))::int as failing
            from link_checker.results where run = ${run}`
          return progress!
        }),

        collectFailures: Effect.gen(function*() {
          const failed = yield* queue.list({ task: CheckFile, state: "failed", limit: chunk })
          for (const job of failed) {
            const { file, run } = yield* decodePayload(job.payload)
            yield* sql`
              update link_checker.results
              set finished = true, attempts = ${job.attempts}::int, problem = ${job.lastError ?? "unknown"}
              where run = ${run}::int and file = ${file}`
            yield* queue.remove(job.id)
          }
        }).pipe(inTransaction, Effect.withSpan("Runs.collectFailures")),

        finish: Effect.fn("Runs.finish")(function*(run) {
          yield* sql`update link_checker.runs set finished = true where id = ${run}`
          return yield* sql<Result>`
            select file, links, broken, attempts, problem from link_checker.results
            where run = ${run} order by file collate "C"`
        })
      })
    })
  )
}
