import { partitionStoreContract } from "@orrery/testing/partitionStoreContract"
import * as TestStore from "@orrery/testing/TestStore"

partitionStoreContract("postgres", TestStore.layer)
