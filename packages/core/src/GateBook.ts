/** The gates of one partition, by their names and keys, for as long as they matter. */
import type { Entry } from "./Entry.js"
import { type Gate, Permit, Rate } from "./Gates.js"
import type { ConcurrencyKey } from "./RunKeys.js"

/** Idle ones are looked for after so many have been made: nobody tells when the last start of a rate is long enough ago. */
const sweepEvery = 1_024

export class GateBook {
  private readonly gates = new Map<string, Gate>()
  private made = 0

  constructor(private readonly takenOverAt: number | undefined, private readonly forgotten: (gate: Gate) => void) {}

  /** What a run must pass. */
  of(entry: Entry, now: number): ReadonlyArray<Gate> {
    const { limits = [], rates = [] } = entry.told ?? {}
    const gates: Array<Gate> = limits.map((key) => this.permit(key, entry.seq))
    for (const key of rates) {
      const rate = this.find(`${key.name}|${key.key}|rate`, (id) => new Rate(id, this.takenOverAt, now), now)
      rate.declare(key, entry.seq)
      gates.push(rate)
    }
    return gates
  }

  permit(key: ConcurrencyKey, seq: number): Permit {
    const permit = this.find(`${key.name}|${key.key}`, (id) => new Permit(id), -Infinity)
    permit.declare(key, seq)
    return permit
  }

  forgetIfIdle(gate: Gate, now: number): void {
    if (gate.waiting.size > 0 || !gate.isIdle(now)) return
    this.gates.delete(gate.id)
    this.forgotten(gate)
  }

  private sweep(now: number): void {
    for (const gate of [...this.gates.values()]) this.forgetIfIdle(gate, now)
  }

  private find<G extends Gate>(id: string, make: (id: string) => G, now: number): G {
    const known = this.gates.get(id)
    if (known !== undefined) return known as G
    this.made += 1
    if (this.made % sweepEvery === 0) this.sweep(now)
    const gate = make(id)
    this.gates.set(id, gate)
    return gate
  }
}
