import { join } from "node:path"
import { defineConfig, mergeConfig } from "vitest/config"
import base from "../../vitest.config.ts"

export default mergeConfig(
  { ...base, test: { ...base.test, include: [] } },
  defineConfig({
    test: {
      root: join(import.meta.dirname, "../.."),
      include: ["test/cron/**/*.cron.ts"],
      testTimeout: 10 * 60_000
    }
  })
)
