/**
 * Everything that must happen at once in Redis, as Lua. Times are Redis' own, in µs; keys of one call share a hash tag, so
 * that a Redis Cluster takes them too. A script is sent by its hash; where Redis does not know it (a new server, `SCRIPT
 * FLUSH`), whole, once.
 */
import { Effect } from "effect"
import { createHash } from "node:crypto"
import { type RedisConnection, RedisUnavailable } from "./RedisConnection.js"

export interface Script<A> {
  readonly name: string
  readonly lua: string
  readonly sha: string
  /** `undefined`: no reply of ours. */
  readonly decode: (reply: unknown) => A | undefined
}

/** `keys` and `args` as the script says. May have happened when it fails. */
export const run = <A>(
  connection: RedisConnection,
  script: Script<A>,
  keys: ReadonlyArray<string>,
  args: ReadonlyArray<string | number>
): Effect.Effect<A, RedisUnavailable> =>
  connection.use(script.name, async (client) => {
    try {
      return await client.evalsha(script.sha, keys.length, ...keys, ...args)
    } catch (cause) {
      if (!(cause instanceof Error && cause.message.startsWith("NOSCRIPT"))) throw cause
      return client.eval(script.lua, keys.length, ...keys, ...args)
    }
  }).pipe(
    Effect.flatMap((reply) => {
      const decoded = script.decode(reply)
      return decoded === undefined
        ? new RedisUnavailable({ operation: script.name, reason: "the reply is none of this script" })
        : Effect.succeed(decoded)
    })
  )

const script = <A>(name: string, lua: string, decode: Script<A>["decode"]): Script<A> => ({
  name,
  lua,
  sha: createHash("sha1").update(lua).digest("hex"),
  decode
})

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0
const micros = (value: unknown): number | undefined =>
  typeof value === "string" && /^\d{1,16}$/.test(value) ? Number(value) : undefined
const listOf = (reply: unknown, length: number): ReadonlyArray<unknown> | undefined =>
  Array.isArray(reply) && reply.length === length ? reply : undefined

const now = `local time = redis.call("TIME")
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
`
const whole = `local function whole(value) return string.format("%.0f", value) end
`

export interface WindowGrant {
  readonly granted: number
  readonly waitMs: number
  /** When, µs since 1970 by Redis. */
  readonly at: number
}

const decodeGrant = (reply: unknown): WindowGrant | undefined => {
  const [granted, wait, at] = listOf(reply, 3) ?? []
  const waitMicros = micros(wait)
  const atMicros = micros(at)
  return isCount(granted) && waitMicros !== undefined && atMicros !== undefined
    ? { granted, waitMs: waitMicros / 1_000, at: atMicros }
    : undefined
}

/**
 * A sliding window: tokens whose use may end at or after `now - window` count. What ends is kept per grid step, rounded up:
 * a hundred steps a window, so the hash is small however large the limit. An unknown hash, or one of another server
 * process (`serverId`), tells nothing of what was granted before: the window then counts as full, until the last of that
 * may have been used (a quarter of a window: `validShareMax` in core).
 *
 * The same as `SlidingWindow` in core.
 *
 * KEYS hash; ARGV limit, window, grid, min, want, valid, serverId, ttl ms. Replies granted, wait, now.
 */
export const slidingWindow = script(
  "slidingWindow",
  `${now}${whole}local key = KEYS[1]
local limit, window, grid = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local min, want, valid = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local server = ARGV[7]
local fields = redis.call("HGETALL", key)
local known = nil
local used, moved = 0, 0
local live, dead = {}, {}
for i = 1, #fields, 2 do
  if fields[i] == "server" then
    known = fields[i + 1]
  else
    local edge, count = tonumber(fields[i]) * grid, tonumber(fields[i + 1])
    if edge <= now - window then
      dead[#dead + 1] = fields[i]
    elseif edge > now + window + grid then
      -- The clock has gone back: it cannot end as late as that.
      dead[#dead + 1] = fields[i]
      moved = moved + count
    else
      used = used + count
      live[#live + 1] = { edge, count }
    end
  end
end
local here = whole(math.ceil(now / grid))
if known == nil or (server ~= "" and known ~= "" and known ~= server) then
  redis.call("DEL", key)
  -- What was granted before may still be used, for as long as a validity lasts.
  local last = math.ceil((now + window / 4) / grid)
  redis.call("HSET", key, "server", server, whole(last), limit)
  redis.call("PEXPIRE", key, ARGV[8])
  return { 0, whole(last * grid + window - now), whole(now) }
end
if #dead > 0 then redis.call("HDEL", key, unpack(dead)) end
if moved > 0 then
  redis.call("HINCRBY", key, here, moved)
  used = used + moved
  live[#live + 1] = { math.ceil(now / grid) * grid, moved }
end
local free = limit - used
if free >= min then
  local granted = math.min(want, free)
  redis.call("HINCRBY", key, whole(math.ceil((now + valid) / grid)), granted)
  redis.call("PEXPIRE", key, ARGV[8])
  return { granted, "0", whole(now) }
end
table.sort(live, function(a, b) return a[1] < b[1] end)
local wait = window
for i = 1, #live do
  free = free + live[i][2]
  if free >= min then
    wait = live[i][1] + window - now
    break
  end
end
return { 0, whole(wait), whole(now) }`,
  decodeGrant
)

/**
 * A token bucket kept as one number (GCRA: when the bucket would be full again, `tat`). A bucket nobody knows is full.
 *
 * KEYS string; ARGV limit, window, burst, min, want. Replies granted, wait, now.
 */
export const tokenBucket = script(
  "tokenBucket",
  `${now}${whole}local limit, window, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local min, want = tonumber(ARGV[4]), tonumber(ARGV[5])
local each = window / limit
local depth = burst * each
local tat = tonumber(redis.call("GET", KEYS[1]) or "0")
-- Later than that only when the clock has gone back.
tat = math.min(math.max(tat, now), now + depth)
local free = math.floor((depth - (tat - now)) / each + 0.000001)
if free < min then return { 0, whole(math.ceil(tat + min * each - depth - now)), whole(now) } end
local granted = math.min(want, free)
tat = tat + granted * each
redis.call("SET", KEYS[1], string.format("%.3f", tat), "PX", whole(math.ceil((tat - now) / 1000) + 1000))
return { granted, "0", whole(now) }`,
  decodeGrant
)

/** What the permit scripts begin with: the mark tells which server knew the holders, and until when others may hold. */
const permits = `${now}${whole}local key = KEYS[1]
local limit, lease, holder, server, strict, ttl =
  tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5] == "1", ARGV[6]
local top = redis.call("ZREVRANGE", key, 0, 0)[1]
local known, unsure = nil, 0
if top then
  local of, until_ = string.match(top, "^#(%x*):(%d+)$")
  if of then known, unsure = of, tonumber(until_) end
end
if known == nil or (server ~= "" and known ~= "" and known ~= server) then
  if known ~= nil then redis.call("ZREM", key, top) end
  unsure = strict and now + lease or 0
  redis.call("ZADD", key, 9007199254740991, "#" .. server .. ":" .. whole(unsure))
end
-- The clock has gone back.
if unsure > now + lease then unsure = now + lease end
redis.call("ZREMRANGEBYSCORE", key, "-inf", whole(now))
local function hold()
  redis.call("ZADD", key, whole(now + lease), holder)
  redis.call("PEXPIRE", key, ttl)
end
local mine = redis.call("ZSCORE", key, holder)
`

export interface PermitAnswer {
  readonly isHeld: boolean
  readonly waitMs: number
}

const decodePermit = (reply: unknown): PermitAnswer | undefined => {
  const [held, wait] = listOf(reply, 2) ?? []
  const waitMicros = micros(wait)
  return (held === 0 || held === 1) && waitMicros !== undefined
    ? { isHeld: held === 1, waitMs: waitMicros / 1_000 }
    : undefined
}

/**
 * Holders are members of a sorted set, by the end of their lease. Where the set is new or of another server process,
 * there may be holders it does not know: strict limits give nothing for one lease, while those renew.
 *
 * KEYS set; ARGV limit, lease, holder, serverId, strict, ttl ms. Replies held, wait.
 */
export const acquirePermit = script(
  "acquirePermit",
  `${permits}if mine then
  hold()
  return { 1, "0" }
end
if now < unsure then
  redis.call("PEXPIRE", key, ttl)
  return { 0, whole(unsure - now) }
end
if redis.call("ZCARD", key) - 1 < limit then
  hold()
  return { 1, "0" }
end
local first = redis.call("ZRANGE", key, 0, 0, "WITHSCORES")
return { 0, whole(math.min(lease, math.max(0, tonumber(first[2]) - now))) }`,
  decodePermit
)

/** The same arguments. Held: for another lease. Not held: it ended, and another may hold it. */
export const renewPermit = script(
  "renewPermit",
  `${permits}if mine or now < unsure or (not strict and redis.call("ZCARD", key) - 1 < limit) then
  hold()
  return { 1, "0" }
end
return { 0, "0" }`,
  decodePermit
)

/** KEYS set; ARGV holder. */
export const releasePermit = script(
  "releasePermit",
  `return redis.call("ZREM", KEYS[1], ARGV[1])`,
  (reply) => isCount(reply) ? reply : undefined
)

/** Where the events of a queue stand. `incarnation` changes when Redis has forgotten them. */
export interface Position {
  readonly incarnation: string
  readonly number: number
}

const decodePosition = (reply: unknown): Position | undefined => {
  const [incarnation, number] = listOf(reply, 2) ?? []
  return typeof incarnation === "string" && /^\d{1,20}$/.test(incarnation) && isCount(number)
    ? { incarnation, number }
    : undefined
}

const position = `local incarnation = redis.call("HGET", KEYS[1], "i")
if not incarnation then
  ${now.trim().replaceAll("\n", "\n  ")}
  incarnation = string.format("%.0f", now)
end
`

/**
 * Numbers a frame, keeps it, and tells it to those who listen.
 *
 * KEYS hash, stream; ARGV frame, frames kept, ttl ms, channel. Replies incarnation, number.
 */
export const publishFrame = script(
  "publishFrame",
  `${position}redis.call("HSETNX", KEYS[1], "i", incarnation)
local number = redis.call("HINCRBY", KEYS[1], "n", 1)
redis.call("XADD", KEYS[2], "MAXLEN", "~", ARGV[2], "*", "i", incarnation, "n", number, "f", ARGV[1])
redis.call("PEXPIRE", KEYS[1], ARGV[3])
redis.call("PEXPIRE", KEYS[2], ARGV[3])
redis.call("PUBLISH", ARGV[4], "1 " .. incarnation .. " " .. number .. " " .. ARGV[1])
return { incarnation, number }`,
  decodePosition
)

/** KEYS hash; ARGV ttl ms. Replies incarnation, number. */
export const readPosition = script(
  "readPosition",
  `${position}redis.call("HSETNX", KEYS[1], "i", incarnation)
redis.call("PEXPIRE", KEYS[1], ARGV[1])
return { incarnation, tonumber(redis.call("HGET", KEYS[1], "n") or "0") }`,
  decodePosition
)

export const scripts: ReadonlyArray<Script<unknown>> = [
  slidingWindow,
  tokenBucket,
  acquirePermit,
  renewPermit,
  releasePermit,
  publishFrame,
  readPosition
]
