import type { Runner } from "./attempt.ts"

/** What runs the jobs of each task. Those that are replaced are kept for the jobs that are claimed already. */
export class Runners extends Map<string, Runner> {
  readonly #retired = new Map<string, Runner>()

  /** Told when others have come: there may be jobs for them. */
  onReplaced: () => void = () => {}

  override get(task: string): Runner | undefined {
    return super.get(task) ?? this.#retired.get(task)
  }

  replace(runners: Iterable<readonly [string, Runner]>): void {
    for (const [task, runner] of this) this.#retired.set(task, runner)
    this.clear()
    for (const [task, runner] of runners) this.set(task, runner)
    this.onReplaced()
  }
}
