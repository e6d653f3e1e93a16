/**
 * What a run asks of workers beyond a handler for its task: more than one slot, or a place among the runs of backfills. Nearly
 * all runs ask for neither; for them it is `undefined`, and nothing of this is looked at.
 */
export interface Need {
  /** Runs of one kind find a place at the same workers. Those that ask for nothing are of the kind of their task. */
  readonly kind: string
  readonly slots: number
  /** It fills a range of a schedule: such runs together have at most half of the slots. */
  readonly isBackfill: boolean
}

/** Most slots that one run may take of its worker. */
export const slotsPerRunMax = 1_000

/** `undefined`: nothing. */
export const makeNeed = (task: string, slots: number, isBackfill: boolean): Need | undefined =>
  slots === 1 && !isBackfill
    ? undefined
    // No name of a task has a space.
    : { kind: `${task} ${slots}${isBackfill ? " backfill" : ""}`, slots, isBackfill }

/** How much of so many slots, or permits, the runs of backfills may have together. One of them may always run. */
export const halfOf = (count: number): number => Math.max(1, Math.floor(count / 2))
