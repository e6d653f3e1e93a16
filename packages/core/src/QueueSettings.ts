/** What can be set for a queue while it runs. Stored with a revision; the owner of each partition obeys the newest it knows. */
export interface QueueSettings {
  /** Nothing new is started. */
  readonly isPaused?: boolean
  /** Runs of these keys are not started: `order|key`, `tenant|key`, or `name|key` of a concurrency key. */
  readonly pausedKeys?: ReadonlySet<string>
  /** Attempts at once, over the whole partition. */
  readonly concurrency?: number
  /** Starts over time, over the whole partition. */
  readonly rate?: { readonly limit: number; readonly perMs: number; readonly algorithm?: "bucket" | "window" }
  /** By name of a concurrency key: the limit of each of its keys, in place of the declared one. */
  readonly limits?: { readonly [name: string]: number }
}
