/** Numbers that an owner of a partition gives to arrivals and leases, `epoch * 2^30 + n`: they grow with each, and with every owner. */

/** Numbers given out under one epoch. More and the actor must take its partition over again. */
export const numbersPerEpoch = 2 ** 30

/** So many before its end an epoch counts as used up. */
const reserve = 2 ** 24

/**
 * Whether a run with this lease has ever been given to a worker. An edit of one that has not leaves the number at which its epoch
 * begins, which is no lease: higher than all of the owners before.
 */
export const wasStarted = (lease: number): boolean => lease % numbersPerEpoch !== 0

/** Of the owner that gave the number. */
export const epochOf = (number: number): number => Math.floor(number / numbersPerEpoch)

export class Numbers {
  /** Given to nobody (`wasStarted`). */
  readonly first: number
  private given = 1

  constructor(private readonly epoch: number) {
    this.first = epoch * numbersPerEpoch
  }

  /** What `next` answers next. */
  get upcoming(): number {
    return this.first + this.given
  }

  /** Whether it was given by the owner just before this one. */
  isOfFormer(number: number): boolean {
    return epochOf(number) === this.epoch - 1
  }

  next(): number {
    if (this.given >= numbersPerEpoch - 1) throw new Error(`numbers of epoch ${this.epoch} are used up`)
    return this.first + this.given++
  }

  /** Whether they are nearly used up: the shell then takes over anew. */
  get isExhausted(): boolean {
    return this.given > numbersPerEpoch - reserve
  }
}
