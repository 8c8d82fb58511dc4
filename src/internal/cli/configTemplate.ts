/**
 * The file that `kongtask config init` writes.
 */
import type { Name } from "../configuration/settings.ts"

export const formats = ["ts", "js", "json", "yaml", "toml"] as const

export type Format = typeof formats[number]

interface Line {
  readonly name: Name
  readonly comment: string
  readonly value: string | number | boolean
  /** Whether it counts; the others are examples. */
  readonly isSet: boolean
}

const lines: ReadonlyArray<Line> = [
  {
    name: "databaseUrl",
    comment: "Where PostgreSQL is. A password is better kept in the environment, as DATABASE_URL.",
    value: "postgres://localhost:5432/app",
    isSet: false
  },
  {
    name: "embedded",
    comment: "Or PostgreSQL inside the process, kept in this folder.",
    value: ".kongtask",
    isSet: false
  },
  { name: "schema", comment: "The schema that holds the jobs.", value: "graphile_worker", isSet: true },
  {
    name: "tasks",
    comment: "A module whose exports are tasks, or a folder with a file a task.",
    value: "./tasks",
    isSet: false
  },
  { name: "crontab", comment: "Recurring jobs.", value: "./crontab", isSet: false },
  { name: "jobs", comment: "How many handlers of a worker run at once.", value: 10, isSet: true },
  {
    name: "pollInterval",
    comment: "How often a worker looks for jobs that nothing announces.",
    value: "2 seconds",
    isSet: true
  },
  { name: "maxPoolSize", comment: "How many connections handlers and commands have at most.", value: 10, isSet: true }
]

const document = (
  each: (line: Line) => string,
  comment: (text: string) => string,
  wrap: (text: string) => string = (text) => text
): string =>
  wrap(lines.map((line) => `${comment(line.comment)}\n${line.isSet ? each(line) : comment(each(line))}\n`).join("\n"))

const inModule = (before: string, after: string) =>
  document(
    ({ name, value }) => `  ${name}: ${JSON.stringify(value)},`,
    (text) => `  // ${text.trimStart()}`,
    (text) => `${before}export default {\n${text.replace(/,\n$/, "\n")}}${after}\n`
  )

/** The file's text. */
export const render = (format: Format): string => {
  switch (format) {
    case "ts":
      return inModule("import type { KongTask } from \"kongtask\"\n\n", " satisfies KongTask.Configuration")
    case "js":
      return inModule("/** @type {import(\"kongtask\").KongTask.Configuration} */\n", "")
    case "json":
      return `${
        JSON.stringify(
          Object.fromEntries(lines.filter(({ isSet }) => isSet).map(({ name, value }) => [name, value])),
          undefined,
          2
        )
      }\n`
    case "yaml":
      return document(({ name, value }) => `${name}: ${JSON.stringify(value)}`, (text) => `# ${text}`)
    case "toml":
      return document(({ name, value }) => `${name} = ${JSON.stringify(value)}`, (text) => `# ${text}`)
  }
}
