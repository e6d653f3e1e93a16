/**
 * What happened in one run of a simulation or of a chaos scenario, as told by those it happened to: clients, workers, the
 * store. One list, in order of `at`; the store's `committed` in the order of the commits. The checkers read nothing else.
 *
 * Each process writes its own events to a file of its own (`HistoryFile`), never only to the database that is under fault.
 */
import type { RunState } from "@orrery/core/RunState"

interface At {
  /** Monotonic ms of one clock for all: of the machine, or of the simulation. */
  readonly at: number
  /** Name of the process. */
  readonly by: string
}

/** A client asks for a run; sent again under the same id as often as it takes. */
export interface Asked extends At {
  readonly _tag: "asked"
  readonly run: string
  readonly queue: string
  /** Not before this instant, ms since 1970 by the database clock; 0: at once. */
  readonly dueAt: number
  /** Runs of one key run one after the other, in the order in which they were acknowledged. */
  readonly orderingKey?: string
  /** At most so many runs with this key at once. */
  readonly limits?: ReadonlyArray<{ readonly key: string; readonly limit: number }>
}

/** The client has been told that the run is durable. */
export interface Acknowledged extends At {
  readonly _tag: "acknowledged"
  readonly run: string
}

/** The client has been told that the run does not exist, and gave up. */
export interface Refused extends At {
  readonly _tag: "refused"
  readonly run: string
  readonly reason: string
}

/** A handler begins. */
export interface Started extends At {
  readonly _tag: "started"
  readonly run: string
  readonly attempt: number
  readonly lease: number
  /** ms since 1970 by the database clock, or by a clock that is no more than `toleranceMs` of the check away from it. */
  readonly databaseTime: number
  /** Handlers running in this process, this one included, and how many may. */
  readonly running: number
  readonly slots: number
}

export interface Ended extends At {
  readonly _tag: "ended"
  readonly run: string
  readonly attempt: number
  readonly lease: number
  readonly outcome: "success" | "failure" | "interrupted"
}

/** An owner has told a worker that the outcome of an attempt counts. */
export interface Accepted extends At {
  readonly _tag: "accepted"
  readonly run: string
  readonly attempt: number
  readonly lease: number
  /** When the owner was told of the outcome. */
  readonly askedAt: number
}

/** A handler wants a checkpoint kept. */
export interface Saving extends At {
  readonly _tag: "saving"
  readonly run: string
  readonly attempt: number
  readonly lease: number
  /** JSON text. */
  readonly value: string
}

/** It has been told that this one is durable. */
export interface Saved extends At {
  readonly _tag: "saved"
  readonly run: string
  readonly attempt: number
  readonly lease: number
  readonly value: string
}

/** A handler has been given the checkpoint that the attempts before it have left; `null`: none. */
export interface Loaded extends At {
  readonly _tag: "loaded"
  readonly run: string
  readonly attempt: number
  readonly lease: number
  readonly value: string | null
  /** When it began to ask. */
  readonly askedAt: number
}

/** The store has committed a change of a run: what it is from now on. */
export interface Committed extends At {
  readonly _tag: "committed"
  readonly partition: number
  /** Of the owner that wrote it. */
  readonly epoch: number
  readonly run: string
  /** What the store held before; `undefined`: nothing. */
  readonly from: RunState | undefined
  readonly to: RunState
  readonly attempt: number
  readonly lease: number
  /** Of a run that shall wait: until then, ms since 1970 by the database clock. */
  readonly scheduledAt?: number
}

/** A client asks for a run and sees it, or not. `askedAt`: when the question was sent. */
export interface Read extends At {
  readonly _tag: "read"
  readonly run: string
  readonly askedAt: number
  readonly found: boolean
}

/** Read from the store when all was over. A run that is in no state does not exist. */
export interface Final extends At {
  readonly _tag: "final"
  readonly run: string
  readonly state: RunState
  /** How many rows the store has of it. */
  readonly rows: number
}

/** Read from the store when all was over: when a schedule had to fire, by somebody who only knows its definition. */
export interface Targets extends At {
  readonly _tag: "targets"
  readonly schedule: string
  /** ms since 1970 by the database clock, in order. */
  readonly nominals: ReadonlyArray<number>
  /** All runs of the schedule's task that the store has; nothing else enqueues it. */
  readonly runs: ReadonlyArray<string>
}

/** What the store has recorded of a tick, or of `count` in a row. */
export interface Ticked extends At {
  readonly _tag: "ticked"
  readonly schedule: string
  readonly first: number
  readonly last: number
  readonly count: number
  readonly outcome: "enqueued" | "skipped" | "missed"
  readonly run: string | null
}

/** What was done to the system. `healed`: nothing is done to it any more. */
export interface Fault extends At {
  readonly _tag: "fault" | "healed"
  readonly what: string
}

/** A bounded thing was looked at. */
export interface Measured extends At {
  readonly _tag: "measured"
  /** As `rssBytes`, `mailbox`, `descriptors`. */
  readonly what: string
  readonly value: number
  readonly limit: number
}

export type HistoryEvent =
  | Asked
  | Acknowledged
  | Refused
  | Started
  | Ended
  | Accepted
  | Saving
  | Saved
  | Loaded
  | Committed
  | Read
  | Final
  | Targets
  | Ticked
  | Fault
  | Measured
