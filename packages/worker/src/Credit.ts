/**
 * How the slots of a worker are split among the nodes it is attached to.
 *
 * The sum over the nodes of what each may have running never exceeds the slots. So a node's share is lowered first;
 * what it has out at that moment still counts (its `ceiling`) until those attempts have ended; only then another one's
 * share is raised.
 */

/** A node as the split sees it. */
export interface Share {
  /** What the node was last told. */
  readonly credit: number
  /** Attempts of it that run here. */
  readonly running: number
  /** Runs wait there for more credit. */
  readonly hungry: boolean
  /** Leaving: takes no new attempts. */
  readonly leaving: boolean
}

/**
 * The share each node should have, in the order given.
 *
 * A satisfied node keeps what it uses and one more, at most an equal share; the hungry ones split the rest. Every
 * node has at least 1 while there are slots for that. When nobody or everybody is hungry: equal shares.
 */
export const targets = (slots: number, shares: ReadonlyArray<Share>): ReadonlyArray<number> => {
  const staying = shares.filter((share) => !share.leaving)
  const hungry = staying.filter((share) => share.hungry).length
  if (hungry === 0 || hungry === staying.length) {
    const takes = spread(slots, staying.length)
    return shares.map((share) => share.leaving ? 0 : takes())
  }
  const equal = Math.floor(slots / staying.length)
  const kept = shares.map((share) => share.leaving || share.hungry ? 0 : Math.min(equal, share.running + 1))
  const takes = spread(slots - kept.reduce((sum, each) => sum + each, 0), hungry)
  return shares.map((share, index) => share.leaving ? 0 : share.hungry ? takes() : kept[index]!)
}

/** Gives out `total` in `parts` almost equal parts, the larger ones first. */
const spread = (total: number, parts: number) => {
  let left = Math.max(0, total)
  let partsLeft = parts
  return (): number => {
    const part = Math.ceil(left / Math.max(1, partsLeft))
    left -= part
    partsLeft -= 1
    return part
  }
}
