import type { Reporter, TestModule } from "vitest/node"

/**
 * Closes every run with one plain line of counts, and fails a run that executed no test.
 */
export default class CountsReporter implements Reporter {
  onTestRunEnd(modules: ReadonlyArray<TestModule>): void {
    const counts = { passed: 0, failed: 0, skipped: 0, pending: 0 }
    for (const module of modules) {
      for (const test of module.children.allTests()) {
        counts[test.result().state]++
      }
    }
    if (counts.passed + counts.failed === 0) {
      process.exitCode = 1
    }
    console.log(`Tests: ${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`)
  }
}
