/** A binary heap whose items know their place, so that each can be moved or taken out. An item is in one heap at a time. */
export class Heap<A extends { at: number }> {
  private readonly items: Array<A> = []

  constructor(private readonly before: (a: A, b: A) => boolean) {}

  get size(): number {
    return this.items.length
  }

  peek(): A | undefined {
    return this.items[0]
  }

  push(item: A): void {
    this.rise(item, this.items.length)
  }

  remove(item: A): void {
    const at = item.at
    item.at = -1
    const last = this.items.pop()!
    if (last !== item) this.settle(last, at)
  }

  /** Its order has changed. */
  update(item: A): void {
    this.settle(item, item.at)
  }

  [Symbol.iterator](): Iterator<A> {
    return this.items[Symbol.iterator]()
  }

  private settle(item: A, at: number): void {
    if (at > 0 && this.before(item, this.items[(at - 1) >> 1]!)) this.rise(item, at)
    else this.sink(item, at)
  }

  private rise(item: A, from: number): void {
    const { items } = this
    let at = from
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (!this.before(item, items[parent]!)) break
      this.put(items[parent]!, at)
      at = parent
    }
    this.put(item, at)
  }

  private sink(item: A, from: number): void {
    const { items } = this
    let at = from
    for (;;) {
      let child = 2 * at + 1
      if (child >= items.length) break
      if (child + 1 < items.length && this.before(items[child + 1]!, items[child]!)) child += 1
      if (!this.before(items[child]!, item)) break
      this.put(items[child]!, at)
      at = child
    }
    this.put(item, at)
  }

  private put(item: A, at: number): void {
    this.items[at] = item
    item.at = at
  }
}
