import type { LimitStore } from "@orrery/core/LimitStore"
import { Context } from "effect"

/** Limits that span queues, kept by the cluster itself. Who keeps one is found anew with each question. */
export class ClusterLimits extends Context.Tag("@orrery/cluster/ClusterLimits")<ClusterLimits, LimitStore["Type"]>() {}
