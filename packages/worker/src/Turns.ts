/**
 * A run may take more slots at once than the share of its node. Such nodes have turns: in its turn a node's share is as large
 * as the run, and the others split the rest. A turn lasts until a run of that kind has begun there, or for `turnMs` with so
 * many slots free; then the others have as long a time of ordinary shares. Where no other node is hungry it lasts as long as
 * it is wanted.
 *
 * So with n nodes whose runs need turns, each has one after at most n - 1 others, and each of those takes no longer than the
 * attempts that ran when it began, and twice `turnMs`.
 */
import { type Share, targets } from "./Credit.js"

/** How long a node may leave what it has been given unused, ms. */
export const turnMs = 500

/** A node as turns see it. */
export interface Player extends Share {
  /** Most slots that one of the runs takes which wait there. */
  readonly need: number
  /** Monotonic, ms: when a run of more than one slot began last. */
  readonly largeAt: number
}

export interface Turns<Key> {
  /** Whose turn it is. */
  holder: Key | undefined
  /** Monotonic, ms: when its turn began. */
  since: number
  /** Monotonic, ms: since when it has had as many slots free as it needs; `undefined`: it has not yet. */
  freeSince: number | undefined
  /** Monotonic, ms: until when nobody has a turn. */
  restUntil: number
  /** When each had its last turn. */
  readonly last: WeakMap<WeakKey, number>
}

export const make = <Key>(): Turns<Key> => ({
  holder: undefined,
  since: 0,
  freeSince: undefined,
  restUntil: -Infinity,
  last: new WeakMap()
})

/** The shares of the nodes, and when to look again though nothing has happened, ms; `undefined`: never. */
export const share = <Key extends WeakKey>(
  turns: Turns<Key>,
  slots: number,
  players: ReadonlyArray<readonly [Key, Player]>,
  now: number
): { readonly wanted: ReadonlyArray<number>; readonly againMs: number | undefined } => {
  const shares = players.map(([, player]) => player)
  const usual = targets(slots, shares)
  const isShort = (at: number): boolean => {
    const { hungry, leaving, need } = shares[at]!
    return hungry && !leaving && need > usual[at]! && need <= slots
  }
  const isOthersTurn = (at: number): boolean =>
    shares.some(({ hungry, leaving }, other) => other !== at && hungry && !leaving)
  let at = turns.holder === undefined ? -1 : players.findIndex(([key]) => key === turns.holder)
  if (at >= 0 && !isShort(at)) at = -1
  else if (at >= 0 && isOthersTurn(at) && isOver(turns, shares[at]!, now)) {
    turns.restUntil = now + turnMs
    at = -1
  }
  if (at < 0) {
    turns.holder = undefined
    if (now >= turns.restUntil) at = longestWaiting(turns, players, isShort)
    if (at < 0) return { wanted: usual, againMs: now < turns.restUntil ? turns.restUntil - now : undefined }
    const [key] = players[at]!
    Object.assign(turns, { holder: key, since: now, freeSince: undefined })
    turns.last.set(key, now)
  }
  const holder = shares[at]!
  const isFree = holder.credit - holder.running >= holder.need
  turns.freeSince = isFree ? turns.freeSince ?? now : undefined
  const rest = targets(
    slots - holder.need,
    shares.map((each, other) => other === at ? { ...each, leaving: true } : each)
  )
  return {
    wanted: rest.map((each, other) => other === at ? holder.need : each),
    againMs: isOthersTurn(at) ? turnMs : undefined
  }
}

const isOver = <Key>({ freeSince, since }: Turns<Key>, { largeAt }: Player, now: number): boolean =>
  largeAt >= since || (freeSince !== undefined && now - freeSince >= turnMs)

const longestWaiting = <Key extends WeakKey>(
  { last }: Turns<Key>,
  players: ReadonlyArray<readonly [Key, Player]>,
  isShort: (at: number) => boolean
): number => {
  const lastOf = (at: number): number => last.get(players[at]![0]) ?? -Infinity
  let best = -1
  for (let at = 0; at < players.length; at++) if (isShort(at) && (best < 0 || lastOf(at) < lastOf(best))) best = at
  return best
}
