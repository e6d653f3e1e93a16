/** Names of limits, and what became of them, for tests and measurements. */

let names = 0
/** Of its own: a limit is its name. */
export const limitName = (): string => `limit-${process.pid}-${++names}`

/** The most `times` in any window of `ms`. */
export const mostInWindow = (times: ReadonlyArray<number>, ms: number): number => {
  const sorted = [...times].sort((a, b) => a - b)
  let most = 0
  let first = 0
  sorted.forEach((time, at) => {
    while (sorted[first]! <= time - ms) first += 1
    most = Math.max(most, at - first + 1)
  })
  return most
}
