/**
 * Finds settings of queues that their owners have not been told of: the word of a change may be lost. With a take-over, which
 * reads them, this is what makes a change hold; being told makes it hold at once.
 *
 * Asked about are queues that have work, each time; those at rest each `restingRounds`. One query for all, none for a node
 * without actors.
 */
import type { PartitionStore } from "@orrery/core/PartitionStore"
import type { QueueRecord } from "@orrery/core/QueueSettings"
import { Duration, Effect, type Scope } from "effect"
import type { QueueActor } from "./QueueActor.js"

const interval = Duration.seconds(5)
const restingRounds = 3

export const run = (
  store: PartitionStore["Type"],
  actors: () => Iterable<QueueActor>
): Effect.Effect<void, never, Scope.Scope> => {
  let rounds = 0
  const round = Effect.gen(function*() {
    rounds += 1
    const asked = [...actors()].filter((actor) => actor.isOpen && (!actor.isIdle || rounds % restingRounds === 0))
    if (asked.length === 0) return
    const known = asked.map(({ name, settingsRevision }) => ({
      namespace: name.namespace,
      queue: name.queue,
      revision: settingsRevision
    }))
    const newer = yield* store.newerSettings(known)
    for (const record of newer) apply(asked, record)
  })
  // A database that does not answer will be asked again.
  return Effect.ignore(round).pipe(Effect.delay(interval), Effect.forever, Effect.forkScoped, Effect.asVoid)
}

/** To those that own partitions of its queue. */
export const apply = (actors: Iterable<QueueActor>, record: QueueRecord): void => {
  for (const actor of actors) {
    const { namespace, queue } = actor.name
    if (queue === record.queue && namespace === record.namespace) actor.configure(record)
  }
}
