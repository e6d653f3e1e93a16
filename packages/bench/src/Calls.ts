/**
 * What the benchmark's main process asks of the process of a role, over the channel of `fork`: small JSON. A process
 * plays one role of one system, except `describe`, which is about all systems of its driver.
 *
 * Latencies are recorded where they arise and come back as quantiles, once, at the end.
 */
import type { Quantiles } from "./statistics.js"
import type { Place, System } from "./System.js"

/** A system without its functions. */
export type Description =
  & Pick<
    System,
    | "id"
    | "peer"
    | "version"
    | "settings"
    | "needs"
    | "durability"
    | "keepsHistory"
    | "workloads"
    | "share"
    | "supports"
    | "unsupported"
  >
  & {
    /** It needs a process of its own to take work in. */
    readonly hasServe: boolean
    /** Its worker can be a process that does nothing else. */
    readonly hasWorkApart: boolean
    /** File of the driver, without `.ts`. */
    readonly driver: string
  }

interface OfSystem {
  readonly system: string
  readonly place: Place
}

/** Which jobs a producer makes. */
export interface JobShape {
  readonly queues: number
  /** Characters of filler in each payload. */
  readonly fillerChars: number
  /** 0: no concurrency keys; otherwise job n has key n modulo this. */
  readonly keys: number
  /** 0: none; otherwise `tenantOf` says whose job n is, and the system is told. */
  readonly tenants: number
  readonly seed: number
}

export interface Bulk {
  readonly shape: JobShape
  readonly firstIndex: number
  readonly count: number
  /** ms since 1970 of the first; 0: at once. */
  readonly dueMs: number
  /** Dues are spread evenly over this many ms; 0: all at the same instant. */
  readonly dueSpreadMs: number
}

export interface ClosedLoop {
  readonly shape: JobShape
  readonly firstIndex: number
  /** Callers that each wait for their answer before the next call. */
  readonly callers: number
  readonly forMs: number
}

export interface OpenLoop {
  readonly shape: JobShape
  readonly firstIndex: number
  readonly perSecond: number
  readonly forMs: number
  /** Above it jobs wait in the producer, and their latency counts all the same. */
  readonly inFlightMax: number
}

export interface Submitted {
  /** Answered by the system. */
  readonly acknowledged: number
  readonly failed: number
  /** Of the first that failed. */
  readonly failure: string
  /** First submission to last answer. `monotonicUs`. */
  readonly fromUs: number
  readonly toUs: number
  /** Submission (open loop: the intended instant) to answer, ms. */
  readonly answer: Quantiles
}

export interface WorkInput extends OfSystem {
  /** 0: the best of the system. */
  readonly concurrency: number
  readonly queues: number
  readonly keepHistory: boolean
  /** How long each handler waits; 0: it ends at once. */
  readonly handlerMs: number
  /** As `JobShape.keys`, to see runs of one key that are together. */
  readonly keys: number
  /** More than 0: jobs are of so many tenants (`tenantOf`), whether or not the system was told. */
  readonly tenants: number
  /** Tell every single start, not a count now and then. */
  readonly tellEach: boolean
  /** Beside a server, where the system has that (`System.workApart`). */
  readonly apart: boolean
}

export interface WorkReport {
  /** Different jobs whose handler has started. */
  readonly handled: number
  /** Starts of a job that had started before. */
  readonly repeated: number
  /** Of the first and the last start, `monotonicUs`; 0: none. */
  readonly firstUs: number
  readonly lastUs: number
  /** Started before they were due, by the wall clock of this machine. */
  readonly early: number
  /** Started while another of the same key ran. */
  readonly violations: number
  /** Jobs that started later than the `overMs` asked about. */
  readonly over: number
  /** Submission to start, or due to start where there is a due instant, ms. */
  readonly start: Quantiles
  /** The same of all tenants but the large one; all 0 without tenants. */
  readonly others: Quantiles
  /** Jain's index over the tenants, of the first ten starts for each of them; 0 without tenants. */
  readonly jain: number
}

export interface Usage {
  /** User and system time since the role began: what it takes to load the driver does not count. */
  readonly cpuUs: number
  readonly rssBytes: number
  readonly rssMaxBytes: number
}

interface Call<In, Out> {
  readonly in: In
  readonly out: Out
}

export interface Calls {
  readonly describe: Call<null, ReadonlyArray<Omit<Description, "driver">>>
  readonly prepare: Call<OfSystem & { readonly queues: number; readonly keepHistory: boolean }, null>
  readonly serve: Call<OfSystem, { readonly address: string | null }>
  readonly work: Call<WorkInput, { readonly address: string | null }>
  readonly produce: Call<OfSystem & { readonly keepHistory: boolean }, null>
  /** How long `enqueueBulk` took: the jobs are made before. */
  readonly bulk: Call<Bulk, { readonly fromUs: number; readonly toUs: number }>
  readonly closedLoop: Call<ClosedLoop, Submitted>
  readonly openLoop: Call<OpenLoop, Submitted>
  /** Of a worker: forget everything recorded so far. */
  readonly forget: Call<null, null>
  readonly report: Call<{ readonly overMs: number }, WorkReport>
  /** Jobs whose handler runs now. */
  readonly running: Call<null, ReadonlyArray<number>>
  /** Starts since an instant (`monotonicUs`): job and instant of each. Only of handlers that wait. */
  readonly startsSince: Call<{ readonly sinceUs: number }, ReadonlyArray<readonly [number, number]>>
  /** When the store held no job that is not completed; 0: not in time. Asked again every few ms. */
  readonly awaitEmpty: Call<
    OfSystem & { readonly withinMs: number },
    { readonly emptyUs: number; readonly left: number }
  >
  readonly usage: Call<null, Usage>
  /** Listens on a port of this machine and passes bytes on, each delayed. */
  readonly proxy: Call<{ readonly url: string; readonly delayMs: number }, { readonly url: string }>
  readonly close: Call<null, null>
}

export type CallName = keyof Calls

/** From the main process. */
export type Question = {
  readonly [Name in CallName]: { readonly id: number; readonly name: Name; readonly in: Calls[Name]["in"] }
}[CallName]

/** To the main process: an answer, or a count of starts that nobody asked for. */
export type Message =
  | { readonly tag: "answer"; readonly id: number; readonly out: unknown }
  | { readonly tag: "failed"; readonly id: number; readonly reason: string }
  | { readonly tag: "started"; readonly count: number }
