/**
 * The queue as a few lines of TypeScript: what a database has to agree with after each command. Nothing here knows a
 * database or an effect.
 */
import type { JobSpec, Settlement } from "../../src/JobStore.ts"

/** Microseconds since the epoch. The database's clock is read before and after a command, so a time is a span at first. */
export interface Span {
  readonly min: number
  readonly max: number
}

/** A job as the model knows it. */
export interface ModelJob {
  readonly id: string
  task: string
  queueName: string | undefined
  priority: number
  runAt: Span
  attempts: number
  maxAttempts: number
  key: string | undefined
  revision: number
  payload: string
  lastError: string | undefined
  holder: string | undefined
  /** Whether it lost its key and its remaining attempts while it ran: it must not run again. */
  superseded: boolean
}

/** What an add is expected to answer: a job that is there, one that is new, or the refusal. */
export type Added =
  | { readonly _tag: "Known"; readonly id: string }
  | { readonly _tag: "New" }
  | { readonly _tag: "Refused"; readonly index: number; readonly existing: string | "New"; readonly state: string }

/** What a claim is expected to find, one list for each order in which equally old tasks may come. */
export interface Claimed {
  readonly choices: ReadonlyArray<ReadonlyArray<string>>
  readonly contended: boolean
  readonly hasNext: boolean
}

const exactly = (at: number): Span => ({ min: at, max: at })

const later = (at: Span, millis: number): Span => ({ min: at.min + millis * 1000, max: at.max + millis * 1000 })

const latest = (a: Span, b: Span): Span => ({ min: Math.max(a.min, b.min), max: Math.max(a.max, b.max) })

const byOrder = (a: ModelJob, b: ModelJob): number =>
  a.priority - b.priority || a.runAt.min - b.runAt.min || Number(a.id) - Number(b.id)

export class Model {
  readonly jobs = new Map<string, ModelJob>()
  readonly pools = new Set<string>()
  /** Jobs that were cancelled while a pool ran them. */
  readonly requests = new Set<string>()
  /** When the command at hand was carried out. */
  now: Span = exactly(0)

  isDue = (job: ModelJob): boolean => job.runAt.min <= this.now.min

  isWaiting = (job: ModelJob): boolean => job.holder === undefined && job.attempts < job.maxAttempts

  state(job: ModelJob): string {
    if (job.holder !== undefined) return "running"
    if (job.attempts >= job.maxAttempts) return "failed"
    if (this.isDue(job)) return "ready"
    return job.attempts > 0 ? "retrying" : "scheduled"
  }

  heldBy = (pool: string): ReadonlyArray<ModelJob> => [...this.jobs.values()].filter((job) => job.holder === pool)

  isBusy = (queueName: string): boolean =>
    [...this.jobs.values()].some((job) => job.queueName === queueName && job.holder !== undefined)

  #withKey = (key: string | undefined): ModelJob | undefined =>
    key === undefined ? undefined : [...this.jobs.values()].find((job) => job.key === key)

  #supersede(job: ModelJob): void {
    job.key = undefined
    job.attempts = job.maxAttempts
    job.superseded = job.holder !== undefined
  }

  #valuesOf = (spec: JobSpec) => ({
    task: spec.task,
    queueName: spec.queueName,
    priority: spec.priority ?? 0,
    runAt: spec.runAt === undefined ? later(this.now, spec.delay ?? 0) : exactly(spec.runAt * 1000),
    attempts: 0,
    maxAttempts: spec.maxAttempts ?? 25,
    payload: spec.payload,
    lastError: undefined
  })

  /** Adds the jobs in turn, all or none; `nextId` tells the id that the database gave to a new job. */
  add(specs: ReadonlyArray<JobSpec>, nextId: (place: number) => string): ReadonlyArray<Added> {
    const taken = specs.findIndex((spec) => spec.keyMode === "reject" && this.#withKey(spec.key) !== undefined)
    const before = new Map([...this.jobs].map(([id, job]) => [id, { ...job }]))
    const refused = (index: number): ReadonlyArray<Added> => {
      const existing = this.#withKey(specs[index]!.key)!
      const refusal = {
        _tag: "Refused" as const,
        index,
        existing: before.has(existing.id) ? existing.id : "New" as const,
        state: this.state(existing)
      }
      this.jobs.clear()
      for (const [id, job] of before) this.jobs.set(id, job)
      return [refusal]
    }
    if (taken >= 0) return refused(taken)

    const added: Array<Added> = []
    for (const [place, spec] of specs.entries()) {
      const held = this.#withKey(spec.key)
      if (held !== undefined && spec.keyMode === "reject") return refused(place)
      added.push(held === undefined ? this.#insert(spec, nextId(place)) : this.#addTo(held, spec, () => nextId(place)))
    }
    return added
  }

  #insert(spec: JobSpec, id: string): Added {
    this.jobs.set(id, {
      id,
      ...this.#valuesOf(spec),
      key: spec.key,
      revision: 0,
      holder: undefined,
      superseded: false
    })
    return { _tag: "New" }
  }

  #addTo(held: ModelJob, spec: JobSpec, nextId: () => string): Added {
    const known: Added = { _tag: "Known", id: held.id }
    if (spec.keyMode === "unsafe_dedupe") {
      held.revision++
      return known
    }
    if (spec.keyMode === "dedupe" && (this.isWaiting(held) || held.holder !== undefined)) return known
    if (!this.isWaiting(held)) {
      this.#supersede(held)
      return this.#insert(spec, nextId())
    }
    const keepsTime = spec.keyMode === "preserve_run_at" && held.attempts === 0
    Object.assign(held, this.#valuesOf(spec), keepsTime ? { runAt: held.runAt } : {}, { revision: held.revision + 1 })
    return known
  }

  /** What a claim may find. Nothing changes yet. */
  claim(pool: string, tasks: ReadonlyArray<string>, limit: number, start: number, run: number): Claimed {
    const available = [...this.jobs.values()].filter((job) =>
      this.isWaiting(job) && tasks.includes(job.task) && (job.queueName === undefined || !this.isBusy(job.queueName))
    ).toSorted(byOrder)
    const due = available.filter(this.isDue)
    const queued = due.filter((job) =>
      job.queueName !== undefined && job === due.find((first) => first.queueName === job.queueName)
    )
    const free = due.filter((job) => job.queueName === undefined)
    const isLast = (job: ModelJob) => job.attempts + 1 >= job.maxAttempts
    const behind = (head: ModelJob) => {
      const others = due.filter((job) =>
        job !== head && job.queueName !== undefined && job.queueName === head.queueName
      )
      const last = others.findIndex(isLast)
      return others.slice(0, Math.min(run - 1, last === -1 ? Infinity : last))
    }
    const headOf = (job: ModelJob) => free.find((other) => other.task === job.task && other.priority === job.priority)!
    const choose = (order: ReadonlyArray<string>) => {
      const byLane = free.toSorted((a, b) =>
        a.priority - b.priority || headOf(a).runAt.min - headOf(b).runAt.min ||
        order.indexOf(a.task) - order.indexOf(b.task) || byOrder(a, b)
      )
      return [...byLane.slice(0, limit), ...queued.slice(0, limit)].toSorted(byOrder)
        .filter((job, place) => place < limit && (place < start || !isLast(job)))
        .flatMap((job) => [job].concat(behind(job)))
        .toSorted(byOrder)
        .map((job) => job.id)
    }
    return {
      choices: this.pools.has(pool) ? [choose(tasks), choose(tasks.toReversed())] : [[]],
      contended: due.length > 0,
      hasNext: available.some((job) => !this.isDue(job))
    }
  }

  hold(pool: string, ids: ReadonlyArray<string>): void {
    for (const id of ids) {
      const job = this.jobs.get(id)!
      job.attempts++
      job.holder = pool
    }
  }

  #release(job: ModelJob, attempts: number): void {
    job.holder = undefined
    job.attempts = attempts
    job.superseded = false
  }

  /** The attempts of a job that is given back uncharged. */
  #uncharged = (job: ModelJob): number => job.superseded ? job.attempts : Math.max(job.attempts - 1, 0)

  /** Answers the ids that the pool held. */
  settle(pool: string, settlements: ReadonlyArray<Settlement>): ReadonlyArray<string> {
    return settlements.flatMap((settlement) => {
      if (settlement._tag === "Cancelled") this.requests.delete(settlement.id)
      const job = this.jobs.get(settlement.id)
      if (job === undefined || job.holder !== pool) return []
      switch (settlement._tag) {
        case "Completed":
        case "Cancelled":
          this.jobs.delete(job.id)
          break
        case "Failed":
          job.lastError = settlement.error
          if (settlement.retryIn !== undefined) job.runAt = later(latest(this.now, job.runAt), settlement.retryIn)
          this.#release(job, settlement.retryIn === undefined ? job.maxAttempts : job.attempts)
          break
        case "Snoozed":
        case "Released":
          if (settlement._tag === "Snoozed") job.runAt = later(this.now, settlement.delay)
          this.#release(job, job.attempts === settlement.attempt ? this.#uncharged(job) : job.attempts)
      }
      return [job.id]
    })
  }

  /** Gives back uncharged what the pool holds beyond these jobs. */
  releaseUnknown(pool: string, known: ReadonlyArray<string>): void {
    for (const job of this.heldBy(pool)) if (!known.includes(job.id)) this.#release(job, this.#uncharged(job))
  }

  /** Takes what the pool holds, the attempts charged, and says how many jobs may run again and how many have failed. */
  takeFrom(pool: string, error: (job: ModelJob) => string): { readonly released: number; readonly failed: number } {
    this.pools.delete(pool)
    const taken = this.heldBy(pool)
    for (const job of taken) {
      if (job.attempts >= job.maxAttempts) job.lastError = error(job)
      this.#release(job, job.attempts)
    }
    const failed = taken.filter((job) => job.attempts >= job.maxAttempts).length
    return { released: taken.length - failed, failed }
  }

  /** Deletes a job that nobody holds; one that runs is superseded. Answers its state then. */
  remove(target: { readonly id: string } | { readonly key: string }): string | undefined {
    const job = "id" in target ? this.jobs.get(target.id) : this.#withKey(target.key)
    if (job === undefined) return undefined
    if (job.holder !== undefined) this.#supersede(job)
    else this.jobs.delete(job.id)
    return this.state(job)
  }

  cancel(id: string): string | undefined {
    const job = this.jobs.get(id)
    if (job === undefined) return undefined
    for (const request of this.requests) if (!this.jobs.has(request)) this.requests.delete(request)
    if (job.holder === undefined) {
      this.jobs.delete(id)
      return "cancelled"
    }
    this.requests.add(id)
    return "running"
  }

  /** Changes those of the jobs that nobody holds, and answers their ids in order. */
  change(ids: ReadonlyArray<string>, how: (job: ModelJob) => void): ReadonlyArray<string> {
    const free = [...new Set(ids)].flatMap((id) => this.jobs.get(id) ?? []).filter((job) => job.holder === undefined)
    free.forEach(how)
    return free.map((job) => job.id).toSorted((a, b) => Number(a) - Number(b))
  }

  complete = (ids: ReadonlyArray<string>) => this.change(ids, (job) => this.jobs.delete(job.id))

  fail = (ids: ReadonlyArray<string>, message: string) =>
    this.change(ids, (job) => Object.assign(job, { attempts: job.maxAttempts, lastError: message }))

  retry = (ids: ReadonlyArray<string>) =>
    this.change(ids, (job) => Object.assign(job, { attempts: 0, runAt: this.now }))

  reschedule = (ids: ReadonlyArray<string>, delay: number, priority: number | undefined) =>
    this.change(ids, (job) => Object.assign(job, { runAt: later(this.now, delay), priority: priority ?? job.priority }))
}
