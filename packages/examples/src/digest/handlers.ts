/** What `--handlers` of nodes and workers points to. */
import { Effect } from "effect"
import { digestOf } from "./files.js"
import { digestFile, FileUnreadable } from "./task.js"

export default digestFile.toLayer(({ path }) =>
  Effect.tryPromise({
    try: () => digestOf(path),
    catch: (cause) => new FileUnreadable({ path, reason: cause instanceof Error ? cause.message : String(cause) })
  })
)
