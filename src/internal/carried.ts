/** What a job takes along from where it is added to where it runs. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Tracer from "effect/Tracer"
import { JobMetadata, type Values } from "../JobMetadata.ts"
import type { ClaimedJob } from "../JobStore.ts"

const maxMetadataBytes = 16 * 1024

export interface Carried {
  /** JSON text. */
  readonly metadata: string | undefined
  /** A W3C traceparent. */
  readonly trace: string | undefined
}

export interface Problem {
  readonly problem: string
  readonly limit?: number
  readonly actual?: number
}

const none: Carried = { metadata: undefined, trace: undefined }

const noMetadata = Context.get(Context.empty(), JobMetadata)
const noTracer = Context.get(Context.empty(), Tracer.Tracer)

const isJson = (value: unknown): boolean =>
  value === null || typeof value === "string" || typeof value === "boolean" || Number.isFinite(value) ||
  (Array.isArray(value)
    ? value.every(isJson)
    : typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype &&
      Object.values(value as object).every(isJson))

/** The current span where a tracer of the program's samples it: without one, nobody sees the span. */
const traceOf = (context: Context.Context<never>): string | undefined => {
  if (Context.get(context, Tracer.Tracer) === noTracer) return undefined
  const span = Context.getOrUndefined(context, Tracer.ParentSpan)
  return span?.sampled === true && /^[0-9a-f]{32}$/.test(span.traceId) && /^[0-9a-f]{16}$/.test(span.spanId)
    ? `00-${span.traceId}-${span.spanId}-01`
    : undefined
}

const read = (context: Context.Context<never>): Effect.Effect<Carried | Problem> => {
  const values = Context.get(context, JobMetadata)
  const trace = traceOf(context)
  if (values === noMetadata || Object.keys(values).length === 0) {
    return Effect.succeed<Carried>(trace === undefined ? none : { metadata: undefined, trace })
  }
  if (!isJson(values)) return Effect.succeed({ problem: "must be JSON values" })
  const metadata = JSON.stringify(values)
  const actual = Buffer.byteLength(metadata)
  return Effect.succeed(
    actual > maxMetadataBytes
      ? {
        problem: `must have at most ${maxMetadataBytes} bytes of JSON, not ${actual}`,
        limit: maxMetadataBytes,
        actual
      }
      : { metadata, trace }
  )
}

export const carried: Effect.Effect<Carried | Problem> = Effect.contextWith(read)

/** A worker's context without the metadata in which it was started. */
export const withoutCarried: <R>(context: Context.Context<R>) => Context.Context<R> = Context.omit(JobMetadata)

/** The context of a job's handler: with the metadata of the job. */
export const carriedBy = <R>({ details }: ClaimedJob, context: Context.Context<R>): Context.Context<R> =>
  details?.metadata === undefined ? context : Context.add(context, JobMetadata, details.metadata as Values)

/** The span of a traceparent, to link to; `undefined` if it is none. */
export const spanOf = (traceparent: string): Tracer.ExternalSpan | undefined => {
  const parts = /^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}$/.exec(traceparent)
  return parts === null ? undefined : Tracer.externalSpan({ traceId: parts[1]!, spanId: parts[2]!, sampled: true })
}
