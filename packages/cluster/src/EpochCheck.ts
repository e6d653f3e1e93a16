/**
 * Finds owners that have been replaced and cannot notice: one that writes nothing meets no fence. Its shard was lost and
 * won back before this node looked, and meanwhile another owner has acted: it has taken the attempts over that this one
 * still counts as running, and workers report to nobody then; or it has stored runs, or schedules, that this one, with nothing
 * to do, will never hear of.
 *
 * Asked about are those that have written nothing since the last look: with attempts out, each time; at rest, each
 * `restingRounds`. One query for all.
 */
import type { StoreUnavailable } from "@orrery/core/Errors"
import { Duration, Effect, type Scope } from "effect"

/** Of a partition. */
export interface Owner {
  readonly partitionId: number
  readonly epoch: number
  readonly isOpen: boolean
  readonly hasAttemptsOut: boolean
  /** Commits begun: as long as it is the same, it has changed nothing in the store. */
  readonly commits: number
  /** The partition has an owner of a later epoch: what this one remembers is of the past. */
  readonly replaced: () => void
}

const interval = Duration.seconds(5)
/** As often as `Remember` looks for partitions with work: every 15 s. */
const restingRounds = 3

export const run = (
  store: {
    readonly epochs: (ids: ReadonlyArray<number>) => Effect.Effect<ReadonlyMap<number, number>, StoreUnavailable>
  },
  owners: () => Iterable<Owner>
): Effect.Effect<void, never, Scope.Scope> => {
  const commits = new WeakMap<Owner, number>()
  let rounds = 0
  const round = Effect.gen(function*() {
    rounds += 1
    const silent: Array<Owner> = []
    for (const owner of owners()) {
      const isTurn = owner.hasAttemptsOut || rounds % restingRounds === 0
      if (owner.isOpen && isTurn && commits.get(owner) === owner.commits) silent.push(owner)
      commits.set(owner, owner.commits)
    }
    if (silent.length === 0) return
    const epochs = yield* store.epochs(silent.map(({ partitionId }) => partitionId))
    for (const owner of silent) if (epochs.get(owner.partitionId) !== owner.epoch) owner.replaced()
  })
  // A database that does not answer will be asked again.
  return Effect.ignore(round).pipe(Effect.delay(interval), Effect.forever, Effect.forkScoped, Effect.asVoid)
}
