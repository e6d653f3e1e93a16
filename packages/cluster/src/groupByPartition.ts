/** What a worker says of attempts of many partitions, by partition, and where in its message each stands. */
export interface PartitionGroup<A> {
  readonly items: Array<A>
  readonly places: Array<number>
}

export const groupByPartition = <A extends { readonly partitionId: number }>(
  list: ReadonlyArray<A>
): Map<number, PartitionGroup<A>> => {
  const groups = new Map<number, PartitionGroup<A>>()
  for (let at = 0; at < list.length; at++) {
    const each = list[at]!
    let group = groups.get(each.partitionId)
    if (group === undefined) {
      group = { items: [], places: [] }
      groups.set(each.partitionId, group)
    }
    group.items.push(each)
    group.places.push(at)
  }
  return groups
}
