/**
 * The long form of the suite: `npm run chaos`. `CHAOS_SECONDS`, `CHAOS_ROUNDS`
 * and `CHAOS_SEED` change how long the faults of each case go on, how often each
 * case runs, and what its random choices start from.
 */
import { defineConfig, mergeConfig } from "vitest/config"
import shortForm from "../../vitest.config.ts"

export default mergeConfig(
  shortForm,
  defineConfig({
    test: {
      root: `${import.meta.dirname}/../..`,
      env: { CHAOS: "long" }
    }
  })
)
