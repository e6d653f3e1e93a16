/**
 * Which queues anybody watches, as far as this process knows: so that what nobody watches is not published. Watchers say so
 * on one channel when they begin and every few seconds; whoever connects asks.
 *
 *   `w1 <queue>...`   these are watched
 *   `?1`              who watches?
 *
 * A publisher that has kept something of a queue to itself before it learnt that it is watched owes its watchers a gap.
 */
import { namePattern } from "@orrery/core/Name"

/** Between two words of a watcher, ms. */
export const renewMs = 5_000
/** Without a word for this long a queue is no longer watched, ms: two may be lost. */
const expiryMs = 16_000
const queuesMax = 10_000
/** Queues in one message. */
const batchMax = 100
/** Two names and what is between. */
const keyLengthMax = 401
const messageLengthMax = 3 + batchMax * (keyLengthMax + 1)

export const question = "?1"

export const announcements = (keys: ReadonlyArray<string>): ReadonlyArray<string> => {
  const messages: Array<string> = []
  for (let at = 0; at < keys.length; at += batchMax) messages.push(`w1 ${keys.slice(at, at + batchMax).join(" ")}`)
  return messages
}

/** `undefined`: no message of ours. */
export const decode = (bytes: Buffer): typeof question | ReadonlyArray<string> | undefined => {
  if (bytes.length > messageLengthMax) return undefined
  const text = bytes.toString("latin1")
  if (text === question) return question
  if (!text.startsWith("w1 ")) return undefined
  const keys = text.slice(3).split(" ")
  return keys.length <= batchMax && keys.every(isKey) ? keys : undefined
}

const isKey = (key: string): boolean => {
  const at = key.indexOf("|")
  return at > 0 && namePattern.test(key.slice(0, at)) && namePattern.test(key.slice(at + 1))
}

export class Interest {
  /** Until when each is watched. */
  private readonly watched = new Map<string, number>()
  private readonly untold = new Set<string>()
  /** There were too many to remember: any may be. */
  private anyUntold = false
  private forgotAt = -Infinity

  /** `now`: monotonic, ms. */
  constructor(private readonly now: () => number) {}

  isWatched(key: string): boolean {
    const until = this.watched.get(key)
    return until !== undefined && until > this.now()
  }

  /** Something of it was not published. */
  kept(key: string): void {
    if (this.untold.size < queuesMax) this.untold.add(key)
    else this.anyUntold = this.anyUntold || !this.untold.has(key)
  }

  /** True: its watchers must be told that they may have missed something. */
  learn(key: string): boolean {
    const isNew = !this.isWatched(key)
    if (isNew && this.watched.size >= queuesMax) this.forget()
    if (this.watched.size < queuesMax || !isNew) this.watched.set(key, this.now() + expiryMs)
    const owes = isNew && (this.untold.has(key) || this.anyUntold)
    if (isNew) this.untold.delete(key)
    return owes
  }

  /** Goes through all of them, so not for each message of somebody who makes names up. */
  private forget(): void {
    if (this.now() < this.forgotAt + renewMs) return
    this.forgotAt = this.now()
    for (const [key, until] of this.watched) if (until <= this.now()) this.watched.delete(key)
  }
}
