import { identityContract } from "@orrery/testing/identityContract"
import { partitionStoreContract } from "@orrery/testing/partitionStoreContract"
import * as TestStore from "@orrery/testing/TestStore"

partitionStoreContract("postgres", TestStore.layer)
identityContract("postgres", TestStore.layer)
