/**
 * The parts that are used here of packages which only this folder's own `npm ci` installs, so that the whole repository
 * can be checked without them.
 */
declare module "graphile-worker-0.16" {
  export interface Logger {
    readonly debug: (message: string) => void
  }
  export const Logger: new(factory: (scope: unknown) => () => void) => Logger
  export interface RunnerOptions {
    readonly connectionString: string
    readonly concurrency: number
    readonly maxPoolSize: number
    readonly noHandleSignals: boolean
    readonly logger: Logger
    readonly taskList: Readonly<Record<string, (payload: unknown) => Promise<void> | undefined>>
  }
  export const run: (options: RunnerOptions) => Promise<{ readonly stop: () => Promise<void> }>
  export const runOnce: (options: RunnerOptions) => Promise<void>
  export const runMigrations: (options: Pick<RunnerOptions, "connectionString" | "logger">) => Promise<void>
}

declare module "pg-boss" {
  export interface Options {
    readonly connectionString: string
    readonly max?: number
    readonly superviseIntervalSeconds?: number
    readonly monitorIntervalSeconds?: number
    readonly queueCacheIntervalSeconds?: number
    readonly useListenNotify?: boolean
  }
  export interface WorkOptions {
    readonly localConcurrency?: number
    readonly batchSize?: number
    readonly pollingIntervalSeconds?: number
    readonly burstWhenReadyExceeds?: number
    readonly burstWhenBatchFull?: boolean
  }
  export class PgBoss {
    constructor(options: Options)
    on(event: "error", listener: (error: Error) => void): this
    start(): Promise<this>
    stop(options?: { readonly graceful?: boolean; readonly close?: boolean; readonly timeout?: number }): Promise<void>
    createQueue(name: string, options?: { readonly notify?: boolean }): Promise<void>
    supervise(name?: string): Promise<void>
    send(name: string, data: object): Promise<string | null>
    insert(name: string, jobs: ReadonlyArray<{ readonly data: object }>): Promise<unknown>
    work<A>(
      name: string,
      options: WorkOptions,
      handler: (jobs: ReadonlyArray<{ readonly data: A }>) => Promise<void>
    ): Promise<string>
  }
}

declare module "vega-lite" {
  export const compile: (specification: object) => { readonly spec: object }
}

declare module "vega" {
  export const parse: (specification: object) => object
  export class View {
    constructor(runtime: object, options: { readonly renderer: "none" })
    toSVG(): Promise<string>
    finalize(): this
  }
}
