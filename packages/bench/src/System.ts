/**
 * A scheduler under test, as the benchmark sees it. One driver per file in `systems/`.
 *
 * A driver's parts run in processes of their own (`rolePlayer.ts`): producers and workers never share one. Drivers are
 * plain promises: what is measured is the system, not the harness.
 */

/** Where the system finds its servers. Every measurement has a database, or a Redis, of its own. */
export interface Place {
  readonly databaseUrl: string
  /** Only where the system `needs` it. */
  readonly redisUrl: string
  /** What `serve` and `work` of the system answered so far: for systems whose clients call processes of the system. */
  readonly addresses: ReadonlyArray<string>
}

/** One unit of work, as the producer makes it. */
export interface Job {
  /** 0, 1, 2 … within one measurement. */
  readonly index: number
  /** When it was meant to be submitted (open loop) or was submitted: `monotonicUs`. */
  readonly submittedUs: number
  /** Not before this instant, ms since 1970; 0: at once. */
  readonly dueMs: number
  /** Which of the queues of the workload, from 0. */
  readonly queue: number
  /** Runs with the same key must not run together (workload W9); absent: no key. */
  readonly key?: string
  /** Tenants take turns (workload W10); absent: there are none. */
  readonly tenant?: string
  /** Filler, to make the payload as large as the workload asks for. */
  readonly filler: string
}

/** What the handler gets back: enough to measure with. */
export type JobPayload = Pick<Job, "index" | "submittedUs" | "dueMs" | "filler">

export interface Producer {
  /** As fast as the system takes them, durably: resolves when the store has committed all. */
  readonly enqueueBulk: (jobs: ReadonlyArray<Job>) => Promise<void>
  /** Resolves when the store has committed it. Many are called at the same time. */
  readonly enqueueOne: (job: Job) => Promise<void>
  readonly close: () => Promise<void>
}

export interface WorkOptions {
  /** Handlers at a time. Drivers use the best number of their system when it is 0. */
  readonly concurrency: number
  /** Number of queues to serve. */
  readonly queues: number
  /** Final runs stay readable afterwards. Systems that cannot choose say so in `keepsHistory`. */
  readonly keepHistory: boolean
  /** A promise only where the workload's handler waits. */
  readonly handler: (job: JobPayload) => Promise<void> | undefined
}

export interface Running {
  /** For `Place.addresses`. */
  readonly address?: string
  readonly close: () => Promise<void>
}

/** `keys`: runs of one key one at a time. `fairness`: tenants take turns. `flows`: steps that follow one another. */
export type Feature = "keys" | "fairness" | "flows"

export interface System {
  /** `peer:variant`, as on the command line. */
  readonly id: string
  /** Package name. Ours: `orrery`. */
  readonly peer: string
  readonly version: string
  /** Everything that was set away from the defaults, for the report. */
  readonly settings: Readonly<Record<string, string | number | boolean>>
  readonly needs: "postgres" | "redis"
  /**
   * What an acknowledged enqueue survives. `commit`: a crash of the server right after it. `second`: all but about the last
   * second (Redis AOF everysec). What survives less is refused: it is not compared.
   */
  readonly durability: "commit" | "second"
  readonly keepsHistory: "always" | "never" | "choice"
  /** Workloads this variant is tuned for, `W1` …; those it is not asked for are left out. */
  readonly workloads: ReadonlyArray<string>
  /** Workloads that it cannot do, and why; the tables say so. */
  readonly unsupported?: Readonly<Record<string, string>>
  /** Size of the preloaded work, relative to the workload's own: 0.1 for a system that would take minutes. Default 1. */
  readonly share?: number
  /** Features that a workload needs and not every system has (W9, W10, W14). Default none. */
  readonly supports?: ReadonlyArray<Feature>
  /** Makes tables and queues in an empty store. */
  readonly prepare: (place: Place, options: { readonly queues: number; readonly keepHistory: boolean }) => Promise<void>
  /** A process of the system that takes work in but executes none. Only systems that need one to enqueue. */
  readonly serve?: (place: Place) => Promise<Running>
  readonly produce: (place: Place, options: { readonly keepHistory: boolean }) => Promise<Producer>
  readonly work: (place: Place, options: WorkOptions) => Promise<Running>
  /** Only executes: what takes work in and hands it out is a server beside it. Left out when `work` is no more than that. */
  readonly workApart?: (place: Place, options: WorkOptions) => Promise<Running>
  /** Jobs that are not completed in the store: completions count only when they are there. Cheap: it is polled. */
  readonly remaining: (place: Place) => Promise<number>
}

/** Of the whole machine, so that instants of different processes can be subtracted. µs. */
export const monotonicUs = (): number => Number(process.hrtime.bigint() / 1_000n)
