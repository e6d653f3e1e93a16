/** Makes a failing plan smaller: leaves out faults and runs, in halves and then one by one, as long as it still fails. */
import type { Plan } from "./Plan.js"

/** Simulations at most. */
const triesMaxDefault = 400

export const shrink = (plan: Plan, fails: (plan: Plan) => boolean, triesMax = triesMaxDefault): Plan => {
  let tries = triesMax
  let least = plan
  const attempt = (next: Plan): boolean => {
    if (tries === 0) return false
    tries -= 1
    if (!fails(next)) return false
    least = next
    return true
  }
  const thin = (part: "faults" | "runs", atLeast: number): void => {
    for (let size = Math.ceil(least[part].length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
      for (let at = 0; at < least[part].length && least[part].length - size >= atLeast;) {
        const rest: ReadonlyArray<unknown> = [...least[part].slice(0, at), ...least[part].slice(at + size)]
        if (!attempt({ ...least, [part]: rest })) at += size
      }
    }
  }
  thin("faults", 0)
  thin("runs", 1)
  return least
}
