/**
 * The pictures of docs/schedules.md, drawn from what the machine and `NextFire` themselves do.
 *
 *   node --import tsx scripts/schedulePictures.ts
 */
import { Either } from "effect"
import { mkdirSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import * as NextFire from "../packages/core/src/schedule/NextFire.js"
import * as SchedulePolicy from "../packages/core/src/schedule/SchedulePolicy.js"
import type { ScheduleSpec } from "../packages/core/src/schedule/ScheduleSpec.js"
import { type Plan, simulateSchedule } from "../packages/core/src/schedule/simulateSchedule.js"

export const folder = fileURLToPath(new URL("../docs/schedules/", import.meta.url))

const hour = 3_600_000
const left = 150
const width = 760
const rowHeight = 34
const top = 44
const ink = "#57606a"
const colours = { ran: "#1f6feb", cancelled: "#bf8700", skipped: "#8b949e", missed: "#cf222e", outage: "#8b949e" }

const px = (value: number): string => String(Math.round(value * 100) / 100)
const text = (x: number, y: number, content: string, anchor = "start"): string =>
  `<text x="${px(x)}" y="${
    px(y)
  }" font-size="12" font-family="system-ui, sans-serif" fill="${ink}" text-anchor="${anchor}">${content}</text>`

interface Picture {
  readonly rows: number
  readonly marks: ReadonlyArray<string>
}

const svg = (title: string, { marks, rows }: Picture): string => {
  const height = top + rows * rowHeight + 12
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="${title}">`,
    ...marks,
    "</svg>",
    ""
  ].join("\n")
}

const scale = (from: number, until: number) => (ms: number): number =>
  left + ((ms - from) / (until - from)) * (width - left - 24)

const axis = (x: (ms: number) => number, rows: number, ticks: ReadonlyArray<readonly [number, string]>) =>
  ticks.flatMap(([at, label]) => [
    text(x(at), 30, label, "middle"),
    `<line x1="${px(x(at))}" x2="${px(x(at))}" y1="36" y2="${
      top + rows * rowHeight
    }" stroke="${ink}" stroke-opacity="0.15"/>`
  ])

const compiled = (spec: ScheduleSpec) => Either.getOrThrow(NextFire.compile(spec))

/** A row per policy: what becomes of the ticks of each hour. */
const policies = (
  title: string,
  rows: ReadonlyArray<readonly [label: string, policy: Partial<SchedulePolicy.SchedulePolicy>]>,
  plan: Plan
): string => {
  const { during, outage } = plan
  const x = scale(during.from, during.until)
  const everyHour = compiled({ sources: [{ _tag: "rate", everyMs: hour }] })
  const hours = Array.from(
    { length: (during.until - during.from) / hour },
    (_, index) => [during.from + index * hour, `${index}:00`] as const
  )
  const band = outage === undefined ? [] : [
    `<rect x="${px(x(outage.from))}" y="36" width="${px(x(outage.until) - x(outage.from))}" height="${
      rows.length * rowHeight + 8
    }" fill="${colours.outage}" fill-opacity="0.2"/>`
  ]
  const marks = rows.flatMap(([label, policy], row) => {
    const y = top + row * rowHeight + rowHeight / 2
    const lines = simulateSchedule(everyHour, { ...SchedulePolicy.standard, ...policy }, plan)
    return [
      text(12, y + 4, label),
      ...lines.flatMap((line, index) => {
        if (line.startedAt === null) {
          return Array.from({ length: line.count }, (_, each) => {
            const at = x(line.nominal + each * hour)
            return line.outcome === "missed"
              ? `<path d="M${px(at - 5)} ${px(y - 5)}l10 10m0 -10l-10 10" stroke="${colours.missed}" stroke-width="2"/>`
              : `<circle cx="${px(at)}" cy="${px(y)}" r="5" fill="none" stroke="${colours.skipped}" stroke-width="2"/>`
          })
        }
        const beside = lines.slice(0, index).filter((each) => each.endedAt !== null && each.endedAt > line.startedAt!)
        const begin = x(line.startedAt)
        const colour = line.outcome === "cancelled" ? colours.cancelled : colours.ran
        const height = 8
        return `<rect x="${px(begin)}" y="${
          px(y - 4 + (beside.length % 3) * 9 - (beside.length > 0 ? 6 : 0))
        }" width="${
          px(Math.max(6, x(Math.min(line.endedAt!, during.until)) - begin))
        }" height="${height}" rx="3" fill="${colour}"/>`
      })
    ]
  })
  return svg(title, { rows: rows.length, marks: [...axis(x, rows.length, hours), ...band, ...marks] })
}

/** A row per policy: the fires of a day on which clocks are set. `wall` says what the clock shows at an instant. */
const clocks = (
  title: string,
  rows: ReadonlyArray<readonly [label: string, spec: ScheduleSpec]>,
  from: number,
  until: number
): string => {
  const x = scale(from, until)
  const { zone } = compiled(rows[0]![1])
  const ticks = Array.from({ length: (until - from) / hour }, (_, index) => {
    const at = from + index * hour
    return [at, new Date(at + zone.offsetAt(at)).toISOString().slice(11, 16)] as const
  })
  const change = zone.nextTransition(from, until)!
  const line = `<line x1="${px(x(change.at))}" x2="${px(x(change.at))}" y1="36" y2="${
    top + rows.length * rowHeight
  }" stroke="${colours.missed}" stroke-width="2" stroke-dasharray="4 3"/>`
  const marks = rows.flatMap(([label, spec], row) => {
    const y = top + row * rowHeight + rowHeight / 2
    const fires = NextFire.preview(compiled(spec), from - 1, 50).filter((at) => at < until)
    return [
      text(12, y + 4, label),
      ...fires.map((at) => `<circle cx="${px(x(at))}" cy="${px(y)}" r="6" fill="${colours.ran}"/>`)
    ]
  })
  return svg(title, { rows: rows.length, marks: [...axis(x, rows.length, ticks), line, ...marks] })
}

const t0 = Date.UTC(2026, 0, 1)
const cron = (expression: string, parts: Partial<ScheduleSpec>): ScheduleSpec => ({
  sources: [{ _tag: "cron", expression }],
  zone: "America/New_York",
  ...parts
})

/** Name of the file to its text. */
export const render = (): ReadonlyMap<string, string> => {
  const outage = { from: t0 + 1.5 * hour, until: t0 + 5.5 * hour }
  const during = { from: t0, until: t0 + 8 * hour }
  const runMs = 0.3 * hour
  return new Map([
    [
      "misfire.svg",
      policies("hourly ticks around an outage, by misfire policy", [
        ["skip", { misfire: "skip" }],
        ["fireOnce", { misfire: "fireOnce" }],
        ["fireAll", { misfire: "fireAll", overlap: "allowAll" }],
        ["fireAll, bufferAll", { misfire: "fireAll", overlap: "bufferAll" }],
        ["fireAll, window 2 h", { misfire: "fireAll", overlap: "allowAll", catchupWindowMs: 2 * hour }]
      ], { during, outage, runMs })
    ],
    [
      "overlap.svg",
      policies(
        "hourly ticks of runs that take 2.5 hours, by overlap policy",
        SchedulePolicy.OverlapPolicy.literals.map((overlap) => [overlap, { overlap }] as const),
        { during, runMs: 2.5 * hour }
      )
    ],
    [
      "gap.svg",
      clocks(
        "clocks go forward at 02:00",
        [
          ["30 2 * * *, skip", cron("30 2 * * *", { gap: "skip" })],
          ["30 2 * * *, shiftForward", cron("30 2 * * *", { gap: "shiftForward" })],
          ["0 * * * *, either", cron("0 * * * *", {})]
        ],
        Date.UTC(2026, 2, 8, 5),
        Date.UTC(2026, 2, 8, 10)
      )
    ],
    [
      "overlap-of-clocks.svg",
      clocks(
        "clocks go back at 02:00",
        [
          ["30 1 * * *, first", cron("30 1 * * *", { overlap: "first" })],
          ["30 1 * * *, last", cron("30 1 * * *", { overlap: "last" })],
          ["30 1 * * *, both", cron("30 1 * * *", { overlap: "both" })],
          ["0 * * * *, first", cron("0 * * * *", { overlap: "first" })],
          ["0 * * * *, both", cron("0 * * * *", { overlap: "both" })]
        ],
        Date.UTC(2026, 10, 1, 4),
        Date.UTC(2026, 10, 1, 9)
      )
    ]
  ])
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  mkdirSync(folder, { recursive: true })
  for (const [name, content] of render()) writeFileSync(folder + name, content)
}
