/**
 * What `deploy/` has is right as far as tools can tell without a cluster: the
 * Dockerfile by a linter, manifests by the schemas of Kubernetes, and all of them
 * by what the example serves and needs. Helm's templates are rendered here, in the
 * few forms that they use.
 */
import { describe, expect, it } from "@effect/vitest"
import { validate } from "dockerfile-utils"
import * as Apps from "kubernetes-models/apps/v1"
import * as Policy from "kubernetes-models/policy/v1"
import * as Core from "kubernetes-models/v1"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { parse, parseAllDocuments, stringify } from "yaml"
import manifest from "../package.json" with { type: "json" }

const root = Path.resolve(import.meta.dirname, "..")
const read = (name: string) => Fs.readFileSync(Path.join(root, "deploy", name), "utf8")
const example = Fs.readFileSync(Path.join(root, "examples/outbox/main.ts"), "utf8")

/** The environment variables that the example reads. */
const variables = new Set([
  "DATABASE_URL",
  ...[...example.matchAll(/Config\.\w+\((?:\[[^\]]*\], )?"([A-Z_]+)"/g)].map((match) => match[1]!)
])

interface Manifest {
  readonly kind: string
  readonly apiVersion: string
  readonly metadata: { readonly name: string }
  readonly spec?: any
}

const models: Readonly<Record<string, new(data: any) => { validate(): void }>> = {
  "apps/v1 Deployment": Apps.Deployment,
  "policy/v1 PodDisruptionBudget": Policy.PodDisruptionBudget,
  "v1 Service": Core.Service
}

const problemOf = (document: Manifest): string | undefined => {
  const Model = models[`${document.apiVersion} ${document.kind}`]
  if (Model === undefined) return `unknown: ${document.apiVersion} ${document.kind}`
  try {
    new Model(document).validate()
    return undefined
  } catch (error) {
    return `${document.kind} ${document.metadata.name}: ${String(error)}`
  }
}

const documentsOf = (text: string): ReadonlyArray<Manifest> =>
  parseAllDocuments(text).map((document) => {
    expect(document.errors).toEqual([])
    return document.toJS() as Manifest
  }).filter((document) => document !== null)

/** What a pod of the worker must have, by whatever it was made. */
const checkWorker = (deployment: Manifest, shutdownTimeout: number) => {
  const { containers, securityContext, terminationGracePeriodSeconds } = deployment.spec.template.spec
  const [container] = containers
  const env = Object.fromEntries(container.env.map((variable: any) => [variable.name, variable.value]))
  expect(env["SHUTDOWN_TIMEOUT"]).toBe(`${shutdownTimeout} seconds`)
  // Handlers, then outcomes while the database is away, then the farewell of 5 seconds.
  expect(terminationGracePeriodSeconds).toBeGreaterThanOrEqual(2 * shutdownTimeout + 5)
  expect(Object.keys(env).filter((name) => !variables.has(name))).toEqual([])
  expect(env["DATABASE_URL"]).toBeUndefined()
  expect(securityContext.runAsNonRoot).toBe(true)
  expect(container.securityContext).toMatchObject({ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true })
  const metrics = container.ports.find(({ name }: any) => name === "metrics")
  expect(metrics.containerPort).toBe(Number(env["METRICS_PORT"] ?? 9464))
  const probes = [container.startupProbe, container.livenessProbe, container.readinessProbe]
  expect(probes.map(({ httpGet }) => httpGet)).toEqual([
    { path: "/health", port: "metrics" },
    { path: "/health", port: "metrics" },
    { path: "/ready", port: "metrics" }
  ])
}

describe("deploy/Dockerfile", () => {
  const dockerfile = read("Dockerfile")
  const instructions = dockerfile.replaceAll("\\\n", " ").split("\n").filter((line) => /^[A-Z]+ /.test(line))

  it("has nothing that a linter objects to", () => {
    expect(validate(dockerfile).map(({ message }) => message)).toEqual([])
    expect(validate("FROM node\nRUNN x\n")).toHaveLength(1)
  })

  it("builds in stages, and ends as another user than root, with Node as process 1", () => {
    expect(instructions.filter((line) => line.startsWith("FROM "))).toHaveLength(3)
    const last = instructions.slice(instructions.findLastIndex((line) => line.startsWith("FROM ")))
    expect(last).toContain("USER node")
    expect(last.findLast((line) => line.startsWith("CMD "))).toBe("CMD [\"node\", \"examples/outbox/main.ts\"]")
  })

  it("copies files that are there, and not those that are kept out", () => {
    const sources = instructions.filter((line) => /^COPY (?!--from)/.test(line))
      .flatMap((line) => line.split(/\s+/).slice(1, -1))
    expect(sources.length).toBeGreaterThan(5)
    expect(sources.filter((source) => !Fs.existsSync(Path.join(root, source)))).toEqual([])
    const ignored = Fs.readFileSync(Path.join(root, ".dockerignore"), "utf8").split("\n")
    expect(sources.filter((source) => ignored.includes(source))).toEqual([])
  })

  it("installs the versions that this package is tested with", () => {
    const service = JSON.parse(read("service/package.json")) as { readonly dependencies: Record<string, string> }
    const tested: Record<string, string> = manifest.devDependencies
    for (const [name, version] of Object.entries(service.dependencies)) expect(tested[name]).toBe(version)
  })
})

describe("deploy/compose.yaml", () => {
  const { services } = parse(read("compose.yaml"), { merge: true })

  it("gives the worker time to end, and services what they read", () => {
    expect(Number.parseInt(services.worker.stop_grace_period)).toBeGreaterThanOrEqual(
      2 * Number.parseInt(services.worker.environment.SHUTDOWN_TIMEOUT) + 5
    )
    for (const service of [services.api, services.worker]) {
      expect(Object.keys(service.environment).filter((name) => !variables.has(name))).toEqual([])
      expect(service.build).toEqual({ context: "..", dockerfile: "deploy/Dockerfile" })
      expect(service.depends_on.postgres.condition).toBe("service_healthy")
    }
  })

  it("mounts files that are there, and has no password", () => {
    const mounted = [services.prometheus, services.grafana].flatMap(({ volumes }: { volumes: ReadonlyArray<string> }) =>
      volumes.map((volume) => volume.split(":")[0]!)
    )
    expect(mounted.filter((path) => !Fs.existsSync(Path.join(root, "deploy", path)))).toEqual([])
    expect(services.postgres.environment.POSTGRES_PASSWORD).toMatch(/^\$\{POSTGRES_PASSWORD:\?/)
  })
})

describe("deploy/kubernetes", () => {
  const { resources } = parse(read("kubernetes/kustomization.yaml")) as { readonly resources: ReadonlyArray<string> }
  const documents = resources.flatMap((name) => documentsOf(read(`kubernetes/${name}`)))

  it("fits the schemas of Kubernetes", () => {
    expect(documents.length).toBeGreaterThan(2)
    expect(documents.flatMap((document) => problemOf(document) ?? [])).toEqual([])
    const broken = structuredClone(documents[0]!)
    broken.spec.replicas = "two"
    expect(problemOf(broken)).toContain("replicas must be integer")
  })

  it("selects the pods that it makes", () => {
    for (const { spec } of documents.filter(({ kind }) => kind === "Deployment")) {
      expect(spec.template.metadata.labels).toMatchObject(spec.selector.matchLabels)
    }
  })

  it("probes the worker where it answers, and gives it time to end", () => {
    const worker = documents.find(({ metadata }) => metadata.name === "orders-worker")
    expect(worker).toBeDefined()
    checkWorker(worker!, 20)
  })
})

describe("deploy/helm", () => {
  const chart = "helm/kongtask-worker"
  const values = parse(read(`${chart}/values.yaml`))
  const data = {
    Values: values,
    Chart: { Name: parse(read(`${chart}/Chart.yaml`)).name },
    Release: { Name: "orders" }
  }

  const valueAt = (path: string): unknown => {
    const value = path.slice(1).split(".").reduce((at: any, key) => at?.[key], data)
    if (value === undefined) throw new Error(`There is no ${path}`)
    return value
  }

  const indented = (text: string, by: number) =>
    `\n${text.trimEnd().split("\n").map((line) => " ".repeat(by) + line).join("\n")}`

  const evaluate = (expression: string): string => {
    const yaml = /^toYaml (\S+) \| nindent (\d+)$/.exec(expression)
    if (yaml !== null) return indented(stringify(valueAt(yaml[1]!)), Number(yaml[2]))
    const quoted = /^(\S+) \| quote$/.exec(expression)
    if (quoted !== null) return JSON.stringify(String(valueAt(quoted[1]!)))
    const sum = /^add \(mul (\d+) (\S+)\) (\d+)$/.exec(expression)
    if (sum !== null) return String(Number(sum[1]) * Number(valueAt(sum[2]!)) + Number(sum[3]))
    if (/^\.[\w.]+$/.test(expression)) return String(valueAt(expression))
    throw new Error(`This test does not know the form {{ ${expression} }}`)
  }

  const render = (template: string): string =>
    template
      .replace(
        /\{\{- if (\S+) \}\}(.*?)\{\{- end \}\}/gs,
        (_, path: string, body: string) => valueAt(path) ? body : ""
      )
      .replace(/\s*\{\{- (.*?) \}\}/g, (_, expression: string) => evaluate(expression))
      .replace(/\{\{ (.*?) \}\}/g, (_, expression: string) => evaluate(expression))

  const templates = Fs.readdirSync(Path.join(root, "deploy", chart, "templates"))
  const documents = () => templates.flatMap((name) => documentsOf(render(read(`${chart}/templates/${name}`))))

  it("renders to what fits the schemas of Kubernetes", () => {
    expect(documents().map(({ kind }) => kind)).toEqual(["Deployment", "PodDisruptionBudget"])
    expect(documents().flatMap((document) => problemOf(document) ?? [])).toEqual([])
  })

  it("probes the worker where it answers, and gives it time to end, whatever its shutdownTimeout", () => {
    for (const seconds of [20, 120]) {
      values.shutdownTimeoutSeconds = seconds
      const worker = documents().find(({ kind }) => kind === "Deployment")
      expect(worker).toBeDefined()
      checkWorker(worker!, seconds)
    }
  })
})
