/** All scenarios, in the order in which they are played. */
import type { Scenario } from "../Scenario.js"
import * as nodes from "./nodes.js"

export const scenarios: ReadonlyArray<Scenario> = [nodes.killNode]
