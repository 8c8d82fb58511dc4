import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    root: import.meta.dirname,
    include: ["serverTooOld.ts"],
    reporters: ["dot", "../support/reporter.ts"],
    testTimeout: 60_000
  }
})
