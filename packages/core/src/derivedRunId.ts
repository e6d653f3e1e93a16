/**
 * Ids of runs derived from what they are for: whoever makes the run, and however often, makes the same one. A UUID of version 7
 * whose time is the given one; the rest is SHA-256.
 */
import { createHash } from "node:crypto"
import type { RunId } from "./RunId.js"

export const derivedRunId = (ms: number, about: string): RunId => {
  const hash = createHash("sha256").update(about).digest()
  const bytes = Buffer.alloc(16)
  bytes.writeUIntBE(Math.max(0, Math.floor(ms)), 0, 6)
  hash.copy(bytes, 6, 0, 10)
  bytes[6] = (bytes[6]! & 0x0f) | 0x70
  bytes[8] = (bytes[8]! & 0x3f) | 0x80
  const hex = bytes.toString("hex")
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-") as RunId
}
