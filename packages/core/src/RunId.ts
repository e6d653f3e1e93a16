/**
 * Run ids: UUID version 7 (RFC 9562), made by the client so that a request can be sent again without
 * making a second run.
 *
 * The first 48 bits are milliseconds of the maker's clock, so ids sort roughly by creation; nothing
 * else depends on that clock. A clock that steps back does not repeat or reorder ids of one process:
 * time never goes back inside the generator, and within one millisecond a 12-bit counter, then the
 * millisecond itself, is advanced. Between processes, 62 random bits keep ids apart.
 */
import { Schema } from "effect"
import { randomFillSync } from "node:crypto"

export const RunId = Schema.UUID.pipe(Schema.brand("RunId"))
export type RunId = typeof RunId.Type

const counterMax = 0xfff
const poolBytes = 4096
const randomBytesPerId = 8

const pool = new Uint8Array(poolBytes)
let poolOffset = poolBytes
let lastMs = 0
let counter = 0

const hex: ReadonlyArray<string> = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"))

/** The next id of this process for a clock that shows `nowMs`. */
export const unsafeMakeRunId = (nowMs: number): RunId => {
  if (nowMs > lastMs) {
    lastMs = nowMs
    counter = 0
  } else if (++counter > counterMax) {
    // More than 4096 ids in a millisecond, or a clock that stepped back: borrow from the future.
    lastMs += 1
    counter = 0
  }
  if (poolOffset + randomBytesPerId > poolBytes) {
    randomFillSync(pool)
    poolOffset = 0
  }
  const time = lastMs.toString(16).padStart(12, "0")
  const at = poolOffset
  poolOffset += randomBytesPerId
  const byte = (index: number) => hex[pool[at + index]!]!
  const variant = hex[(pool[at]! & 0x3f) | 0x80]!
  return `${time.slice(0, 8)}-${time.slice(8)}-7${counter.toString(16).padStart(3, "0")}-${variant}${byte(1)}-${
    byte(2)
  }${byte(3)}${byte(4)}${byte(5)}${byte(6)}${byte(7)}` as RunId
}
