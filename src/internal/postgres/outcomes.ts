import type { Settlement } from "../../JobStore.ts"

const toJson = (endings: ReadonlyArray<unknown>): string | null => endings.length === 0 ? null : JSON.stringify(endings)

/** Settlements as the parameters of the statements that record them. */
export const partition = (settlements: ReadonlyArray<Settlement>) => {
  const completed: Array<string> = []
  const cancelled: Array<string> = []
  const kept: Array<string> = []
  const failures: Array<{ readonly id: string } & Record<string, unknown>> = []
  const releases: typeof failures = []
  const endings: Array<{ readonly id: string } & Record<string, unknown>> = []
  const fallibleEndings: typeof endings = []
  for (const settlement of settlements) {
    switch (settlement._tag) {
      case "Completed":
        if (settlement.keep === undefined) {
          completed.push(settlement.id)
        } else {
          kept.push(settlement.id)
          fallibleEndings.push({ id: settlement.id, outcome: "completed", ...settlement.keep })
        }
        break
      case "Cancelled":
        cancelled.push(settlement.id)
        endings.push({ id: settlement.id, outcome: "cancelled", reason: settlement.reason, retain: settlement.retain })
        break
      case "Failed":
        failures.push({
          id: settlement.id,
          error: settlement.error,
          retry_in: settlement.retryIn ?? null,
          since: settlement.since,
          keep: settlement.keep,
          ...settlement.record
        })
        if (settlement.retryIn === undefined && settlement.retain !== undefined) {
          fallibleEndings.push({ id: settlement.id, retain: settlement.retain })
        }
        break
      case "Released":
        releases.push({ id: settlement.id, attempt: settlement.attempt, delay: null })
        break
      case "Snoozed":
        releases.push({
          id: settlement.id,
          attempt: settlement.attempt,
          delay: settlement.delay,
          since: settlement.since
        })
    }
  }
  return {
    /** Without anything to keep. */
    completed,
    /** Completed with something to keep. */
    kept,
    cancelled,
    fallible: [...failures, ...releases].map(({ id }) => id).concat(kept),
    failures: JSON.stringify(failures),
    releases: JSON.stringify(releases),
    /** What there is to say of cancelled jobs, which the database cannot refuse. */
    endings: toJson(endings),
    fallibleEndings: toJson(fallibleEndings),
    allEndings: toJson(endings.concat(fallibleEndings))
  }
}
