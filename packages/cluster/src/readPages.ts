/** Reads what a queue actor asks for of its waiting runs: pages of several lines, or one of the runs that wait for their time. */
import type { Load } from "@orrery/core/Entry"
import type { StoreUnavailable } from "@orrery/core/Errors"
import type { Page } from "@orrery/core/PartitionStore"
import { Duration, Effect, Exit } from "effect"
import type { ActorHost } from "./ActorHost.js"

/** Of one line, at least, in bytes of payload. */
const lineBytesMin = 64 * 1024
/** Pause after a page could not be read. */
const pause = Duration.millis(200)

/** One page for each load, in order. */
export const readPages = (
  { store, windowBytesMax }: Pick<ActorHost, "store" | "windowBytesMax">,
  partitionId: number,
  loads: ReadonlyArray<Load>
): Effect.Effect<Exit.Exit<ReadonlyArray<Page>, StoreUnavailable>> => {
  const bytesMax = Math.max(lineBytesMin, Math.floor(windowBytesMax / loads.length))
  const pages = loads.map(({ afterKey, afterSeq, limit, line = "" }) => (
    { partitionId, afterKey, afterSeq, limit, bytesMax, line }
  ))
  const read = loads[0]!.line === undefined
    ? Effect.map(store.readTimers(pages[0]!), (page) => [page])
    : store.readLines(pages)
  return Effect.exit(read).pipe(
    Effect.tap((exit) => (Exit.isFailure(exit) ? Effect.sleep(pause) : Effect.void))
  )
}
