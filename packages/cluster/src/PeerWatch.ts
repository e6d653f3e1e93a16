/**
 * Every node watches every other, so that the death of one is noticed at once whoever it was.
 *
 * Each peer is pinged every `peerPingIntervalMs`. Two kinds of failure are told apart:
 *
 *   gone     the connection is refused or breaks: the process has died. `peerMissesMax` in a row, and it is left out
 *   silent   connected, but no answer: frozen, cut off, or only slow. It is left out after `eventLoopLagMaxMs` without any
 *            answer, which is also when it leaves by itself
 *
 * Left out means: the server ends the sessions of its shard locks, and it is recorded as unhealthy, so that all nodes
 * assign its shards to others. A wrong judgement costs a move of
 * shards, never a wrong write. So that a slow judge does not accuse the innocent, time in which the own event loop stood
 * still does not count as silence; and who hears less than most of the cluster is the one that is cut off, and does not judge
 * silence. Of two nodes either does: the database ends the lock sessions of whoever stands still anyway.
 */
import { connect, type NodeConnection } from "@orrery/api/NodeConnection"
import { NodeConfig } from "@orrery/core/NodeConfig"
import { Effect, Exit, Layer, Option, Scope } from "effect"
import { LockStorage } from "./LockStorage.js"
import { type DirectoryEntry, NodeDirectory } from "./NodeDirectory.js"
import { NodeIdentity } from "./NodeIdentity.js"

/** A peer that never answered is given this long from its first sight: it may still be starting. */
const startGraceMs = 10_000
/** A round that took longer than its time limit by this much says more about the judge. */
const lagMaxMs = 200

interface Peer {
  readonly firstSeenAt: number
  answered: boolean
  /** Monotonic ms of its last answer, moved on by what the judge itself missed. */
  answeredAt: number
  misses: number
  connection: { readonly value: NodeConnection; readonly scope: Scope.CloseableScope } | undefined
}

const make = Effect.gen(function*() {
  const config = yield* NodeConfig
  const locks = yield* LockStorage
  const directory = yield* NodeDirectory
  const self = yield* NodeIdentity
  const peers = new Map<string, Peer>()

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
    }
    return yield* peer.connection.value.call("Ping", (client) => client.Ping(), config.peerPingTimeoutMs)
  })

  const freshMs = 2 * config.peerPingIntervalMs + config.peerPingTimeoutMs
  const hearsMost = (): boolean => {
    const nodes = peers.size + 1
    let heard = 1
    for (const { answeredAt } of peers.values()) if (performance.now() - answeredAt <= freshMs) heard += 1
    return nodes === 2 || heard * 2 > nodes
  }

  const check = Effect.fnUntraced(function*(entry: DirectoryEntry) {
    let peer = peers.get(entry.runnerAddress)
    if (peer === undefined) {
      peer = {
        firstSeenAt: performance.now(),
        answered: false,
        answeredAt: performance.now(),
        misses: 0,
        connection: undefined
      }
      peers.set(entry.runnerAddress, peer)
    }
    const began = performance.now()
    const answer = yield* ping(entry, peer).pipe(Effect.timeout(config.peerPingTimeoutMs), Effect.option)
    const took = performance.now() - began
    if (Option.isSome(answer)) {
      // With its old id its lock sessions would not be found when they have to be ended.
      if (answer.value !== entry.nodeId) directory.replaced(entry.runnerAddress)
      peer.answered = true
      peer.answeredAt = performance.now()
      peer.misses = 0
      return
    }
    peer.answeredAt += Math.max(0, took - config.peerPingTimeoutMs - lagMaxMs)
    const isGone = took < config.peerPingTimeoutMs && (peer.connection === undefined || !peer.connection.value.isOpen())
    peer.misses = isGone ? peer.misses + 1 : 0
    if (isGone) yield* disconnect(peer)
    if (!peer.answered && performance.now() - peer.firstSeenAt < startGraceMs) return
    const isSilent = performance.now() - peer.answeredAt > config.eventLoopLagMaxMs
    if (peer.misses < config.peerMissesMax && !(isSilent && hearsMost())) return
    const runner = locks.runners().find((each) => each.address === entry.runnerAddress)
    if (runner === undefined || !runner.healthy) return
    yield* Effect.logWarning("peer does not answer, leaving it out").pipe(Effect.annotateLogs({ node: entry.nodeId }))
    // First, so that its shards are free by the time the others learn that they are theirs.
    yield* locks.endSessions(entry.nodeId)
    yield* locks.setHealth(runner.runner.address, false)
  })

  const othersLive = () => directory.live().filter((each) => each.nodeId !== self.nodeId)
  /** A node alone has nobody to watch, and no timer for it. */
  const company = yield* Effect.makeLatch(false)
  const stopWatching = directory.onChange(() => othersLive().length > 0 ? company.unsafeOpen() : company.unsafeClose())
  yield* Effect.addFinalizer(() => Effect.sync(stopWatching))
  const pause = Effect.suspend(() =>
    peers.size > 0 || othersLive().length > 0 ? Effect.sleep(config.peerPingIntervalMs) : company.await
  )

  const round = Effect.gen(function*() {
    const others = othersLive()
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
