/**
 * What every database must do: one suite, written against the interface
 * `JobStore` alone, run once for each implementation.
 */
import { assert, describe, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type { Capabilities } from "../../src/JobStore.ts"
import { adding } from "./adding.ts"
import { administration } from "./administration.ts"
import { batching, noBatching } from "./batching.ts"
import { claiming } from "./claiming.ts"
import { Harness, type It, scene, spec, unique } from "./harness.ts"
import { keys } from "./keys.ts"
import { notifications } from "./notifications.ts"
import { outcomes } from "./outcomes.ts"
import { pools } from "./pools.ts"
import { queues } from "./queues.ts"
import { reading } from "./reading.ts"
import { settling } from "./settling.ts"

const stores = (capabilities: Capabilities) => (it: It) => {
  it.effect("says what it can do beyond the minimum", () =>
    Effect.gen(function*() {
      const { other, store } = yield* Harness
      assert.deepStrictEqual([store.capabilities, other.capabilities], [capabilities, capabilities])
    }))

  it.effect("has a store on connections of its own for a worker", () =>
    Effect.gen(function*() {
      const { pool, store, task } = yield* scene
      const { id } = yield* store.add(spec(task))
      yield* Effect.scoped(Effect.gen(function*() {
        const dedicated = yield* store.dedicated
        assert.deepStrictEqual(dedicated.capabilities, capabilities)
        const { jobs } = yield* dedicated.claim({ pool, tasks: [task], limit: 1 })
        assert.deepStrictEqual(jobs.map((job) => job.id), [id])
        assert.strictEqual((yield* dedicated.settle(pool, [{ _tag: "Completed", id }])).size, 1)
      }))
      assert.strictEqual(yield* store.count({ tasks: [task] }), 0)
      yield* store.add(spec(unique("task")))
    }))
}

/** The layer's database must be empty and migrated; it serves all tests of the suite. */
export const storeSuite = <E>(
  name: string,
  { capabilities, harness }: { readonly harness: Layer.Layer<Harness, E>; readonly capabilities: Capabilities }
): void => {
  const parts: Record<string, (it: It) => void> = {
    "a store": stores(capabilities),
    "adding": adding,
    "a job key": keys,
    "reading and removing": reading,
    "administration": administration,
    "a claim": claiming,
    "named queues": queues,
    "settling": settling,
    "outcomes": outcomes,
    "pools": pools,
    ...(capabilities.notifications ? { notifications } : {}),
    "a batch": capabilities.batch ? batching : noBatching
  }
  layer(harness, { excludeTestServices: true })(name, (it) => {
    for (const [part, tests] of Object.entries(parts)) {
      describe(`${part}`, () => {
        tests(it)
      })
    }
  })
}
