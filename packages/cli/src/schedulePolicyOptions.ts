/** The flags that say what a schedule does with late ticks, and beside a run that is still going. */
import { Options } from "@effect/cli"
import * as SchedulePolicy from "@orrery/core/schedule/SchedulePolicy"
import { refusalOf } from "@orrery/core/schedule/ScheduleSpec"
import { Either, Schema } from "effect"
import * as specOptions from "./scheduleSpecOptions.js"

const { standard } = SchedulePolicy

export const flags = {
  misfire: Options.choice("misfire", SchedulePolicy.Misfire.literals).pipe(
    Options.withDescription("For ticks found late. Default: fireOnce."),
    Options.withDefault(standard.misfire)
  ),
  catchupWindow: specOptions.durationMs("catchup-window").pipe(
    Options.withDescription("Later ticks are recorded as missed, whatever the policy. Default: \"1 day\"."),
    Options.withDefault(standard.catchupWindowMs)
  ),
  grace: specOptions.durationMs("grace").pipe(
    Options.withDescription("A tick that is no later than this is not late. Default: \"1 minute\"."),
    Options.withDefault(standard.graceMs)
  ),
  overlapPolicy: Options.choice("overlap-policy", SchedulePolicy.OverlapPolicy.literals).pipe(
    Options.withDescription("For ticks while a run of the schedule is going on. Default: skip."),
    Options.withDefault(standard.overlap)
  ),
  pauseOnFailure: Options.boolean("pause-on-failure").pipe(
    Options.withDescription("A run that fails for good pauses the schedule.")
  )
}

const decode = Schema.decodeUnknownEither(SchedulePolicy.SchedulePolicy)

/** Refusals name the field, the limit and what was given. */
export const policyOf = (parsed: {
  readonly misfire: SchedulePolicy.Misfire
  readonly catchupWindow: number
  readonly grace: number
  readonly overlapPolicy: SchedulePolicy.OverlapPolicy
  readonly pauseOnFailure: boolean
}) =>
  Either.mapLeft(
    decode({
      misfire: parsed.misfire,
      catchupWindowMs: parsed.catchupWindow,
      graceMs: parsed.grace,
      overlap: parsed.overlapPolicy,
      pauseOnFailure: parsed.pauseOnFailure
    }),
    refusalOf("policy")
  )
