/** `orrery schedules`; here what needs no database: what a schedule would do. */
import { Command, Options } from "@effect/cli"
import * as NextFire from "@orrery/core/schedule/NextFire"
import { type Line, simulateSchedule } from "@orrery/core/schedule/simulateSchedule"
import type { ZoneOffsets } from "@orrery/core/schedule/ZoneOffsets"
import { InvalidRequest } from "@orrery/core/Errors"
import { Clock, Console, Effect, Option, Schema } from "effect"
import * as options from "./options.js"
import * as policyOptions from "./schedulePolicyOptions.js"
import { commands } from "./scheduleCommands.js"
import * as specOptions from "./scheduleSpecOptions.js"

const previewCountMax = 10_000
const previewCountDefault = 10
const weekdays = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]

const iso = (ms: number): string => new Date(ms).toISOString()

/** `Sun 2026-03-08 03:30:00 -04:00`: what the clock on the wall shows. */
const wallOf = (zone: ZoneOffsets, ms: number): string => {
  const offset = zone.offsetAt(ms)
  const wall = new Date(ms + offset)
  const minutes = Math.abs(offset) / 60_000
  const pad = (value: number) => `${Math.floor(value)}`.padStart(2, "0")
  const sign = offset < 0 ? "-" : "+"
  return `${weekdays[wall.getUTCDay()]} ${wall.toISOString().slice(0, 19).replace("T", " ")} ${sign}${
    pad(minutes / 60)
  }:${pad(minutes % 60)}`
}

const preview = Command.make(
  "preview",
  {
    ...specOptions.flags,
    from: specOptions.instant("from").pipe(
      Options.withDescription("Fires after this instant, not at it. Default: now."),
      Options.optional
    ),
    count: Options.integer("count").pipe(
      Options.withSchema(Schema.Int.pipe(Schema.between(1, previewCountMax))),
      Options.withDescription(
        `How many, 1 to ${previewCountMax}. Fewer are printed when there are no more. Default: 10.`
      ),
      Options.withDefault(previewCountDefault)
    ),
    json: Options.boolean("json").pipe(Options.withDescription("Print one JSON array of UTC instants."))
  },
  (flags) =>
    Effect.gen(function*() {
      const fires = yield* specOptions.compiled(flags)
      const from = Option.isSome(flags.from) ? flags.from.value : yield* Clock.currentTimeMillis
      const found = NextFire.preview(fires, from, flags.count)
      yield* Console.log(
        flags.json
          ? JSON.stringify(found.map(iso))
          : [
            `${"UTC".padEnd(24)}  ${fires.zone.name}`,
            ...found.map((ms) => `${iso(ms)}  ${wallOf(fires.zone, ms)}`)
          ].join("\n")
      )
    })
).pipe(
  Command.withDescription(
    "The next instants at which a schedule would fire. Needs neither database nor cluster. Code 1 when it is refused."
  )
)

const cells = (line: Line): ReadonlyArray<string> => [
  `${iso(line.nominal)}${line.count > 1 ? ` and ${line.count - 1} more` : ""}`.padEnd(40),
  line.outcome.padEnd(9),
  line.reason.padEnd(11),
  line.startedAt === null ? "-" : iso(line.startedAt),
  line.endedAt === null ? "-" : iso(line.endedAt)
]

const asJson = (line: Line): string =>
  JSON.stringify({
    ...line,
    nominal: iso(line.nominal),
    startedAt: line.startedAt === null ? null : iso(line.startedAt),
    endedAt: line.endedAt === null ? null : iso(line.endedAt)
  })

const simulate = Command.make(
  "simulate",
  {
    ...specOptions.flags,
    ...policyOptions.flags,
    from: specOptions.instant("from"),
    until: specOptions.instant("until"),
    outageFrom: specOptions.instant("outage-from").pipe(Options.optional),
    outageUntil: specOptions.instant("outage-until").pipe(Options.optional),
    runTime: specOptions.durationMs("run-time").pipe(
      Options.withDescription("How long each run takes. Default: no time."),
      Options.withDefault(0)
    ),
    json: options.json
  },
  (flags) =>
    Effect.gen(function*() {
      const fires = yield* specOptions.compiled(flags)
      const policy = yield* policyOptions.policyOf(flags)
      const outage = yield* outageOf(flags.outageFrom, flags.outageUntil)
      const during = { from: flags.from, until: flags.until }
      const lines = simulateSchedule(fires, policy, { during, outage, runMs: flags.runTime })
      const header = ["nominal".padEnd(40), "outcome".padEnd(9), "why".padEnd(11), "started".padEnd(24), "ended"].join(
        "  "
      )
      if (!flags.json) yield* Console.log(header)
      yield* Effect.forEach(lines, (line) => Console.log(flags.json ? asJson(line) : cells(line).join("  ")), {
        discard: true
      })
    })
).pipe(
  Command.withDescription(
    "What a schedule would do with its ticks from --from until --until, with an outage in between: which run when, and which"
      + " are skipped or recorded as missed. Needs neither database nor cluster."
  )
)

const outageOf = (from: Option.Option<number>, until: Option.Option<number>) => {
  const outage = Option.all({ from, until })
  if (Option.isSome(outage) && outage.value.until > outage.value.from) return Effect.succeed(outage.value)
  if (Option.isNone(from) && Option.isNone(until)) return Effect.succeed(undefined)
  const word = (end: Option.Option<number>) => Option.match(end, { onNone: () => "nothing", onSome: iso })
  return new InvalidRequest({
    field: "outage",
    limit: "from --outage-from until a later --outage-until",
    actual: `${word(from)} and ${word(until)}`
  })
}

export const command = Command.make("schedules").pipe(
  Command.withDescription("Make schedules, look at them, change them; and see what one would do before it exists."),
  Command.withSubcommands([preview, simulate, ...commands])
)
