import { limitStoreContract } from "@orrery/testing/limitStoreContract"
import * as MemoryLimitStore from "../src/MemoryLimitStore.js"

limitStoreContract("memory", MemoryLimitStore.layer, "granted")
