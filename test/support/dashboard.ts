/**
 * The queries of the Grafana dashboard and of the alerts, as Prometheus gets them.
 */
import * as Fs from "node:fs"
import { parse } from "yaml"

const deploy = new URL("../../deploy/", import.meta.url)

interface Query {
  /** The panel or alert that asks it. */
  readonly name: string
  readonly expr: string
}

interface Panel {
  readonly title: string
  readonly targets?: ReadonlyArray<{ readonly expr: string }>
}

const dashboard: { readonly panels: ReadonlyArray<Panel> } = JSON.parse(
  Fs.readFileSync(new URL("grafana/kongtask.json", deploy), "utf8")
)

const rules: { readonly groups: ReadonlyArray<{ readonly rules: ReadonlyArray<{ alert: string; expr: string }> }> } =
  parse(Fs.readFileSync(new URL("prometheus/alerts.yml", deploy), "utf8"))

/** Grafana puts its variables in before it asks. */
export const panelQueries: ReadonlyArray<Query> = dashboard.panels.flatMap(({ targets = [], title }) =>
  targets.map(({ expr }) => ({
    name: title,
    expr: expr.replaceAll("$task_type", ".*").replaceAll("$__rate_interval", "1m")
  }))
)

export const alertQueries: ReadonlyArray<Query> = rules.groups.flatMap(({ rules }) =>
  rules.map(({ alert, expr }) => ({ name: alert, expr }))
)
