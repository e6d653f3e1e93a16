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

/** The id being made, in ASCII: put together from strings it would be a tree of them, several times as large. */
const text = Buffer.from("00000000-0000-7000-8000-000000000000")
const digits = Buffer.from("0123456789abcdef")

/** `value` as `count` hexadecimal digits. */
const writeHex = (value: number, at: number, count: number): void => {
  let rest = value
  for (let place = at + count - 1; place >= at; place--) {
    text[place] = digits[rest & 15]!
    rest >>>= 4
  }
}

const writeTime = (ms: number): void => {
  writeHex(Math.floor(ms / 2 ** 16), 0, 8)
  writeHex(ms & 0xffff, 9, 4)
}

/** The next id of this process for a clock that shows `nowMs`. */
export const unsafeMakeRunId = (nowMs: number): RunId => {
  if (nowMs > lastMs) {
    lastMs = nowMs
    counter = 0
    writeTime(lastMs)
  } else if (++counter > counterMax) {
    // More than 4096 ids in a millisecond, or a clock that stepped back: borrow from the future.
    lastMs += 1
    counter = 0
    writeTime(lastMs)
  }
  if (poolOffset + randomBytesPerId > poolBytes) {
    randomFillSync(pool)
    poolOffset = 0
  }
  const at = poolOffset
  poolOffset += randomBytesPerId
  writeHex(counter, 15, 3)
  writeHex((pool[at]! & 0x3f) | 0x80, 19, 2)
  writeHex(pool[at + 1]!, 21, 2)
  for (let index = 2; index < randomBytesPerId; index++) writeHex(pool[at + index]!, 20 + 2 * index, 2)
  return text.toString("latin1") as RunId
}
