import { Queues } from "@orrery/core/Queues"
import { checkCall } from "@orrery/core/QueueSettings"
import { Effect } from "effect"
import type { Ask } from "./schedulesOf.js"

/** core's port over any node. All of it may be asked again. */
export const queuesOf = (ask: Ask): Queues["Type"] =>
  Queues.of({
    call: (call) =>
      Effect.suspend(() => {
        // What cannot be encoded is refused here, in words.
        const problem = checkCall(call)
        return problem === undefined
          ? ask(`queues ${call._tag}`, (client) => client.QueueCall({ call }))
          : Effect.fail(problem)
      }),
    get: ({ namespace, queue }) => ask("queues get", (client) => client.QueueGet({ namespace, queue })),
    list: (filter) => ask("queues list", (client) => client.QueueList({ filter }))
  })
