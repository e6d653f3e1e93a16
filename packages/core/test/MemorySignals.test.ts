import { signalsContract } from "@orrery/testing/signalsContract"
import * as MemorySignals from "../src/MemorySignals.js"

signalsContract("memory", MemorySignals.layer)
