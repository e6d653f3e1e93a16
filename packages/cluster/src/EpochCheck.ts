/**
 * Finds actors that have been replaced and cannot notice: one that writes nothing meets no fence. Its shard was lost and
 * won back before this node looked, and meanwhile another owner has taken the attempts over that it still counts as
 * running; the workers report to nobody then.
 *
 * Only those are asked about that have attempts out and have written nothing since the last look: a node without such has
 * no query.
 */
import type { PartitionStore } from "@orrery/core/PartitionStore"
import { Duration, Effect, type Scope } from "effect"
import type { QueueActor } from "./QueueActor.js"

const interval = Duration.seconds(5)

export const run = (
  store: PartitionStore["Type"],
  actors: () => Iterable<QueueActor>
): Effect.Effect<void, never, Scope.Scope> => {
  const commits = new WeakMap<QueueActor, number>()
  const round = Effect.gen(function*() {
    const silent: Array<QueueActor> = []
    for (const actor of actors()) {
      if (actor.isOpen && actor.machine.runningCount > 0 && commits.get(actor) === actor.commits) silent.push(actor)
      commits.set(actor, actor.commits)
    }
    if (silent.length === 0) return
    const epochs = yield* store.epochs(silent.map(({ partitionId }) => partitionId))
    for (const actor of silent) if (epochs.get(actor.partitionId) !== actor.epoch) actor.replaced()
  })
  // A database that does not answer will be asked again.
  return Effect.ignore(round).pipe(Effect.delay(interval), Effect.forever, Effect.forkScoped, Effect.asVoid)
}
