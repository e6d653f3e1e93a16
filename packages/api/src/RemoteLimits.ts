/**
 * Limits as the nodes of a cluster keep them, for the handlers of processes that are none: each question goes to the node at hand,
 * and from there to whoever keeps the limit. Handlers ask for many uses at a time, so these are few.
 */
import * as LimitAsk from "@orrery/core/LimitAsk"
import { type LimitStore, LimitsUnavailable } from "@orrery/core/LimitStore"
import { Effect } from "effect"
import type { LiveNode } from "./LiveNode.js"
import { isUnknownCall } from "./NodeConnection.js"

/** Until a node has answered, also where there is none to ask at first. */
const askTimeout = "2 seconds"

export const make = (live: LiveNode): LimitStore["Type"] =>
  LimitAsk.over((ask) => {
    const unavailable = (reason: string) => new LimitsUnavailable({ operation: ask._tag, reason })
    return live.connection.pipe(
      Effect.flatMap((connection) => connection.call("AskLimit", (client) => client.AskLimit({ ask }), askTimeout)),
      Effect.catchTag("ClusterUnavailable", (error) =>
        unavailable(isUnknownCall(error) ? "the node is of a release that cannot be asked" : error.reason)),
      // Also where a handler gives its permit back while it is interrupted: it must not wait for ever.
      Effect.interruptible,
      Effect.timeoutFail({
        duration: askTimeout,
        onTimeout: () =>
          unavailable("no node answers")
      })
    )
  })
