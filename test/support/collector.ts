/**
 * A collector of OTLP: takes spans over HTTP, as JSON, and shows them as trees.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

export interface CollectedSpan {
  readonly service: string
  readonly name: string
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId: string | undefined
  readonly links: ReadonlyArray<{ readonly traceId: string; readonly spanId: string }>
  readonly attributes: Readonly<Record<string, unknown>>
}

interface Value {
  readonly stringValue?: string
  readonly intValue?: number | string
  readonly doubleValue?: number
  readonly boolValue?: boolean
}

interface Attribute {
  readonly key: string
  readonly value: Value
}

interface ExportedTraces {
  readonly resourceSpans: ReadonlyArray<{
    readonly resource: { readonly attributes: ReadonlyArray<Attribute> }
    readonly scopeSpans: ReadonlyArray<{
      readonly spans: ReadonlyArray<
        Omit<CollectedSpan, "service" | "attributes"> & { readonly attributes: ReadonlyArray<Attribute> }
      >
    }>
  }>
}

const record = (attributes: ReadonlyArray<Attribute>) =>
  Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0] as unknown]))

const spansOf = (body: ExportedTraces): ReadonlyArray<CollectedSpan> =>
  body.resourceSpans.flatMap(({ resource, scopeSpans }) =>
    scopeSpans.flatMap(({ spans }) =>
      spans.map((span) => ({
        ...span,
        links: span.links ?? [],
        service: String(record(resource.attributes)["service.name"]),
        attributes: record(span.attributes)
      }))
    )
  )

export interface Collector {
  readonly url: string
  /** All spans so far. */
  readonly spans: () => ReadonlyArray<CollectedSpan>
  /** Whatever else was sent, by its path: logs and metrics. */
  readonly bodies: (path: string) => ReadonlyArray<string>
}

/** Listens on the loopback until the scope closes. */
export const makeCollector: Effect.Effect<Collector, never, Scope.Scope> = Effect.gen(function*() {
  const spans: Array<CollectedSpan> = []
  const bodies = new Map<string, Array<string>>()
  const server = createServer((request, response) => {
    let text = ""
    request.setEncoding("utf8").on("data", (part: string) => text += part).on("end", () => {
      const path = request.url ?? ""
      if (path === "/v1/traces") spans.push(...spansOf(JSON.parse(text)))
      bodies.set(path, [...(bodies.get(path) ?? []), text])
      response.writeHead(200, { "content-type": "application/json" }).end("{}")
    })
  })
  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
    () =>
      Effect.callback<void>((resume) => {
        server.closeAllConnections()
        server.close(() => resume(Effect.void))
      })
  )
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans: () => spans,
    bodies: (path) => bodies.get(path) ?? []
  }
})

/**
 * What came of a span, as a tree: its children, and the spans that are linked to
 * one of them, in whatever trace, each with its service and those attributes that
 * are ours.
 */
export const showTrace = (spans: ReadonlyArray<CollectedSpan>, root: CollectedSpan): string => {
  const lines: Array<string> = []
  const show = (span: CollectedSpan, indent: string, how: string) => {
    const attributes = Object.entries(span.attributes).filter(([key]) => /^(job|kongtask)\./.test(key))
    const shown = attributes.map(([key, value]) => ` ${key}=${String(value)}`).join("")
    lines.push(`${indent}${how}${span.service}: ${span.name} [${span.traceId.slice(0, 8)} ${span.spanId}]${shown}`)
    for (const other of spans) {
      if (other.parentSpanId === span.spanId) show(other, `${indent}  `, "")
      if (other.links.some(({ spanId }) => spanId === span.spanId)) show(other, `${indent}  `, "linked from here, ")
    }
  }
  show(root, "", "")
  return lines.join("\n")
}
