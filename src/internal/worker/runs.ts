/**
 * The runs of a pool: of each named queue that it holds, the jobs that it has
 * claimed. One of them is at work, the others wait behind it, and the queue is
 * the pool's until the outcome of the last one is recorded.
 */
import type { JobId } from "../../Job.ts"
import type { ClaimedJob } from "../../JobStore.ts"

/** A job that has not started, and since when it is the pool's. */
export interface Waiting {
  readonly job: ClaimedJob
  readonly since: number
}

export interface Runs {
  /** Takes over a claimed job. Answers whether it is its turn at once; otherwise `next` will answer it. */
  readonly accept: (waiting: Waiting) => boolean
  /** What is to be started now that this job is at work no more. */
  readonly next: (job: ClaimedJob) => Waiting | undefined
  /** How many jobs wait behind others. */
  readonly waiting: () => number
  readonly waitingIds: () => ReadonlyArray<JobId>
  /** Takes out the waiting jobs for which this holds, in their order. */
  readonly withdraw: (isMeant: (waiting: Waiting) => boolean) => ReadonlyArray<ClaimedJob>
  /** The jobs beside these, of their queues, whose outcomes are not recorded; these are about to be. */
  readonly beside: (jobs: ReadonlyArray<ClaimedJob>) => ReadonlyArray<JobId>
  /**
   * Forgets a job whose outcome is recorded, or never will be. Answers false when the queue may be held for nothing: when
   * the last two outcomes were recorded at the same time, each of them has left the queue to the other.
   */
  readonly forget: (job: ClaimedJob) => boolean
  /** Whether jobs of the queue are still to be recorded. */
  readonly holds: (queueName: string) => boolean
}

interface Run {
  /** Those that are not recorded, and whether others were beside them when they were about to be. */
  readonly members: Map<ClaimedJob, boolean>
  atWork: ClaimedJob | undefined
  waiting: Array<Waiting>
}

export const make = (isRunning: (id: JobId) => boolean): Runs => {
  const runs = new Map<string, Run>()
  let waitingCount = 0

  return {
    accept: (waiting) => {
      const { id, queueName } = waiting.job
      if (queueName === undefined) return true
      let run = runs.get(queueName)
      if (run === undefined) {
        run = { members: new Map(), atWork: undefined, waiting: [] }
        runs.set(queueName, run)
      }
      run.members.set(waiting.job, false)
      // A job that is claimed again while it runs takes the place of its former attempt.
      if (run.atWork === undefined || (run.atWork.id === id && isRunning(id))) {
        run.atWork = waiting.job
        return true
      }
      run.waiting.push(waiting)
      waitingCount++
      return false
    },
    next: (job) => {
      const run = job.queueName === undefined ? undefined : runs.get(job.queueName)
      if (run === undefined || run.atWork !== job) return undefined
      const next = run.waiting.shift()
      run.atWork = next?.job
      if (next !== undefined) waitingCount--
      return next
    },
    waiting: () => waitingCount,
    waitingIds: () => Array.from(runs.values(), ({ waiting }) => waiting.map(({ job }) => job.id)).flat(),
    withdraw: (isMeant) => {
      if (waitingCount === 0) return []
      const withdrawn: Array<ClaimedJob> = []
      for (const run of runs.values()) {
        const meant = run.waiting.filter(isMeant)
        if (meant.length === 0) continue
        run.waiting = run.waiting.filter((waiting) => !meant.includes(waiting))
        withdrawn.push(...meant.map(({ job }) => job))
      }
      waitingCount -= withdrawn.length
      return withdrawn
    },
    beside: (jobs) => {
      const settling = new Set(jobs)
      const queueNames = new Set(jobs.flatMap(({ queueName }) => queueName ?? []))
      const held: Array<JobId> = []
      for (const queueName of queueNames) {
        const run = runs.get(queueName)
        if (run === undefined) continue
        const before = held.length
        for (const member of run.members.keys()) if (!settling.has(member)) held.push(member.id)
        const others = held.length > before
        for (const member of run.members.keys()) if (settling.has(member)) run.members.set(member, others)
      }
      return held
    },
    forget: (job) => {
      const run = job.queueName === undefined ? undefined : runs.get(job.queueName)
      const hadOthers = run?.members.get(job)
      if (run === undefined || hadOthers === undefined) return true
      run.members.delete(job)
      if (run.members.size > 0) return true
      runs.delete(job.queueName!)
      return !hadOthers
    },
    holds: (queueName) => runs.has(queueName)
  }
}
