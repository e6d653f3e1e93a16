/** What people read: the same tables on the terminal and in `docs/benchmarks.md`. */
import { type Figure, pointOf, round, verdict } from "./Figure.js"
import type { Result } from "./Result.js"
import { ratio, spread } from "./statistics.js"
import { oursId } from "./systems/index.js"

const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const all = [head, ...rows]
  const widths = head.map((_, at) => Math.max(3, ...all.map((row) => row[at]!.length)))
  const line = (row: ReadonlyArray<string>) => `| ${row.map((cell, at) => cell.padEnd(widths[at]!)).join(" | ")} |`
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join("\n")
}

export const shown = (value: number): string =>
  value >= 1_000 ? Math.round(value).toLocaleString("en") : String(value >= 100 ? Math.round(value) : round(value))

const shownDetail = (value: number | string | boolean): string =>
  typeof value === "number" ? shown(value) : String(value)

/** One figure: every system, its spread, how many times better we are, and what else was seen. */
export const figureTable = (figure: Figure): string => {
  const own = verdict(figure).ours
  const rows = Object.entries(figure.all).map(([id, { details, values }]) => {
    const { max, median, min, n } = spread(values)
    const times = own === null || id === oursId ? null : ratio(own, median, figure.better)
    const unequal = Object.entries(details).map(([name, value]) => `${name} ${shownDetail(value)}`).join(", ")
    return [
      id,
      shown(median),
      `${shown(min)}..${shown(max)}`,
      String(n),
      times === null ? "" : `${round(times)}×`,
      unequal
    ]
  })
  const missing = Object.entries(figure.missing).map(([id, reason]) => `- ${id}: ${reason.split("\n")[0]}`)
  const head = [
    "system",
    `${figure.unit} (${figure.better} is better)`,
    "min..max",
    "n",
    "ours is",
    "details of the last"
  ]
  return [
    `### ${figure.workload}: ${figure.title}`,
    "",
    ...(rows.length === 0 ? [] : [table(head, rows), ""]),
    ...(missing.length === 0 ? [] : ["Not measured:", "", ...missing, ""])
  ].join("\n")
}

/** Points of one series beside each other, instead of a table for each. */
export const seriesTable = (series: string, figures: ReadonlyArray<Figure>): string => {
  const rows = figures.map((figure) => [
    String(pointOf(figure.workload)?.x),
    ...cells(figure)
  ])
  return [`### ${series}: ${figures[0]!.title}`, "", table([series, `${figures[0]!.unit}`, "min..max", "n"], rows), ""]
    .join("\n")
}

const cells = (figure: Figure): ReadonlyArray<string> => {
  const own = figure.all[oursId]
  if (own === undefined) return [figure.missing[oursId]?.split("\n")[0] ?? "not measured", "", ""]
  const { max, median, min, n } = spread(own.values)
  return [shown(median), `${shown(min)}..${shown(max)}`, String(n)]
}

/** Figures in their order; each series as one table, where its first point is. */
export const figureTables = (figures: ReadonlyArray<Figure>): string => {
  const done = new Set<string>()
  return figures.flatMap((figure) => {
    const series = pointOf(figure.workload)?.series
    if (series === undefined) return [figureTable(figure)]
    if (done.has(series)) return []
    done.add(series)
    return [seriesTable(series, figures.filter(({ workload }) => pointOf(workload)?.series === series))]
  }).join("\n")
}

const settingsOf = (settings: Readonly<Record<string, string | number | boolean>>): string =>
  Object.entries(settings).map(([name, value]) => `${name} ${value}`).join(", ")

/** Machine, servers, systems. */
export const conditions = (result: Result): string => {
  const { machine, postgres, redis, sizes, systems } = result
  const { server_version, ...settings } = postgres
  return [
    `- ${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB, ${machine.system}, Node ${machine.node}`,
    `- PostgreSQL ${server_version}: ${settingsOf(settings)}`,
    ...(redis === undefined ? [] : [`- Redis ${redis}, a server of its own for each measurement`]),
    `- ${result.rounds} rounds, scale ${sizes.scale}${sizes.quick ? ", quick" : ""}, seed ${sizes.seed}`,
    "",
    table(
      ["system", "package", "version", "an acknowledged job survives", "settings"],
      systems.map((system) => [
        system.id,
        system.peer,
        system.version,
        system.durability === "commit" ? "a crash of the machine" : "all but the last second of one",
        settingsOf(system.settings)
      ])
    ),
    ""
  ].join("\n")
}
