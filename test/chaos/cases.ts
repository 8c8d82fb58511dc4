/**
 * The faults, one case each.
 */
import { Effect } from "effect"
import { pause } from "../support/events.ts"
import * as Checks from "./checks.ts"
import type { Life } from "./fleet.ts"
import { type Case, refused, refusedAwayOrTimedOut, refusedOrAway, type World } from "./harness.ts"
import * as Settings from "./settings.ts"
import * as Site from "./site.ts"

const define = <S extends Site.Site>(of: Case<S>): Case<S> => of

/** While there is time. */
const repeat = <S extends Site.Site, R>(world: World<S>, fault: Effect.Effect<unknown, never, R>) =>
  Effect.asVoid(Effect.whileLoop({ while: world.goesOn, body: () => fault, step: () => {} }))

/** One of the workers that have a pool. */
const anyWorker = Effect.fnUntraced(function*<S extends Site.Site>({ fleet, random }: World<S>) {
  const ready: Array<Life> = []
  for (const life of fleet.living()) {
    if ((yield* life.pools).length > 0) ready.push(life)
  }
  return ready.length === 0 ? undefined : random.pick(ready)
})

/** Every worker has something in hand that takes a while. */
const keepBusy = <S extends Site.Site>({ load }: World<S>, millis: number) =>
  Effect.andThen(
    Effect.forEach(Array.from({ length: 2 * Settings.workers }), () => load.addOne({ millis, blocks: 0 }), {
      concurrency: 3,
      discard: true
    }),
    pause("150 millis")
  )

const killed = Effect.fnUntraced(function*<S extends Site.Site>({ fleet, note }: World<S>, life: Life) {
  const pools = yield* life.pools
  const at = Date.now()
  yield* fleet.kill(life)
  note({ kind: "kill -9", at, until: at, pools })
})

/** As when the machine of all workers loses its power. */
const killAll = <S extends Site.Site>(world: World<S>) =>
  Effect.gen(function*() {
    yield* keepBusy(world, 400)
    const lives = world.fleet.living()
    yield* Effect.forEach(lives, (life) => killed(world, life), { concurrency: "unbounded", discard: true })
    yield* Effect.forEach(lives, () => world.fleet.launch(), { discard: true })
  })

export const kill = define({
  name: "kill -9 of workers",
  site: Site.database,
  errors: refused,
  faults: (world) =>
    Effect.gen(function*() {
      yield* repeat(
        world,
        Effect.gen(function*() {
          yield* world.pause(200, 800)
          yield* keepBusy(world, 400)
          // The oldest one is spared: the dead are found by a pool that has itself lived for a lease.
          const life = world.random.pick(world.fleet.living().slice(1))
          if ((yield* life.pools).length === 0) return
          yield* killed(world, life)
          yield* world.pause(0, 500)
          yield* world.fleet.launch()
          if (Settings.isLong && world.random.next() < 0.1) {
            yield* killAll(world)
            yield* pause(3 * Settings.leaseMillis)
          }
        })
      )
      yield* killAll(world)
    })
})

export const stop = define({
  name: "kill -STOP beyond the lease",
  site: Site.database,
  errors: refusedOrAway,
  faults: (world) =>
    repeat(
      world,
      Effect.gen(function*() {
        yield* world.pause(200, 800)
        yield* keepBusy(world, 1_000)
        const life = yield* anyWorker(world)
        if (life === undefined) return
        const at = Date.now()
        yield* life.child.kill("SIGSTOP")
        const pools = yield* life.pools
        yield* world.pause(Settings.leaseMillis + 1_200, Settings.leaseMillis + 2_000)
        yield* life.child.kill("SIGCONT")
        world.note({ kind: "kill -STOP", at, until: Date.now(), pools })
      })
    )
})

export const terminate = define({
  name: "SIGTERM storm",
  site: Site.database,
  errors: refused,
  checks: [Checks.swept],
  faults: (world) =>
    repeat(
      world,
      Effect.gen(function*() {
        // Longer than a handler may go on: interrupted, given back uncharged, run again.
        yield* world.load.addOne({ millis: 1_200, blocks: 0 })
        yield* world.pause(100, 700)
        const at = Date.now()
        const lives = world.fleet.living().filter(() => world.random.next() < 0.5)
        yield* Effect.forEach(lives, (life) =>
          Effect.gen(function*() {
            const pools = yield* life.pools
            // Before it listens for the signal, it is an ordinary program that ends at once.
            if (pools.length === 0) return
            yield* world.fleet.terminate(life)
            world.note({ kind: "SIGTERM", at, until: Date.now(), pools })
            yield* world.fleet.launch()
          }), { concurrency: "unbounded" })
      })
    )
})

export const crash = define({
  name: "PostgreSQL stopped immediately",
  site: Site.server,
  errors: refusedOrAway,
  faults: (world) =>
    repeat(
      world,
      Effect.gen(function*() {
        yield* world.pause(1_200, 2_500)
        const at = Date.now()
        yield* world.site.stop("immediate")
        yield* world.pause(100, 1_000)
        yield* Effect.orDie(world.site.start)
        world.note({ kind: "immediate stop", at, until: Date.now() })
      })
    )
})

export const sessions = define({
  name: "pg_terminate_backend",
  site: Site.database,
  errors: refusedOrAway,
  faults: (world) =>
    repeat(
      world,
      Effect.gen(function*() {
        yield* world.pause(150, 500)
        yield* Site.outside(world.site.config, (sql) =>
          Effect.gen(function*() {
            const rows = yield* sql<{ readonly pid: number }>`
              select pid from pg_stat_activity
              where datname = ${world.site.name} and application_name in ('kongtask', 'chaos-ledger') order by pid`
            const chosen = rows.filter(() => world.random.next() < 0.15).map(({ pid }) => pid)
            if (chosen.length === 0) return
            const at = Date.now()
            yield* sql`select pg_terminate_backend(pid) from unnest(${chosen}::int[]) as pid`
            world.note({ kind: `${chosen.length} sessions ended`, at, until: Date.now() })
          }))
      })
    )
})

export const failover = define({
  name: "standby promoted",
  site: Site.replicated,
  errors: refusedOrAway,
  faults: (world) =>
    Effect.gen(function*() {
      yield* pause(Settings.seconds * 500)
      const at = Date.now()
      yield* world.site.pair.failOver
      yield* world.site.proxy.leadTo(world.site.pair.standby)
      world.note({ kind: "failover", at, until: Date.now() })
      yield* pause(Settings.seconds * 500)
    })
})

export const network = define({
  name: "network cut, slow, half closed",
  site: Site.proxied,
  errors: refusedOrAway,
  faults: (world) => {
    const { note, random, site: { proxy } } = world
    let turn = random.between(0, 3)
    const faults = [
      Effect.map(proxy.cut(0.5, random), (count) => `${count} connections cut`),
      Effect.gen(function*() {
        yield* proxy.delay(random.between(50, 250))
        yield* world.pause(500, 1_200)
        yield* proxy.delay(0)
        return "delay"
      }),
      Effect.gen(function*() {
        const count = yield* proxy.halfClose(0.4, random)
        yield* world.pause(1_500, 2_500)
        yield* proxy.cut(1, random)
        return `${count} connections half closed`
      }),
      Effect.gen(function*() {
        yield* proxy.refuse(true)
        yield* proxy.cut(1, random)
        yield* world.pause(300, 900)
        yield* proxy.refuse(false)
        return "cut off"
      })
    ]
    return repeat(
      world,
      Effect.gen(function*() {
        yield* world.pause(200, 700)
        const at = Date.now()
        const kind = yield* faults[turn++ % faults.length]!
        note({ kind, at, until: Date.now() })
      })
    )
  }
})

export const block = define({
  name: "event loop blocked beyond the lease",
  site: Site.database,
  errors: refusedOrAway,
  faults: (world) =>
    repeat(
      world,
      Effect.gen(function*() {
        const millis = Settings.leaseMillis + world.random.between(1_500, 2_500)
        const job = yield* world.load.addOne({ millis: 4_000, blocks: millis })
        yield* pause(millis + 500)
        for (const life of world.fleet.lives) {
          const blocked = (yield* life.journal).find((entry) => entry._tag === "Blocked" && entry.job === job)
          if (blocked?._tag === "Blocked") {
            const pools = yield* life.pools
            world.note({ kind: "blocked", at: blocked.at, until: blocked.until, pools })
          }
        }
        // The one that took the job over runs it for long enough for the first one to meddle.
        yield* world.pause(500, 1_000)
      })
    )
})

/** A worker whose time of day jumps confirms its lease as before: it stays the pool that it was. */
const stayed: Checks.Check = ({ poolsByClock }) => {
  const pools = poolsByClock.get("wall") ?? []
  return pools.length === 1 ? [] : [`a worker whose time of day jumped has been ${pools.length} pools`]
}

export const clock = define({
  name: "clocks jump by hours",
  site: Site.database,
  errors: refusedAwayOrTimedOut,
  clocks: ["wall", "test", undefined],
  checks: [stayed],
  faults: (world) =>
    repeat(
      world,
      Effect.gen(function*() {
        yield* world.pause(400, 1_200)
        const life = world.random.pick(world.fleet.living().filter((life) => life.clock !== undefined))
        const pools = yield* life.pools
        const at = Date.now()
        yield* life.child.kill("SIGUSR2")
        world.note({ kind: `jump of the ${life.clock} clock`, at, until: at, pools })
      })
    )
})
