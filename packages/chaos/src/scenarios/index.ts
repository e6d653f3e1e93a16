/** All scenarios, in the order in which they are played. */
import type { Scenario } from "../Scenario.js"
import * as clients from "./clients.js"
import * as clock from "./clock.js"
import * as crashPoints from "./crashPoints.js"
import * as database from "./database.js"
import * as deployments from "./deployments.js"
import * as frames from "./frames.js"
import * as network from "./network.js"
import * as nodes from "./nodes.js"
import * as redis from "./redis.js"
import * as workers from "./workers.js"

export const scenarios: ReadonlyArray<Scenario> = [
  nodes.killNode,
  nodes.killAllNodes,
  nodes.pauseNode,
  nodes.shortPauses,
  nodes.blockEventLoop,
  nodes.fullLoad,
  workers.killWorker,
  database.restartPostgres,
  database.postgresDown,
  database.endLockSessions,
  network.slowPostgres,
  network.blackholePostgres,
  database.postgresErrors,
  network.lostCommitAnswer,
  redis.redisGone,
  network.partitionNode,
  network.corruptByte,
  network.halfClose,
  clock.clockSkew,
  workers.poisonTask,
  clients.overload,
  clients.hugePayloads,
  frames.malformedFrames,
  deployments.rollingRestart,
  nodes.drainNode,
  crashPoints.crashPoints,
  deployments.duplicateIdentity,
  deployments.churn,
  clients.enqueueRace,
  clients.cancelRace
]
