import * as MemoryStore from "@orrery/core/MemoryStore"
import * as MemoryScheduleStore from "@orrery/core/schedule/MemoryScheduleStore"
import { scheduleStoreContract } from "@orrery/testing/scheduleStoreContract"
import { Layer } from "effect"

scheduleStoreContract("memory", Layer.provideMerge(MemoryScheduleStore.layer, MemoryStore.layer))
