import { Queues } from "@orrery/core/Queues"
import type { Ask } from "./schedulesOf.js"

/** core's port over any node. All of it may be asked again. */
export const queuesOf = (ask: Ask): Queues["Type"] =>
  Queues.of({
    call: (call) => ask(`queues ${call._tag}`, (client) => client.QueueCall({ call })),
    get: ({ namespace, queue }) => ask("queues get", (client) => client.QueueGet({ namespace, queue })),
    list: (filter) => ask("queues list", (client) => client.QueueList({ filter }))
  })
