/** A change of a waiting run, by the words of its task. */
import { type Duration, Effect } from "effect"
import { whenOf } from "./EnqueueTerms.js"
import { InvalidRequest, PayloadInvalid } from "./Errors.js"
import type { RunEdit } from "./RunEdit.js"

/** What is left out stays. */
export interface EditOptions<P> {
  /** Written in the newest version of the task, whatever version the run had. Keys that were made of the old one stay. */
  readonly payload?: P
  /** 0 most urgent, 9 least. */
  readonly priority?: number
  /** From now, by the database clock. */
  readonly delay?: Duration.DurationInput
  /** An instant, by the database clock. Not together with `delay`. */
  readonly at?: Date
}

/** What of a task is needed here. */
interface Edits<P> {
  readonly name: string
  readonly version: number
  readonly encodePayload: (payload: P) => Effect.Effect<string, { readonly message: string }>
}

/** The change without sending it. */
export const editOf = <P>(
  { encodePayload, name, version }: Edits<P>,
  { at, delay, payload, priority }: EditOptions<P>
): Effect.Effect<RunEdit, PayloadInvalid | InvalidRequest> => {
  const when = at === undefined && delay === undefined ? undefined : whenOf({ at, delay })
  if (when instanceof InvalidRequest) return when
  const rest = {
    task: name,
    ...priority === undefined ? {} : { priority },
    ...when === undefined ? {} : { when }
  }
  return payload === undefined ? Effect.succeed(rest) : Effect.mapBoth(encodePayload(payload), {
    onFailure: ({ message }) => new PayloadInvalid({ task: name, issue: message }),
    onSuccess: (text) => ({ ...rest, payload: text, version })
  })
}
