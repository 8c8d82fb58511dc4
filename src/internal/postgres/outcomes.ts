import type { Settlement } from "../../JobStore.ts"

/** Settlements as the parameters of the statements that record them. */
export const partition = (settlements: ReadonlyArray<Settlement>) => {
  const completed: Array<string> = []
  const cancelled: Array<string> = []
  const failures: Array<{ readonly id: string } & Record<string, unknown>> = []
  const releases: Array<{ readonly id: string; readonly attempt: number; readonly delay: number | null }> = []
  for (const settlement of settlements) {
    switch (settlement._tag) {
      case "Completed":
        completed.push(settlement.id)
        break
      case "Cancelled":
        cancelled.push(settlement.id)
        break
      case "Failed":
        failures.push({
          id: settlement.id,
          error: settlement.error,
          retry_in: settlement.retryIn ?? null,
          keep: settlement.keep,
          ...settlement.record
        })
        break
      case "Released":
        releases.push({ id: settlement.id, attempt: settlement.attempt, delay: null })
        break
      case "Snoozed":
        releases.push({ id: settlement.id, attempt: settlement.attempt, delay: settlement.delay })
    }
  }
  return {
    completed,
    cancelled,
    fallible: [...failures, ...releases].map(({ id }) => id),
    failures: JSON.stringify(failures),
    releases: JSON.stringify(releases)
  }
}
