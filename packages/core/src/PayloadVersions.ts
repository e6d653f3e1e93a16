/**
 * A payload that has changed: its schemas from the oldest one that is still read to the newest, and how the value of one becomes
 * that of the next. Each step is checked by the compiler.
 *
 *   Task.versions(V1).next(V2, (v1) => ({ ...v1, currency: "EUR" }))
 *
 * A run carries the version it was made with, in the name of its task: `charge` for version 1, `charge@2` and so on. So it waits
 * in a line of its own and goes only to workers that say they can read that version: all of their chain, and no newer one.
 * An older version that is not in the chain any more (`from`), and a newer one, waits for a worker that can read it, visibly.
 */
import { Data, type Schema } from "effect"
import { InvalidRequest } from "./Errors.js"
import { versionMax } from "./TaskName.js"

/** How to read one older version. */
export interface OlderVersion {
  readonly version: number
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- each step was checked against its neighbours when it was added
  readonly schema: Schema.Schema<any, any>
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- as above
  readonly upcast: (payload: any) => unknown
}

export class PayloadVersions<P, PI> {
  constructor(
    /** Of the newest schema: that of new runs. */
    readonly version: number,
    readonly schema: Schema.Schema<P, PI>,
    /** Oldest first; each leads to the one after it, the last to `schema`. */
    readonly older: ReadonlyArray<OlderVersion>
  ) {}

  /**
   * A newer version. `upcast` is pure; it runs for each attempt of a run that is older. What it throws, and a value that the
   * newest schema does not accept, fails the run as `undecodable`, without another try.
   */
  next<Q, QI>(schema: Schema.Schema<Q, QI>, upcast: (payload: P) => Q): PayloadVersions<Q, QI> {
    const older = { version: this.version, schema: this.schema, upcast }
    return new PayloadVersions(checked(this.version + 1), schema, [...this.older, older])
  }
}

/** The oldest version that is still read. `from`: its number, where those before it are read no more. Default 1. */
export const versions = <P, PI>(
  schema: Schema.Schema<P, PI>,
  options: { readonly from?: number } = {}
): PayloadVersions<P, PI> => new PayloadVersions(checked(options.from ?? 1), schema, [])

const checked = (version: number): number => {
  if (!Number.isInteger(version) || version < 1 || version > versionMax) {
    throw new InvalidRequest({ field: "version", limit: `1 to ${versionMax}`, actual: String(version) })
  }
  return version
}

/** A value of an older version could not be made one of the newest. */
export class UpcastFailed
  extends Data.TaggedError("UpcastFailed")<{ readonly version: number; readonly reason: string }>
{
  override get message() {
    return `a payload of version ${this.version} could not be brought to the newest: ${this.reason}`
  }
}

/** One schema is version 1. */
export const of = <P, PI>(payload: Schema.Schema<P, PI> | PayloadVersions<P, PI>): PayloadVersions<P, PI> =>
  payload instanceof PayloadVersions ? payload : new PayloadVersions(1, payload, [])
