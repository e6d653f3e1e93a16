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
/** Messages kept while Redis is asked; beyond, it is asked again. */
const earlyMax = 64
/** Frames read at once. */
const pageFrames = 100
/** Text read for one watcher at once; beyond, a gap costs less. */
const readLengthMax = 4 * 1024 * 1024

export interface WatchKeys {
  readonly hash: string
  readonly stream: string
  readonly ttlMs: number
}

export interface RedisWatchOptions {
  readonly commands: RedisConnection
  readonly keys: WatchKeys
  readonly fork: (effect: Effect.Effect<void>) => void
  readonly after: string | undefined
  readonly counters: { gaps: number; safetyGaps: number }
}

export class RedisWatch {
  readonly buffer = new WatchBuffer()
  private position: Position | undefined
  /** Where it stands is not known: nothing is told before Redis was asked. */
  private isUncertain = true
  /** Goes on after a cursor, and may do so without a gap: nothing is known to be lost, and Redis has not answered yet. */
  private mayGoOn: boolean
  private isAsking = false
  /** Just now Redis was asked. */
  private isResting = false
  private lookAgain = false
  /** Heard before Redis has answered, oldest first. */
  private early: Array<SignalFrame.Message> = []
  private losses = 0
  /**
   * Which server has told the position. After a loss another may answer, that was behind, and has given numbers anew that this
   * watch has heard already: from those it does not go on.
   */
  private server = ""
  private wasLost = false

  constructor(private readonly options: RedisWatchOptions) {
    this.position = options.after === undefined ? undefined : SignalFrame.positionOf(options.after)
    this.mayGoOn = this.position !== undefined
  }

  heard(message: SignalFrame.Message): void {
    if (!this.isUncertain && !this.isAsking) return this.follow(message)
    if (this.early.length < earlyMax) this.early.push(message)
    else this.lookAgain = true
  }

  /** Something may have been missed, for want of Redis. */
  gap(): void {
    this.options.counters.gaps += 1
    this.tellGap()
  }

  /** Something may have been missed that nobody can see. */
  safetyGap(): void {
    this.options.counters.safetyGaps += 1
    this.tellGap()
  }

  /** The connection is lost, or there is none: nothing is believed until Redis was asked again. */
  lost(): void {
    this.losses += 1
    this.isUncertain = true
    this.mayGoOn = false
    this.wasLost = true
    this.lookAgain = false
    this.early = []
    this.gap()
  }

  /** Whether looks at the rows must take the place of hints. */
  get mustPoll(): boolean {
    return this.isUncertain && !this.mayGoOn
  }

  /** Asks Redis where the queue stands. */
  look(): void {
    if (this.isAsking || this.isResting) {
      this.lookAgain = true
      return
    }
    this.isAsking = true
    this.options.fork(
      this.caughtUp.pipe(
        Effect.zipRight(Effect.sync(() => {
          this.isAsking = false
          this.isResting = true
          this.followEarly()
        })),
        Effect.zipRight(Effect.sleep(lookPauseMs)),
        Effect.ensuring(Effect.sync(() => {
          this.isAsking = false
          this.isResting = false
        })),
        Effect.zipRight(Effect.sync(() => {
          if (this.lookAgain) this.look()
        }))
      )
    )
  }

  private readonly caughtUp: Effect.Effect<void> = Effect.gen(this, function*() {
    this.lookAgain = false
    const { losses, options: { commands, keys: { hash, ttlMs } } } = this
    const server = commands.serverId()
    const there = yield* run(commands, readPosition, [hash], [ttlMs])
    const from = this.position
    const isSame = !this.wasLost || (server !== "" && server === this.server && server === commands.serverId())
    this.server = server
    // The answer does not tell of what comes after a loss that it crossed.
    this.isUncertain = this.losses !== losses
    this.wasLost = this.isUncertain
    if (from === undefined || there.incarnation !== from.incarnation || there.number < from.number || !isSame) {
      return this.begin(there)
    }
    const missed = there.number - from.number
    if (missed === 0) return
    const messages = missed > framesKept ? undefined : yield* this.read(from)
    if (messages === undefined) this.begin(there)
    else for (const message of messages) this.tell(message)
  }).pipe(
    Effect.catchAll(() => Effect.sync(() => this.lost()))
  )

  private follow(message: SignalFrame.Message): void {
    const { position } = this
    if (position === undefined || message.incarnation !== position.incarnation) return this.look()
    if (message.number > position.number + 1) return this.look()
    if (message.number === position.number + 1) this.tell(message)
  }

  /** What was heard before the answer is part of it, or comes next. */
  private followEarly(): void {
    const { early } = this
    this.early = []
    if (!this.isUncertain) { for (const message of early) this.follow(message) }
  }

  private begin(position: Position): void {
    this.position = position
    this.tellGap()
  }

  private tellGap(): void {
    this.buffer.offer({ _tag: "gap", cursor: this.cursor })
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
  private read(from: Position): Effect.Effect<ReadonlyArray<SignalFrame.Message> | undefined, RedisUnavailable> {
    return Effect.gen(this, function*() {
      const newestFirst: Array<SignalFrame.Message> = []
      let end = "+"
      let length = 0
      // To the oldest one missed, which is further back when more has come meanwhile.
      while (newestFirst.at(-1)?.number !== from.number + 1) {
        const { commands, keys } = this.options
        const rows = yield* commands.use(
          "xrevrange",
          (client) => client.xrevrange(keys.stream, end, "-", "COUNT", pageFrames)
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
