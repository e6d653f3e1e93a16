/** Hints that the inbox has rows: one message for all that gather while the one before is under way. Lost ones are not missed. */
import { Effect, FiberSet, type Scope } from "effect"
import type { Runs } from "@orrery/core/Runs"
import type { Client, NodeConnection } from "./NodeConnection.js"
import { nudgesMax } from "./NodeRpcs.js"

/** One message may take. */
const nudgeWithin = "2 seconds"

interface Queue {
  readonly namespace: string
  readonly queue: string
}

export const make = (
  once: (use: (connection: NodeConnection) => Effect.Effect<void, unknown>) => Effect.Effect<void, unknown>
): Effect.Effect<NonNullable<Runs["Type"]["nudge"]>, never, Scope.Scope> =>
  Effect.map(FiberSet.makeRuntime<never, void, never>(), (fork) => {
    const waiting = new Map<string, Queue>()
    let isSending = false
    const send = Effect.suspend(() => {
      const partitions = [...waiting.values()].slice(0, nudgesMax).map((each) => ({ ...each, partition: 0 }))
      waiting.clear()
      const call = (client: Client) => client.Nudge({ partitions, forwarded: false })
      return Effect.ignore(once((connection) => connection.call("nudge", call, nudgeWithin)))
    })
    const sendAll = Effect.whileLoop({
      while: () => (isSending = waiting.size > 0),
      body: () => send,
      step: () => undefined
    })
    return (queues) =>
      Effect.sync(() => {
        for (const { namespace, queue } of queues) waiting.set(`${namespace}|${queue}`, { namespace, queue })
        if (isSending) return
        isSending = true
        fork(sendAll)
      })
  })
