import { spawn } from "node:child_process"
import { constants } from "node:os"
import { fileURLToPath } from "node:url"
import { Stop } from "./requirements.mjs"

export const root = fileURLToPath(new URL("..", import.meta.url))

const signals = ["SIGINT", "SIGTERM", "SIGHUP"]

/**
 * Runs a program in the repository with our terminal, hands our signals on, and gives its exit code. At Ctrl-C the
 * terminal signals the child too; we only wait for it then, so that it hears each signal once.
 */
export const exec = (file, args, options = {}) =>
  new Promise((resolve, reject) => {
    const child = spawn(file, args, { cwd: root, stdio: "inherit", ...options })
    const forward = (signal) => {
      if (signal === "SIGINT" && process.stdin.isTTY) return
      child.kill(signal)
    }
    for (const signal of signals) process.on(signal, forward)
    const done = () => signals.forEach((signal) => process.off(signal, forward))
    child.once("error", (error) => {
      done()
      reject(new Stop(`${file} could not be started: ${error.message}`))
    })
    child.once("exit", (code, signal) => {
      done()
      resolve(code ?? 128 + (constants.signals[signal] ?? 0))
    })
  })

/** Like `exec`, with what it wrote (both streams, the last 200 000 characters) instead of our terminal. */
export const capture = (file, args, options = {}) =>
  new Promise((resolve) => {
    let output = ""
    const keep = (chunk) => {
      output = (output + chunk).slice(-200_000)
    }
    const child = spawn(file, args, { cwd: root, stdio: ["ignore", "pipe", "pipe"], ...options })
    const forward = (signal) => child.kill(signal)
    for (const signal of signals) process.on(signal, forward)
    const end = (code) => {
      signals.forEach((signal) => process.off(signal, forward))
      resolve({ code, output })
    }
    child.stdout.on("data", keep)
    child.stderr.on("data", keep)
    child.once("error", (error) => {
      keep(error.message)
      end(127)
    })
    child.once("close", (code, signal) => end(code ?? 128 + (constants.signals[signal] ?? 0)))
  })
