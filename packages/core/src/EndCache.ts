/**
 * Answers awaits of runs that have ended from an `EndStore`, without a look at the rows.
 *
 * Why an entry can be believed: it carries a message authentication code by a key that lives in the database, over the run's id
 * and the whole run as it was read from its row. So it was made by somebody who may read the database, for this run, after the
 * commit of its end (what is kept has been read from the rows); and an end never changes. Whoever may write to the store can
 * make it forget, or show what is true, and nothing else. What cannot be believed costs what its absence costs: the look at
 * the row that would have been made without it.
 *
 * The key is renewed when an operator accepts a restored database, so ends of the lost time are worth nothing then
 * (docs/decisions/0030).
 */
import { Context, Effect, Option, Redacted, Schema } from "effect"
import { createHmac, timingSafeEqual } from "node:crypto"
import { type EndStoreService, entryBytesMax } from "./EndStore.js"
import { Run } from "./Run.js"
import type { RunId } from "./RunId.js"
import { isFinal } from "./RunState.js"

/** How long an end is kept, ms: as long as callers come back for it after a lost connection. */
export const ttlMs = 60_000
/** Kept by one process in `ttlMs`, so that a node takes no more than twice this of the store. */
export const bytesPerTtl = 16 * 1024 * 1024
/** A run made so lately has hardly been awaited by anyone else: it is not looked for, ms. */
export const freshMs = 1_000

export interface EndCounters {
  readonly hits: number
  readonly misses: number
  /** Entries that were there and not believed. */
  readonly refused: number
  readonly kept: number
  /** Not kept: too large, or more than `bytesPerTtl`. */
  readonly over: number
}

export interface EndCacheService {
  /** Of a final run that was read from its row, and of no other. Never waits. */
  readonly keep: (run: Run) => void
  /** The run, when its end is kept. Otherwise its row tells. Never fails. */
  readonly find: (id: RunId) => Effect.Effect<Run | undefined>
  readonly counters: () => EndCounters
}

const nothing: EndCounters = { hits: 0, misses: 0, refused: 0, kept: 0, over: 0 }

export const none: EndCacheService = {
  keep: () => undefined,
  find: () => Effect.succeed(undefined),
  counters: () => nothing
}

/** Where none is given every end is read from the rows. */
export class EndCache extends Context.Reference<EndCache>()("@orrery/core/EndCache", {
  defaultValue: (): EndCacheService => none
}) {}

const version = "1"
const macLength = 43
const headLength = version.length + 1 + macLength + 1

const decodeRun = Schema.decodeUnknownOption(Schema.parseJson(Run))

/** `key`: at least 32 bytes of a secret that only those who may read the database know. */
export const make = (store: EndStoreService, key: Redacted.Redacted<Buffer>): Effect.Effect<EndCacheService> =>
  Effect.map(Effect.clock, (clock) => {
    const counters = { ...nothing } as { -readonly [Name in keyof EndCounters]: EndCounters[Name] }
    const now = () => clock.unsafeCurrentTimeMillis()
    let spent = 0
    let spentSince = -Infinity

    const macOf = (id: RunId, body: string): Buffer =>
      createHmac("sha256", Redacted.value(key)).update(`orrery.end.${version}\n${id}\n`).update(body).digest()

    const open = (id: RunId, text: string): Run | undefined => {
      if (Buffer.byteLength(text) > entryBytesMax) return undefined
      if (!text.startsWith(`${version}.`) || text[headLength - 1] !== ".") return undefined
      const told = Buffer.from(text.slice(version.length + 1, headLength - 1), "base64url")
      const body = text.slice(headLength)
      const mac = macOf(id, body)
      if (told.length !== mac.length || !timingSafeEqual(told, mac)) return undefined
      const run = Option.getOrUndefined(decodeRun(body))
      return run !== undefined && run.id === id && isFinal(run.state) ? run : undefined
    }

    return {
      keep: (run) => {
        if (!isFinal(run.state) || !store.isUp()) return
        if (run.payload.length + (run.result?.length ?? 0) > entryBytesMax) {
          counters.over += 1
          return
        }
        if (now() - spentSince >= ttlMs) {
          spentSince = now()
          spent = 0
        }
        const body = JSON.stringify(run)
        const bytes = headLength + Buffer.byteLength(body)
        if (bytes > entryBytesMax || spent + bytes > bytesPerTtl) {
          counters.over += 1
          return
        }
        spent += bytes
        counters.kept += 1
        store.put(run.id, `${version}.${macOf(run.id, body).toString("base64url")}.${body}`, ttlMs)
      },
      find: (id) =>
        Effect.suspend(() => {
          if (!store.isUp() || now() - madeAt(id) < freshMs) return Effect.succeed(undefined)
          return Effect.map(store.get(id), (text) => {
            const run = text === undefined ? undefined : open(id, text)
            if (run !== undefined) counters.hits += 1
            else if (text === undefined) counters.misses += 1
            else counters.refused += 1
            return run
          })
        }),
      counters: () => ({ ...counters })
    }
  })

/** By the clock of its maker, ms since 1970. */
const madeAt = (id: RunId): number => parseInt(id.slice(0, 8) + id.slice(9, 13), 16)
