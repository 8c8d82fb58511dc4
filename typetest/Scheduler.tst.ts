import { Effect, Schema } from "effect"
import { Scheduler, Task } from "kongtask"
import { describe, expect, it } from "tstyche"

const Mail = Task.make("mail", { payload: { to: Schema.String } })
const Tick = Task.make("tick")

describe("Scheduler.cron", () => {
  it("takes the payload of its task", () => {
    expect(Scheduler.cron).type.toBeCallableWith(Mail, "@daily", { payload: { to: "a" } })
    expect(Scheduler.cron).type.not.toBeCallableWith(Mail, "@daily", { payload: { to: 1 } })
    expect(Scheduler.cron).type.not.toBeCallableWith(Mail, "@daily", {})
    expect(Scheduler.cron).type.not.toBeCallableWith(Mail, "@daily")
  })

  it("needs none where the task needs none", () => {
    expect(Scheduler.cron).type.toBeCallableWith(Tick, "@daily")
    expect(Scheduler.cron).type.toBeCallableWith(Tick, "@daily", { backfill: "1 day" })
    expect(Scheduler.cron).type.not.toBeCallableWith(Tick, "@daily", { every: 1 })
  })
})

describe("Scheduler.put", () => {
  it("keeps schedules whose time is text", () => {
    expect(Scheduler.put).type.toBeCallableWith(Scheduler.cron(Tick, "@daily"))
    expect(Scheduler.put).type.not.toBeCallableWith(Scheduler.matching(Tick, () => true))
  })
})

describe("Scheduler.run", () => {
  it("needs nothing but the service", () => {
    const run = Scheduler.run({
      items: [Scheduler.cron(Tick, "@daily"), Scheduler.cron(Mail, "@daily", { payload: { to: "a" } })]
    })
    expect(run).type.toBe<Effect.Effect<never, Scheduler.StartError, Scheduler.Scheduler>>()
  })
})
