import { NodeServices } from "@effect/platform-node"
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as Stdio from "effect/Stdio"
import * as Terminal from "effect/Terminal"
import { Queue } from "kongtask"
import * as Testing from "kongtask/testing"
import { existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { CheckFile } from "../examples/link-checker/CheckFile.ts"
import { CheckFileLive } from "../examples/link-checker/CheckFileLive.ts"
import type { Link } from "../examples/link-checker/document.ts"
import { parse } from "../examples/link-checker/links.ts"
import { makeDisplay } from "../examples/link-checker/progress.ts"
import { report } from "../examples/link-checker/report.ts"
import { Runs } from "../examples/link-checker/Runs.ts"
import * as Database from "./support/database.ts"
import { makeDirectory } from "./support/directory.ts"
import { type Child, spawnScript } from "./support/process.ts"

const lines = (...text: ReadonlyArray<string>): string => text.join("\n")
const targets = (file: string, ...text: ReadonlyArray<string>): ReadonlyArray<string> =>
  parse(file, lines(...text)).links.map(({ target }) => target)
const links = (file: string, ...text: ReadonlyArray<string>): ReadonlyArray<Link> => [
  ...parse(file, lines(...text)).links
]
const anchors = (...text: ReadonlyArray<string>): ReadonlyArray<string> => [...parse("a.md", lines(...text)).anchors]

describe("links of Markdown", () => {
  it("are inline links, images and images in links, with titles, brackets and escapes", () => {
    assert.deepStrictEqual(
      targets(
        "a.md",
        "[a](one.md) ![b](two.png \"title\") [![c](three.svg)](four.md)",
        "[d](<five six.md>) [e](seven(8).md) [f [g]](nine.md 'x') [h](ten\\).md) [`i`](eleven.md)",
        "[j](",
        "  twelve.md) \\[k](no.md) [l](no no.md) [m]()"
      ),
      [
        ...["one.md", "two.png", "three.svg", "four.md"],
        ...["five six.md", "seven(8).md", "nine.md", "ten).md", "eleven.md"],
        ...["twelve.md", ""]
      ]
    )
  })

  it("are references, and those that nothing defines", () => {
    assert.deepStrictEqual(
      links(
        "a.md",
        "[text][One] [two][] [Two] [three][nowhere] [x] ![img][one]",
        "",
        "[one]: one.md \"title\"",
        "[two]: <two.md>",
        "[unused]:",
        "  unused.md",
        "a[0][1] [^1] [ ] [x][^1]",
        "",
        "[^1]: a footnote"
      ),
      [
        { line: 1, target: "one.md", kind: "url" },
        { line: 1, target: "two.md", kind: "url" },
        { line: 1, target: "two.md", kind: "url" },
        { line: 1, target: "[nowhere]", kind: "undefined" },
        { line: 1, target: "one.md", kind: "url" },
        { line: 5, target: "unused.md", kind: "url" }
      ]
    )
  })

  it("are autolinks, addresses in the text and HTML", () => {
    assert.deepStrictEqual(
      targets(
        "a.md",
        "<https://a.example/x> and (https://b.example/y), [https://c.example](https://c.example/z).",
        "<img src='d.png'> <a class=\"x\" href=\"e.md?a=1&amp;b=2\">e</a> <mailto:f@example.org>"
      ),
      [
        ...["https://c.example/z", "https://a.example/x", "https://b.example/y"],
        ...["d.png", "e.md?a=1&b=2", "mailto:f@example.org"]
      ]
    )
  })

  it("are not what stands in code, comments or front matter", () => {
    assert.deepStrictEqual(
      targets(
        "a.md",
        ...["---", "link: [a](no.md)", "---"],
        ...["```md", "[a](no.md)", "~~~", "```", "- ~~~~", "  [a](no.md)", "  ~~~", "  ~~~~"],
        ...["> ```", "> [a](no.md)", "[quote ended](yes-1.md)"],
        ...["", "    [indented](no.md)", "", "- item", "", "    [continued](yes-2.md)"],
        ...["`[a](no.md)` ``[a](no.md) ` `` \\`[a](yes-3.md)\\`"],
        ...["<!-- [a](no.md) -->[a](yes-4.md)", "<!--", "```", "[a](no.md)", "-->", "[a](yes-5.md)"],
        ...["an unclosed ` tick", "", "[a](yes-6.md) ` tick"]
      ),
      ["yes-1.md", "yes-2.md", "yes-3.md", "yes-4.md", "yes-5.md", "yes-6.md"]
    )
  })

  it("have the number of their line", () => {
    assert.deepStrictEqual(links("a.md", "# One\r", "\r", "text [a](b.md)\r"), [{
      line: 3,
      target: "b.md",
      kind: "url"
    }])
  })
})

describe("anchors of Markdown", () => {
  it("are GitHub's for headings, numbered when they repeat", () => {
    assert.deepStrictEqual(
      anchors(
        "# Hello, World!",
        "## The `Effect<A>` type ##",
        "### _Emphasis_ and snake_case and `__dirname`",
        "Underlined",
        "text",
        "===",
        "# Hello World",
        "# Hello World",
        "# A [link](x.md) & ![image](y.png) more",
        "# [`Queue.add`](z.md)",
        "#not a heading",
        "# Ünïcode – 日本語"
      ),
      [
        "hello-world",
        "the-effecta-type",
        "emphasis-and-snake_case-and-__dirname",
        "underlined-text",
        "hello-world-1",
        "hello-world-2",
        "a-link---more",
        "queueadd",
        "ünïcode--日本語"
      ]
    )
  })

  it("are the ids and names of HTML elements, and nothing of code", () => {
    assert.deepStrictEqual(
      anchors("<a id=\"one\"></a> <a name='two'>x</a>", "```", "# Code", "<a id=\"no\">", "```", "`<a id=\"no\">`"),
      ["one", "two"]
    )
  })
})

describe("links of source code", () => {
  it("are relative imports and files named relative to the module", () => {
    assert.deepStrictEqual(
      links(
        "a.ts",
        "import \"./side.ts\"",
        "import type { A } from './a.ts'",
        "import {",
        "  b",
        "} from \"../b.ts\"",
        "export * from \"effect/Effect\"",
        "const c = await import(\"./c.ts\"), d = require(\"./d.cjs\")",
        "type E = typeof import(\"./e.ts\")",
        "const f = new URL(\"../f\", import.meta.url)",
        "const g = new URL(\"../g/\" + name, import.meta.url)"
      ).map(({ kind, line, target }) => `${line} ${kind} ${target}`),
      [
        "1 module ./side.ts",
        "2 module ./a.ts",
        "5 module ../b.ts",
        "7 module ./c.ts",
        "7 module ./d.cjs",
        "8 module ./e.ts",
        "9 url ../f"
      ]
    )
  })

  it("are addresses in comments, and nothing in strings, templates or regular expressions", () => {
    assert.deepStrictEqual(
      targets(
        "a.ts",
        "// see https://a.example/x, and",
        "/* https://b.example/y. */",
        "const s = \"// https://no.example\" + 'import(\"./no.ts\")'",
        "const t = `import \"./no.ts\" ${ `${ await import(\"./yes.ts\") }` + { a: { b: 1 } } } from \"./no.ts\"`",
        "const r = /[/\"'`]/.test(x) ? a / b : /`/g",
        "from(\"./no.ts\"); list.from \"./no.ts\"; { from: \"./no.ts\" }",
        "export { z } from \"./z.ts\" // https://c.example"
      ),
      ["https://a.example/x", "https://b.example/y", "./yes.ts", "./z.ts", "https://c.example"]
    )
  })

  it("are addresses in the comments of SQL", () => {
    assert.deepStrictEqual(
      targets("a.sql", "-- https://a.example", "select '-- https://no.example' /* https://b.example */;"),
      ["https://a.example", "https://b.example"]
    )
  })
})

describe("the report", () => {
  const result = (file: string, problem: string | null) => ({ file, links: 2, broken: 1, attempts: 10, problem })

  it("is aligned, has a row a file, and says what is wrong", () => {
    assert.deepStrictEqual(report([result("a.md", null), result("docs/b.md", "one\ntwo")]).split("\n"), [
      "",
      "           files  links  broken  attempts",
      "a.md           1      2       1        10",
      "docs/b.md      1      2       1        10",
      "total          2      4       2        20",
      "",
      "failed     links  broken  attempts",
      "docs/b.md      2       1        10",
      "  one",
      "  two",
      ""
    ])
  })

  it("has a row a folder when there are many files", () => {
    const many = Array.from({ length: 30 }, (_, n) => result(`${n % 2 === 0 ? "docs/deep/" : ""}${n}.md`, null))
    assert.deepStrictEqual(report([...many, result("/elsewhere/x/y.md", null)]).split("\n").slice(1, 6), [
      "              files  links  broken  attempts",
      "docs             15     30      15       150",
      ".                15     30      15       150",
      "/elsewhere/x      1      2       1        10",
      "total            31     62      31       310"
    ])
  })
})

describe("the progress", () => {
  it.effect("is one line that is redrawn and fits where somebody watches", () =>
    Effect.gen(function*() {
      const written: Array<string> = []
      const terminal = Terminal.make({
        columns: Effect.succeed(50),
        rows: Effect.succeed(20),
        size: Effect.die("unused"),
        readInput: Effect.die("unused"),
        readLine: Effect.die("unused"),
        display: (text) => Effect.sync(() => void written.push(text))
      })
      const display = yield* Effect.provide(makeDisplay, [
        Stdio.layerTest({ stdoutIsTerminal: Effect.succeed(true) }),
        Layer.succeed(Terminal.Terminal, terminal)
      ])
      yield* display.show({ files: 100, left: 50, failing: 3 }, "")
      yield* display.clear
      assert.deepStrictEqual(written, [
        `\r\u001b[2K${"█".repeat(15)}${"░".repeat(15)} 50 of 100 files, 3`,
        "\r\u001b[2K"
      ])
    }))
})

describe("a run", () => {
  const Program = Layer.provideMerge(CheckFileLive, Layer.provideMerge(Runs.layer, Testing.layerEmbedded())).pipe(
    Layer.provideMerge(NodeServices.layer)
  )

  it.live(
    "adds a job a file, once, whose handler puts the counts and tells what is broken",
    () =>
      Effect.gen(function*() {
        const folder = yield* makeDirectory("data")
        writeFileSync(join(folder, "good.md"), "# Good\n\n[itself](#good)\n")
        writeFileSync(join(folder, "bad.md"), "[nowhere](gone.md)\n")
        const runs = yield* Runs
        const run = yield* runs.begin(folder, ["good.md", "bad.md"])
        yield* Testing.assertAdded(CheckFile, { payload: { run: run.id, root: folder, file: "bad.md" }, times: 1 })
        yield* runs.begin(folder, ["good.md", "bad.md"])
        assert.strictEqual(yield* Queue.count({ task: CheckFile }), 2)

        const { completed, retried } = yield* Testing.drain({ tasks: [CheckFile] })
        assert.deepStrictEqual([completed, retried >= 1], [1, true])
        assert.deepStrictEqual(yield* runs.progress(run.id), { files: 2, left: 1, failing: 1 })
        const [left] = yield* Queue.list({ task: CheckFile })
        assert.include(left?.lastError, "line 1: gone.md")
      }).pipe(Effect.scoped, Effect.provide(Program)),
    60_000
  )
})

const main = new URL("../examples/link-checker/main.ts", import.meta.url)

const write = (folder: string, files: Readonly<Record<string, string>>): void => {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), text)
  }
}

/** Enough that a kill after the first sign of progress comes in the middle. */
const manyFiles = 1000
const writeMany = (folder: string): void =>
  write(
    folder,
    Object.fromEntries(Array.from({ length: manyFiles }, (_, n) => [
      `${String(n).padStart(4, "0")}.md`,
      `# File ${n}\n\n[itself](#file-${n}) and https://example.org/${n}\n`
    ]))
  )

const start = (folder: string, url?: string, args: ReadonlyArray<string> = []) =>
  spawnScript(main, { cwd: folder, args, env: { DATABASE_URL: url } })

const slowly = ["--concurrency", "2"]
const someProgress = /^[1-9]\d* of \d+ files/

/** Waits for the end and answers the code, what was said, and the counts in the row `total`. */
const ended = Effect.fnUntraced(function*(child: Child) {
  const { code } = yield* child.exit
  const stdout = yield* child.stdout
  const [files, links, broken, attempts] = (/^total +(\d+) +(\d+) +(\d+) +(\d+)$/m.exec(stdout) ?? []).slice(1).map(
    Number
  )
  return { code, stdout, stderr: yield* child.stderr, files, links, broken, attempts }
})

const refused = Effect.fnUntraced(function*(child: Child, message: RegExp) {
  const { code, stderr } = yield* ended(child)
  assert.match(stderr, message)
  assert.strictEqual(stderr.trimEnd().split("\n").length, 1, stderr)
  assert.strictEqual(code, 2)
})

describe("npm start on the embedded database", () => {
  it.live("checks the files of the folder and those that are named, and ends with 0", () =>
    Effect.gen(function*() {
      const folder = yield* makeDirectory("data")
      const elsewhere = yield* makeDirectory("data")
      write(folder, {
        "README.md": "# Title\n[a](docs/a.md#section) [b](/src/b.ts) [c](src) [d](#title) [e](https://example.org)",
        "docs/a.md": "## Section\n[up](../README.md#title) [percent](with%20space.md) [built](../dist/x.js)",
        "docs/with space.md": "[top](#top)",
        "src/b.ts": "import { c } from \"./c.js\"\nimport { d } from \"./d\"\n",
        "src/c.ts": "// https://example.org",
        "src/d/index.ts": "",
        "node_modules/x/README.md": "[no](no.md)"
      })
      write(elsewhere, { "CHANGES.txt": "[a](a/b.md)", "a/b.md": "[up](../CHANGES.txt)" })
      symlinkSync(folder, join(folder, "docs", "circle"))
      const { code, files, links, stderr, stdout } = yield* ended(
        yield* start(folder, undefined, [join(elsewhere, "CHANGES.txt"), join(elsewhere, "a"), "README.md"])
      )
      assert.deepStrictEqual({ code, stderr, files, links }, { code: 0, stderr: "", files: 8, links: 14 })
      assert.match(stdout, /^8 jobs in [\d.]+ s: [\d.]+ jobs a second$/m)
    }), 60_000)

  it.live("tries a failing file again, then names it with its attempts and ends with 1", () =>
    Effect.gen(function*() {
      const folder = yield* makeDirectory("data")
      write(folder, { "good.md": "# Good", "bad.md": "[a](good.md#better)\n[b](gone.md)" })
      const first = yield* ended(yield* start(folder))
      assert.match(first.stdout, /^bad\.md +2 +2 +5$/m)
      assert.include(first.stdout, "line 1: good.md#better (no such heading or anchor)")
      assert.include(first.stdout, "line 2: gone.md (no such file or folder)")
      assert.match(first.stderr, /^\S+ ERROR [^\n]*Attempt 5 of 5 failed[^}]*\}\n1 of 2 files failed\.\n$/)
      assert.deepStrictEqual([first.code, first.files, first.broken, first.attempts], [1, 2, 2, 6])

      write(folder, { "good.md": "# Better", "gone.md": "" })
      const second = yield* ended(yield* start(folder))
      assert.include(second.stdout, "Run 2: 3 files.")
      assert.deepStrictEqual([second.code, second.files, second.broken, second.attempts], [0, 3, 0, 3])
    }), 60_000)

  it.live("goes on after kill -9, counts each file once, and fails one that is gone", () =>
    Effect.gen(function*() {
      const folder = yield* makeDirectory("data")
      writeMany(folder)
      const killed = yield* start(folder, undefined, slowly)
      yield* killed.line(someProgress)
      yield* killed.kill("SIGSTOP")
      yield* refused(yield* start(folder), /is in use by process \d+\./)
      yield* killed.killGroup
      const last = "0999.md"
      rmSync(join(folder, last))

      const { broken, code, files, links, stdout } = yield* ended(yield* start(folder))
      const left = Number(/^Going on with run 1: (\d+) of 1000 files left\.$/m.exec(stdout)?.[1])
      assert.isAbove(left, 0)
      assert.isBelow(left, manyFiles)
      assert.match(stdout, new RegExp(`^${last} +0 +0 +5\n  UnreadableFile: `, "m"))
      assert.deepStrictEqual([code, files, links, broken], [1, manyFiles, 2 * (manyFiles - 1), 0])
    }), 120_000)

  it.live("stops at Ctrl-C with 130, and the next start goes on, no attempt charged", () =>
    Effect.gen(function*() {
      const folder = yield* makeDirectory("data")
      writeMany(folder)
      const stopped = yield* start(folder, undefined, slowly)
      yield* stopped.line(someProgress)
      yield* stopped.kill("SIGINT")
      const { code, stderr, stdout } = yield* ended(stopped)
      const done = Number(/^Stopped after (\d+) of 1000 files; the next start goes on\.$/m.exec(stdout)?.[1])
      assert.isAbove(done, 0)
      assert.deepStrictEqual({ code, stderr }, { code: 130, stderr: "" })

      const next = yield* ended(yield* start(folder))
      assert.include(next.stdout, `Going on with run 1: ${manyFiles - done} of ${manyFiles} files left.`)
      assert.deepStrictEqual([next.code, next.files, next.attempts], [0, manyFiles, manyFiles])
    }), 120_000)

  it.live("leaves nothing behind when a named file is missing or an option is wrong", () =>
    Effect.gen(function*() {
      const folder = yield* makeDirectory("data")
      yield* refused(yield* start(folder), /^There are no Markdown or source files in /)
      write(folder, { "a.md": "" })
      yield* refused(yield* start(folder, undefined, ["gone.md"]), /^gone\.md cannot be checked: there is no such file/)
      yield* refused(yield* start(folder, undefined, ["--concurrency", "0"]), /^Invalid value for flag --concurrency/)
      yield* refused(yield* start(folder, undefined, ["--colour"]), /^Unrecognized flag: --colour/)
      yield* refused(yield* start(folder, undefined, ["--data-dir", "a.md"]), /^The embedded database in .* could not/)
      assert.isFalse(existsSync(join(folder, ".kongtask")))
    }), 60_000)
})

describe("npm start on a server", () => {
  const totals = Effect.fnUntraced(function*(config: PgClient.PgPoolConfig) {
    const sql = yield* PgClient.make(config).pipe(Effect.provide(Reactivity.layer))
    const [row] = yield* sql`
      select count(*)::int as files, sum(links)::int as links, (select count(*)::int from link_checker.runs) as runs,
        (select count(*)::int from graphile_worker._private_jobs) as jobs
      from link_checker.results`
    return row
  })

  it.live("goes on after kill -9 and counts each file once", () =>
    Effect.gen(function*() {
      const folder = yield* makeDirectory("data")
      const { config, url } = yield* Database.freshDatabase({ migrated: false })
      writeMany(folder)
      const killed = yield* start(folder, url, slowly)
      yield* killed.line(someProgress)
      yield* killed.killGroup

      const next = yield* start(folder, url)
      yield* next.line(/^Going on with run 1: /)
      const { code, files, links } = yield* ended(next)
      assert.deepStrictEqual([code, files, links], [0, manyFiles, 2 * manyFiles])
      assert.deepStrictEqual(yield* totals(config), { files: manyFiles, links: 2 * manyFiles, runs: 1, jobs: 0 })
      assert.isFalse(existsSync(join(folder, ".kongtask")))
    }), 120_000)

  it.live("shares a run between two processes", () =>
    Effect.gen(function*() {
      const folder = yield* makeDirectory("data")
      const { config, url } = yield* Database.freshDatabase()
      write(folder, { "good.md": "# Good", "bad.md": "[a](gone.md)" })
      const children = [yield* start(folder, url), yield* start(folder, url)]
      const begun: Array<string | undefined> = []
      for (const child of children) {
        const { attempts, code, files, stdout } = yield* ended(child)
        begun.push(/^(?:Run|Going on with run) 1:/m.exec(stdout)?.[0])
        assert.deepStrictEqual([code, files, attempts], [1, 2, 6])
      }
      assert.deepStrictEqual(begun.toSorted(), ["Going on with run 1:", "Run 1:"])
      assert.deepStrictEqual(yield* totals(config), { files: 2, links: 1, runs: 1, jobs: 0 })
    }), 60_000)

  it.live("says in one line that the password is wrong or that nobody answers", () =>
    Effect.gen(function*() {
      const folder = yield* makeDirectory("data")
      write(folder, { "a.md": "" })
      const server = yield* Database.dedicatedServer
      const wrong = new URL(server.url)
      wrong.password = "wrong"
      yield* refused(yield* start(folder, wrong.href), /^PostgreSQL refused the login: .*password/)
      const missing = new URL(server.url)
      missing.pathname = "/nowhere"
      yield* refused(yield* start(folder, missing.href), /^The database does not exist: /)
      yield* server.stop("fast")
      yield* refused(yield* start(folder, server.url), /^PostgreSQL cannot be reached: /)
      assert.isFalse(existsSync(join(folder, ".kongtask")))
    }), 60_000)
})
