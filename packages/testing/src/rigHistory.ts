/** What the attempts of the rig's tasks tell in the logs of their processes (`rigHandlers`), and how many of them ran together. */

export interface Told {
  readonly process: string
  readonly task: string
  readonly what: "begins" | "ends"
  readonly key: string
  readonly n: number
  /** ms since 1970, on one clock for all processes of the machine. */
  readonly at: number
}

export interface RigHistory {
  /** For `ClusterRig.start`. */
  readonly onLine: (process: string, line: string) => void
  /** Was killed just now. */
  readonly killed: (process: string) => void
  /** What was told; an attempt of a killed process ends with it: what that had said may still be on its way. */
  readonly told: () => ReadonlyArray<Told>
  /** The last attempt of the process has begun less than so many ms ago, and not ended: killed now, it is killed in the middle. */
  readonly hasJustBegun: (process: string, withinMs: number) => boolean
}

/** Of attempts of these tasks. `now` is a clock for tests. */
export const make = (
  tasks: ReadonlyArray<string>,
  now: () => number = () => performance.timeOrigin + performance.now()
): RigHistory => {
  const pattern = new RegExp(`(${tasks.join("|")}) (begins|ends) (\\S+) (\\d+) ([\\d.]+);`)
  const told: Array<Told> = []
  const kills: Array<{ readonly process: string; readonly at: number }> = []
  return {
    onLine: (process, line) => {
      const [, task, what, key, n, at] = pattern.exec(line) ?? []
      if (task === undefined) return
      told.push({ process, task, what: what as Told["what"], key: key!, n: Number(n), at: Number(at) })
    },
    killed: (process) => void kills.push({ process, at: now() }),
    told: () => [
      ...told,
      ...kills.flatMap(({ at, process }) => {
        const running = new Map<string, Told>()
        for (const each of told) {
          if (each.process !== process || each.at > at) continue
          const attempt = `${each.task} ${each.key} ${each.n}`
          if (each.what === "begins") running.set(attempt, each)
          else running.delete(attempt)
        }
        return [...running.values()].map((each): Told => ({ ...each, what: "ends", at }))
      })
    ],
    hasJustBegun: (process, withinMs) => {
      const last = told.findLast((each) => each.process === process)
      return last !== undefined && last.what === "begins" && now() - last.at < withinMs
    }
  }
}

/** The most that ran at once, by group; each counts as its weight. At one instant an end comes before a beginning. */
export const together = (
  told: ReadonlyArray<Told>,
  { groupOf = () => "", weightOf = () => 1 }: {
    readonly groupOf?: (each: Told) => string
    readonly weightOf?: (each: Told) => number
  } = {}
): ReadonlyMap<string, number> => {
  const running = new Map<string, number>()
  const most = new Map<string, number>()
  for (const each of [...told].sort((a, b) => a.at - b.at || (a.what === "ends" ? -1 : 1))) {
    const group = groupOf(each)
    const count = (running.get(group) ?? 0) + (each.what === "begins" ? 1 : -1) * weightOf(each)
    running.set(group, count)
    most.set(group, Math.max(most.get(group) ?? 0, count))
  }
  return most
}

/** The most of all of them. */
export const mostTogether = (told: ReadonlyArray<Told>, weightOf?: (each: Told) => number): number =>
  together(told, weightOf === undefined ? {} : { weightOf }).get("") ?? 0
