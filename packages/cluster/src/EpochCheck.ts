/**
 * Finds actors that have been replaced and cannot notice: one that writes nothing meets no fence. Its shard was lost and
 * won back before this node looked, and meanwhile another owner has acted: it has taken the attempts over that this one
 * still counts as running, and workers report to nobody then; or it has stored runs that this one, with nothing to do,
 * will never hear of.
 *
 * Asked about are those that have written nothing since the last look: with attempts out, each time; at rest, each
 * `restingRounds`. One query for all.
 */
import type { PartitionStore } from "@orrery/core/PartitionStore"
import { Duration, Effect, type Scope } from "effect"
import type { QueueActor } from "./QueueActor.js"

const interval = Duration.seconds(5)
/** As often as `Remember` looks for partitions with work: every 15 s. */
const restingRounds = 3

export const run = (
  store: PartitionStore["Type"],
  actors: () => Iterable<QueueActor>
): Effect.Effect<void, never, Scope.Scope> => {
  const commits = new WeakMap<QueueActor, number>()
  let rounds = 0
  const round = Effect.gen(function*() {
    rounds += 1
    const silent: Array<QueueActor> = []
    for (const actor of actors()) {
      const isTurn = actor.machine.runningCount > 0 || rounds % restingRounds === 0
      if (actor.isOpen && isTurn && commits.get(actor) === actor.commits) silent.push(actor)
      commits.set(actor, actor.commits)
    }
    if (silent.length === 0) return
    const epochs = yield* store.epochs(silent.map(({ partitionId }) => partitionId))
    for (const actor of silent) if (epochs.get(actor.partitionId) !== actor.epoch) actor.replaced()
  })
  // A database that does not answer will be asked again.
  return Effect.ignore(round).pipe(Effect.delay(interval), Effect.forever, Effect.forkScoped, Effect.asVoid)
}
