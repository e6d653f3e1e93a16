/** Ids of the runs a schedule makes: whoever makes the run of a tick, and however often, makes the same one. */
import { createHash } from "node:crypto"
import { derivedRunId } from "../derivedRunId.js"
import type { RunId } from "../RunId.js"

/** Of the tick of `nominal`, also when a backfill makes it. */
export const ofTick = (scheduleId: string, nominal: number): RunId => derivedRunId(nominal, `${scheduleId}\n${nominal}`)

/** Of a run asked for by hand; the same request gives the same run. */
export const ofRequest = (scheduleId: string, requestId: string, now: number): RunId =>
  derivedRunId(now, `${scheduleId}\nrequest\n${requestId}`)

/** Where in [0, 1) a schedule stands: its share of the jitter. */
export const fractionOf = (scheduleId: string): number =>
  createHash("sha256").update(scheduleId).digest().readUInt32BE(0) / 2 ** 32
