import { Data } from "effect"

/**
 * The embedded server could not be started, stopped or used. `detail` says what happened and what to do: this error
 * is read by a person at a terminal, before there is a cluster to look at.
 */
export class EmbeddedPostgresFailed extends Data.TaggedError("EmbeddedPostgresFailed")<{
  readonly reason: "NoBinaries" | "NoSpace" | "PortTaken" | "NotPermitted" | "InUse" | "Unusable" | "StartFailed"
  readonly dataDir: string
  readonly detail: string
  readonly cause?: unknown
}> {
  override get message() {
    return `embedded PostgreSQL in ${this.dataDir}: ${this.detail}`
  }
}

const codeOf = (cause: unknown): string =>
  typeof cause === "object" && cause !== null && "code" in cause ? String(cause.code) : ""

/** Names a failure of the file system. */
export const fileFailure = (dataDir: string, doing: string) => (cause: unknown) => {
  const code = codeOf(cause)
  if (code === "ENOSPC") {
    return new EmbeddedPostgresFailed({
      reason: "NoSpace",
      dataDir,
      detail: `${doing}: the disk is full; free some space`,
      cause
    })
  }
  if (code === "EACCES" || code === "EPERM" || code === "EROFS") {
    const detail = `${doing}: not permitted (${code}); choose a folder this user may write`
    return new EmbeddedPostgresFailed({ reason: "NotPermitted", dataDir, detail, cause })
  }
  return new EmbeddedPostgresFailed({ reason: "StartFailed", dataDir, detail: `${doing}: ${String(cause)}`, cause })
}

/** Names a failure by what initdb or the server wrote before it ended. */
export const outputFailure = (dataDir: string, doing: string, output: string) => {
  const tail = output.trim().split("\n").slice(-12).join("\n")
  const known: ReadonlyArray<readonly [RegExp, EmbeddedPostgresFailed["reason"], string]> = [
    [/No space left on device/, "NoSpace", "the disk is full; free some space"],
    [/Address already in use/, "PortTaken", "the port is taken; choose another one or leave it out"],
    [
      /Permission denied|has wrong ownership|Operation not permitted/,
      "NotPermitted",
      "not permitted; the folder must belong to the user that runs the server"
    ],
    [
      /incompatible with server/,
      "Unusable",
      "written by another PostgreSQL version; dump it with that one, or delete it"
    ],
    [
      /invalid primary checkpoint|could not locate a valid checkpoint|pg_control/,
      "Unusable",
      "the data is damaged; restore a backup, or delete the folder"
    ]
  ]
  const match = known.find(([pattern]) => pattern.test(tail))
  return new EmbeddedPostgresFailed({
    reason: match?.[1] ?? "StartFailed",
    dataDir,
    detail: `${doing}: ${match?.[2] ?? "failed"}\n${tail}`
  })
}
