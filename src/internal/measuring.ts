/**
 * Counts what is in the queue, by one process of the fleet at a time, and shows
 * it as gauges of that process.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import type { Depths } from "../JobStore.ts"
import type { Worker } from "../Worker.ts"
import { machineMillis, machineTime, withMachineClock } from "./clock.ts"
import * as Metrics from "./metrics.ts"

/** A measurement has at most this part of the time. */
const share = 50

/** How long a measurement may take before it is given up. */
const deadline = Duration.seconds(30)

/** Others take over from the process that measures when it has missed so many turns. */
const missedTurns = 3

/** A turn that comes a little early is a turn. */
const early = 0.9

const makeGauges = Effect.gen(function*() {
  const context = yield* Effect.context<never>()
  const depths = new Map<string, Metric.Gauge<number>>()
  const oldest = new Map<string, Metric.Gauge<number>>()
  const measured = Metrics.depthMeasured()
  const isPartial = Metrics.depthIsPartial()

  const set = (known: Map<string, Metric.Gauge<number>>, gauge: Metric.Gauge<number>, value: number) => {
    known.set(JSON.stringify(gauge.attributes), gauge)
    gauge.updateUnsafe(value, context)
  }
  return {
    show: (found: Depths) => {
      // What was there before, and is not any more, is none.
      for (const gauge of [...depths.values(), ...oldest.values()]) gauge.updateUnsafe(0, context)
      for (const { count, state, task } of found.jobs) {
        set(depths, Metrics.queueDepth({ task_type: task, state }), count)
      }
      for (const [task, age] of found.oldestReady) {
        set(oldest, Metrics.oldestReady({ task_type: task }), Duration.toSeconds(age))
      }
      measured.updateUnsafe(machineTime() / 1_000, context)
      isPartial.updateUnsafe(found.isPartial ? 1 : 0, context)
    },
    hide: () => {
      for (const gauge of [...depths.values(), ...oldest.values(), measured, isPartial]) {
        Metric.removeUnsafe(gauge, context)
      }
      depths.clear()
      oldest.clear()
    }
  }
})

/** For ever; a measurement that fails is logged, and another time does. */
export const run = Effect.fnUntraced(function*(worker: Worker["Service"], interval: Duration.Duration) {
  const gauges = yield* makeGauges
  const intervalMillis = Duration.toMillis(interval)
  let isOurs = false
  let wait = 0

  const turn = Effect.gen(function*() {
    const startedAt = machineMillis()
    const found = yield* worker.measure(Duration.times(interval, isOurs ? early : missedTurns))
    isOurs = Option.isSome(found)
    if (Option.isNone(found)) return gauges.hide()
    gauges.show(found.value)
    wait = Math.max(wait, share * (machineMillis() - startedAt))
  }).pipe(
    Effect.timeout(deadline),
    Effect.catch((error) => Effect.logWarning("The queue could not be measured; another time may do.", error))
  )

  while (true) {
    wait = intervalMillis * (1 + 0.1 * (yield* Random.next))
    yield* turn
    yield* Effect.sleep(Duration.millis(wait))
  }
}, withMachineClock)
