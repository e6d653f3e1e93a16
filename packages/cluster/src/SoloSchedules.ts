/** Schedules in one process that is the whole cluster: all their actors live here. As durable as the store it is given. */
import type { Runs } from "@orrery/core/Runs"
import { idOf } from "@orrery/core/schedule/ScheduleDefinition"
import { Schedules } from "@orrery/core/schedule/Schedules"
import { partitionCount, partitionOf, ScheduleStore } from "@orrery/core/schedule/ScheduleStore"
import { Effect, Layer } from "effect"
import { randomUUID } from "node:crypto"
import * as ScheduleResidents from "./ScheduleResidents.js"

export interface SoloScheduleOptions {
  /** Milliseconds that only grow. Default: the process's; tests give their own clock. */
  readonly monotonic?: () => number
}

export const layer = (
  options: SoloScheduleOptions = {}
): Layer.Layer<Schedules, never, ScheduleStore | Runs> =>
  Layer.scoped(
    Schedules,
    Effect.gen(function*() {
      const store = yield* ScheduleStore
      const monotonic = options.monotonic ?? (() => performance.now())
      const residents = yield* ScheduleResidents.make({ nodeId: randomUUID(), mayAct: () => true, monotonic })
      for (let partition = 0; partition < partitionCount; partition++) yield* residents.host(partition, () => true)
      yield* ScheduleResidents.pruning(store)
      return Schedules.of({
        ...ScheduleResidents.reading(store),
        call: (call) => residents.call(partitionOf("definition" in call ? idOf(call.definition) : call.id), call)
      })
    })
  )
