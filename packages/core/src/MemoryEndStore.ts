/** Ends within one process. Bounded: `bytesMax` of text; the oldest go first. */
import { Effect, Layer } from "effect"
import { EndStore, type EndStoreService, entryBytesMax } from "./EndStore.js"
import type { RunId } from "./RunId.js"

const bytesMaxDefault = 16 * 1024 * 1024

interface Kept {
  readonly text: string
  readonly bytes: number
  readonly until: number
}

export const make = (bytesMax = bytesMaxDefault): Effect.Effect<EndStoreService> =>
  Effect.map(Effect.clock, (clock) => {
    const kept = new Map<RunId, Kept>()
    let held = 0
    const now = () => clock.unsafeCurrentTimeMillis()
    const drop = (id: RunId): void => {
      const found = kept.get(id)
      if (found === undefined) return
      kept.delete(id)
      held -= found.bytes
    }
    return {
      put: (id, text, ttlMs) => {
        const bytes = Buffer.byteLength(text)
        if (bytes > entryBytesMax) return
        drop(id)
        kept.set(id, { text, bytes, until: now() + ttlMs })
        held += bytes
        for (const [oldest, { until }] of kept) {
          if (held <= bytesMax && until > now()) break
          drop(oldest)
        }
      },
      get: (id) =>
        Effect.sync(() => {
          const found = kept.get(id)
          if (found !== undefined && found.until <= now()) drop(id)
          return kept.get(id)?.text
        }),
      isUp: () => true
    }
  })

export const layer: Layer.Layer<EndStore> = Layer.effect(EndStore, make())
