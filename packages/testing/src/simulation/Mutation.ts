/**
 * Bugs that are put in on purpose, one at a time, to see that a checker notices. A checker that has never failed proves
 * nothing. Each is in the harness, around the code under test.
 */
import type { CheckerName } from "../history/checkers.js"
import type { FaultKind } from "./Plan.js"

export interface Mutated {
  /** That must notice. */
  readonly checker: CheckerName
  /** What brings it to light: the faults, and how many runs. Default: of any kind, and as many as usual. */
  readonly kinds?: ReadonlyArray<FaultKind>
  readonly runsMax?: number
}

/** What parts an owner from its partition without its knowledge. */
const partings: ReadonlyArray<FaultKind> = ["pauseNode", "stealShard", "cutNodeFromStore"]

/** What has partitions taken over while attempts are out. */
const takings: ReadonlyArray<FaultKind> = ["crashNode", "loseNode", "moveShard", "stealShard"]

export type Mutation =
  | "skipFence"
  | "acknowledgeEarly"
  | "acceptStaleOutcomes"
  | "forgetHistory"
  | "clockAhead"
  | "leakSlot"
  | "forgetRunning"
  | "forgetPermits"
  | "forgetOrder"
  | "dropTimers"
  | "unboundedWindow"
  | "staleReads"
  | "forgetCheckpoints"
  | "dropPromises"
  | "takeInboxEarly"

export const mutations: { readonly [Name in Mutation]: Mutated } = {
  /** The store does not look at the epoch. */
  skipFence: { checker: "epochBackwards", kinds: partings },
  /** Callers are told before the commit. */
  acknowledgeEarly: { checker: "lost" },
  /** An outcome counts whatever its lease, and no worker is told that an attempt was replaced. */
  acceptStaleOutcomes: { checker: "doubleAccepted", kinds: ["pauseWorker", "cutWorkerFromNode"] },
  /** A request that comes again after its run has ended makes it once more. */
  forgetHistory: { checker: "illegalMove" },
  /** The owner's clock is ahead of the database's. */
  clockAhead: { checker: "early" },
  /** A worker runs one handler more than it has slots. */
  leakSlot: { checker: "overLimit" },
  /** A new owner does not see what was running under the one before. */
  forgetRunning: { checker: "liveness" },
  /** A new owner does not see which keys the runs have that it finds running. */
  forgetPermits: { checker: "overLimit", kinds: takings, runsMax: 200 },
  forgetOrder: { checker: "order", kinds: takings, runsMax: 200 },
  /** Runs that wait for their time are not read after a take-over. */
  dropTimers: { checker: "liveness" },
  /** A window takes in whatever comes. */
  unboundedWindow: { checker: "resources", runsMax: 400 },
  /** Readers see the store as it was a while ago. */
  staleReads: { checker: "readYourWrite" },
  /** An attempt is told that there is no checkpoint. */
  forgetCheckpoints: { checker: "checkpoints" },
  /** A row of the inbox is gone when it has been read, and not with the commit that makes its run. */
  takeInboxEarly: { checker: "lost", kinds: ["lostAnswers"] },
  /** A tick is written down without the run that it promises, and its owner dies. */
  dropPromises: { checker: "ticks", kinds: takings }
}
