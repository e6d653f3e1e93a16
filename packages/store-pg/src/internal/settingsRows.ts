/** Settings of a queue as they are stored. */
import { parseSettings, type QueueRecord, unset } from "@orrery/core/QueueSettings"

/** `s`: the row, all of it null where there is none; `name`: where namespace and queue come from. */
export const settingsColumns = (name = "s") =>
  `${name}.namespace, ${name}.queue, s.revision::float8 as revision, s.changed_at as "changedAt", `
  + `s.changed_by as "changedBy", s.settings`

export type SettingsRow = Pick<QueueRecord, "namespace" | "queue" | "changedAt" | "changedBy"> & {
  readonly revision: number | null
  readonly settings: string | null
}

export const recordOf = ({ revision, settings, ...row }: SettingsRow): QueueRecord =>
  revision === null || settings === null ? unset(row) : { ...row, revision, settings: parseSettings(settings) }
