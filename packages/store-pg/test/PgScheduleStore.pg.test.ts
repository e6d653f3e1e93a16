import * as PgScheduleStore from "@orrery/store-pg/PgScheduleStore"
import { scheduleStoreContract } from "@orrery/testing/scheduleStoreContract"
import * as TestStore from "@orrery/testing/TestStore"
import { Layer } from "effect"

scheduleStoreContract("postgres", Layer.provideMerge(PgScheduleStore.layer, TestStore.layer))
