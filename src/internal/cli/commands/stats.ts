import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as JobStore from "../../../JobStore.ts"
import * as Queue from "../../../Queue.ts"
import * as Connection from "../connection.ts"
import { duration, toggle } from "../flags.ts"
import * as Format from "../format.ts"
import { Output } from "../Output.ts"
import * as View from "../statsView.ts"
import { stateOf } from "./workers.ts"

const look: Effect.Effect<View.Snapshot, Effect.Error<typeof Queue.pools>, Queue.Queue> = Effect.gen(function*() {
  const { pools, stats } = yield* Effect.all({ stats: Queue.stats(), pools: Queue.pools }, { concurrency: 2 })
  return { at: yield* DateTime.now, stats, pools }
})

const byName = (counts: ReadonlyMap<string, JobStore.Counts>) => Object.fromEntries(counts)

const toJson = ({ at, pools, stats }: View.Snapshot) => ({
  at: Format.iso(at),
  all: stats.all,
  tasks: byName(stats.tasks),
  queues: byName(stats.queues),
  workers: {
    alive: pools.filter((pool) => stateOf(pool) === "alive").length,
    dead: pools.filter((pool) => stateOf(pool) === "dead").length,
    unknown: pools.filter((pool) => stateOf(pool) === "unknown").length
  }
})

const once = Effect.gen(function*() {
  const output = yield* Output
  const now = yield* look
  const lines = View.render(now, undefined, { columns: output.columns, rows: Number.POSITIVE_INFINITY }, output.colors)
  yield* output.answer(toJson(now), output.text(lines.map((line) => `${line}\n`).join("")))
})

const home = "\u001b[H"
const clearLine = "\u001b[K"
const clearRest = "\u001b[J"
/** The terminal's other screen, which is left as it was found, without the cursor. */
const enter = "\u001b[?1049h\u001b[?25l"
const leave = "\u001b[?25h\u001b[?1049l"

const frame = (lines: ReadonlyArray<string>) => `${home}${lines.map((line) => line + clearLine).join("\n")}${clearRest}`

const watch = Effect.fnUntraced(function*(interval: Duration.Duration) {
  const output = yield* Output
  const isDrawn = output.isWatched && !output.isJson
  if (isDrawn) {
    yield* Effect.acquireRelease(output.text(enter), () => Effect.ignore(output.text(leave)))
  }
  let before: View.Snapshot | undefined
  const draw = (now: View.Snapshot) => {
    const size = isDrawn
      ? { columns: process.stdout.columns || 80, rows: process.stdout.rows || 24 }
      : { columns: output.columns, rows: Number.POSITIVE_INFINITY }
    const lines = View.render(now, before, size, output.colors)
    return output.text(isDrawn ? frame(lines) : `${lines.join("\n")}\n\n`)
  }
  return yield* Effect.gen(function*() {
    const now = yield* look
    yield* output.isJson ? output.line(JSON.stringify(toJson(now))) : draw(now)
    before = now
    yield* Effect.sleep(interval)
  }).pipe(Effect.forever)
}, Effect.scoped)

export const stats = Command.make("stats", {
  watch: toggle("watch").pipe(
    Flag.withAlias("w"),
    Flag.withDescription("Draw it again and again until Ctrl-C; with --json, a line each time")
  ),
  interval: duration("interval").pipe(
    Flag.filter((value) => Duration.toMillis(value) >= 100, () => "a duration of at least 100ms"),
    Flag.withDescription("How often (default: 2s). Each time reads all jobs"),
    Flag.withDefault(Duration.seconds(2))
  )
}, ({ interval, watch: isWatching }) => Effect.provide(isWatching ? watch(interval) : once, Connection.services))
  .pipe(
    Command.withDescription("How many jobs there are in each state, of each task and of each queue.")
  )
