/**
 * One watch of one queue: follows the numbers of its messages. One that is missing is read from the stream; when it is not
 * there any more, or Redis cannot be asked, the watcher is told `gap`.
 *
 * A message is believed only when its number is the next one. Any other, forged or not, costs one look at Redis, and there is
 * at most one look in `lookPauseMs`.
 */
import { framesKept, type Watched } from "@orrery/core/Signals"
import { WatchBuffer } from "@orrery/core/WatchBuffer"
import { Effect, Option } from "effect"
import type { RedisConnection, RedisUnavailable } from "./RedisConnection.js"
import { type Position, readPosition, run } from "./RedisScripts.js"
import * as SignalFrame from "./SignalFrame.js"

const lookPauseMs = 50
/** Frames read at once. */
const pageFrames = 100
/** Text read for one watcher at once; beyond, a gap costs less. */
const readLengthMax = 4 * 1024 * 1024

export interface WatchKeys {
  readonly hash: string
  readonly stream: string
  readonly ttlMs: number
}

export class RedisWatch {
  readonly buffer = new WatchBuffer()
  private position: Position | undefined
  /** Where it stands is not known: nothing is told before Redis was asked. */
  private isUncertain = true
  private isLooking = false
  private lookAgain = false

  constructor(
    private readonly commands: RedisConnection,
    private readonly keys: WatchKeys,
    private readonly fork: (effect: Effect.Effect<void>) => void,
    after: string | undefined
  ) {
    this.position = after === undefined ? undefined : SignalFrame.positionOf(after)
  }

  heard(message: SignalFrame.Message): void {
    const { position } = this
    if (this.isUncertain || this.isLooking || position === undefined) {
      this.lookAgain = true
      return
    }
    if (message.incarnation !== position.incarnation || message.number > position.number + 1) return this.look()
    if (message.number === position.number + 1) this.tell(message)
  }

  /** Something may have been missed. */
  gap(): void {
    this.buffer.offer({ _tag: "gap", cursor: this.cursor })
  }

  /** The connection is lost: nothing is believed until Redis was asked again. */
  lost(): void {
    this.isUncertain = true
    this.gap()
  }

  get mustPoll(): boolean {
    return this.isUncertain
  }

  /** Asks Redis where the queue stands. */
  look(): void {
    if (this.isLooking) {
      this.lookAgain = true
      return
    }
    this.isLooking = true
    this.fork(
      this.caughtUp.pipe(
        Effect.zipRight(Effect.sleep(lookPauseMs)),
        Effect.ensuring(Effect.sync(() => {
          this.isLooking = false
        })),
        Effect.zipRight(Effect.sync(() => {
          if (this.lookAgain && !this.isUncertain) this.look()
        }))
      )
    )
  }

  private readonly caughtUp: Effect.Effect<void> = Effect.gen(this, function*() {
    this.lookAgain = false
    const { hash, ttlMs } = this.keys
    const there = yield* run(this.commands, readPosition, [hash], [ttlMs])
    const from = this.position
    this.isUncertain = false
    if (from === undefined || there.incarnation !== from.incarnation || there.number < from.number) {
      return this.begin(there)
    }
    const missed = there.number - from.number
    if (missed === 0) return
    const messages = missed > framesKept ? undefined : yield* this.read(from, missed)
    if (messages === undefined) this.begin(there)
    else for (const message of messages) this.tell(message)
  }).pipe(
    Effect.catchAll(() =>
      Effect.sync(() => {
        this.isUncertain = true
        this.gap()
      })
    )
  )

  private begin(position: Position): void {
    this.position = position
    this.gap()
  }

  private tell(message: SignalFrame.Message): void {
    this.position = message
    const cursor = this.cursor
    const item: Watched = message.frame === SignalFrame.many
      ? { _tag: "gap", cursor }
      : { _tag: "events", events: message.frame, cursor }
    this.buffer.offer(item)
  }

  /** All that came after `from`, or nothing when something of it is missing. */
  private read(
    from: Position,
    missed: number
  ): Effect.Effect<ReadonlyArray<SignalFrame.Message> | undefined, RedisUnavailable> {
    return Effect.gen(this, function*() {
      const newestFirst: Array<SignalFrame.Message> = []
      let end = "+"
      let length = 0
      while (newestFirst.length < missed) {
        const rows = yield* this.commands.use(
          "xrevrange",
          (client) => client.xrevrange(this.keys.stream, end, "-", "COUNT", pageFrames)
        )
        for (const [id, fields] of rows) {
          const message = messageOf(fields)
          const expected = (newestFirst.at(-1)?.number ?? message?.number ?? 0) - (newestFirst.length > 0 ? 1 : 0)
          if (message === undefined || message.incarnation !== from.incarnation) return undefined
          if (message.number !== expected) return undefined
          if (message.number <= from.number) return newestFirst.reverse()
          newestFirst.push(message)
          length += fields.reduce((sum, field) => sum + field.length, 0)
          if (length > readLengthMax) return undefined
          end = `(${id}`
        }
        if (rows.length < pageFrames) break
      }
      return newestFirst.at(-1)?.number === from.number + 1 ? newestFirst.reverse() : undefined
    })
  }

  private get cursor(): string {
    return Option.match(Option.fromNullable(this.position), { onNone: () => "", onSome: SignalFrame.cursorOf })
  }
}

const messageOf = (fields: ReadonlyArray<string>): SignalFrame.Message | undefined => {
  const [, incarnation, , number, , text] = fields
  if (incarnation === undefined || text === undefined || !/^\d{1,15}$/.test(number ?? "")) return undefined
  const frame = SignalFrame.decode(text)
  return frame === undefined ? undefined : { incarnation, number: Number(number), frame }
}
