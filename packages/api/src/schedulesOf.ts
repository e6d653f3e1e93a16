import { Schedules } from "@orrery/core/schedule/Schedules"
import type { Effect } from "effect"
import type { CallError, Client } from "./NodeConnection.js"

/** Repeats a call on other nodes while the cluster is unavailable. */
export type Ask = <A, E>(
  operation: string,
  use: (client: Client) => Effect.Effect<A, E>
) => Effect.Effect<A, CallError<E>>

/** core's port over any node. All of it may be asked again. */
export const schedulesOf = (ask: Ask): Schedules["Type"] =>
  Schedules.of({
    call: (call) => ask(`schedules ${call._tag}`, (client) => client.ScheduleCall({ call })),
    get: (id) => ask("schedules get", (client) => client.ScheduleGet({ id })),
    list: (filter) => ask("schedules list", (client) => client.ScheduleList({ filter })),
    ticks: (id, limit) => ask("schedules ticks", (client) => client.ScheduleTicks({ id, limit }))
  })
