/**
 * From times on the wall to instants, where clocks are set.
 *
 * Set forward, some wall times do not happen (a gap): `skip` leaves them out, `shiftForward` moves each by the length of
 * the gap, as if the clocks had not been set yet (02:30 becomes 03:30). Set back, some happen twice (an overlap): `first`,
 * `last` or `both` say at which. The fires of a schedule are a set of instants: a moved one that coincides with another is
 * one fire.
 */
import { Schema } from "effect"
import { dayMs } from "./DaySet.js"
import * as WallTimes from "./WallTimes.js"
import type { Transition, ZoneOffsets } from "./ZoneOffsets.js"

export const Gap = Schema.Literal("skip", "shiftForward")
export type Gap = typeof Gap.Type
export const Overlap = Schema.Literal("first", "last", "both")
export type Overlap = typeof Overlap.Type

export interface ClockChanges {
  readonly gap: Gap
  readonly overlap: Overlap
}

/** No clock has been set by more: islands that crossed the date line. */
const changeMsMax = dayMs

const isGap = (change: Transition): boolean => change.after > change.before

/** The first instant after `after`, in ms; `undefined` when there is none up to the year 2499. */
export const nextInstant = (
  times: WallTimes.WallTimes,
  zone: ZoneOffsets,
  { gap, overlap }: ClockChanges,
  after: number
): number | undefined => {
  // Far from any change, as nearly always.
  const stretch = zone.stretchAt(after)
  if (after >= stretch.from + changeMsMax) {
    const wall = WallTimes.next(times, after + 1 + stretch.offset)
    if (wall !== undefined && wall - stretch.offset + changeMsMax < stretch.until) return wall - stretch.offset
  }
  return nearChanges(times, zone, { gap, overlap }, after)
}

const nearChanges = (
  times: WallTimes.WallTimes,
  zone: ZoneOffsets,
  { gap, overlap }: ClockChanges,
  after: number
): number | undefined => {
  /** Among the wall times that a gap swallowed, the first whose moved instant is still to come. */
  const movedFrom = (change: Transition): number | undefined => {
    if (gap === "skip" || !isGap(change)) return undefined
    const wall = WallTimes.next(times, Math.max(change.at, after + 1) + change.before)
    return wall !== undefined && wall < change.at + change.after ? wall - change.before : undefined
  }
  /** Where the wall begins to count after a change. */
  const wallFrom = (change: Transition): number =>
    change.at + (overlap === "first" && !isGap(change) ? change.before : change.after)

  const last = zone.lastTransition(after - changeMsMax, after)
  let moved = last === undefined ? undefined : movedFrom(last)
  let offset = zone.offsetAt(after)
  let wall = after + 1 + offset
  if (last !== undefined) wall = Math.max(wall, wallFrom(last))

  // One stretch between two changes after the other; usually the first has it.
  for (let at = after;;) {
    const found = WallTimes.next(times, wall)
    const near = at + 2 * changeMsMax
    const there = found === undefined ? at : found - offset
    if (there > near + 2 * changeMsMax && moved === undefined && zone.nextTransition(at, near) === undefined) {
      // Nothing matches until shortly before: the changes on the way do not matter. Two days, since the offset of there may
      // differ from that of here by 25 hours, as in Apia.
      at = there - 2 * changeMsMax
      offset = zone.offsetAt(at)
      wall = at + offset
      continue
    }
    const change = zone.nextTransition(at, there + changeMsMax)
    const wallEnd = change === undefined
      ? Number.POSITIVE_INFINITY
      : change.at + (overlap === "last" && !isGap(change) ? change.after : change.before)
    if (found !== undefined && found < wallEnd) return Math.min(found - offset, moved ?? Number.POSITIVE_INFINITY)
    if (change === undefined || (moved !== undefined && moved < change.at)) return moved
    moved = moved ?? movedFrom(change)
    at = change.at
    offset = change.after
    wall = wallFrom(change)
  }
}
