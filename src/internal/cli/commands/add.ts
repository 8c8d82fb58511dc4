import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Job from "../../../Job.ts"
import * as Queue from "../../../Queue.ts"
import * as Task from "../../../Task.ts"
import * as Bulk from "../bulk.ts"
import * as Connection from "../connection.ts"
import * as Files from "../files.ts"
import { duration, integer, orUndefined, time, toggle } from "../flags.ts"
import * as Format from "../format.ts"
import { Output } from "../Output.ts"
import { Problem, usage } from "../problem.ts"
import * as TaskCheck from "../taskCheck.ts"

const encodeJob = Schema.encodeSync(Schema.toCodecJson(Job.Job))

const text = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description), orUndefined)

const options = {
  queueName: text("queue", "name", "A named queue, whose jobs run one at a time"),
  runAt: time("run-at").pipe(Flag.withDescription("Not before this time"), orUndefined),
  delay: duration("delay").pipe(Flag.withDescription("Not before so long from now"), orUndefined),
  priority: integer("priority", -32_768, 32_767).pipe(
    Flag.withDescription("Smaller numbers first (default: 0)"),
    orUndefined
  ),
  maxAttempts: integer("max-attempts", 1, 32_767).pipe(
    Flag.withDescription("How often it may be attempted (default: 25)"),
    orUndefined
  ),
  jobKey: text("key", "key", "A job key: of those jobs that wait, one has it"),
  jobKeyMode: Flag.Literals("key-mode", Job.KeyMode.literals).pipe(
    Flag.withMetavar("mode"),
    Flag.withDescription("What to do when the key is taken"),
    orUndefined
  ),
  retain: duration("retain").pipe(
    Flag.withDescription("For how long the history keeps it when it has stopped, with its result"),
    orUndefined
  ),
  flags: Flag.String("flag").pipe(
    Flag.withMetavar("flag"),
    Flag.withDescription("A flag of the job; may be given several times"),
    Flag.atLeast(0)
  )
}

interface Request {
  readonly task: Bulk.Untyped
  readonly options: Job.Options
  /** Files and folders that the task is to be in. */
  readonly tasks: ReadonlyArray<string>
  readonly wait: boolean
}

const checkOf = ({ task, tasks }: Request) =>
  tasks.length === 0 ? Effect.succeed(TaskCheck.none) : TaskCheck.make(task.name, tasks)

/** One payload, from the argument or a whole file. */
const addOne = Effect.fnUntraced(function*(request: Request, json: string, where: string) {
  const output = yield* Output
  const { options, task } = request
  const invalid = (message: string, todo?: string) => new Problem({ kind: "input", message, where, todo })
  const payload = yield* Effect.mapError(Bulk.parse(json), (problem) =>
    invalid(
      `The payload is no JSON: ${problem}`,
      where === "the argument"
        ? `Quote it for the shell, as in kongtask add ${task.name} '{"name":"value"}', or use --file.`
        : undefined
    ))
  yield* Effect.gen(function*() {
    const check = yield* checkOf(request)
    yield* Effect.mapError(check(payload), (problem) => invalid(Bulk.refused(problem)))
    if (request.wait) return yield* addAndWait(request, payload)
    const job = yield* Queue.add(task, payload, options)
    yield* output.answer(encodeJob(job), output.line(`Added job ${job.id} (${job.task}, ${job.state}).`))
  }).pipe(Effect.scoped, Effect.provide(Connection.services))
})

/** Adds a job and prints its result. */
const addAndWait = Effect.fnUntraced(function*({ options, task }: Request, payload: Schema.Json) {
  const output = yield* Output
  const job = yield* Queue.add(task, payload, { ...options, retain: options.retain ?? "5 minutes" })
  yield* output.note(`Added job ${job.id}; waiting for its end.`)
  const result = yield* Queue.awaitResult(task, job).pipe(
    Effect.catchTags({
      JobFailed: ({ error }) =>
        new Problem({
          kind: "jobsFailed",
          message: `Job ${job.id} has failed for good: ${error.split("\n", 1)[0]}`,
          todo: `\`kongtask jobs show ${job.id}\` tells more.`
        }),
      // A task that answers nothing leaves no result.
      ResultNotRetained: (error) => error.state === "completed" ? Effect.succeed(null) : error,
      JobCancelled: ({ message }) => new Problem({ kind: "jobsFailed", message })
    })
  )
  yield* output.line(JSON.stringify(result, undefined, 2))
})

/** A payload a line. */
const addLines = Effect.fnUntraced(function*(request: Request, file: string) {
  const output = yield* Output
  const { options, task } = request
  if (request.wait) return yield* usage("--wait is for one job.")
  if (options.jobKey !== undefined) {
    return yield* usage("--key is for one job: many with the same key would replace each other.")
  }
  const added = yield* Effect.flatMap(checkOf(request), (check) => Bulk.addLines(task, file, options, check)).pipe(
    Effect.scoped,
    Effect.provide(Connection.services)
  )
  yield* output.answer({ added }, output.line(`Added ${Format.many(added, "job")} of ${task.name}.`))
})

const isLines = (file: string) => /\.(?:jsonl|ndjson)$/i.test(file)

export const add = Command.make("add", {
  task: Argument.String("task").pipe(Argument.withDescription("The name of the task")),
  payload: Argument.String("payload").pipe(
    Argument.withDescription("The payload as JSON, or - for one a line from standard input (default: {})"),
    Argument.optional
  ),
  file: Flag.String("file").pipe(
    Flag.withAlias("f"),
    Flag.withMetavar("file"),
    Flag.withDescription("Read the payload from a file; of .jsonl and .ndjson each line is one"),
    orUndefined
  ),
  wait: toggle("wait").pipe(Flag.withDescription("Wait for its end, and print its result")),
  tasks: Flag.String("tasks").pipe(
    Flag.withMetavar("file-or-folder"),
    Flag.withDescription("Add nothing unless the task is there, and takes the payload"),
    Flag.atLeast(0)
  ),
  ...options
}, ({ file, flags, payload: given, task: name, tasks, wait, ...rest }) =>
  Effect.gen(function*() {
    const payload = Option.getOrUndefined(given)
    if (payload !== undefined && file !== undefined) {
      return yield* usage("The payload is given twice, as an argument and by --file.")
    }
    if (rest.delay !== undefined && rest.runAt !== undefined) {
      return yield* usage("--delay and --run-at exclude each other.")
    }
    const request: Request = {
      task: Task.make(name, { payload: Schema.Json, success: Schema.Json }),
      options: { ...rest, flags: flags.length === 0 ? undefined : flags },
      tasks,
      wait
    }
    if (payload === "-") return yield* addLines(request, "-")
    if (file !== undefined && (file === "-" || isLines(file))) return yield* addLines(request, file)
    if (file !== undefined) return yield* addOne(request, yield* Files.read(file), file)
    return yield* addOne(request, payload ?? "{}", "the argument")
  })).pipe(
    Command.withDescription("Add a job, or one for each line of JSON."),
    Command.withExamples([
      { command: "kongtask add send_email '{\"to\":\"ada@example.org\"}'", description: "Add a job" },
      { command: "kongtask add send_email - < mails.jsonl", description: "Add a job a line, in bulk" },
      { command: "kongtask add report --delay 10m --key daily-report", description: "One job, in ten minutes" }
    ])
  )
