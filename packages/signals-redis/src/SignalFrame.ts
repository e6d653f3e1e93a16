/**
 * What travels through Redis: short texts, versioned, bounded. They come from anybody who may write there, so a wrong one costs
 * a look at its size and a regular expression, and says nothing.
 *
 *   frame     `e` and records of 36 characters of run id and one of state; or `m`: more has changed than is told
 *   message   `1 <incarnation> <number> <frame>`, made by the script that numbers it
 */
import type { RunId } from "@orrery/core/RunId"
import type { RunState } from "@orrery/core/RunState"
import { eventsMax, type RunEvent } from "@orrery/core/Signals"
import type { Position } from "./RedisScripts.js"

const codes: { readonly [State in RunState]: string } = {
  blocked: "b",
  scheduled: "s",
  ready: "r",
  running: "w",
  retrying: "y",
  succeeded: "S",
  failed: "F",
  cancelled: "C",
  expired: "X"
}
const states = new Map(Object.entries(codes).map(([state, code]) => [code, state as RunState]))
/** A running run has told something. To a node of an earlier release it is a message it cannot read: it looks at the rows. */
const progressCode = "p"

const idLength = 36
const recordLength = idLength + 1
export const frameLengthMax = 1 + eventsMax * recordLength
/** Version, incarnation and number before it. */
const messageLengthMax = frameLengthMax + 40

const records = new RegExp(
  `^(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}[${progressCode}${[...states.keys()].join("")}])+$`
)
const header = /^1 (\d{1,20}) (\d{1,15}) /

export const many = "m"

const codeOf = ({ isProgress, state }: RunEvent): string => isProgress === true ? progressCode : codes[state]

const eventOf = (id: RunId, code: string): RunEvent =>
  code === progressCode ? { id, state: "running", isProgress: true } : { id, state: states.get(code)! }

/** Of a commit, in one frame. */
export const encode = (events: ReadonlyArray<RunEvent>): string =>
  events.length > eventsMax ? many : `e${events.map((event) => event.id + codeOf(event)).join("")}`

/** `many`: read the rows. `undefined`: no frame. */
export const decode = (frame: string): ReadonlyArray<RunEvent> | typeof many | undefined => {
  if (frame === many) return many
  if (frame.length > frameLengthMax || !frame.startsWith("e")) return undefined
  const body = frame.slice(1)
  if (body.length % recordLength !== 0 || !records.test(body)) return undefined
  const events: Array<RunEvent> = []
  for (let at = 0; at < body.length; at += recordLength) {
    const id = body.slice(at, at + idLength) as RunId
    events.push(eventOf(id, body.charAt(at + idLength)))
  }
  return events
}

export interface Message extends Position {
  readonly frame: ReadonlyArray<RunEvent> | typeof many
}

export const decodeMessage = (bytes: Buffer): Message | undefined => {
  if (bytes.length > messageLengthMax) return undefined
  const text = bytes.toString("latin1")
  const [all, incarnation, number] = header.exec(text) ?? []
  if (all === undefined || incarnation === undefined) return undefined
  const frame = decode(text.slice(all.length))
  return frame === undefined ? undefined : { incarnation, number: Number(number), frame }
}

/** Tells listeners that there may be something that has no number. */
export const unnumbered = `1 0 0 ${many}`

export const cursorOf = ({ incarnation, number }: Position): string => `${incarnation}.${number}`

export const positionOf = (cursor: string): Position | undefined => {
  const [, incarnation, number] = /^(\d{1,20})\.(\d{1,15})$/.exec(cursor) ?? []
  return incarnation === undefined ? undefined : { incarnation, number: Number(number) }
}
