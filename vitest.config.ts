import * as Os from "node:os"
import { defineConfig } from "vitest/config"

const conditions = ["kongtask-source", "module", "node", "development|production"]

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions, externalConditions: ["kongtask-source", "node", "module-sync"] } },
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/globalSetup.ts"],
    reporters: ["default", "./test/support/reporter.ts"],
    pool: "forks",
    // What tests write for the library to import is imported by Node, as in a program.
    server: { deps: { external: [/\/kongtask-test-/] } },
    // The database server of the tests shares the machine and its connections.
    maxWorkers: Math.min(4, Math.max(2, Os.availableParallelism())),
    testTimeout: 30_000,
    hookTimeout: 60_000
  }
})
