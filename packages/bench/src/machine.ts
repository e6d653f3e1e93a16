/** What a figure was measured on: without it a figure means nothing. */
import { cpus, totalmem, type } from "node:os"

export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryGiB: number
  readonly system: string
  readonly node: string
}

export const machine = (): Machine => {
  const found = cpus()
  return {
    cpu: found[0]?.model.trim() ?? "unknown",
    cores: found.length,
    memoryGiB: Math.round(totalmem() / 1024 ** 3),
    system: `${type()} ${process.arch}`,
    node: process.version
  }
}
