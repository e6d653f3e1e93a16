/**
 * Where ends of runs are kept for a short while, for those who await them where the owner is not. Texts, by run: what they say
 * is the matter of `EndCache`, which believes none that it has not made. The store is the truth: a text may be lost, evicted,
 * old or forged.
 */
import { Context, Effect } from "effect"
import type { RunId } from "./RunId.js"

/** A longer text is not kept, and of one that is there no more is read. Bytes. */
export const entryBytesMax = 64 * 1024

export interface EndStoreService {
  /** Kept for `ttlMs`, unless it is lost before. At most `entryBytesMax`. Never waits, never throws; may be given up. */
  readonly put: (id: RunId, text: string, ttlMs: number) => void
  /** `undefined`: not there, or not within about 100 ms, or nobody to ask. Never fails. */
  readonly get: (id: RunId) => Effect.Effect<string | undefined>
  /** False: there is nobody to ask at this moment. */
  readonly isUp: () => boolean
}

export const none: EndStoreService = {
  put: () => undefined,
  get: () => Effect.succeed(undefined),
  isUp: () => false
}

/** PORT. Adapters pass `endStoreContract` in @orrery/testing. Where none is given every end is read from the rows. */
export class EndStore extends Context.Reference<EndStore>()("@orrery/core/EndStore", {
  defaultValue: (): EndStoreService => none
}) {}
