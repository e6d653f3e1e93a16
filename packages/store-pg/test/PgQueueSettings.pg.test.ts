import { queueSettingsContract } from "@orrery/testing/queueSettingsContract"
import * as TestStore from "@orrery/testing/TestStore"

queueSettingsContract("postgres", TestStore.layer)
