/**
 * What a random sequence of commands is made of. Jobs and pools are meant by places, so that a command keeps a meaning
 * when others before it are left out.
 */
import { Arbitrary, Schema } from "effect"
import type { JobSpec } from "../../src/JobStore.ts"

const place = (count: number) => Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: count - 1 }))

const Places = Schema.Array(place(8)).check(Schema.isMaxLength(4))

/** Milliseconds after which something is due: at once, or not while the test runs. */
const Delay = Schema.Literals([0, 3_600_000])

export const poolCount = 3

const Pool = place(poolCount)

const Add = Schema.Struct({
  task: Schema.Literals(["a", "b"]),
  queue: Schema.Literals(["none", "none", "p", "q"]),
  due: Schema.Literals(["now", "now", "long ago", "long ago", "later"]),
  /** Which time long ago. */
  at: place(4),
  priority: Schema.Literals([0, -1, 1]),
  maxAttempts: Schema.Literals([25, 2, 1]),
  key: Schema.Literals(["none", "x", "y"]),
  keyMode: Schema.Literals(["replace", "preserve_run_at", "unsafe_dedupe", "dedupe", "reject"])
})

const Outcome = Schema.Literals(["complete", "retry", "retry later", "fail", "release", "snooze", "cancel"])

const Settle = Schema.Struct({
  _tag: Schema.Literals(["Settle"]),
  pool: Pool,
  /** Places among the jobs that the pool holds, or among all. */
  of: Schema.Literals(["held", "held", "held", "all"]),
  outcomes: Schema.Array(Schema.Struct({ job: place(8), outcome: Outcome })).check(
    Schema.isMinLength(1),
    Schema.isMaxLength(4)
  ),
  /** Whether it is the pool that stood in this place before, which is dead or has stopped. */
  late: Schema.Literals([false, false, false, false, false, true])
})

const AddMany = Schema.Struct({
  _tag: Schema.Literals(["Add"]),
  jobs: Schema.Array(Add).check(Schema.isMinLength(1), Schema.isMaxLength(4))
})

const Claim = Schema.Struct({
  _tag: Schema.Literals(["Claim"]),
  pool: Pool,
  tasks: Schema.Literals(["ab", "ab", "a", "b"]),
  limit: Schema.Literals([1, 2, 3, 5]),
  /** How many start at once: all, or fewer. */
  start: Schema.Literals([10, 10, 10, 1, 0]),
  /** How many jobs of a queue at once. */
  run: Schema.Literals([1, 2, 3]),
  beat: Schema.Boolean,
  late: Schema.Literals([false, false, false, false, false, false, false, true])
})

const OfPool = Schema.Struct({
  _tag: Schema.Literals(["Expire", "ReleaseAlive", "Deregister", "ForceUnlock", "Heartbeat"]),
  pool: Pool
})

const ReleaseUnknown = Schema.Struct({
  _tag: Schema.Literals(["ReleaseUnknown"]),
  pool: Pool,
  known: Places
})

const OfJob = Schema.Struct({ _tag: Schema.Literals(["Cancel", "Remove"]), job: place(8) })

const RemoveKey = Schema.Struct({ _tag: Schema.Literals(["RemoveKey"]), key: Schema.Literals(["x", "y"]) })

const OfJobs = Schema.Struct({ _tag: Schema.Literals(["Retry", "Complete", "Fail"]), jobs: Places })

const Reschedule = Schema.Struct({
  _tag: Schema.Literals(["Reschedule"]),
  jobs: Places,
  delay: Delay,
  priority: Schema.Literals([0, -1, 1])
})

export const Command = Schema.Union([
  AddMany,
  AddMany,
  AddMany,
  Claim,
  Claim,
  Claim,
  Claim,
  Settle,
  Settle,
  Settle,
  Settle,
  OfPool,
  ReleaseUnknown,
  OfJob,
  RemoveKey,
  OfJobs,
  Reschedule
])

export type Command = typeof Command.Type

/** Up to 44 commands, half of that on the average; made of parts, so that few are very short. */
export const Commands = Arbitrary.map(
  Arbitrary.all(Array.from({ length: 4 }, () => Arbitrary.array(Arbitrary.schema(Command), { maxLength: 12 }))),
  (parts) => parts.flat()
)

const longAgo = Date.UTC(2020, 0)

let payloads = 0

export const toSpec = ({ at, due, key, keyMode, maxAttempts, priority, queue, task }: typeof Add.Type): JobSpec => ({
  task,
  payload: String(++payloads),
  queueName: queue === "none" ? undefined : queue,
  runAt: due === "long ago" ? longAgo + at * 1000 : undefined,
  delay: due === "later" ? 3_600_000 : undefined,
  maxAttempts,
  priority,
  key: key === "none" ? undefined : key,
  keyMode: key === "none" ? undefined : keyMode,
  flags: undefined
})

const show = (value: unknown): string => {
  if (Array.isArray(value)) return `[${value.map(show).join(", ")}]`
  if (typeof value !== "object" || value === null) return typeof value === "string" ? value : String(value)
  return Object.entries(value).flatMap(([name, part]) =>
    part === false || part === "none" || name === "_tag" ? [] : `${name}: ${show(part)}`
  ).join(", ").replace(/^(.*)$/s, "{ $1 }")
}

/** A command on one line. */
export const showCommand = (command: Command): string => `${command._tag} ${show(command)}`
