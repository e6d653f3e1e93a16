/**
 * Ids of the runs a schedule makes, derived from what they are for: whoever makes the run of a tick, and however often,
 * makes the same one. A UUID of version 7 whose time is the nominal one; the rest is SHA-256.
 */
import { createHash } from "node:crypto"
import type { RunId } from "../RunId.js"

const idOf = (ms: number, about: string): RunId => {
  const hash = createHash("sha256").update(about).digest()
  const bytes = Buffer.alloc(16)
  bytes.writeUIntBE(Math.max(0, Math.floor(ms)), 0, 6)
  hash.copy(bytes, 6, 0, 10)
  bytes[6] = (bytes[6]! & 0x0f) | 0x70
  bytes[8] = (bytes[8]! & 0x3f) | 0x80
  const hex = bytes.toString("hex")
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-") as RunId
}

/** Of the tick of `nominal`, also when a backfill makes it. */
export const ofTick = (scheduleId: string, nominal: number): RunId => idOf(nominal, `${scheduleId}\n${nominal}`)

/** Of a run asked for by hand; the same request gives the same run. */
export const ofRequest = (scheduleId: string, requestId: string, now: number): RunId =>
  idOf(now, `${scheduleId}\nrequest\n${requestId}`)

/** Where in [0, 1) a schedule stands: its share of the jitter. */
export const fractionOf = (scheduleId: string): number =>
  createHash("sha256").update(scheduleId).digest().readUInt32BE(0) / 2 ** 32
