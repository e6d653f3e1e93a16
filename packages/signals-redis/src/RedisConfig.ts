/** Settings of the connections to Redis. They may differ between processes, except the prefix. */
import * as Setting from "@orrery/core/Setting"
import { isAddress } from "@orrery/core/WorkerConfig"
import { Config, Context, Effect, Layer, Option, Redacted } from "effect"

export const prefixDefault = "orrery"
export const connectTimeoutMsDefault = 2_000
/** 400 ms: with the time to notice it, what waits for Redis waits less than a second. */
export const commandTimeoutMsDefault = 400
/** A dead connection is noticed after this and one command timeout. */
export const probeIntervalMsDefault = 400
/** 1,000 commands wait for a connection; one more fails at once. */
export const offlineCommandsMaxDefault = 1_000
/** 10,000 commands wait for an answer; one more fails at once. */
export const commandsMaxDefault = 10_000

const isUrl = (value: string): boolean => /^rediss?:\/\/\S+$/.test(value) && URL.canParse(value)

export const settings = {
  url: Setting.secret({
    env: "REDIS_URL",
    fallbackEnv: "REDIS_URL",
    unit: "URL",
    accepts: "a URL like redis://user:password@host:6379/0, or rediss:// for TLS",
    doc:
      "The Redis server. Secret: give it by the environment, not on a command line. Without it there is no Redis, and "
      + "everything works as on one machine. With Sentinel or Cluster it tells user, password, TLS and database only.",
    check: isUrl
  }),
  caFile: Setting.text({
    env: "REDIS_CA_FILE",
    default: "",
    unit: "path",
    accepts: "empty, or the path of a PEM file, 1,000 characters at most",
    doc:
      "Authorities to trust with rediss://, in place of those that Node knows. Read at each connection, so that it may "
      + "be renewed.",
    check: (value) => value.length <= 1_000
  }),
  prefix: Setting.text({
    env: "REDIS_PREFIX",
    default: prefixDefault,
    unit: "text",
    accepts: "1 to 64 of A-Z a-z 0-9 _ . -",
    doc: "Begins every key and channel. The same on all processes of a cluster, another for each cluster on one Redis.",
    check: (value) => /^[A-Za-z0-9_.-]{1,64}$/.test(value)
  }),
  sentinels: addresses({
    env: "REDIS_SENTINELS",
    doc: "Sentinels that tell where the primary is. Empty: no Sentinel."
  }),
  sentinelName: Setting.text({
    env: "REDIS_SENTINEL_NAME",
    default: "mymaster",
    unit: "text",
    accepts: "1 to 200 of A-Z a-z 0-9 _ . -",
    doc: "What the sentinels call the primary.",
    check: (value) => /^[A-Za-z0-9_.-]{1,200}$/.test(value)
  }),
  clusterNodes: addresses({
    env: "REDIS_CLUSTER_NODES",
    doc: "Some nodes of a Redis Cluster; they tell the others. Empty: no Redis Cluster."
  }),
  connectTimeoutMs: Setting.integer({
    env: "REDIS_CONNECT_TIMEOUT_MS",
    default: connectTimeoutMsDefault,
    unit: "ms",
    min: 50,
    max: 60_000,
    doc: "One try to connect, login included; then the next, 50 ms later at first and 500 ms at most."
  }),
  commandTimeoutMs: Setting.integer({
    env: "REDIS_COMMAND_TIMEOUT_MS",
    default: commandTimeoutMsDefault,
    unit: "ms",
    min: 10,
    max: 60_000,
    doc: "Longest wait for an answer, and for a connection before it. Larger: more of a slow Redis is borne, and what "
      + "waits for it waits longer."
  }),
  probeIntervalMs: Setting.integer({
    env: "REDIS_PROBE_INTERVAL_MS",
    default: probeIntervalMsDefault,
    unit: "ms",
    min: 10,
    max: 60_000,
    doc: "Pause between two looks whether a connection is alive. Smaller: a silent loss is noticed sooner."
  }),
  offlineCommandsMax: Setting.integer({
    env: "REDIS_OFFLINE_COMMANDS_MAX",
    default: offlineCommandsMaxDefault,
    unit: "commands",
    min: 0,
    max: 1_000_000,
    doc: "Commands that wait for a connection. Beyond, they fail at once."
  }),
  commandsMax: Setting.integer({
    env: "REDIS_COMMANDS_MAX",
    default: commandsMaxDefault,
    unit: "commands",
    min: 1,
    max: 1_000_000,
    doc: "Commands that wait for an answer, on one connection. Beyond, they fail at once."
  })
}

function addresses(options: { readonly env: string; readonly doc: string }): Setting.Setting<string> {
  return Setting.text({
    ...options,
    default: "",
    unit: "addresses",
    accepts: "empty, or host:port separated by commas, 100 at most",
    check: (value) => value === "" || (addressesOf(value).length <= 100 && addressesOf(value).every(isAddress))
  })
}

/** The parts of `sentinels` or `clusterNodes`. */
export const addressesOf = (list: string): ReadonlyArray<string> =>
  list.split(",").map((each) => each.trim()).filter((each) => each !== "")

export type Values = Setting.Values<typeof settings>
export type Options = Partial<Values> & { readonly url: Redacted.Redacted<string> }

export class RedisConfig extends Context.Tag("@orrery/signals-redis/RedisConfig")<RedisConfig, Values>() {}

const together = (config: Values): ReadonlyArray<string> => [
  ...config.sentinels !== "" && config.clusterNodes !== ""
    ? ["ORRERY_REDIS_SENTINELS and ORRERY_REDIS_CLUSTER_NODES are both set; they exclude each other"]
    : [],
  // Whoever names authorities means to speak to nobody else.
  ...config.caFile !== "" && !Redacted.value(config.url).startsWith("rediss:")
    ? ["ORRERY_REDIS_CA_FILE is set, and ORRERY_REDIS_URL is not of rediss://: nothing would be encrypted"]
    : []
]

/** Values given in code; what is left out gets its default. */
export const layer = (options: Options): Layer.Layer<RedisConfig, Setting.ConfigInvalid> =>
  Layer.effect(RedisConfig, Effect.suspend(() => Setting.orFail(Setting.check(settings, options, together))))

/** ORRERY_REDIS_URL and so on, see docs/configuration.md. */
export const layerConfig: Layer.Layer<RedisConfig, Setting.ConfigInvalid> = Layer.effect(
  RedisConfig,
  Effect.flatMap(Setting.read(settings, together), Setting.orFail)
)

/** Whether the environment names a Redis. */
export const isConfigured: Effect.Effect<boolean> = Config.string("REDIS_URL").pipe(
  Config.nested(Setting.prefix),
  Config.orElse(() => Config.string("REDIS_URL")),
  Config.option,
  Effect.map(Option.exists((url) => url !== "")),
  Effect.orElseSucceed(() => false)
)
