/**
 * Signals within one process. Nothing can be lost between publisher and watcher but what a watcher leaves unread.
 *
 * Bounded: `framesKept` commits for each queue that is watched, or was in the last minute, and `queuesMax` of those.
 */
import { Clock, Effect, Layer } from "effect"
import {
  eventsMax,
  framesKept,
  queueKey,
  type RunEvent,
  Signals,
  type SignalsService,
  type Watched
} from "./Signals.js"
import { WatchBuffer } from "./WatchBuffer.js"

/** A watch may be resumed within this after it ended, ms. */
const keptMs = 60_000
const queuesMax = 10_000

interface Frame {
  readonly number: number
  /** `undefined`: too many to tell. */
  readonly events: ReadonlyArray<RunEvent> | undefined
}

interface Line {
  number: number
  frames: Array<Frame>
  readonly buffers: Set<WatchBuffer>
  leftAt: number
}

const watched = ({ events, number }: Frame): Watched => {
  const cursor = String(number)
  return events === undefined ? { _tag: "gap", cursor } : { _tag: "events", events, cursor }
}

const positionOf = (cursor: string | undefined): number | undefined =>
  cursor !== undefined && /^\d{1,15}$/.test(cursor) ? Number(cursor) : undefined

/** What came after a cursor, or that it cannot be told. */
const since = (line: Line, cursor: string | undefined): ReadonlyArray<Watched> => {
  const from = positionOf(cursor)
  const oldest = line.frames[0]?.number ?? line.number + 1
  return from !== undefined && from <= line.number && from >= oldest - 1
    ? line.frames.filter((frame) => frame.number > from).map(watched)
    : [{ _tag: "gap", cursor: String(line.number) }]
}

export const make: Effect.Effect<SignalsService> = Effect.map(Effect.clock, (clock) => {
  const lines = new Map<string, Line>()
  const now = () => clock.unsafeCurrentTimeMillis()
  // Counted over all queues: a queue that was forgotten does not number anew what an old cursor knows otherwise.
  let last = 0

  const forget = (): void => {
    for (const [key, line] of lines) if (line.buffers.size === 0 && line.leftAt + keptMs <= now()) lines.delete(key)
  }
  const lineOf = (key: string): Line => {
    let line = lines.get(key)
    if (line === undefined) {
      if (lines.size >= queuesMax) forget()
      line = { number: ++last, frames: [], buffers: new Set(), leftAt: now() }
      lines.set(key, line)
    }
    return line
  }

  const publish = (key: string, events: () => ReadonlyArray<RunEvent>): void => {
    const line = lines.get(key)
    if (line === undefined) return
    if (line.buffers.size === 0 && line.leftAt + keptMs <= now()) return void lines.delete(key)
    // What is kept is small, whatever else the publisher has in its objects.
    const told = events().map(({ id, isProgress, state }) =>
      isProgress === undefined ? { id, state } : { id, state, isProgress }
    )
    if (told.length === 0) return
    last = Math.max(last, line.number + 1)
    line.number += 1
    const frame = { number: line.number, events: told.length > eventsMax ? undefined : told }
    line.frames.push(frame)
    if (line.frames.length > framesKept * 2) line.frames = line.frames.slice(-framesKept)
    for (const buffer of line.buffers) buffer.offer(watched(frame))
  }

  return {
    queue: (name) => {
      const key = queueKey(name)
      return { publish: (events) => publish(key, events) }
    },
    watch: (name, options = {}) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          const line = lineOf(queueKey(name))
          const buffer = new WatchBuffer()
          for (const item of since(line, options.after)) buffer.offer(item)
          line.buffers.add(buffer)
          return { line, buffer }
        }),
        ({ buffer, line }) =>
          Effect.map(Clock.currentTimeMillis, (at) => {
            line.buffers.delete(buffer)
            line.leftAt = at
          })
      ).pipe(Effect.map(({ buffer }) => buffer.stream)),
    health: () => undefined,
    doubt: () => undefined
  }
})

export const layer: Layer.Layer<Signals> = Layer.effect(Signals, make)
