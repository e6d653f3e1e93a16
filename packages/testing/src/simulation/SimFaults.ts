/** Does to a simulated cluster what the plan says, and undoes it. */
import type { PlannedFault } from "./Plan.js"
import type { Recorder } from "./Recorder.js"
import type { SimCluster } from "./SimCluster.js"
import { storeName } from "./SimStore.js"

/** How far a clock of the wall is set, ms. */
const clockStepMs = 300_000
const lostAnswersPart = 0.5

/** When the fault is over; what it set off may last longer. */
export const strike = (cluster: SimCluster, recorder: Recorder, fault: PlannedFault): void => {
  const { network, shards, store, world } = cluster
  const node = () => cluster.nodeSeats[fault.target % cluster.nodeSeats.length]!
  const worker = () => cluster.workerSeats[fault.target % cluster.workerSeats.length]!
  const after = (undo: () => void) => void world.after(fault.forMs, undo)
  const cut = (a: string, b: string) => {
    network.cut(a, b)
    after(() => network.heal(a, b))
  }
  recorder.tell({ _tag: "fault", by: "simulation", what: fault.kind })
  switch (fault.kind) {
    case "crashNode":
      return cluster.crashNode(node(), { isSilent: false, downMs: fault.forMs })
    case "loseNode":
      return cluster.crashNode(node(), { isSilent: true, downMs: fault.forMs })
    case "pauseNode": {
      const { process } = node().now
      process.pause()
      return after(() => process.resume())
    }
    case "drainNode":
      return shards.drain(node().now)
    case "crashWorker":
      return cluster.crashWorker(worker(), { isSilent: false, downMs: fault.forMs })
    case "loseWorker":
      return cluster.crashWorker(worker(), { isSilent: true, downMs: fault.forMs })
    case "pauseWorker": {
      const { process } = worker().now
      process.pause()
      return after(() => process.resume())
    }
    case "drainWorker":
      return cluster.drainWorker(worker(), fault.forMs)
    case "cutNodeFromStore":
      return cut(node().now.name, storeName)
    case "cutWorkerFromNode":
      return cut(worker().now.name, node().now.name)
    case "resetConnections":
      for (const connection of network.connections) if (connection.near === worker().now.process) connection.break()
      return
    case "storeDown":
      store.isDown = true
      return after(() => {
        store.isDown = false
      })
    case "lostAnswers":
      store.lostAnswersPart = lostAnswersPart
      return after(() => {
        store.lostAnswersPart = 0
      })
    case "clockStep":
      node().now.process.clockErrorMs += fault.skip % 2 === 0 ? clockStepMs : -clockStepMs
      return
    case "moveShard":
      return shards.moveAny()
    case "stealShard":
      return shards.stealAny()
    case "failpoint":
      return cluster.armFailpoint(fault.failpoint, fault.skip, fault.forMs)
  }
}
