import { describe, expect, it } from "@effect/vitest"
import * as Fs from "node:fs"
import * as Path from "node:path"

const page = Fs.readFileSync(Path.join(import.meta.dirname, "../../docs/lineage.md"), "utf8")

const systems = [
  { section: "KongTask for Go", prefix: "KongTask", file: "KongTaskGo.test.ts", count: 27 },
  { section: "go-jobqueue", prefix: "go-jobqueue", file: "GoJobqueue.test.ts", count: 15 },
  { section: "goque", prefix: "goque", file: "Goque.test.ts", count: 15 }
]

describe("docs/lineage.md", () => {
  for (const { count, file, prefix, section } of systems) {
    it(`has every defect of ${section}, with its tests`, () => {
      const text = page.split(/^## /m).find((part) => part.startsWith(`${section}\n`))!
      const rows = [...text.matchAll(/^\| +(\d+) +\|.*\| *(?:`([^`]+)`)? *\|$/gm)]
      expect(rows.map(([, number]) => Number(number))).toEqual(Array.from({ length: count }, (_, n) => n + 1))
      expect(rows.filter(([, number, name]) => name !== undefined && name !== `${prefix} ${number}`)).toEqual([])

      const tests = Fs.readFileSync(Path.join(import.meta.dirname, file), "utf8")
      const tested = [...tests.matchAll(/["`]([\w-]+ \d+): /g)].map(([, name]) => name!)
      expect(new Set(tested)).toEqual(new Set(rows.flatMap(([, , name]) => name ?? [])))
    })
  }
})
