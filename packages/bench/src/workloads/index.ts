/** Every workload, in the order in which they are measured. */
import type { Workload } from "../Workload.js"
import { w14, w9 } from "./features.js"
import { scale } from "./scale.js"
import { w1 } from "./w1.js"
import { w10 } from "./w10.js"
import { w11 } from "./w11.js"
import { w12 } from "./w12.js"
import { w13 } from "./w13.js"
import { w2 } from "./w2.js"
import { w3 } from "./w3.js"
import { w4 } from "./w4.js"
import { w5 } from "./w5.js"
import { w6 } from "./w6.js"
import { w7 } from "./w7.js"
import { w8 } from "./w8.js"

export const workloads: ReadonlyArray<Workload> = [w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11, w12, w13, w14, scale]

/** What `--quick` measures when no workload is named. */
export const quickWorkloads: ReadonlyArray<string> = ["W1", "W2", "W3", "W5"]

/** What is measured when no workload is named: all that compare. */
export const usualWorkloads: ReadonlyArray<string> = workloads.map(({ id }) => id).filter((id) => id !== scale.id)
