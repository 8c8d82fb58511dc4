/**
 * The picture of a report: a line a workload, a point a contestant, both on logarithmic axes, drawn by Vega-Lite.
 */
import * as Effect from "effect/Effect"
import { type Report, setting } from "./report.ts"
import type { RowResult } from "./runner.ts"

interface Point {
  readonly row: string
  readonly contestant: string
  readonly value: number
  readonly min: number
  readonly max: number
}

/** In the order of the legend; other labels are variants that stand in the table only. */
const colours: Readonly<Record<string, string>> = {
  "kongtask": "#d6336c",
  "graphile-worker best": "#1864ab",
  "graphile-worker default": "#74c0fc",
  "graphile-worker 0.16.6": "#0ca678",
  "pg-boss batch": "#e8590c",
  "pg-boss single": "#ffa94d",
  "pg-boss notify": "#f08c00",
  "pg-boss default": "#fcc419",
  "bare loop, 2 streams": "#495057",
  "bare loop": "#adb5bd"
}

const pointsOf = (row: RowResult, metric: string, name: string): ReadonlyArray<Point> =>
  row.results.flatMap(({ contestant, max, median, min }): ReadonlyArray<Point> => {
    const value = median[metric]
    if (!(contestant in colours) || value === undefined || !(value > 0)) return []
    return [{ row: name, contestant, value, min: min[metric] ?? value, max: max[metric] ?? value }]
  })

const latencies = ["start p50 ms", "start p99 ms", "committed p50 ms", "committed p99 ms"]

const rateText = "format(datum.value, ',.0f')"
const latencyText = "format(datum.value, '.1f') + ' ms'"

const panel = (title: string, points: ReadonlyArray<Point>, text: string) => {
  const names = Object.keys(colours).filter((name) => points.some(({ contestant }) => contestant === name))
  const y = { field: "row", type: "nominal", sort: null, title: null, axis: { labelLimit: 320, grid: true } }
  const axis = { format: ",.9~g", tickCount: 6 }
  const x = { type: "quantitative", scale: { type: "log", nice: true }, title: null, axis }
  const color = {
    field: "contestant",
    type: "nominal",
    title: null,
    legend: { labelLimit: 0, symbolOpacity: 1 },
    scale: { domain: names, range: names.map((name) => colours[name]) }
  }
  return {
    title: { text: title, anchor: "start", fontSize: 13 },
    width: 560,
    height: { step: 30 },
    data: { values: points },
    layer: [
      {
        mark: { type: "rule", strokeWidth: 3, opacity: 0.45 },
        encoding: { y, x: { ...x, field: "min" }, x2: { field: "max" }, color }
      },
      {
        mark: { type: "point", filled: true, size: 70, opacity: 1 },
        encoding: { y, x: { ...x, field: "value" }, color }
      },
      {
        transform: [{ filter: "datum.contestant === 'kongtask'" }, { calculate: text, as: "label" }],
        mark: { type: "text", dy: -9, fontSize: 10, fontWeight: "bold" },
        encoding: { y, x: { ...x, field: "value" }, text: { field: "label" }, color }
      }
    ]
  }
}

const specification = (report: Report): object => {
  const rates = report.rows.filter(({ unit }) => unit === "jobs/s").flatMap((row) => pointsOf(row, row.metric, row.id))
  const waits = report.rows.filter(({ group }) => group === "latency").flatMap((row) =>
    latencies.flatMap((metric) => pointsOf(row, metric, `${row.id.replace("latency: ", "")}, ${metric.slice(0, -3)}`))
  )
  const panels = [
    ...(rates.length > 0 ? [panel("Jobs a second, more is better", rates, rateText)] : []),
    ...(waits.length > 0
      ? [panel("Milliseconds from add to start and to committed, less is better", waits, latencyText)]
      : [])
  ]
  return {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json",
    title: {
      text: "KongTask with its defaults, and others: medians, and lines from minimum to maximum",
      subtitle: setting(report),
      anchor: "start",
      fontSize: 15,
      subtitleFontSize: 10,
      subtitlePadding: 6,
      offset: 16
    },
    background: "white",
    padding: 12,
    vconcat: panels,
    resolve: { scale: { color: "independent" } },
    config: { font: "system-ui, sans-serif", view: { stroke: "#ced4da" } }
  }
}

/** The report as SVG. */
export const plot = (report: Report): Effect.Effect<string> =>
  Effect.promise(() => Promise.all([import("vega"), import("vega-lite")])).pipe(
    Effect.flatMap(([vega, vegaLite]) =>
      Effect.acquireUseRelease(
        Effect.sync(() =>
          new vega.View(vega.parse(vegaLite.compile(specification(report)).spec), { renderer: "none" })
        ),
        (view) => Effect.promise(() => view.toSVG()),
        (view) => Effect.sync(() => void view.finalize())
      )
    )
  )
