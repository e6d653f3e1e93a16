/** What a user of Redis needs for Orrery, and nothing else: no command that is dangerous to others, no key of others. */

/** Sent by the clients. `info` tells when another server process answers; without it strict limits do not notice. */
const sent = ["ping", "info", "select", "client|setname", "evalsha", "eval", "publish", "subscribe", "unsubscribe"]
/** Streams and ends are read outside of scripts; ends are also written so (`set`). */
const read = ["xrevrange", "getrange"]
/** Called by the scripts. */
const called = [
  ...["time", "get", "set", "pexpire", "del", "hget", "hsetnx", "hset", "hgetall", "hdel", "hincrby", "xadd"],
  ...["zadd", "zcard", "zrange", "zrevrange", "zrem", "zremrangebyscore", "zscore"]
]
/** Of a Redis Cluster. */
const clustered = ["cluster|slots", "readonly"]

export const commands: ReadonlyArray<string> = [...sent, ...read, ...called, ...clustered]

/** The rules of `ACL SETUSER`, without a password. */
export const rules = (prefix: string): ReadonlyArray<string> => [
  "resetkeys",
  "resetchannels",
  `~${prefix}:*`,
  `&${prefix}:*`,
  "-@all",
  ...commands.map((command) => `+${command}`)
]
