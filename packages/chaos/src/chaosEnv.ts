/** What the harness tells the handlers in each process, by environment. */
export const variables = {
  folder: "ORRERY_CHAOS_HISTORY",
  name: "ORRERY_CHAOS_NAME",
  /** `node`, `worker`, or `newer`: which tasks it can run. */
  role: "ORRERY_CHAOS_ROLE",
  slots: "ORRERY_CHAOS_SLOTS",
  /** Clock of the database minus the monotonic clock, ms. */
  clockOffset: "ORRERY_CHAOS_CLOCK_OFFSET",
  /** Read by `preload.mjs`. */
  routes: "ORRERY_CHAOS_ROUTES",
  clockFile: "ORRERY_CHAOS_CLOCK"
} as const

export type Role = "node" | "worker" | "newer"
