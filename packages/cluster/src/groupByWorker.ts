/** Messages go out one per worker. */
export const groupByWorker = <A extends { readonly worker: string }, B>(
  list: ReadonlyArray<A>,
  pick: (each: A) => B
): Map<string, Array<B>> => {
  const groups = new Map<string, Array<B>>()
  for (const each of list) {
    const group = groups.get(each.worker)
    if (group === undefined) groups.set(each.worker, [pick(each)])
    else group.push(pick(each))
  }
  return groups
}
