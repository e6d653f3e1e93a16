/** Seeded choices: the same seed makes the same ones, on every machine. */
export class Random {
  private state: number

  constructor(seed: number) {
    this.state = seed >>> 0
  }

  /** At least 0, below 1. */
  next(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0
    let t = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }

  /** `from` to `to`, both possible. */
  integer(from: number, to: number): number {
    return from + Math.floor(this.next() * (to - from + 1))
  }

  between(from: number, to: number): number {
    return from + this.next() * (to - from)
  }

  chance(part: number): boolean {
    return this.next() < part
  }

  pick<A>(list: ReadonlyArray<A>): A {
    return list[this.integer(0, list.length - 1)]!
  }

  /** A stream of its own: what is drawn from it changes nothing here. */
  fork(): Random {
    return new Random(Math.floor(this.next() * 2 ** 32))
  }
}
