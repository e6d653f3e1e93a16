/** The gates of one partition, by their names and keys, for as long as they matter. */
import { type Entry, policyOf } from "./Entry.js"
import { Closed, type Gate, Permit, Rate, type RateOverride } from "./Gates.js"
import { type KeyOf, noRules, type QueueRules, sameKey } from "./QueueSettings.js"
import type { LimiterTerms } from "./LimiterTerms.js"
import { backfillLimit, type ConcurrencyKey, type RateKey } from "./RunKeys.js"
import { isSpan, type Lender, makeSpan, type SpanGate, SpanPermit } from "./SpanGates.js"

/** Idle ones are looked for after so many have been made: nobody tells when the last start of a rate is long enough ago. */
const sweepEvery = 1_024

/** Policies of tasks with limiters whose limits are remembered together with those of the queue. */
const mergedMax = 1_024

type Limiters = ReadonlyArray<LimiterTerms> | undefined

const noSpans: ReadonlyArray<SpanGate> = []
const nobody: ReadonlyArray<Entry> = []

export class GateBook {
  private readonly gates = new Map<string, Gate>()
  private made = 0
  private rules: QueueRules = noRules
  /** Of paused keys. */
  private closed: ReadonlyArray<Closed> = []

  /** Said of the queue; and with them what tasks say, by that. */
  private limiters: Limiters
  private readonly merged = new Map<Limiters, Limiters>()
  private readonly filled = new Set<SpanGate>()
  /** Gates that attempts have passed which hold no permit any more. */
  private readonly lost = new Set<SpanPermit>()

  constructor(
    private readonly takenOverAt: number | undefined,
    private readonly lender: Lender,
    private readonly forgotten: (gate: Gate) => void
  ) {}

  [Symbol.iterator](): Iterator<Gate> {
    return this.gates.values()
  }

  /** `undefined`: there is none, so it is open. */
  find(id: string): Gate | undefined {
    return this.gates.get(id)
  }

  /** Other settings of the queue: limits hold at once. True: which gates a run must pass is to be found anew. */
  apply(rules: QueueRules): boolean {
    const before = this.rules
    this.rules = rules
    const isLimitedAnew = JSON.stringify(this.limiters) !== JSON.stringify(rules.limiters)
    if (isLimitedAnew) {
      this.limiters = rules.limiters
      this.merged.clear()
    }
    for (const gate of this.gates.values()) {
      if (gate instanceof Permit && gate.told !== undefined) gate.override = this.limitOf(gate.told)
      if (gate instanceof Rate && gate.told !== undefined) gate.overrule(this.rateOf(gate.told))
    }
    if (before.pausedKeys === rules.pausedKeys || before.pausedKeys.length + rules.pausedKeys.length === 0) {
      return isLimitedAnew
    }
    this.closed = rules.pausedKeys.map((paused) => new Closed(paused))
    return true
  }

  /** Limits over queues that a run needs: what its task says, and what is said of the queue under other names. */
  limitersOf(entry: Entry): Limiters {
    const own = policyOf(entry).limiters
    if (this.limiters === undefined || own === undefined) return own ?? this.limiters
    let all = this.merged.get(own)
    if (all === undefined) {
      if (this.merged.size >= mergedMax) this.merged.clear()
      all = [...own, ...this.limiters.filter(({ name }) => own.every((each) => each.name !== name))]
      this.merged.set(own, all)
    }
    return all
  }

  private limitOf({ key, name }: ConcurrencyKey): number | undefined {
    return ofKey(this.rules.limits, name, key)?.limit
  }

  private rateOf({ key, name }: RateKey): RateOverride | undefined {
    const found = ofKey(this.rules.rates, name, key)
    return found === undefined ? undefined : { limit: found.limit, perMs: found.perMs }
  }

  /** What a run must pass. */
  of(entry: Entry, now: number): ReadonlyArray<Gate> {
    const { limits = [], rates = [] } = entry.told ?? {}
    const gates: Array<Gate> = this.closed.length === 0
      ? []
      : this.closed.filter(({ paused }) => hasKey(entry, paused.of))
    for (const key of limits) if (key.name !== backfillLimit.name) gates.push(this.permit(key, entry.seq))
    for (const key of rates) {
      const rate = this.meet(`${key.name}|${key.key}|rate`, (id) => this.newRate(id, key, now), now)
      rate.declare(key, entry.seq)
      gates.push(rate)
    }
    for (const terms of this.limitersOf(entry) ?? []) gates.push(this.span(terms, entry))
    return gates
  }

  private span(terms: LimiterTerms, entry: Entry): SpanGate {
    const make = (id: string) =>
      makeSpan(id, terms, costOf(terms, entry), this.lender, (gate) => void this.filled.add(gate))
    return this.meet(spanId(terms, entry), make, -Infinity)
  }

  /** Those at which there may be room since they were asked for last. */
  takeFilled(): ReadonlyArray<SpanGate> {
    if (this.filled.size === 0) return noSpans
    const filled = [...this.filled]
    this.filled.clear()
    for (const gate of filled) if (gate instanceof SpanPermit && gate.lent.lost() > 0) this.lost.add(gate)
    return filled
  }

  /** Of those that run, the last to have begun whose permits were lost on their way: they must stop. */
  unpermitted(running: () => Iterable<Entry>): Iterable<Entry> {
    if (this.lost.size === 0) return nobody
    const stop = new Set<Entry>()
    for (const gate of this.lost) {
      const holders = [...running()].filter(({ permits }) => permits.includes(gate)).sort((a, b) => b.lease - a.lease)
      for (const entry of holders.slice(0, gate.lent.lost())) stop.add(entry)
    }
    this.lost.clear()
    return stop
  }

  /** Nothing is borrowed any more: the heir of this owner does it. */
  abandon(): void {
    for (const gate of this.gates.values()) if (isSpan(gate)) gate.lent.abandon()
  }

  permit(key: ConcurrencyKey, seq: number): Permit {
    const permit = this.meet(`${key.name}|${key.key}`, (id) => this.newPermit(id, key), -Infinity)
    permit.declare(key, seq)
    return permit
  }

  private newPermit(id: string, key: ConcurrencyKey): Permit {
    const permit = new Permit(id)
    permit.override = this.limitOf(key)
    return permit
  }

  private newRate(id: string, key: RateKey, now: number): Rate {
    const rate = new Rate(id, this.takenOverAt, now)
    rate.overrule(this.rateOf(key))
    return rate
  }

  forgetIfIdle(gate: Gate, now: number): void {
    if (gate.waiting.size > 0 || !gate.isIdle(now)) return
    this.gates.delete(gate.id)
    this.forgotten(gate)
  }

  private sweep(now: number): void {
    for (const gate of [...this.gates.values()]) this.forgetIfIdle(gate, now)
  }

  private meet<G extends Gate>(id: string, make: (id: string) => G, now: number): G {
    const known = this.gates.get(id)
    if (known !== undefined) return known as G
    this.made += 1
    if (this.made % sweepEvery === 0) this.sweep(now)
    const gate = make(id)
    this.gates.set(id, gate)
    return gate
  }
}

/** Tokens of one start. */
const costOf = (terms: LimiterTerms, { told }: Entry): number =>
  terms.kind === "permit" ? 1 : told?.costs?.[terms.name] ?? terms.cost ?? 1

/** Releases that say different things of a limiter have gates of their own; the store counts them together. */
export const spanId = (terms: LimiterTerms, entry: Entry): string =>
  `${JSON.stringify(terms)}|${costOf(terms, entry)}|span`

/** What is said of this key, else of all keys of the name. */
const ofKey = <A extends { readonly name: string; readonly key?: string }>(
  all: ReadonlyArray<A>,
  name: string,
  key: string
): A | undefined => {
  if (all.length === 0) return undefined
  const named = all.filter((each) => each.name === name)
  return named.find((each) => each.key === key) ?? named.find((each) => each.key === undefined)
}

/** Whether it is a run of the key. */
export const hasKey = ({ told }: Entry, key: KeyOf): boolean => {
  if (told === undefined) return false
  if (key.kind === "fairness") return told.tenant === key.key
  if (key.kind === "ordering") return told.order === key.key
  const isIt = ({ key: own, name }: ConcurrencyKey | RateKey) => sameKey(key, { kind: "concurrency", name, key: own })
  return (told.limits ?? []).some(isIt) || (told.rates ?? []).some(isIt)
}
