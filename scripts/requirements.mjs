import { statfsSync } from "node:fs"

/** Ends the command with a message for the person at the terminal, without a stack. */
export class Stop extends Error {}

const nodeMin = [20, 18, 1]
const freeBytesMin = 1024 ** 3

export const checkNode = (version = process.versions.node) => {
  const parts = version.split(".").map(Number)
  const differs = nodeMin.findIndex((min, i) => parts[i] !== min)
  if (differs >= 0 && parts[differs] < nodeMin[differs]) {
    throw new Stop(
      `Node ${version} is too old: install Node ${
        nodeMin.join(".")
      } or newer (https://nodejs.org), then run this again.`
    )
  }
}

export const checkDisk = (folder) => {
  const { bavail, bsize } = statfsSync(folder)
  const free = bavail * bsize
  if (free < freeBytesMin) {
    const mb = Math.floor(free / 1024 ** 2)
    throw new Stop(`Only ${mb} MB are free on the disk of ${folder}: free at least 1 GB, then run this again.`)
  }
}
