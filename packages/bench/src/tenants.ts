/** Workload W10: whose job it is. Tenant 0 has nine of ten; the others share the rest evenly. */
export const tenantOf = (index: number, tenants: number): number =>
  index % 10 === 9 ? 1 + Math.floor(index / 10) % (tenants - 1) : 0

/** Jain's index of fairness: 1 when all have the same, 1/n when one of n has all. */
export const jain = (shares: ArrayLike<number>): number => {
  let sum = 0
  let squares = 0
  for (let at = 0; at < shares.length; at++) {
    sum += shares[at]!
    squares += shares[at]! ** 2
  }
  return squares === 0 ? 0 : sum ** 2 / (shares.length * squares)
}
