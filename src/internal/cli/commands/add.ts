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
import { duration, integer, orUndefined, time } from "../flags.ts"
import * as Format from "../format.ts"
import { Output } from "../Output.ts"
import { Problem, usage } from "../problem.ts"

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
  flags: Flag.String("flag").pipe(
    Flag.withMetavar("flag"),
    Flag.withDescription("A flag of the job; may be given several times"),
    Flag.atLeast(0)
  )
}

/** One payload, from the argument or a whole file. */
const addOne = Effect.fnUntraced(function*(task: Bulk.Untyped, json: string, where: string, options: Job.Options) {
  const output = yield* Output
  const payload = yield* Bulk.parse(json).pipe(Effect.mapError((problem) =>
    new Problem({
      kind: "input",
      message: `The payload is no JSON: ${problem}`,
      where,
      todo: where === "the argument"
        ? `Quote it for the shell, as in kongtask add ${task.name} '{"name":"value"}', or use --file.`
        : undefined
    })
  ))
  const job = yield* Effect.provide(Queue.add(task, payload, options), Connection.services)
  yield* output.answer(encodeJob(job), output.line(`Added job ${job.id} (${job.task}, ${job.state}).`))
})

/** A payload a line. */
const addLines = Effect.fnUntraced(function*(task: Bulk.Untyped, file: string, options: Job.Options) {
  const output = yield* Output
  if (options.jobKey !== undefined) {
    return yield* usage("--key is for one job: many with the same key would replace each other.")
  }
  const added = yield* Effect.provide(Bulk.addLines(task, file, options), Connection.services)
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
  ...options
}, ({ file, flags, payload: given, task: name, ...rest }) =>
  Effect.gen(function*() {
    const payload = Option.getOrUndefined(given)
    if (payload !== undefined && file !== undefined) {
      return yield* usage("The payload is given twice, as an argument and by --file.")
    }
    if (rest.delay !== undefined && rest.runAt !== undefined) {
      return yield* usage("--delay and --run-at exclude each other.")
    }
    const task = Task.make(name, { payload: Schema.Json })
    const jobOptions: Job.Options = { ...rest, flags: flags.length === 0 ? undefined : flags }
    if (payload === "-") return yield* addLines(task, "-", jobOptions)
    if (file !== undefined && (file === "-" || isLines(file))) return yield* addLines(task, file, jobOptions)
    if (file !== undefined) return yield* addOne(task, yield* Files.read(file), file, jobOptions)
    return yield* addOne(task, payload ?? "{}", "the argument", jobOptions)
  })).pipe(
    Command.withDescription("Add a job, or one for each line of JSON."),
    Command.withExamples([
      { command: "kongtask add send_email '{\"to\":\"ada@example.org\"}'", description: "Add a job" },
      { command: "kongtask add send_email - < mails.jsonl", description: "Add a job a line, in bulk" },
      { command: "kongtask add report --delay 10m --key daily-report", description: "One job, in ten minutes" }
    ])
  )
