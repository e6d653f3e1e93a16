/**
 * What a process under test must not know: that its connections go through proxies, and that its clock is wrong.
 * Loaded before it with `--import`; plain JavaScript for that reason. The harness installs the routes of its own client.
 *
 *   ORRERY_CHAOS_ROUTES   JSON object: the address a connection is meant for -> the port on 127.0.0.1 it goes to
 *   ORRERY_CHAOS_CLOCK    file with the milliseconds that are added to the clock of `Date`; read again as it changes.
 *                         The monotonic clock stays right, as it does on a machine
 *   ORRERY_CHAOS_HISTORY  folder: on SIGUSR2 garbage is collected, and the bytes that are left are written there, in held-PID
 */
import { readFileSync, renameSync, writeFileSync } from "node:fs"
import { Socket } from "node:net"
import { join } from "node:path"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

const direct = Symbol.for("@orrery/chaos/direct")
const clockReadEveryMs = 50

/** @type {Map<string, number>} */
const routes = new Map()
let isInstalled = false

/**
 * From now on connections meant for these addresses go elsewhere. May be called again: routes are added.
 *
 * @param {Readonly<Record<string, number>>} more
 */
export const install = (more) => {
  for (const [address, port] of Object.entries(more)) routes.set(address, port)
  if (isInstalled || routes.size === 0) return
  isInstalled = true
  const { connect } = Socket.prototype
  Socket.prototype.connect = function(...args) {
    // `net.connect` hands over its arguments as one list, marked by a symbol of its own: it is kept.
    const [first, second] = args
    if (Array.isArray(first)) first[0] = routed(first[0])
    else if (typeof first === "object" && first !== null) args[0] = routed(first)
    else args[0] = routed({ port: first, host: typeof second === "string" ? second : "localhost" }).port
    return connect.apply(this, args)
  }
}

/**
 * These addresses may be anybody's from now on.
 *
 * @param {Readonly<Record<string, number>>} some
 */
export const forget = (some) => {
  for (const address of Object.keys(some)) routes.delete(address)
}

/** All routes lead to the host they were meant for: only the port changes. */
const routed = (options) => {
  const port = options[direct] === true ? undefined : routes.get(`${options.host}:${options.port}`)
  return port === undefined ? options : { ...options, port }
}

/** @param {string} file */
const shiftClock = (file) => {
  const RealDate = Date
  let offsetMs = 0
  let readAt = -Infinity
  const now = () => {
    const at = performance.now()
    if (at - readAt > clockReadEveryMs) {
      readAt = at
      offsetMs = Number(readFileSync(file, "utf8"))
    }
    return RealDate.now() + offsetMs
  }
  globalThis.Date = new Proxy(RealDate, {
    get: (target, key) => key === "now" ? now : Reflect.get(target, key),
    construct: (target, args, newTarget) => Reflect.construct(target, args.length === 0 ? [now()] : args, newTarget),
    apply: () => new RealDate(now()).toString()
  })
}

/**
 * @param {string} folder
 */
const tellHeldOn = (folder) => {
  setFlagsFromString("--expose-gc")
  const collect = runInNewContext("gc")
  process.on("SIGUSR2", () => {
    collect()
    const file = join(folder, `held-${process.pid}`)
    // The reader finds it whole.
    writeFileSync(`${file}.new`, String(process.memoryUsage().heapUsed))
    renameSync(`${file}.new`, file)
  })
}

const { ORRERY_CHAOS_CLOCK: clockFile, ORRERY_CHAOS_HISTORY: folder, ORRERY_CHAOS_ROUTES: ownRoutes } = process.env
if (folder !== undefined) tellHeldOn(folder)
if (ownRoutes !== undefined) install(JSON.parse(ownRoutes))
if (clockFile !== undefined) shiftClock(clockFile)
