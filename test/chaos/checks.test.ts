import { describe, expect, it } from "@effect/vitest"
import * as Checks from "./checks.ts"
import * as Journal from "./journal.ts"
import type { Attempt, Hold, Job, Observation } from "./observation.ts"
import * as Random from "./random.ts"

const job = (id: string, more: Partial<Job> = {}): Job => ({
  id,
  queue: undefined,
  transactional: false,
  failures: 0,
  maxAttempts: 1_000,
  runAt: undefined,
  ...more
})

const attempt = (
  job: string,
  pool: string,
  startedAt: number,
  endedAt: number,
  more: Partial<Attempt> = {}
): Attempt => ({
  job,
  queue: undefined,
  attempt: 1,
  pool,
  startedAt,
  endedAt,
  outcome: "ok",
  ...more
})

const hold = (
  job: string,
  at: number,
  was: string | undefined,
  isNow: string | undefined,
  more: Partial<Hold> = {}
) => ({
  job,
  at,
  was,
  isNow,
  deleted: false,
  attemptsWere: was === undefined ? 0 : 1,
  attemptsAre: 1,
  failedWith: undefined,
  ...more
})

const claimed = (job: string, at: number, pool: string) => hold(job, at, undefined, pool)
const deleted = (job: string, at: number, pool: string) => hold(job, at, pool, undefined, { deleted: true })

/** Two pools that confirm their leases of 3 seconds every second, from 0 to 20 seconds. */
const beats = ["a", "b"].flatMap((pool) => Array.from({ length: 21 }, (_, second) => ({ pool, at: second * 1_000 })))

/** Pool `a` was heard of for the last time at 1 second. */
const silentA = beats.filter(({ at, pool }) => pool === "b" || at <= 1_000)

/** Job 1 ran in pool `a` and completed. */
const good: Observation = {
  leaseMillis: 3_000,
  jobs: [job("1")],
  attempts: [attempt("1", "a", 110, 200)],
  holds: [claimed("1", 100, "a"), deleted("1", 210, "a")],
  beats,
  rows: [],
  effects: [],
  poolsByClock: new Map(),
  released: [],
  heldQueues: 0,
  pools: [],
  faults: []
}

const everyCheck: ReadonlyArray<Checks.Check> = [
  Checks.lost,
  Checks.wronglyRecorded,
  Checks.wronglyTaken,
  Checks.wronglyCharged(/^Refused/),
  Checks.overlapping,
  Checks.queueOverlapping,
  Checks.effects,
  Checks.early,
  Checks.leftovers,
  Checks.swept,
  Checks.slow(1_000)
]

/** What the checks say that have something to say. */
const found = (observation: Observation) => everyCheck.flatMap((check) => check(observation))

describe("the checks", () => {
  it("have nothing to say of a job that ran once", () => {
    expect(found(good)).toEqual([])
    expect(Checks.rerun(good)).toBe(0)
  })

  it("allow a second attempt after the first one's lease", () => {
    const observation = {
      ...good,
      beats: silentA,
      attempts: [attempt("1", "a", 110, 9_000, { outcome: "interrupted" }), attempt("1", "b", 4_200, 4_300)],
      holds: [
        claimed("1", 100, "a"),
        hold("1", 4_100, "a", undefined),
        hold("1", 4_150, undefined, "b", { attemptsWere: 1, attemptsAre: 2 }),
        deleted("1", 4_310, "b")
      ]
    }
    expect(found(observation)).toEqual([])
    expect(Checks.rerun(observation)).toBe(1)
  })
})

describe("a job is lost", () => {
  it("that is gone without a deletion", () => {
    expect(Checks.lost({ ...good, holds: [claimed("1", 100, "a")] })).toEqual(["job 1 is gone without a trace"])
  })

  it("that is still there and could run", () => {
    const row = { job: "1", attempts: 1, maxAttempts: 1_000, lockedBy: undefined, lastError: undefined }
    expect(Checks.lost({ ...good, holds: [], rows: [row] })).toEqual(["job 1 is still there, not run to its end"])
  })

  it("that has failed for good although it was not meant to", () => {
    const row = { job: "1", attempts: 1_000, maxAttempts: 1_000, lockedBy: undefined, lastError: "away" }
    expect(Checks.lost({ ...good, holds: [], rows: [row] })).toEqual(["job 1 has failed for good: away"])
  })

  it("that was meant to fail, and was deleted", () => {
    const doomed = job("1", { failures: 3, maxAttempts: 3 })
    expect(Checks.lost({ ...good, jobs: [doomed] })).toEqual(["job 1 was to fail, and is gone"])
  })

  it("but not one that has failed as it was meant to", () => {
    const row = { job: "1", attempts: 3, maxAttempts: 3, lockedBy: undefined, lastError: "Refused" }
    const doomed = job("1", { failures: 3, maxAttempts: 3 })
    expect(Checks.lost({ ...good, jobs: [doomed], holds: [], rows: [row] })).toEqual([])
    expect(Checks.lost({ ...good, jobs: [doomed], holds: [], rows: [{ ...row, lastError: undefined }] })).toEqual([
      "job 1 has failed without an error"
    ])
  })
})

describe("an outcome is wrongly recorded", () => {
  const violation = ["job 1 was recorded as completed, but its holder b has not completed it"]

  it("when another pool than the holder has completed the job", () => {
    expect(Checks.wronglyRecorded({ ...good, holds: [claimed("1", 100, "b"), deleted("1", 210, "b")] })).toEqual(
      violation
    )
  })

  it("when the holder's handler still runs, has failed, or has not begun", () => {
    const holds = [claimed("1", 100, "b"), deleted("1", 210, "b")]
    for (
      const attempts of [
        [attempt("1", "b", 110, 500)],
        [attempt("1", "b", 110, 200, { outcome: "failed" })],
        [attempt("1", "b", 110, 200, { outcome: undefined })],
        []
      ]
    ) {
      expect(Checks.wronglyRecorded({ ...good, holds, attempts })).toEqual(violation)
    }
  })
})

describe("a job runs twice at the same time", () => {
  const attempts = [attempt("1", "a", 110, 9_000), attempt("1", "b", 4_200, 4_300)]

  it("when the second attempt begins within the first one's lease", () => {
    expect(Checks.overlapping({ ...good, attempts })).toEqual(["job 1 ran in b while a ran it within its lease"])
  })

  it("when nobody knows when the first one ended", () => {
    const endless = [attempt("1", "a", 110, Infinity, { outcome: undefined }), attempts[1]!]
    expect(Checks.overlapping({ ...good, attempts: endless })).toHaveLength(1)
  })

  it("when a pool takes it from its holder, or runs it twice itself", () => {
    expect(Checks.overlapping({ ...good, attempts: [attempts[0]!, attempt("1", "a", 300, 400)] })).toHaveLength(1)
    expect(Checks.wronglyTaken({ ...good, holds: [hold("1", 4_100, "a", "b")] })).toEqual([
      "job 1 was taken from a by b within its lease"
    ])
  })

  it("when the lease was over for less than the whole time", () => {
    const almost = silentA.concat({ pool: "a", at: 1_300 })
    expect(Checks.overlapping({ ...good, beats: almost, attempts })).toHaveLength(1)
  })

  it("but not when the first one's lease had run out", () => {
    expect(Checks.overlapping({ ...good, beats: silentA, attempts })).toEqual([])
  })

  it("but not when the first one had ended", () => {
    const after = [attempt("1", "a", 110, 4_100), attempts[1]!]
    expect(Checks.overlapping({ ...good, attempts: after })).toEqual([])
  })
})

describe("a queue's jobs run at the same time", () => {
  const alpha = { queue: "alpha" }

  it("when the second begins before the first has ended", () => {
    const attempts = [attempt("1", "a", 100, 200, alpha), attempt("2", "b", 199, 300, alpha)]
    expect(Checks.queueOverlapping({ ...good, attempts })).toEqual([
      "queue alpha: job 2 began in b while a ran job 1"
    ])
  })

  it("when one still runs beside a second and a third", () => {
    const attempts = [
      attempt("1", "a", 100, 900, alpha),
      attempt("2", "b", 200, 300, alpha),
      attempt("3", "b", 400, 500, alpha)
    ]
    expect(Checks.queueOverlapping({ ...good, attempts })).toHaveLength(2)
  })

  it("but not when they are of different queues, of none, or one after the other", () => {
    const attempts = [
      attempt("1", "a", 100, 200, alpha),
      attempt("2", "b", 150, 300, { queue: "beta" }),
      attempt("3", "b", 150, 300),
      attempt("4", "b", 200, 300, alpha)
    ]
    expect(Checks.queueOverlapping({ ...good, attempts })).toEqual([])
  })
})

describe("a job begins early", () => {
  it("when an attempt starts before the job is due", () => {
    expect(Checks.early({ ...good, jobs: [job("1", { runAt: 110 })] })).toEqual([])
    expect(Checks.early({ ...good, jobs: [job("1", { runAt: 150 })] })).toEqual(["job 1 began 40 ms before it was due"])
  })
})

describe("an attempt is wrongly charged", () => {
  const check = Checks.wronglyCharged(/^Refused/)
  const released = (more: Partial<Hold>) => ({ ...good, holds: [hold("1", 200, "a", undefined, more)] })

  it("when a pool that is alive gives the job back and keeps the charge", () => {
    expect(check(released({}))).toEqual(["job 1: a was charged for attempt 1 without running it to its end"])
    expect(check(released({ attemptsAre: 0 }))).toEqual([])
  })

  it("when an error was recorded that the faults don't account for", () => {
    expect(check(released({ failedWith: "Defect: no" }))).toEqual([
      "job 1: a was charged for attempt 1 without running it to its end: Defect: no"
    ])
    const failed = [attempt("1", "a", 110, 200, { outcome: "failed" })]
    expect(check({ ...released({ failedWith: "Refused" }), attempts: failed })).toEqual([])
  })

  it("when a handler is said to have failed that has not", () => {
    for (const outcome of ["ok", "interrupted", undefined] as const) {
      const attempts = [attempt("1", "a", 110, 200, { outcome })]
      expect(check({ ...released({ failedWith: "Refused" }), attempts })).toHaveLength(1)
    }
    expect(check({ ...released({ failedWith: "Refused" }), attempts: [] })).toHaveLength(1)
  })

  it("when a claim charges nothing, or two", () => {
    for (const attemptsAre of [0, 2]) {
      const holds = [hold("1", 100, undefined, "a", { attemptsAre })]
      expect(check({ ...good, holds })).toEqual([`job 1: a claim changed its attempts from 0 to ${attemptsAre}`])
    }
  })

  it("but not when the holder was silent for its lease", () => {
    const holds = [hold("1", 4_100, "a", undefined)]
    expect(check({ ...good, beats: silentA, holds })).toEqual([])
    expect(check({ ...good, holds })).toHaveLength(1)
  })
})

describe("a transactional job's effect", () => {
  const jobs = [job("1", { transactional: true })]

  it("must be there once when the job has completed", () => {
    expect(Checks.effects({ ...good, jobs, effects: ["1"] })).toEqual([])
    expect(Checks.effects({ ...good, jobs })).toEqual(["job 1 has 0 committed effects instead of 1"])
    expect(Checks.effects({ ...good, jobs, effects: ["1", "1"] })).toEqual([
      "job 1 has 2 committed effects instead of 1"
    ])
  })

  it("must not be there twice, even of a job whose add was not acknowledged", () => {
    expect(Checks.effects({ ...good, jobs: [], effects: ["1", "1"] })).toHaveLength(1)
  })

  it("must not be there when it has not", () => {
    expect(Checks.effects({ ...good, jobs, holds: [], effects: ["1"] })).toEqual([
      "job 1 has 1 committed effects instead of 0"
    ])
  })
})

describe("something is left over", () => {
  it("when a job, a queue or a pool is held at the end", () => {
    const row = { job: "1", attempts: 3, maxAttempts: 3, lockedBy: "a", lastError: "x" }
    expect(Checks.leftovers({ ...good, rows: [row], heldQueues: 2, pools: ["b"] })).toEqual([
      "job 1 is held by a",
      "2 queues are held",
      "the pool b is registered"
    ])
  })

  it("when another pool had to release it", () => {
    expect(Checks.swept({ ...good, released: ["a"] })).toEqual(["the pool a was released by another"])
  })
})

describe("the time to recovery", () => {
  const holds = [
    claimed("1", 100, "a"),
    hold("1", 4_100, "a", undefined),
    hold("1", 4_500, undefined, "b", { attemptsWere: 1, attemptsAre: 2 }),
    deleted("1", 4_600, "b")
  ]

  it("is that from the blow to the next claim of what the pool held", () => {
    const faults = [{ kind: "kill -9", at: 500, until: 500, pools: ["a"] }]
    expect(Checks.recovery({ ...good, holds, faults })).toBe(4_000)
    expect(Checks.slow(3_900)({ ...good, holds, faults })).toEqual(["kill -9: recovered only after 4000 ms"])
    expect(Checks.slow(4_000)({ ...good, holds, faults })).toEqual([])
  })

  it("does not count what the pool did not hold", () => {
    const faults = [{ kind: "kill -9", at: 50, until: 50, pools: ["a"] }, {
      kind: "b",
      at: 500,
      until: 500,
      pools: ["b"]
    }]
    expect(Checks.recovery({ ...good, holds, faults })).toBe(0)
  })

  it("is that from the end of an outage to the next completed job", () => {
    const faults = [{ kind: "outage", at: 500, until: 2_600 }]
    expect(Checks.recovery({ ...good, holds, faults })).toBe(2_000)
  })
})

describe("the suite's means", () => {
  it("make the same choices from the same seed", () => {
    const choices = (seed: number) => {
      const random = Random.make(seed)
      return Array.from({ length: 50 }, () => random.between(1, 6))
    }
    expect(choices(7)).toEqual(choices(7))
    expect(choices(7)).not.toEqual(choices(8))
    expect(new Set(choices(7))).toEqual(new Set([1, 2, 3, 4, 5, 6]))
  })

  it("read a journal whose last line was cut off, and other output in it", () => {
    const written = "{\"_tag\":\"PoolStarted\",\"pool\":\"a\"}\nsome log\n{\"_tag\":\"PoolLost\",\"po"
    expect(Journal.read(written)).toEqual([{ _tag: "PoolStarted", pool: "a" }])
  })
})
