/**
 * The dashboard and the alerts ask for metrics and labels that there are.
 * test/system asks a real Prometheus.
 */
import { describe, expect, it } from "@effect/vitest"
import { KongTaskMetrics } from "kongtask"
import * as Fs from "node:fs"
import { alertQueries, panelQueries } from "./support/dashboard.ts"

const operations = Fs.readFileSync(new URL("../docs/operations.md", import.meta.url), "utf8")

/** Each metric with its labels, as docs/operations.md has them. */
const documented = new Map(
  [...operations.matchAll(/^\| `(kongtask_\w+)` +\| ([^|]*)\|/gm)].map((match) => [
    match[1]!,
    [...match[2]!.matchAll(/`(\w+)`/g)].map((label) => label[1]!)
  ])
)

const baseOf = (name: string) =>
  KongTaskMetrics.names.includes(name) ? name : name.replace(/_(?:bucket|sum|count)$/, "")

const problemsOf = (expr: string) =>
  [...expr.matchAll(/(kongtask_\w+)(?:\{([^}]*)\})?/g)].flatMap(([, name, matchers = ""]) => {
    const labels = documented.get(baseOf(name!))
    if (labels === undefined || !KongTaskMetrics.names.includes(baseOf(name!))) return [`no metric ${name}`]
    return [...matchers.matchAll(/(\w+)=/g)].map((match) => match[1]!)
      .filter((label) => !labels.includes(label))
      .map((label) => `no label ${label} of ${name}`)
  })

const labelsOf = (expr: string) => [...expr.matchAll(/by \(([^)]*)\)/g)].flatMap((match) => match[1]!.split(", "))

describe("the dashboard and the alerts", () => {
  for (const { expr, name } of [...panelQueries, ...alertQueries]) {
    it(`ask for what there is: ${name}`, () => {
      expect(expr).toContain("kongtask_")
      expect(problemsOf(expr)).toEqual([])
      const known = new Set([...documented.values()].flat())
      expect(labelsOf(expr).filter((label) => !known.has(label) && label !== "le")).toEqual([])
    })
  }

  it("a wrong one would be found", () => {
    expect(problemsOf("sum(kongtask_nothing_total)")).toEqual(["no metric kongtask_nothing_total"])
    expect(problemsOf("kongtask_pools{lane=\"fast\"}")).toEqual(["no label lane of kongtask_pools"])
  })

  it("leave no metric out", () => {
    const asked = panelQueries.flatMap(({ expr }) => [...expr.matchAll(/kongtask_\w+/g)].map(([name]) => baseOf(name)))
    expect([...new Set(asked)].toSorted()).toEqual(KongTaskMetrics.names.toSorted())
  })
})
