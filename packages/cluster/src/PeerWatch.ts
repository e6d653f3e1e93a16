/**
 * Every node watches every other, so that the death of one is noticed at once whoever it was.
 *
 * Each peer is pinged every `peerPingIntervalMs`. Two kinds of failure are told apart:
 *
 *   gone     the connection is refused or breaks: the process has died. `peerMissesMax` in a row, and it is left out. Looked
 *            at as soon as a connection breaks, and again every 50 ms
 *   silent   connected, but no answer: frozen, cut off, or only slow. It is left out after `eventLoopLagMaxMs` without any
 *            answer, however late, which is also when it leaves by itself
 *
 * Left out means: the server ends the sessions of its shard locks, and it is recorded as unhealthy, so that all nodes
 * assign its shards to others. They are told, so that they look at once. A wrong judgement costs a move of
 * shards, never a wrong write. So that a slow judge does not accuse the innocent, time in which the own event loop stood
 * still does not count as silence; and who hears less than most of the cluster is the one that is cut off, and judges only peers
 * that are gone and have been silent for as long. Of two nodes either does: the database ends the lock sessions of whoever stands still anyway. And before a peer is
 * left out the others are asked: one that any of them reaches stays, for it is only the way between these two that is cut.
 */
import { connect, type NodeConnection } from "@orrery/api/NodeConnection"
import { NodeConfig } from "@orrery/core/NodeConfig"
import { Effect, Exit, Fiber, Layer, Option, Scope } from "effect"
import { LockStorage } from "./LockStorage.js"
import { type DirectoryEntry, NodeDirectory } from "./NodeDirectory.js"
import { Reach } from "./Reach.js"

/** A peer that never answered is given this long from its first sight: it may still be starting. */
const startGraceMs = 10_000
/** A round that took longer than its time limit by this much says more about the judge. */
const lagMaxMs = 200
/** A peer that was gone a moment ago is looked at again after this, ms. */
const recheckMs = 50
/** Between a connection that breaks and the look at its node, ms: a node that closes each one is not dialled in a tight loop. */
const breathMs = 10

interface Peer {
  readonly firstSeenAt: number
  answered: boolean
  /** Monotonic ms of its last answer, moved on by what the judge itself missed. */
  answeredAt: number
  misses: number
  /** Monotonic ms of when another node was last found to reach it, though this one does not. */
  vouchedAt: number
  connection: { readonly value: NodeConnection; readonly scope: Scope.CloseableScope } | undefined
}

const make = Effect.gen(function*() {
  const config = yield* NodeConfig
  const locks = yield* LockStorage
  const directory = yield* NodeDirectory
  const reach = yield* Reach
  const watchScope = yield* Effect.scope
  const peers = new Map<string, Peer>()
  const wake = yield* Effect.makeLatch(false)

  const disconnect = (peer: Peer) =>
    Effect.suspend(() => {
      const { connection } = peer
      peer.connection = undefined
      return connection === undefined ? Effect.void : Scope.close(connection.scope, Exit.void)
    })

  const ping = Effect.fnUntraced(function*(entry: DirectoryEntry, peer: Peer) {
    if (peer.connection !== undefined && !peer.connection.value.isOpen()) yield* disconnect(peer)
    if (peer.connection === undefined) {
      const scope = yield* Scope.make()
      const value = yield* connect(entry.dataAddress, { openTimeout: config.peerPingTimeoutMs }).pipe(
        Scope.extend(scope),
        Effect.onError(() => Scope.close(scope, Exit.void))
      )
      peer.connection = { value, scope }
      yield* Effect.forkIn(Effect.zipRight(value.closed, wake.open), scope)
    }
    const { scope, value } = peer.connection
    // Not given up when it is not waited for any more: whoever answers late is slow, and not silent.
    const answering = yield* value.call("Ping", (client) => client.Ping(), config.eventLoopLagMaxMs).pipe(
      Effect.tap((nodeId) => Effect.sync(() => heard(entry, peer, nodeId))),
      Effect.forkIn(scope)
    )
    yield* Fiber.join(answering)
  })

  const heard = (entry: DirectoryEntry, peer: Peer, nodeId: string): void => {
    // With its old id its lock sessions would not be found when they have to be ended.
    if (nodeId !== entry.nodeId) directory.replaced(entry.runnerAddress)
    peer.answered = true
    peer.answeredAt = performance.now()
  }

  const freshMs = 2 * config.peerPingIntervalMs + config.peerPingTimeoutMs
  const isHeard = ({ answered, answeredAt }: Peer): boolean => answered && performance.now() - answeredAt <= freshMs
  const hearsMost = (): boolean => {
    const nodes = peers.size + 1
    let heard = 1
    for (const peer of peers.values()) if (isHeard(peer)) heard += 1
    return nodes === 2 || heard * 2 > nodes
  }

  /** Whether any of the nodes that this one hears reaches that peer; `undefined`: there is none to ask just now. */
  const isReachedByOthers = (entry: DirectoryEntry): Effect.Effect<boolean | undefined> => {
    const heard = reach.others().filter((each) => {
      const peer = peers.get(each.runnerAddress)
      return each.nodeId !== entry.nodeId && peer !== undefined && isHeard(peer)
    })
    return Effect.map(
      reach.ask(heard, entry.nodeId),
      (words) => words.length === 0 ? undefined : words.includes("reaches")
    )
  }
  const silenceMs = (peer: Peer): number => performance.now() - Math.max(peer.answeredAt, peer.vouchedAt)
  /** From then on the others are asked beside the ping, so that asking does not make it later. */
  const doubtMs = Math.max(config.eventLoopLagMaxMs - 2 * config.peerPingTimeoutMs, config.eventLoopLagMaxMs / 2)

  const check = Effect.fnUntraced(function*(entry: DirectoryEntry) {
    let peer = peers.get(entry.runnerAddress)
    if (peer === undefined) {
      peer = {
        firstSeenAt: performance.now(),
        answered: false,
        answeredAt: performance.now(),
        misses: 0,
        vouchedAt: -Infinity,
        connection: undefined
      }
      peers.set(entry.runnerAddress, peer)
    }
    const began = performance.now()
    let took = 0
    const asked = ping(entry, peer).pipe(
      Effect.timeout(config.peerPingTimeoutMs),
      Effect.option,
      Effect.tap(() => Effect.sync(() => took = performance.now() - began))
    )
    const isDoubted = peer.answered && silenceMs(peer) > doubtMs
    const [answer, isVouched] = yield* Effect.zip(
      asked,
      isDoubted ? isReachedByOthers(entry) : Effect.succeed(undefined),
      { concurrent: true }
    )
    if (Option.isSome(answer)) {
      peer.misses = 0
      return
    }
    peer.answeredAt += Math.max(0, took - config.peerPingTimeoutMs - lagMaxMs)
    const isGone = took < config.peerPingTimeoutMs && (peer.connection === undefined || !peer.connection.value.isOpen())
    const wasVouched = performance.now() - peer.vouchedAt < doubtMs
    peer.misses = isGone && !wasVouched ? peer.misses + 1 : 0
    if (isGone) yield* disconnect(peer)
    if (!peer.answered && performance.now() - peer.firstSeenAt < startGraceMs) return
    const isSilent = silenceMs(peer) > config.eventLoopLagMaxMs
    const isMissed = peer.misses >= config.peerMissesMax
    // Links that break as soon as they are made look like dead peers to whoever is behind them.
    if (!(isSilent || isMissed) || !(hearsMost() || (isSilent && isMissed))) return
    const runner = locks.runners().find((each) => each.address === entry.runnerAddress)
    if (runner === undefined || !runner.healthy) return
    if (isVouched ?? (yield* isReachedByOthers(entry))) {
      if (peer.vouchedAt < peer.answeredAt) {
        yield* Effect.logWarning("this node does not reach a peer that others reach").pipe(
          Effect.annotateLogs({ node: entry.nodeId })
        )
      }
      peer.vouchedAt = performance.now()
      peer.misses = 0
      return
    }
    // It may have answered while the others were asked.
    if (!isMissed && silenceMs(peer) <= config.eventLoopLagMaxMs) return
    yield* Effect.logWarning("peer does not answer, leaving it out").pipe(Effect.annotateLogs({ node: entry.nodeId }))
    // First, so that its shards are free by the time the others learn that they are theirs.
    yield* locks.endSessions(entry.nodeId)
    yield* locks.setHealth(runner.runner.address, false)
    yield* Effect.forkIn(reach.membersChanged, watchScope)
  })

  /** A node alone has nobody to watch, and no timer for it. */
  const company = yield* Effect.makeLatch(false)
  const stopWatching = directory.onChange(() =>
    reach.others().length > 0 ? company.unsafeOpen() : company.unsafeClose()
  )
  yield* Effect.addFinalizer(() => Effect.sync(stopWatching))
  const pause = Effect.suspend(() => {
    if (peers.size === 0 && reach.others().length === 0) return company.await
    const isAnyGone = [...peers.values()].some(({ misses }) => misses > 0)
    const pauseMs = isAnyGone ? Math.min(recheckMs, config.peerPingIntervalMs) : config.peerPingIntervalMs
    return Effect.raceFirst(wake.await, Effect.sleep(pauseMs)).pipe(
      Effect.zipRight(wake.close),
      Effect.zipRight(Effect.sleep(breathMs))
    )
  })

  const round = Effect.gen(function*() {
    const others = reach.others()
    const addresses = new Set(others.map((each) => each.runnerAddress))
    for (const [address, peer] of peers) {
      if (addresses.has(address)) continue
      peers.delete(address)
      yield* disconnect(peer)
    }
    yield* Effect.forEach(others, check, { concurrency: 16, discard: true })
  })

  yield* Effect.addFinalizer(() => Effect.forEach(peers.values(), disconnect, { discard: true }))
  yield* round.pipe(
    Effect.catchAllCause((cause) => Effect.logWarning("peer watch", cause)),
    Effect.zipRight(pause),
    Effect.forever,
    Effect.annotateLogs({ module: "PeerWatch" }),
    Effect.forkScoped
  )
})

export const layer = Layer.scopedDiscard(make)
