import { runHistoryContract } from "@orrery/testing/runHistoryContract"
import * as TestStore from "@orrery/testing/TestStore"

runHistoryContract("postgres", TestStore.layer)
