/**
 * A folder of tasks without a program around it. In this folder, of a project with `kongtask` in it:
 *
 * - `kongtask migrate`, once
 * - `kongtask add greet '{ "name": "Ada" }'` and so on
 * - `kongtask worker --once` runs what is due, `kongtask worker --watch` goes on and loads the tasks again when you edit them
 *
 * The database is in this folder, unless `DATABASE_URL` names a server.
 */
import type { KongTask } from "kongtask"

export default {
  tasks: "./tasks",
  embedded: "./.kongtask",
  jobs: 5
} satisfies KongTask.Configuration
