/**
 * All rows, in the order in which they run.
 */
import type { Row } from "../support/bench.ts"
import { rows as drain } from "./drain.ts"
import { rows as enqueue } from "./enqueue.ts"
import { rows as flat } from "./flat.ts"
import { rows as idle } from "./idle.ts"
import { rows as latency } from "./latency.ts"
import { rows as serial } from "./serial.ts"

export const all: ReadonlyArray<Row> = [...drain, ...serial, ...flat, ...enqueue, ...latency, ...idle]
