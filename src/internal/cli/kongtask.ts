import * as Command from "effect/cli/Command"
import { add } from "./commands/add.ts"
import { cleanup } from "./commands/cleanup.ts"
import { config } from "./commands/config.ts"
import { crontab } from "./commands/crontab.ts"
import { doctor } from "./commands/doctor.ts"
import { jobs } from "./commands/jobs.ts"
import { migrate } from "./commands/migrate.ts"
import { queues } from "./commands/queues.ts"
import { schedules } from "./commands/schedules.ts"
import { schema } from "./commands/schema.ts"
import { stats } from "./commands/stats.ts"
import { worker } from "./commands/worker.ts"
import { workers } from "./commands/workers.ts"
import { Output } from "./Output.ts"
import { root } from "./root.ts"

/** The whole command line. */
export const kongtask = root.pipe(
  Command.withSubcommands([
    migrate,
    worker,
    add,
    jobs,
    queues,
    stats,
    workers,
    schedules,
    crontab,
    cleanup,
    schema,
    doctor,
    config
  ]),
  Command.provide(({ json }) => Output.layer(json))
)
