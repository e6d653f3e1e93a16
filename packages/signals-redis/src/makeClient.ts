/** A client of the driver as `RedisConnection` wants it: for one server, Sentinel or Redis Cluster, without a will of its own. */
import { Effect, Redacted } from "effect"
import type * as Ioredis from "ioredis"
import type { Redis, RedisOptions } from "ioredis"
import { readFile } from "node:fs/promises"
import { isIP } from "node:net"
import { addressesOf, type Values } from "./RedisConfig.js"

export type Role = "commands" | "subscriber" | "blocking"

/**
 * Not connected yet. `tries`: of several addresses each try begins with the next one, for the first may answer nothing.
 * Fails when the file of authorities cannot be read.
 */
export const makeClient = (config: Values, role: Role, tries: number): Effect.Effect<Redis, unknown> =>
  Effect.gen(function*() {
    // Loaded where there is a Redis: a tenth of the start of a process.
    const driver = yield* Effect.promise(() => import("ioredis"))
    return clientOf(driver, { config, role, tries, tls: yield* tlsOf(config) })
  })

/** `undefined`: not by TLS. */
const tlsOf = ({ caFile, url }: Values): Effect.Effect<RedisOptions["tls"], unknown> =>
  Effect.gen(function*() {
    const { hostname, protocol } = new URL(Redacted.value(url))
    if (protocol !== "rediss:") return undefined
    // An address has no server name: the certificate is checked against what is connected to.
    const named = isIP(withoutBrackets(hostname)) === 0 ? { servername: hostname } : {}
    return caFile === ""
      ? named
      : { ...named, ca: yield* Effect.tryPromise({ try: () => readFile(caFile), catch: (cause) => cause }) }
  })

/** As an IPv6 address has them in a URL. */
const withoutBrackets = (hostname: string): string => hostname.replace(/^\[|\]$/g, "")

interface Wanted {
  readonly config: Values
  readonly role: Role
  readonly tries: number
  readonly tls: RedisOptions["tls"]
}

const clientOf = (
  { Cluster, Redis }: Pick<typeof Ioredis, "Cluster" | "Redis">,
  { config, role, tls, tries }: Wanted
): Redis => {
  const url = new URL(Redacted.value(config.url))
  const options: RedisOptions = {
    ...(url.username === "" ? {} : { username: decodeURIComponent(url.username) }),
    ...(url.password === "" ? {} : { password: decodeURIComponent(url.password) }),
    ...(tls === undefined ? {} : { tls }),
    db: Number(url.pathname.slice(1) || 0),
    connectionName: `orrery-${role}`,
    disableClientInfo: true,
    connectTimeout: config.connectTimeoutMs,
    lazyConnect: true,
    // All of this is done here, with bounds.
    enableReadyCheck: false,
    enableOfflineQueue: false,
    autoResubscribe: false,
    autoResendUnfulfilledCommands: false,
    retryStrategy: () => null,
    maxRetriesPerRequest: 0,
    keepAlive: 5_000,
    noDelay: true,
    enableAutoPipelining: role === "commands"
  }
  const clusterNodes = rotated(addressesOf(config.clusterNodes), tries).map(hostAndPort)
  const [clusterNode] = clusterNodes
  // Each node tells what is published on any. A plain connection to one of them is probed, and its end is noticed.
  if (clusterNode !== undefined && role === "subscriber") return new Redis({ ...options, ...clusterNode, db: 0 })
  if (clusterNode !== undefined) {
    const { db: _, retryStrategy: __, enableOfflineQueue: ___, ...redisOptions } = options
    // Answers the same commands.
    return new Cluster(clusterNodes, {
      lazyConnect: true,
      enableReadyCheck: false,
      enableOfflineQueue: false,
      clusterRetryStrategy: () => null,
      enableAutoPipelining: role === "commands",
      redisOptions
    }) as unknown as Redis
  }
  const sentinels = rotated(addressesOf(config.sentinels), tries).map(hostAndPort)
  if (sentinels.length > 0) {
    return new Redis({
      ...options,
      sentinels,
      name: config.sentinelName,
      sentinelRetryStrategy: () => null,
      sentinelCommandTimeout: config.commandTimeoutMs,
      failoverDetector: true
    })
  }
  return new Redis({ ...options, host: withoutBrackets(url.hostname), port: Number(url.port || 6379) })
}

const rotated = <A>(all: ReadonlyArray<A>, by: number): ReadonlyArray<A> => {
  const first = all.length === 0 ? 0 : by % all.length
  return [...all.slice(first), ...all.slice(0, first)]
}

const hostAndPort = (address: string) => {
  const at = address.lastIndexOf(":")
  return { host: address.slice(0, at).replace(/^\[|\]$/g, ""), port: Number(address.slice(at + 1)) }
}
