import { assert, describe, it } from "@effect/vitest"
import { DateTime, Schema } from "effect"
import { Job } from "kongtask"

describe("Job.JobId", () => {
  const isJobId = Schema.is(Job.JobId)

  it("is a positive 64-bit integer in decimal digits", () => {
    for (const id of ["1", "42", "9223372036854775807"]) assert.isTrue(isJobId(id), id)
    for (const id of ["", "0", "01", "-1", "1.0", "1e3", " 1", "1\n", "99999999999999999999", 1, 1n, null]) {
      assert.isFalse(isJobId(id), String(id))
    }
  })
})

describe("Job.Job", () => {
  const job = new Job.Job({
    id: Job.JobId.make("7"),
    task: "task",
    state: "running",
    payload: { a: [1, null, "b"] },
    queueName: undefined,
    priority: 0,
    runAt: DateTime.makeUnsafe("2030-01-01T00:00:00.001Z"),
    attempts: 1,
    maxAttempts: 25,
    lastError: undefined,
    createdAt: DateTime.makeUnsafe("2029-01-01T00:00:00Z"),
    updatedAt: DateTime.makeUnsafe("2029-01-01T00:00:00Z"),
    key: "key",
    lockedAt: DateTime.makeUnsafe("2030-01-01T00:00:01Z"),
    lockedBy: "pool",
    revision: 2,
    flags: ["a"]
  })

  it("survives JSON", () => {
    const codec = Schema.toCodecJson(Job.Job)
    const text = JSON.stringify(Schema.encodeSync(codec)(job))
    const back = Schema.decodeUnknownSync(codec)(JSON.parse(text))
    assert.instanceOf(back, Job.Job)
    assert.deepStrictEqual(back, job)
  })

  it("has one of seven states", () => {
    assert.deepStrictEqual([...Job.State.literals], [
      "scheduled",
      "ready",
      "running",
      "retrying",
      "completed",
      "failed",
      "cancelled"
    ])
    assert.deepStrictEqual([...Job.KeyMode.literals], [
      "replace",
      "preserve_run_at",
      "unsafe_dedupe",
      "dedupe",
      "reject"
    ])
    assert.throws(() => new Job.Job({ ...job, state: "lost" as never }))
  })
})

describe("Job.InvalidJob", () => {
  it("says which job, which field and what is wrong with it", () => {
    const problem = { task: "task", field: "jobKey", problem: "is too long" }
    assert.strictEqual(
      new Job.InvalidJob(problem).message,
      "A job of task \"task\" cannot be added: jobKey is too long."
    )
    assert.strictEqual(
      new Job.InvalidJob({ ...problem, index: 3 }).message,
      "A job of task \"task\" (job 3 of the call) cannot be added: jobKey is too long."
    )
  })
})
