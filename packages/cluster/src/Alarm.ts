/** One timer by the database clock. The only place that sets timers outside of fibers: an actor re-arms it often. */
import type { DatabaseClock } from "./DatabaseClock.js"

/** Longest single wait of a timer, ms: it is set again then. Bounds the effect of clock steps. */
const waitMsMax = 60_000

export const makeAlarm = (clock: DatabaseClock, ring: () => void) => {
  let timer: NodeJS.Timeout | undefined
  let setFor = Infinity
  const stop = () => {
    clearTimeout(timer)
    timer = undefined
    setFor = Infinity
  }
  const set = (at: number): void => {
    if (at === setFor) return
    stop()
    if (at === Infinity) return
    setFor = at
    // A timer may fire up to a millisecond before its time: round up, so that what is due then is due.
    const wait = Math.max(0, Math.ceil(at - clock.now()) + 1)
    timer = setTimeout(() => {
      setFor = Infinity
      if (wait > waitMsMax) set(at)
      else ring()
    }, Math.min(waitMsMax, wait))
  }
  return { set, stop }
}
